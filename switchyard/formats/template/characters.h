// Unicode as Python's str sees it: code points, their classes, and changes of case. Texts here are well-formed UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace switchyard::jinja {

int64_t count_characters(std::string_view text);
/// The code point at a byte position, which moves behind it.
char32_t next_character(std::string_view text, size_t& position);
/// The byte position of the code point before `position`.
size_t previous_character(std::string_view text, size_t position);
/// Where the character of this number begins; text.size() when there are fewer.
size_t byte_of(std::string_view text, int64_t character, bool ascii);
void append_character(std::string& text, char32_t code);

bool is_space(char32_t c);      ///< str.isspace, str.strip, str.split
bool is_printable(char32_t c);  ///< written as it is by repr
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);    ///< str.isdecimal: int() reads it
bool is_digit(char32_t c);
bool is_numeric(char32_t c);
bool is_word(char32_t c);       ///< \w
bool is_lower(char32_t c);
bool is_upper(char32_t c);
bool is_title(char32_t c);
bool is_cased(char32_t c);
int decimal_value(char32_t c);  ///< 0 to 9
/// May a name in a template begin, or go on, with it?
bool is_name_start(char32_t c);
bool is_name_part(char32_t c);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string fold(std::string_view text);        ///< str.casefold
std::string title(std::string_view text);       ///< str.title
std::string capitalize(std::string_view text);  ///< str.capitalize
std::string swap_case(std::string_view text);

/// The text without `characters` (nullptr: white space) at its ends.
enum class Ends { both, left, right };
std::string_view strip(std::string_view text, const std::string* characters, Ends ends);

/// Where `what` first stands in `text` from a byte on, npos when nowhere; linear in both.
size_t find(std::string_view text, std::string_view what, size_t from = 0);
/// Where it stands last.
size_t find_last(std::string_view text, std::string_view what);

}  // namespace switchyard::jinja
