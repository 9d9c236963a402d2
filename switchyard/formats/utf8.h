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

/// Whether a byte continues a character of well-formed text.
inline bool utf8_continues(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

/// Bytes of the character that begins with this byte, in well-formed text.
inline size_t utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

/// The code point of a well-formed character.
char32_t utf8_code_point(std::string_view character);

/// Appends the character of a code point; what is none becomes U+FFFD.
void utf8_append(std::string& text, char32_t code);

/// Bytes at the end that begin a character and do not finish it: 0 to 3.
size_t utf8_unfinished(std::string_view text);

/// Whether all of a text is well-formed.
bool utf8_valid(std::string_view text);

/// The text with every ill-formed part replaced by U+FFFD; `broken`, when given, grows by their number.
std::string utf8_repair(std::string_view text, int64_t* broken = nullptr);

}  // namespace switchyard
