// Runs a parsed template.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "switchyard/formats/template/runtime.h"
#include "switchyard/formats/template/syntax.h"

namespace switchyard::jinja {

struct Output {
  std::string text;
  std::vector<std::pair<int64_t, int64_t>> generations;  ///< of {% generation %} blocks, in characters of text
};

/// variables: a dictionary. Throws Fault, located.
Output evaluate(const Syntax& syntax, const Value& variables, const Limits& limits, const Clock& clock);

}  // namespace switchyard::jinja
