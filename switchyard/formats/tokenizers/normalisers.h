// Normalisers: what changes a text before it is cut into words. Each is a function; a list of them runs in order.
// Results and alignments are those of the Hugging Face library.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/formats/tokenizers/aligned_text.h"
#include "switchyard/formats/tokenizers/character_map.h"
#include "switchyard/formats/tokenizers/regex.h"
#include "switchyard/formats/tokenizers/unicode.h"

namespace switchyard {

using Normaliser = std::function<void(AlignedText&)>;

Normaliser normal_form(unicode::Form form);
Normaliser lowercase();
Normaliser strip_accents();                    ///< removes \p{M}
Normaliser strip(bool left, bool right);       ///< white space at the ends
Normaliser prepend_text(std::string text);
Normaliser replace_matches(std::shared_ptr<const Regex> pattern, std::string content);
Normaliser replace_text(const std::string& text, std::string content);
Normaliser nmt();                              ///< drops controls, turns other blanks into spaces
Normaliser byte_level_normaliser();            ///< bytes as printable symbols (byte_symbols.h)
Normaliser mapped(std::shared_ptr<const CharacterMap> map);  ///< Precompiled

struct BertNormalisation {
  bool clean_text = true, chinese_characters = true, lowercase = true;
  std::optional<bool> strip_accents;           ///< absent: as lowercase
};
Normaliser bert_normaliser(BertNormalisation options);

}  // namespace switchyard
