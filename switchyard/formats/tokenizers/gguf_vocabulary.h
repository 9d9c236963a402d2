// The tokenizer in a GGUF file's metadata (tokenizer.ggml.*): byte-level BPE with merges and the name of a pattern ("gpt2"),
// sentencepiece BPE by scores ("llama") and unigram ("t5").
#pragma once

#include "switchyard/formats/gguf_metadata.h"
#include "switchyard/formats/tokenizers/pipeline.h"

namespace switchyard {

/// Throws tokenizer.missing when the file holds none, tokenizer.unsupported naming the model or pattern, tokenizer.format,
/// formats.gguf.*.
TokenizerParts parts_from_gguf(const GgufMetadata& metadata);

}  // namespace switchyard
