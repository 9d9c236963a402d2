// The formats of packed blocks as row_groups_loops.h takes them: sixteen rows turned, one lane a row. Behind the lanes of a level
// (lanes_avx512.h, lanes_avx2.h). Internal to kernels/.
#pragma once

#include <cstdint>

#include "switchyard/kernels/cpu/blocks.h"
#include "switchyard/kernels/cpu/row_groups.h"

namespace switchyard::kernels::cpu {
namespace {

constexpr int64_t kRows = kGroupRows, kValues = kGroupStep;  ///< rows of a group; values of a row that are unpacked at once
constexpr int64_t kVectors = kRows / kLanes;                 ///< that hold one number of each row

// A step of a format, 256 values of the sixteen rows, is some heads (scales that stand before blocks: kHeadBytes each, head s at head(s) of a
// row) and some pieces of 16 bytes (piece i at piece(i)). Turned, heads come first, each of sixteen rows, then the dwords of the pieces, each of
// sixteen rows: dword i as place(i), so that they are read one after the other. Two places that are read in turn are no stream for the
// processor, and halve its speed. That takes the same room as the rows one behind the other. The last step of blocks of 32 values may be
// shorter: an even number of blocks.

/// kLanes rows of a turned step of so many runs of 32 values: those of vector v.
template <typename Format>
struct Step {
  const uint8_t *heads, *pieces;  ///< those of the first row
  int64_t runs;

  [[gnu::always_inline]] Step(const uint8_t* step, int64_t length, int64_t v)
      : heads(step + v * kLanes * Format::kHeadBytes), pieces(step + kRows * Format::kHeadBytes * (Format::kHeads * length / 8) + 4 * v * kLanes), runs(length) {}
  [[gnu::always_inline]] Ints dword(int place) const { return load(pieces + 64 * place); }
  [[gnu::always_inline]] Floats words(int s) const { return cpu::words(heads + 32 * s); }
  [[gnu::always_inline]] Ints bytes(int s) const { return cpu::bytes(heads + 16 * s); }
};

// A run of values with one scale stands for unit (scale u - offset), for each row: u unsigned bytes, scale and offset integers, unit a float.
// So Σ (scale u - offset) q is an integer, and exact. Q4_K and Q5_K have a unit of its own for what is subtracted. Formats with no scale but
// their unit have scale 1.

/// Of 256 values of kLanes rows, as few as they are: the first thing that is read of a step.
struct Heads {
  Ints bytes[4];              ///< integers, as a format has them
  Floats unit[kValues / 32];  ///< of 32 values; the first alone where integers scale them
  Floats least;               ///< of what is subtracted, where that has its own
};
/// Of 64 of them, two runs of 32 values.
struct Scales {
  Ints scale[4];   ///< as scaled_sum takes it: of a run, or of its two halves
  Ints offset[2];  ///< of a run, for the sums of its first and its last 16 values, two halves of a lane; where kLeast, of both runs for their sums
  Floats unit[2], least;
};

SWITCHYARD_INLINE Ints low_nibbles(Ints v) { return both(v, each_byte(15)); }
SWITCHYARD_INLINE Ints high_nibbles(Ints v) { return low_nibbles(right_halves(v, 4)); }
/// Bytes i and j of each lane as its halves.
SWITCHYARD_INLINE Ints halves_of(Ints v, int i, int j) { return rearranged(v, i, -1, j, -1); }

/// The header of Q4_K and Q5_K (codecs/k_blocks.h): eight scales and offsets of 6 bits, times the block's two halves.
struct Header {
  template <typename Format>
  SWITCHYARD_INLINE void heads(const Step<Format>& rows, Heads& g) {
    Ints head[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) head[c] = rows.dword(c);
    g.unit[0] = low_halves(head[0]);
    g.least = low_halves(right(head[0], 16));
    const Ints six = each_byte(0x3f), two = each_byte(0x30);
    g.bytes[0] = both(head[1], six);
    g.bytes[1] = either(low_nibbles(head[3]), both(right_halves(head[1], 2), two));
    g.bytes[2] = both(head[2], six);
    g.bytes[3] = either(high_nibbles(head[3]), both(right_halves(head[2], 2), two));
  }
  template <int j>
  SWITCHYARD_INLINE void scales(const Heads& g, Scales& part) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) part.scale[i] = multiplier(g.bytes[j / 2], 2 * j % 4 + i);
    part.offset[0] = halves_of(g.bytes[2 + j / 2], 2 * j % 4, 2 * j % 4 + 1);
    part.unit[0] = g.unit[0];
    part.least = g.least;
  }
};

/// Eight blocks of 32 values make 256, each with a float16 for a unit; what they subtract from every value is an integer.
template <int zero>
struct Units {
  template <typename Format>
  SWITCHYARD_INLINE void heads(const Step<Format>& rows, Heads& g) {
    for (int s = 0; s < rows.runs; ++s) g.unit[s] = rows.words(s);
  }
  template <int j>
  SWITCHYARD_INLINE void scales(const Heads& g, Scales& part) {
    part.offset[0] = part.offset[1] = each_lane(zero * 0x10001);
    part.unit[0] = g.unit[2 * j];
    part.unit[1] = g.unit[2 * j + 1];
  }
};

// A format unpacks 64 values of each row at a time, part j of four, as eight pairs of vectors, low and high: four consecutive values in a lane.
// Pair c are dwords low_at(j, c) and high_at(j, c) of the row's 64. They belong to two runs of 32 values, first(j) and second(j).

struct Halves {  // the two runs follow one another
  SWITCHYARD_INLINE constexpr int first(int j) { return 2 * j; }
  SWITCHYARD_INLINE constexpr int second(int j) { return 2 * j + 1; }
};
struct RunEach : Halves {  // low of the first run, high of the second
  static constexpr bool kShared = false;
  SWITCHYARD_INLINE constexpr int low_at(int j, int c) { return 8 * first(j) + c; }
  SWITCHYARD_INLINE constexpr int high_at(int j, int c) { return 8 * second(j) + c; }
};
struct RunShared : Halves {  // four pairs of each run: low its first 16 values, high the others
  static constexpr bool kShared = true;
  SWITCHYARD_INLINE constexpr int low_at(int j, int c) { return 16 * j + c / 4 * 8 + c % 4; }
  SWITCHYARD_INLINE constexpr int high_at(int j, int c) { return low_at(j, c) + 4; }
};
struct InOrder {  // dwords are read as they lie
  SWITCHYARD_INLINE constexpr int place(int i) { return i; }
};
/// 256 values a block, all of it pieces.
template <int64_t bytes>
struct LongBlocks {
  static constexpr int64_t kLength = 256, kBytes = bytes, kHeads = 0, kHeadBytes = 0, kPieces = bytes / 16;
  SWITCHYARD_INLINE constexpr int64_t head(int) { return 0; }
  SWITCHYARD_INLINE constexpr int64_t piece(int i) { return 16 * i; }
};
/// 32 values a block: a head, then so many pieces.
template <int64_t head_bytes, int64_t pieces>
struct ShortBlocks {
  static constexpr int64_t kLength = 32, kBytes = head_bytes + 16 * pieces, kRun = 32, kHeads = 8, kHeadBytes = head_bytes, kPieces = 8 * pieces;
  SWITCHYARD_INLINE constexpr int64_t head(int s) { return kBytes * s; }
  SWITCHYARD_INLINE constexpr int64_t piece(int i) { return kBytes * (i / pieces) + head_bytes + 16 * (i % pieces); }
};
struct ScaledApart : Header { static constexpr bool kScaled = true, kLeast = true; };
template <int zero> struct Plain : Units<zero> { static constexpr bool kScaled = false, kLeast = false; };

// kRun: values a scale; kMost: the largest value that is unpacked.
struct Q4_K : LongBlocks<144>, InOrder, RunEach, ScaledApart {
  static constexpr int64_t kRun = 32;
  static constexpr int kMost = 15;
  template <int j> SWITCHYARD_INLINE void pair(const Step<Q4_K>& rows, int c, Ints& low, Ints& high) {
    const Ints q = rows.dword(4 + 8 * j + c);
    low = low_nibbles(q);
    high = high_nibbles(q);
  }
};

struct Q5_K : LongBlocks<176>, RunEach, ScaledApart {
  static constexpr int64_t kRun = 32;
  static constexpr int kMost = 31;
  /// The header, the top bits among the low ones of part 0, and the other parts.
  SWITCHYARD_INLINE constexpr int place(int i) { return i < 4 || i >= 20 ? i : i < 12 ? 2 * i - 4 : 2 * i - 19; }
  template <int j> SWITCHYARD_INLINE void pair(const Step<Q5_K>& rows, int c, Ints& low, Ints& high) {
    const Ints q = rows.dword(j == 0 ? 5 + 2 * c : 12 + 8 * j + c), top = rows.dword(4 + 2 * c), sixteen = each_byte(16);
    // Bits 2 j and 2 j + 1 become bit 4.
    const Ints one = j < 2 ? left_halves(top, 4 - 2 * j) : right_halves(top, 2 * j - 4);
    const Ints next = j < 2 ? left_halves(top, 3 - 2 * j) : right_halves(top, 2 * j - 3);
    low = either(low_nibbles(q), both(one, sixteen));
    high = either(high_nibbles(q), both(next, sixteen));
  }
};

struct Q6_K {
  static constexpr bool kShared = false, kScaled = true, kLeast = false;
  static constexpr int64_t kLength = 256, kBytes = 210, kRun = 16, kHeads = 1, kHeadBytes = 2, kPieces = 13;
  static constexpr int kMost = 63;
  SWITCHYARD_INLINE constexpr int64_t head(int) { return 208; }
  SWITCHYARD_INLINE constexpr int64_t piece(int i) { return 16 * i; }
  /// The scales, then twice the top bits of 128 values among the low ones of the even part, and those of the odd one.
  SWITCHYARD_INLINE constexpr int place(int i) {
    const int half = i < 32 ? i / 16 : i / 8 % 2, at = 4 + 24 * half;
    return i >= 48 ? i - 48 : i >= 32 ? at + 2 * (i % 8) : i % 16 < 8 ? at + 2 * (i % 8) + 1 : at + 16 + i % 8;
  }
  SWITCHYARD_INLINE constexpr int first(int j) { return 4 * (j / 2) + j % 2; }
  SWITCHYARD_INLINE constexpr int second(int j) { return first(j) + 2; }
  SWITCHYARD_INLINE constexpr int low_at(int j, int c) { return 8 * first(j) + c; }
  SWITCHYARD_INLINE constexpr int high_at(int j, int c) { return 8 * second(j) + c; }
  SWITCHYARD_INLINE void heads(const Step<Q6_K>& rows, Heads& g) {
    g.unit[0] = rows.words(0);
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) g.bytes[c] = rows.dword(c);
  }
  template <int j> SWITCHYARD_INLINE void scales(const Heads& g, Scales& part) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const int run = i == 0 ? first(j) : second(j), at = run % 2 * 2;
      const Ints four = g.bytes[run / 2];
      part.scale[2 * i] = signed_multiplier(four, at);
      part.scale[2 * i + 1] = signed_multiplier(four, at + 1);
      part.offset[i] = signed_right_halves(rearranged(four, -1, at, -1, at + 1), 3);  // 32 times
      part.unit[i] = g.unit[0];
    }
  }
  template <int j> SWITCHYARD_INLINE void pair(const Step<Q6_K>& rows, int c, Ints& low, Ints& high) {
    constexpr bool kEven = j % 2 == 0;
    constexpr int kAt = 4 + 24 * (j / 2);
    const Ints q = rows.dword(kAt + (kEven ? 2 * c + 1 : 16 + c)), top = rows.dword(kAt + 2 * c), two_bits = each_byte(0x30);
    // Bits 0 and 4 of `top` and the next ones, or 2 and 6.
    low = either(low_nibbles(q), both(left_halves(top, kEven ? 4 : 2), two_bits));
    high = either(high_nibbles(q), both(kEven ? top : right_halves(top, 2), two_bits));
  }
};

struct Q8_0 : ShortBlocks<2, 2>, RunEach, Plain<128> {
  static constexpr int kMost = 255;
  SWITCHYARD_INLINE constexpr int place(int i) { return i / 16 * 16 + i % 8 * 2 + i / 8 % 2; }  // two blocks by turns
  template <int j> SWITCHYARD_INLINE void pair(const Step<Q8_0>& rows, int c, Ints& low, Ints& high) {
    low = differing(rows.dword(16 * j + 2 * c), each_byte(128));
    high = differing(rows.dword(16 * j + 2 * c + 1), each_byte(128));
  }
};

struct Q4_0 : ShortBlocks<2, 1>, InOrder, RunShared, Plain<8> {
  static constexpr int kMost = 15;
  template <int j> SWITCHYARD_INLINE void pair(const Step<Q4_0>& rows, int c, Ints& low, Ints& high) {
    const Ints q = rows.dword(8 * j + c);
    low = low_nibbles(q);
    high = high_nibbles(q);
  }
};

struct MXFP4 : ShortBlocks<1, 1>, InOrder, RunShared, Plain<12> {
  static constexpr int kMost = 24;
  /// Of twice a value plus 12, so that it is unsigned: 2^(e - 128), a subnormal for the two smallest exponents.
  SWITCHYARD_INLINE void heads(const Step<MXFP4>& rows, Heads& g) {
    for (int s = 0; s < rows.runs; ++s) {
      const Ints e = rows.bytes(s);
      const Ints normal = left(minus(e, each_lane(1)), 23);
      g.unit[s] = as_floats(where_less(e, 2, left_by(each_lane(0x00200000), e), normal));
    }
  }
  template <int j> SWITCHYARD_INLINE void pair(const Step<MXFP4>& rows, int c, Ints& low, Ints& high) {
    const __m128i table = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
    const Ints q = rows.dword(8 * j + c);
    low = look_up(table, low_nibbles(q));
    high = look_up(table, high_nibbles(q));
  }
};

}  // namespace
}  // namespace switchyard::kernels::cpu
