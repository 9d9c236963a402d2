// The tokenizer in a GGUF file's metadata (tokenizer.ggml.*): BPE with merges and the name of a pattern ("gpt2"; also "gemma4" and
// "whitespace"), sentencepiece BPE by scores ("llama") and unigram ("t5"), WordPiece ("bert").
#pragma once

#include <filesystem>

#include "switchyard/base/node.h"
#include "switchyard/formats/gguf_metadata.h"
#include "switchyard/formats/tokenizers/pipeline.h"

namespace switchyard {

/// What the name of a pre-tokenizer (tokenizer.ggml.pre) stands for.
struct PreTokenization {
  std::vector<const char*> patterns;  ///< each cuts what the ones before left
  bool nfc = false;                   ///< the published tokenizer normalises first, which the file does not say
  bool ignore_merges = false, add_begin = false;
  /// What is merged: bytes; characters, "\u2581" for a blank, with a token for each byte of those that have none; or the characters of words
  /// between blanks.
  enum Form { bytes, pieces, words } form = bytes;
};
/// Null for an unknown name.
const PreTokenization* pre_tokenization(const std::string& name);

/// Throws tokenizer.missing when the file holds none, tokenizer.unsupported naming the model or pattern, tokenizer.format,
/// formats.gguf.*.
TokenizerParts parts_from_gguf(const GgufMetadata& metadata);

/// Puts a folder's tokenizer into the metadata, in those keys and whole (tokenizer.huggingface.json); config: its config.json, for
/// the number of tokens and the ids that end a text. What readers will cut otherwise, or that there is none, is added to `notices`.
/// Throws tokenizer.*.
void put_vocabulary(GgufMetadata& metadata, const std::filesystem::path& folder, const Node& config, std::vector<std::string>& notices);

}  // namespace switchyard
