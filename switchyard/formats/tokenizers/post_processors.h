// Post-processors: what puts special tokens around encoded texts and joins pairs.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "switchyard/formats/tokenizer.h"

namespace switchyard {

/// Works on one encoding, or two of a pair; may leave more, which are joined in the end.
using PostProcessor = std::function<void(std::vector<Encoding>& encodings, bool add_special)>;

/// A piece of a template: one of the texts, or tokens.
struct TemplatePart {
  int text = -1;                    ///< 0: the first text, 1: the second, -1: tokens
  int64_t type_id = 0;
  std::vector<int64_t> ids;
  std::vector<std::string> tokens;
};
PostProcessor template_processing(std::vector<TemplatePart> single, std::vector<TemplatePart> pair);

struct SpecialToken {
  std::string token;
  int64_t id = 0;
};
PostProcessor bert_processing(const SpecialToken& begin, const SpecialToken& separator);
PostProcessor roberta_processing(const SpecialToken& begin, const SpecialToken& separator, bool trim_offsets, bool add_prefix_space);
PostProcessor trim_byte_level_offsets(bool add_prefix_space);  ///< offsets without blanks at the ends of tokens

/// Appends `more` to `whole`.
void append(Encoding& whole, Encoding more);

}  // namespace switchyard
