// JSON as values of a template: key order kept, integers of any length kept digit by digit.
#pragma once

#include <string_view>

#include "switchyard/formats/template/value.h"

namespace switchyard::jinja {

/// Throws Error template.json with the place of a fault; source names the text in messages.
Value from_json(std::string_view text, std::string_view source);

}  // namespace switchyard::jinja
