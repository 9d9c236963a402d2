// Values as text: Python's str and repr, and transformers' tojson.
#pragma once

#include <string>

#include "switchyard/formats/template/runtime.h"

namespace switchyard::jinja {

std::string integer_text(Integer value);
/// Python's repr: the shortest digits that read back as the same number.
std::string real_text(double value);

std::string str(Runtime& runtime, const Value& value);
std::string repr(Runtime& runtime, const Value& value);
std::string quoted_text(std::string_view text);  ///< repr of a str

struct JsonStyle {
  bool ascii = false, sorted = false, indented = false;
  std::string indent, item_separator = ", ", key_separator = ": ";
};
std::string json(Runtime& runtime, const Value& value, const JsonStyle& style);

}  // namespace switchyard::jinja
