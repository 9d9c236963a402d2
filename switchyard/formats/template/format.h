// Python's two ways to format: "%s of %d" % values and "{} of {n:>5}".format(...).
#pragma once

#include <string>

#include "switchyard/formats/template/runtime.h"

namespace switchyard::jinja {

Value percent_format(Runtime& runtime, const Value& format, const Value& values);
Value brace_format(Runtime& runtime, const Value& format, Arguments& arguments);
/// round(value, digits): to the nearest, ties by the exact binary value.
double rounded(double value, Integer digits);

}  // namespace switchyard::jinja
