// The filters, tests and global functions of Jinja, with those that transformers adds.
#pragma once

#include <map>
#include <string_view>

#include "switchyard/formats/template/runtime.h"

namespace switchyard::jinja {

using Filter = Value (*)(Runtime&, const Value& value, Arguments&);
using FilterTable = std::map<std::string_view, Filter>;

const FilterTable& text_filters();      // filters_text.cpp
const FilterTable& sequence_filters();  // filters_sequence.cpp
/// Null when there is none of this name.
Filter find_filter(std::string_view name);
/// Throws Fault template.name when there is none.
Value call_filter(Runtime& runtime, const Value& name, const Value& value, Arguments& arguments);

using Test = bool (*)(Runtime&, const Value& value, Arguments&);
Test find_test(std::string_view name);
bool call_test(Runtime& runtime, const Value& name, const Value& value, Arguments& arguments);

/// range, dict, namespace, raise_exception, strftime_now, ...; missing when there is none of this name.
Value global(Runtime& runtime, std::string_view name);
std::string format_time(const Clock& clock, const std::string& format);

}  // namespace switchyard::jinja
