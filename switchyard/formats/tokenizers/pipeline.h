// The one implementation of Tokenizer: added tokens, normalisers, pre-tokenizers, a model, post-processors and a decoder,
// in this order. Every kind of file is read into these parts.
#pragma once

#include <map>

#include "switchyard/formats/tokenizer.h"
#include "switchyard/formats/tokenizers/added_tokens.h"
#include "switchyard/formats/tokenizers/decoders.h"
#include "switchyard/formats/tokenizers/models.h"
#include "switchyard/formats/tokenizers/normalisers.h"
#include "switchyard/formats/tokenizers/post_processors.h"
#include "switchyard/formats/tokenizers/pre_tokenizers.h"

namespace switchyard {

struct TokenizerParts {
  AddedTokens added;
  std::vector<Normaliser> normalisers;
  std::vector<PreTokenizer> pre_tokenizers;
  bool needs_origins = false;  ///< a part asks where in the text a word stands
  std::unique_ptr<TokenModel> model;
  std::vector<PostProcessor> post_processors;
  TokenDecoder decoder;
  std::vector<int64_t> controls;  ///< special ids that are no added tokens
  std::optional<int64_t> begin, end;
  std::map<std::string, std::string> files;  ///< name → content, for save()
  uint64_t fingerprint = 0;
};

std::shared_ptr<Tokenizer> make_tokenizer(TokenizerParts parts);

/// What tokenizer_config.json and special_tokens_map.json say, as far as it is asked for here; absent files say nothing.
struct TokenizerConfig {
  std::optional<std::string> begin_token, end_token, unknown_token, padding_token;
  std::optional<bool> add_begin, add_end;
  std::string tokenizer_class;
  std::map<int64_t, AddedToken> added;  ///< added_tokens_decoder
};
TokenizerConfig read_tokenizer_config(const std::map<std::string, std::string>& files, const std::string& source);

/// Parts of each kind of file; `files` are the file and those beside it, `source` names it in errors.
TokenizerParts parts_from_json(std::string_view json, const std::map<std::string, std::string>& files, const std::string& source);
TokenizerParts parts_from_sentencepiece(std::string_view model, const std::map<std::string, std::string>& files,
                                        const std::string& source);
TokenizerParts parts_from_tiktoken(std::string_view ranks, const std::map<std::string, std::string>& files,
                                   const std::string& source);
/// Whether bytes are tiktoken's: lines of base64 and a number. A sentencepiece model begins with a byte that no such line has.
bool is_rank_file(std::string_view bytes);

/// The id that a text gets before its own tokens, if any.
std::optional<int64_t> leading_token(const std::vector<PostProcessor>& processors);

}  // namespace switchyard
