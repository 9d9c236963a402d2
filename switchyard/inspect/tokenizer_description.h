// What a tokenizer file holds, told without building the tokenizer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace switchyard {

struct TokenizerDescription {
  std::string kind;          ///< "BPE", "Unigram", "WordPiece", "sentencepiece", "tiktoken"
  int64_t vocabulary = 0;    ///< tokens, added ones included
  std::vector<std::pair<std::string, std::string>> more;
};

/// tokenizer.json, tokenizer.model or a file of ranks (.tiktoken). Throws show.tokenizer, file.*.
TokenizerDescription describe_tokenizer(const std::filesystem::path& file);

}  // namespace switchyard
