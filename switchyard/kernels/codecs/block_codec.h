// Numbers packed in blocks: one table of the block formats that model files use, each with its size and the way to and from
// floats. No libtorch here: a kernel that computes from packed weights and a reader of files share these functions.
// Layouts: https://github.com/ggml-org/ggml (ggml-common.h); each source file says what its blocks hold.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace switchyard {

struct BlockCodec {
  std::string_view name;  ///< "Q4_K", as GGUF tools spell it
  uint32_t number = 0;    ///< of the type in GGUF files
  int64_t length = 1;     ///< values a block; a row is a whole number of blocks
  int64_t bytes = 1;      ///< of a block
  /// blocks · length floats from blocks · bytes bytes. Null for integers and float64, which are not floats in disguise.
  void (*dequantise)(const uint8_t* packed, float* values, int64_t blocks) = nullptr;
  /// The other way. importance: null, or one weight a value (larger = keep it more exact); formats without a choice ignore it.
  /// Values that are not finite give blocks that are defined, not useful. Null where the format is only read.
  void (*quantise)(const float* values, const float* importance, uint8_t* packed, int64_t blocks) = nullptr;

  bool plain() const { return length == 1; }  ///< one number an element, as libtorch has it too
};

/// All of them, by their number.
std::span<const BlockCodec> block_codecs();
/// Null when there is none.
const BlockCodec* block_codec_named(std::string_view name);
const BlockCodec* block_codec_numbered(uint32_t number);

}  // namespace switchyard
