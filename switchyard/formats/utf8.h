// UTF-8 as it really comes: steps over well-formed characters, finds broken and unfinished ones
// (The Unicode Standard, table 3-7).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace switchyard {

/// What stands at the beginning of a text: a character, a maximal ill-formed part, or the beginning of a character
/// that the text's end cuts off.
struct Utf8Step {
  enum class Kind { character, broken, unfinished };
  Kind kind = Kind::character;
  size_t bytes = 0;
};
Utf8Step utf8_step(std::string_view text);  ///< text: not empty

/// The code point of a well-formed character.
char32_t utf8_code_point(std::string_view character);

/// Appends the character of a code point; what is none becomes U+FFFD.
void utf8_append(std::string& text, char32_t code);

/// Bytes at the end that begin a character and do not finish it: 0 to 3.
size_t utf8_unfinished(std::string_view text);

/// The text with every ill-formed part replaced by U+FFFD; `broken`, when given, grows by their number.
std::string utf8_repair(std::string_view text, int64_t* broken = nullptr);

}  // namespace switchyard
