#include <string_view>

#include "switchyard/base/error.h"
#include "switchyard/inspect/page_sources.h"
#include "switchyard/inspect/report.h"

namespace switchyard {
namespace {

/// JSON that may stand in a script element: no "<" can open or close a tag, and U+2028/9 stay inside a string.
std::string inside_script(std::string_view json) {
  std::string result;
  result.reserve(json.size());
  for (size_t i = 0; i < json.size(); ++i) {
    if (json[i] == '<') result += "\\u003c";
    else if (json[i] == '>') result += "\\u003e";
    else if (json[i] == '&') result += "\\u0026";
    else if (json.substr(i, 3) == "\xe2\x80\xa8") { result += "\\u2028"; i += 2; }
    else if (json.substr(i, 3) == "\xe2\x80\xa9") { result += "\\u2029"; i += 2; }
    else result += json[i];
  }
  return result;
}

}  // namespace

std::string report_page(const std::string& json) {
  const std::string_view page = page_source("report.html");
  std::string result;
  size_t begin = 0;
  // The template names its parts once each: {{report.css}}, {{d3.js}}, {{charts.js}}, {{report.js}}, {{data}}.
  while (true) {
    const size_t open = page.find("{{", begin);
    if (open == std::string_view::npos) break;
    const size_t close = page.find("}}", open);
    TORCH_INTERNAL_ASSERT(close != std::string_view::npos);
    result += page.substr(begin, open - begin);
    const std::string_view name = page.substr(open + 2, close - open - 2);
    if (name == "data") result += inside_script(json);
    else result += page_source(name);
    begin = close + 2;
  }
  result += page.substr(begin);
  return result;
}

}  // namespace switchyard
