// How a block format enters the table: a struct with its sizes, `read` for one block and, where it is written, `write` of one
// (importance null or a weight a value) or `write_all` of many. Sources whose loops are worth vectors say `#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math",
// "fp-contract=off")` before they include this.
#pragma once

#include <array>
#include <span>

#include "switchyard/kernels/codecs/block_codec.h"
#include "switchyard/kernels/cpu/levels.h"

namespace switchyard::codecs {

template <class Block>
void dequantise_all(const uint8_t* packed, float* values, int64_t blocks) {
  for (int64_t i = 0; i < blocks; ++i) Block::read(packed + i * Block::kBytes, values + i * Block::kLength);
}

template <class Block>
void quantise_all(const float* values, const float* importance, uint8_t* packed, int64_t blocks) {
  kernels::cpu::at_level_exactly([=] {
    for (int64_t i = 0; i < blocks; ++i) {
      const float* weights = importance ? importance + i * Block::kLength : nullptr;
      Block::write(values + i * Block::kLength, weights, packed + i * Block::kBytes);
    }
  });
}

template <class Block>
constexpr BlockCodec codec_of(std::string_view name, uint32_t number) {
  BlockCodec codec{.name = name, .number = number, .length = Block::kLength, .bytes = Block::kBytes, .dequantise = dequantise_all<Block>};
  if constexpr (requires { Block::write_all; })
    codec.quantise = Block::write_all;
  else if constexpr (requires(const float* v, uint8_t* p) { Block::write(v, v, p); })
    codec.quantise = quantise_all<Block>;
  return codec;
}

// The parts of the table, one a source file.
std::span<const BlockCodec> plain_codecs();     ///< F32, F16, BF16; F64 and integers without floats
std::span<const BlockCodec> simple_codecs();    ///< Q4_0 to Q8_1, Q1_0, Q2_0: one scale for a block
std::span<const BlockCodec> k_codecs();         ///< Q2_K to Q8_K: scales of sub-blocks, packed themselves
std::span<const BlockCodec> codebook_codecs();  ///< IQ types: indices into grids of points
std::span<const BlockCodec> small_float_codecs();  ///< MXFP4, NVFP4, and the ternary TQ1_0 and TQ2_0

}  // namespace switchyard::codecs
