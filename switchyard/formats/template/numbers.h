// Texts read as numbers, as Python's int() and float() read them.
#pragma once

#include <string_view>

#include "switchyard/formats/template/value.h"

namespace switchyard::jinja {

/// base: 2 to 36, or 0 for "0x1F". False where int() raises ValueError.
bool read_integer(std::string_view text, int base, Integer& value);
bool read_real(std::string_view text, double& value);

}  // namespace switchyard::jinja
