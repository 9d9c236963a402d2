#include "switchyard/formats/tokenizers/added_tokens.h"

#include <algorithm>

#include "switchyard/base/error.h"
#include "switchyard/formats/tokenizers/unicode.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

constexpr size_t kLongest = 4096;  // bytes of a token's text: what a search at one place may cost

/// The bytes at which the last character before `at` begins.
size_t previous(std::string_view text, size_t at) {
  --at;
  while (at > 0 && utf8_continues(text[at])) --at;
  return at;
}

char32_t code_at(std::string_view text, size_t at) { return utf8_code_point(text.substr(at, utf8_length(text[at]))); }

}  // namespace

void AddedTokens::add(AddedToken token, const TokenModel& model, const std::vector<Normaliser>& normalisers,
                      std::optional<int64_t> wanted_id) {
  if (next_ < 0) {
    next_ = model.vocabulary().count();
    size_ = model.vocabulary().size();
  }
  if (token.content.empty()) return;
  check(token.content.size() <= kLongest, "tokenizer.format", "an added token has {} bytes; up to {} are supported",
        token.content.size(), kLongest);
  int32_t place = id(token.content);
  if (wanted_id) {
    check(*wanted_id >= 0 && *wanted_id < size_ + (1 << 20), "tokenizer.format", "added token \"{}\" has id {}, but the vocabulary has {} tokens",
          token.content, *wanted_id, size_);
    place = static_cast<int32_t>(*wanted_id);
  }
  if (place < 0) place = model.vocabulary().id(token.content);
  if (place < 0) place = static_cast<int32_t>(next_++);
  size_ = std::max<int64_t>(size_, place + 1);
  ids_[token.content] = place;
  std::string wanted = token.content;
  spelling_.erase(place);
  if (token.normalised && !normalisers.empty()) {
    AlignedText text{.text = token.content, .origins = {}, .base = 0, .tracked = false};
    for (const Normaliser& normaliser : normalisers) normaliser(text);
    wanted = text.text;
    if (wanted != token.content) spelling_[place] = wanted;
  }
  if (wanted.empty()) nothing_ = place;
  else (token.normalised ? after_ : before_).add(wanted, place);
  tokens_[place] = std::move(token);
}

std::vector<AddedTokens::Part> AddedTokens::find(std::string_view text, bool after_normalisation, bool parse_special) const {
  const Trie& trie = after_normalisation ? after_ : before_;
  const int32_t otherwise = after_normalisation ? nothing_ : -1;
  std::vector<Part> parts;
  size_t done = 0;  // everything before is in a part
  for (size_t at = 0; at < text.size() && !(trie.empty() && otherwise < 0);) {
    if (otherwise < 0 && !trie.may_begin(text[at])) {
      ++at;
      continue;
    }
    size_t length = 0;
    int32_t id = otherwise;
    trie.walk(text.substr(at), [&](size_t bytes, int32_t value) {
      length = bytes;
      id = value;
      return true;
    });
    if (id < 0) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + length;
    at = length > 0 ? end : at + utf8_length(text[at]);
    const AddedToken& token = tokens_.at(id);
    if (token.special && !parse_special) continue;
    if (token.single_word) {
      const bool word_before = begin > 0 && unicode::is_word(code_at(text, previous(text, begin)));
      const bool word_after = end < text.size() && unicode::is_word(code_at(text, end));
      if (word_before || word_after) continue;
    }
    if (token.left_strip) {
      while (begin > done && unicode::is(code_at(text, previous(text, begin)), unicode::kSpace)) begin = previous(text, begin);
      begin = std::max(begin, done);
    }
    if (token.right_strip)
      while (end < text.size() && unicode::is(code_at(text, end), unicode::kSpace)) end += utf8_length(text[end]);
    if (length == 0 ? begin < done : begin >= end) continue;  // blanks that the token before has taken
    if (done < begin) parts.push_back({done, begin, -1});
    if (begin < end) parts.push_back({begin, end, id});
    done = end;
  }
  if (done < text.size()) parts.push_back({done, text.size(), -1});
  return parts;
}

int32_t AddedTokens::id(std::string_view content) const {
  const auto found = ids_.find(std::string(content));
  return found == ids_.end() ? -1 : found->second;
}

const std::string* AddedTokens::decoded(int64_t id) const {
  if (const auto found = spelling_.find(id); found != spelling_.end()) return &found->second;
  const auto found = tokens_.find(id);
  return found == tokens_.end() ? nullptr : &found->second.content;
}

bool AddedTokens::special(std::string_view content) const {
  const int32_t place = id(content);
  return place >= 0 && tokens_.at(place).special;
}

}  // namespace switchyard
