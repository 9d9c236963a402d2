#include "switchyard/base/error.h"
#include "switchyard/formats/tokenizers/models.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {

Vocabulary::Vocabulary(std::vector<std::pair<std::string, int64_t>> tokens) {
  int64_t highest = -1;
  for (const auto& [token, id] : tokens) {
    check(id >= 0 && id < static_cast<int64_t>(4 * tokens.size() + 65536), "tokenizer.format",
          "token \"{}\" has id {}, but the vocabulary has {} tokens", utf8_repair(token), id, tokens.size());
    highest = std::max(highest, id);
  }
  reserve(tokens.size(), highest);
  for (auto& [token, id] : tokens) add(std::move(token), id, false);
}

Vocabulary Vocabulary::of_list(std::vector<std::string> tokens) {
  std::vector<std::pair<std::string, int64_t>> pairs;
  pairs.reserve(tokens.size());
  for (std::string& token : tokens) pairs.emplace_back(std::move(token), static_cast<int64_t>(pairs.size()));
  return Vocabulary(std::move(pairs));
}

Vocabulary Vocabulary::of_list_with_repeats(std::vector<std::string> tokens) {
  Vocabulary vocabulary;
  vocabulary.reserve(tokens.size(), static_cast<int64_t>(tokens.size()) - 1);
  for (size_t i = 0; i < tokens.size(); ++i) vocabulary.add(std::move(tokens[i]), static_cast<int64_t>(i), true);
  return vocabulary;
}

void Vocabulary::reserve(size_t tokens, int64_t highest) {
  tokens_.resize(static_cast<size_t>(highest + 1));
  present_.resize(static_cast<size_t>(highest + 1));
  ids_.reserve(tokens);
}

void Vocabulary::add(std::string token, int64_t id, bool repeats) {
  const auto place = static_cast<size_t>(id);
  check(!present_[place], "tokenizer.format", "id {} is given to \"{}\" and to \"{}\"", id, tokens_[place], utf8_repair(token));
  check(utf8_valid(token), "tokenizer.format", "token {} (\"{}\") is not UTF-8", id, utf8_repair(token));
  tokens_[place] = std::move(token);
  present_[place] = true;
  const auto [known, fresh] = ids_.emplace(tokens_[place], static_cast<int32_t>(id));
  check(fresh || repeats, "tokenizer.format", "token \"{}\" stands twice in the vocabulary", tokens_[place]);
  known->second = static_cast<int32_t>(id);
  ++count_;
}

int32_t Vocabulary::id(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? -1 : found->second;
}

}  // namespace switchyard
