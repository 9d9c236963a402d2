// The files under inspect/page/ and the charting library, put into the library by the build (cmake/page.cmake), so
// that a report needs nothing beside the program.
#pragma once

#include <string_view>

namespace switchyard {

/// "report.html", "report.css", "charts.js", "report.js", "d3.js"; empty for another name.
std::string_view page_source(std::string_view name);

}  // namespace switchyard
