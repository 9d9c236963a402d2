// What tokenizers ask about characters, and Unicode normalisation with a trace of what became of each character.
// Properties and decompositions are those of the ICU library.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/formats/tokenizers/aligned_text.h"

namespace switchyard::unicode {

/// Classes of a code point, as bits; a table for all of them, made on first use.
enum Class : uint8_t {
  kUpper = 1,     ///< \p{Lu}, \p{Lt}
  kLower = 2,     ///< \p{Ll}
  kLetter = 4,    ///< \p{L}
  kMark = 8,      ///< \p{M}
  kNumber = 16,   ///< \p{N}
  kSpace = 32,    ///< White_Space
  kPunctuation = 64,  ///< \p{P}
  kSymbol = 128,  ///< \p{S}
};
const uint8_t* classes();  ///< by code point, 0x110000 entries

inline bool is(char32_t c, int mask) { return c < 0x110000 && (classes()[c] & mask) != 0; }
/// A character that came with Unicode 15 or 16: an older one with the same properties; any other: itself.
char32_t older_alike(char32_t c);
inline bool is_newer(char32_t c) { return older_alike(c) != c; }
/// A copy of a text with older characters for newer ones, byte for byte as long; false when there are none.
bool replace_newer(std::string_view text, std::string& replaced);

bool is_word(char32_t c);              ///< \w of Unicode TS 18: alphabetic, marks, decimal digits, connectors, joiners
bool is_digit(char32_t c);             ///< \d: \p{Nd}
// As the parts of the Hugging Face library see them, some with older tables (unicode_reference.cpp).
bool is_punctuation(char32_t c);       ///< ASCII punctuation and \p{P}
bool is_other(char32_t c);             ///< \p{C} without unassigned
bool is_nonspacing_mark(char32_t c);   ///< \p{Mn}
bool is_combining_mark(char32_t c);    ///< \p{M}
int script(char32_t c);                ///< a number for each script, the two of kana being Han; -1 for blanks and what came later
bool has_known_decomposition(char32_t c), has_known_order(char32_t c);  ///< of normal forms
void append_lower(std::vector<Edit>& edits, char32_t c);  ///< full lower case of one character

enum class Form { nfc, nfd, nfkc, nfkd };
/// Brings the text into a normal form (Unicode Standard Annex 15).
void normalise(AlignedText& text, Form form);

/// The bytes where the extended grapheme clusters (UAX 29) of a text end.
std::vector<size_t> grapheme_ends(std::string_view text);

}  // namespace switchyard::unicode
