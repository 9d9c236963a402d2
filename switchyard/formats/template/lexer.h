// A template's source cut into tokens, with Jinja's rules for white space around tags: trim_blocks and lstrip_blocks on, as
// chat templates expect.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "switchyard/formats/template/value.h"

namespace switchyard::jinja {

struct Token {
  enum class Kind { data, print_begin, print_end, block_begin, block_end, name, text, integer, real, op, end };
  Kind kind = Kind::end;
  int line = 1;
  size_t begin = 0, end = 0;  ///< bytes in the source
  std::string text;           ///< data, name, text of a literal, or operator
  Value value;                ///< of a number
};

/// Line ends become \n; one at the very end is dropped.
std::string normalise_lines(std::string_view source);

/// Throws Fault template.syntax. source: normalised UTF-8.
std::vector<Token> tokenize(const std::string& source);

/// The characters that a literal's inside stands for, by Python's escapes.
std::string unescape(std::string_view inside, int line);

}  // namespace switchyard::jinja
