#include "switchyard/formats/tokenizers/post_processors.h"

#include <algorithm>

#include "switchyard/formats/tokenizers/unicode.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

/// Tokens that the template adds. Details are filled only where the texts have them.
Encoding special_encoding(const std::vector<int64_t>& ids, const std::vector<std::string>& tokens, int64_t type_id) {
  Encoding encoding;
  encoding.ids = ids;
  encoding.tokens = tokens;
  encoding.offsets.assign(ids.size(), {0, 0});
  encoding.type_ids.assign(ids.size(), type_id);
  encoding.special_mask.assign(ids.size(), 1);
  return encoding;
}

/// What was special before it is surrounded counts as text, as in the reference.
Encoding surrounded(Encoding before, Encoding text, Encoding after) {
  std::fill(text.special_mask.begin(), text.special_mask.end(), 0);
  append(before, std::move(text));
  append(before, std::move(after));
  return before;
}

int64_t blanks(std::string_view token, bool from_end) {
  int64_t count = 0;
  while (!token.empty()) {
    size_t at = from_end ? token.size() - 1 : 0;
    while (at > 0 && utf8_continues(token[at])) --at;
    const size_t length = utf8_length(token[at]);
    const char32_t c = utf8_code_point(token.substr(at, length));
    if (c != 0x120 && !unicode::is(c, unicode::kSpace)) break;  // Ġ
    ++count;
    token = from_end ? token.substr(0, at) : token.substr(length);
  }
  return count;
}

void trim(Encoding& encoding, bool add_prefix_space) {
  for (size_t i = 0; i < encoding.offsets.size(); ++i) {
    auto& [begin, end] = encoding.offsets[i];
    int64_t leading = blanks(encoding.tokens[i], false);
    const int64_t trailing = blanks(encoding.tokens[i], true);
    if (leading > 0) {
      const bool first = i == 0 || begin == 0;
      if (first && add_prefix_space && leading == 1) leading = 0;  // the one that was put there
      begin = std::min(begin + leading, end);
    }
    if (trailing > 0 && end >= trailing) end = std::max(end - trailing, begin);
  }
}

}  // namespace

void append(Encoding& whole, Encoding more) {
  if (whole.ids.empty()) {
    whole = std::move(more);
    return;
  }
  const auto join = [](auto& list, auto& items) { list.insert(list.end(), std::move_iterator(items.begin()), std::move_iterator(items.end())); };
  join(whole.ids, more.ids);
  join(whole.tokens, more.tokens);
  join(whole.offsets, more.offsets);
  join(whole.type_ids, more.type_ids);
  join(whole.special_mask, more.special_mask);
}

PostProcessor template_processing(std::vector<TemplatePart> single, std::vector<TemplatePart> pair) {
  return [single = std::move(single), pair = std::move(pair)](std::vector<Encoding>& encodings, bool add_special) {
    std::vector<Encoding> result;
    const std::vector<TemplatePart>& parts = encodings.size() > 1 ? pair : single;
    for (size_t i = 0; i < parts.size(); ++i) {
      const TemplatePart& part = parts[i];
      if (part.text < 0) {
        if (add_special) result.push_back(special_encoding(part.ids, part.tokens, part.type_id));
        continue;
      }
      if (static_cast<size_t>(part.text) >= encodings.size()) continue;
      Encoding& text = encodings[static_cast<size_t>(part.text)];
      std::fill(text.type_ids.begin(), text.type_ids.end(), part.type_id);
      const bool again = std::any_of(parts.begin() + static_cast<std::ptrdiff_t>(i) + 1, parts.end(),
                                     [&](const TemplatePart& later) { return later.text == part.text; });
      result.push_back(again ? text : std::move(text));
    }
    encodings = std::move(result);
  };
}

PostProcessor bert_processing(const SpecialToken& begin, const SpecialToken& separator) {
  return [begin, separator](std::vector<Encoding>& encodings, bool add_special) {
    if (!add_special) return;
    for (size_t i = 0; i < encodings.size(); ++i) {
      Encoding before = i == 0 ? special_encoding({begin.id}, {begin.token}, 0) : Encoding();
      encodings[i] = surrounded(std::move(before), std::move(encodings[i]), special_encoding({separator.id}, {separator.token}, i == 0 ? 0 : 1));
    }
  };
}

PostProcessor roberta_processing(const SpecialToken& begin, const SpecialToken& separator, bool trim_offsets, bool add_prefix_space) {
  return [begin, separator, trim_offsets, add_prefix_space](std::vector<Encoding>& encodings, bool add_special) {
    for (size_t i = 0; i < encodings.size(); ++i) {
      Encoding& text = encodings[i];
      if (trim_offsets) trim(text, add_prefix_space);
      std::fill(text.type_ids.begin(), text.type_ids.end(), 0);
      if (!add_special) continue;
      const SpecialToken& first = i == 0 ? begin : separator;  // the second text stands between two separators
      text = surrounded(special_encoding({first.id}, {first.token}, 0), std::move(text), special_encoding({separator.id}, {separator.token}, 0));
    }
  };
}

PostProcessor trim_byte_level_offsets(bool add_prefix_space) {
  return [add_prefix_space](std::vector<Encoding>& encodings, bool) {
    for (Encoding& encoding : encodings) trim(encoding, add_prefix_space);
  };
}

}  // namespace switchyard
