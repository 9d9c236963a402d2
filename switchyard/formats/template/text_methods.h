// Methods of texts, shared with the filters that do the same.
#pragma once

#include <string>
#include <string_view>

#include "switchyard/formats/template/runtime.h"

namespace switchyard::jinja {

/// A bound method of a text; missing when there is none of this name.
Value text_method(Runtime& runtime, const Value& object, std::string_view name);

/// count: < 0 = all.
std::string replaced(Runtime& runtime, std::string_view text, std::string_view old, std::string_view with, int64_t count);
/// Lines as str.splitlines cuts them.
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);
enum class Side { left, centre, right };
std::string padded(Runtime& runtime, std::string_view text, Integer width, std::string_view fill, Side side);
bool is_all_upper(std::string_view text);
bool is_all_lower(std::string_view text);

}  // namespace switchyard::jinja
