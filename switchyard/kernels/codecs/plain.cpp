// Numbers that stand for themselves.
#include <cstring>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=off")
#endif
#include "switchyard/kernels/codecs/half.h"
#include "switchyard/kernels/codecs/table.h"

namespace switchyard::codecs {
namespace {

struct F32 {
  static constexpr int64_t kLength = 1, kBytes = 4;
  static void read(const uint8_t* block, float* v) { *v = load<float>(block); }
  static void write(const float* v, const float*, uint8_t* block) { store(block, *v); }
};

struct F16 {
  static constexpr int64_t kLength = 1, kBytes = 2;
  static void read(const uint8_t* block, float* v) { *v = load_half(block); }
  static void write(const float* v, const float*, uint8_t* block) { store_half(block, *v); }
};

struct BF16 {
  static constexpr int64_t kLength = 1, kBytes = 2;
  static void read(const uint8_t* block, float* v) { *v = bfloat_to_float(load<uint16_t>(block)); }
  static void write(const float* v, const float*, uint8_t* block) { store(block, float_to_bfloat(*v)); }
};

constexpr BlockCodec kCodecs[]{
    codec_of<F32>("F32", 0),
    codec_of<F16>("F16", 1),
    codec_of<BF16>("BF16", 30),
    {.name = "I8", .number = 24, .bytes = 1},
    {.name = "I16", .number = 25, .bytes = 2},
    {.name = "I32", .number = 26, .bytes = 4},
    {.name = "I64", .number = 27, .bytes = 8},
    {.name = "F64", .number = 28, .bytes = 8},
};

}  // namespace

std::span<const BlockCodec> plain_codecs() { return kCodecs; }

}  // namespace switchyard::codecs
