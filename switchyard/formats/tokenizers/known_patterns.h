// Hand-written matchers for the patterns of published tokenizers: several times faster than a regular expression engine,
// and linear on every text. A test holds each against the engine.
#pragma once

#include <string>

#include "switchyard/formats/tokenizers/pre_tokenizers.h"

namespace switchyard {

/// The matcher of a pattern, or an empty function when there is none for it.
Finder known_pattern(const std::string& pattern);

}  // namespace switchyard
