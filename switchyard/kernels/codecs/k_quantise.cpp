// Choosing scales, offsets and integers of a K block so that the weighted squared error sum_i w_i (v_i - v'_i)^2 is small.
//
// First each sub-block alone (fit.h). Then the block: the scales become small integers under the halves d and dmin, and two moves
// alternate while they help: each sub-block tries the neighbouring integers for its scale and offset, and d and dmin are fitted
// again by least squares to everything chosen.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=off")
#endif
#include "switchyard/kernels/codecs/half.h"
#include "switchyard/kernels/codecs/k_blocks.h"
#include "switchyard/kernels/codecs/fit.h"
#include "switchyard/kernels/cpu/levels.h"

namespace switchyard::codecs {
namespace {

constexpr int kValues = 256;
constexpr int kRounds = 3;

/// The block's values, finite, and their weights, not all zero.
struct Input {
  float v[kValues], w[kValues];
  Input(const float* values, const float* importance) {
    constexpr float kMost = std::numeric_limits<float>::max();
    for (int i = 0; i < kValues; ++i) v[i] = values[i] >= -kMost && values[i] <= kMost ? values[i] : 0;
    for (int i = 0; i < kValues; ++i) w[i] = 1;
    if (importance == nullptr) return;
    float most = 0;
    for (int i = 0; i < kValues; ++i) {
      w[i] = importance[i] > 0 && importance[i] <= kMost ? importance[i] : 0;
      most = w[i] > most ? w[i] : most;
    }
    // Squares of weights must not leave float's range, and a value without importance still counts a little.
    for (int i = 0; i < kValues; ++i) w[i] = most > 0 ? w[i] / most + 1e-6f : 1;
  }
};

float as_half(float x) { return half_to_float(float_to_half(x)); }

/// Moves of a sub-block's scale and offset that are tried together.
struct Move { int scale, offset; };
constexpr Move kMoves[kTrials]{{0, 0},  {-1, 0}, {1, 0},   {0, -1}, {0, 1},   {-1, -1}, {1, 1},   {-1, 1},
                               {1, -1}, {2, 1},  {-2, -1}, {1, 2},  {-1, -2}, {2, 2},   {-2, -2}, {2, 0}};

int clamped(int x, int low, int high) { return x < low ? low : x < high ? x : high; }

// ---- v = scale q - offset, q from 0 to kMost

template <int kParts, int kMost, int kMostScale>
class AffineBlock {
 public:
  static constexpr int kSize = kValues / kParts;
  float d = 0, dmin = 0;
  uint8_t scale[kParts] = {}, offset[kParts] = {}, q[kValues] = {};

  explicit AffineBlock(const Input& input) : in_(input) {
    float most_scale = 0, most_offset = 0;
    Affine fit[kParts];
    for (int p = 0; p < kParts; ++p) {
      fit[p] = fit_affine<kSize, kMost, false>(in_.v + p * kSize, in_.w + p * kSize);
      most_scale = fit[p].scale > most_scale ? fit[p].scale : most_scale;
      most_offset = fit[p].offset > most_offset ? fit[p].offset : most_offset;
    }
    d = as_half(most_scale / kMostScale);
    dmin = as_half(most_offset / kMostScale);
    for (int p = 0; p < kParts; ++p) {
      scale[p] = static_cast<uint8_t>(nearest_within(fit[p].scale * inverse(d), 0, kMostScale));
      offset[p] = static_cast<uint8_t>(nearest_within(fit[p].offset * inverse(dmin), 0, kMostScale));
    }
    double best = improve_parts();
    for (int round = 1; round < kRounds; ++round) {
      AffineBlock next = *this;
      next.fit_halves();
      const double error = next.improve_parts();
      if (!(error < best * 0.9999)) break;
      best = error;
      copy_choice(next);
    }
    for (int p = 0; p < kParts; ++p) {
      const float low = dmin * static_cast<float>(offset[p]), to_q = inverse(d * static_cast<float>(scale[p]));
      for (int i = p * kSize; i < (p + 1) * kSize; ++i) q[i] = static_cast<uint8_t>(nearest_within((in_.v[i] + low) * to_q, 0, kMost));
    }
  }

 private:
  AffineBlock(const AffineBlock&) = default;

  void copy_choice(const AffineBlock& other) {
    d = other.d, dmin = other.dmin;
    std::copy(other.scale, other.scale + kParts, scale);
    std::copy(other.offset, other.offset + kParts, offset);
  }

  /// Moves each sub-block to the best of its neighbours; the error of all.
  double improve_parts() {
    double sum = 0;
    for (int p = 0; p < kParts; ++p) {
      const float *v = in_.v + p * kSize, *w = in_.w + p * kSize;
      int s[kTrials], o[kTrials];
      float step[kTrials], low[kTrials], to_q[kTrials], error[kTrials] = {};
      for (int k = 0; k < kTrials; ++k) {
        s[k] = clamped(scale[p] + kMoves[k].scale, 0, kMostScale);
        o[k] = clamped(offset[p] + kMoves[k].offset, 0, kMostScale);
        step[k] = d * static_cast<float>(s[k]), low[k] = dmin * static_cast<float>(o[k]), to_q[k] = inverse(step[k]);
      }
      for (int i = 0; i < kSize; ++i)
        for (int k = 0; k < kTrials; ++k) {
          const float at = v[i] + low[k], off = at - step[k] * nearest_within(at * to_q[k], 0, kMost);
          error[k] += w[i] * off * off;
        }
      const int best = place_of_least(error);
      scale[p] = static_cast<uint8_t>(s[best]), offset[p] = static_cast<uint8_t>(o[best]);
      sum += error[best];
    }
    return sum;
  }

  /// Least squares in d and dmin for the integers as they are: v = d a - dmin b with a = scale q, b = offset.
  void fit_halves() {
    float aa_[kTrials] = {}, ab_[kTrials] = {}, bb_[kTrials] = {}, av_[kTrials] = {}, bv_[kTrials] = {};
    for (int p = 0; p < kParts; ++p) {
      const float s = scale[p], b = offset[p], low = dmin * b, to_q = inverse(d * s);
      for (int i = p * kSize; i < (p + 1) * kSize; i += kTrials)
        for (int k = 0; k < kTrials; ++k) {
          const float v = in_.v[i + k], w = in_.w[i + k], a = s * nearest_within((v + low) * to_q, 0, kMost), wa = w * a, wb = w * b;
          aa_[k] += wa * a, ab_[k] += wa * b, bb_[k] += wb * b, av_[k] += wa * v, bv_[k] += wb * v;
        }
    }
    const double aa = total(aa_), ab = total(ab_), bb = total(bb_), av = total(av_), bv = total(bv_);
    const double determinant = aa * bb - ab * ab;
    double fresh_d = aa > 0 ? av / aa : d, fresh_min = dmin;
    if (determinant > 1e-9 * aa * bb) {
      fresh_d = (av * bb - bv * ab) / determinant;
      fresh_min = (av * ab - bv * aa) / determinant;
    }
    if (fresh_d > 0) d = as_half(static_cast<float>(fresh_d));
    if (fresh_min >= 0) dmin = as_half(static_cast<float>(fresh_min));
  }

  const Input& in_;
};

// ---- v = scale q, q from kLow to -kLow - 1; scales have a sign

template <int kLow, int kLowScale>
class SymmetricBlock {
 public:
  static constexpr int kParts = 16, kSize = 16;
  float d = 0;
  int8_t scale[kParts] = {};
  int8_t q[kValues] = {};

  explicit SymmetricBlock(const Input& input) : in_(input) {
    float fit[kParts], extreme = 0;
    for (int p = 0; p < kParts; ++p) {
      fit[p] = fit_scale<kSize, kLow>(in_.v + p * kSize, in_.w + p * kSize);
      if (std::fabs(fit[p]) > std::fabs(extreme)) extreme = fit[p];
    }
    d = as_half(extreme / kLowScale);
    for (int p = 0; p < kParts; ++p) scale[p] = static_cast<int8_t>(nearest_within(fit[p] * inverse(d), kLowScale, -kLowScale - 1));
    double best = improve_parts();
    for (int round = 1; round < kRounds; ++round) {
      SymmetricBlock next = *this;
      next.fit_half();
      const double error = next.improve_parts();
      if (!(error < best * 0.9999)) break;
      best = error;
      d = next.d;
      std::copy(next.scale, next.scale + kParts, scale);
    }
    for (int p = 0; p < kParts; ++p) {
      const float to_q = inverse(d * static_cast<float>(scale[p]));
      for (int i = p * kSize; i < (p + 1) * kSize; ++i) q[i] = static_cast<int8_t>(nearest_within(in_.v[i] * to_q, kLow, -kLow - 1));
    }
  }

 private:
  SymmetricBlock(const SymmetricBlock&) = default;

  /// Moves each scale to the best of its neighbours; the error of all.
  double improve_parts() {
    double sum = 0;
    for (int p = 0; p < kParts; ++p) {
      const float *v = in_.v + p * kSize, *w = in_.w + p * kSize;
      int s[kTrials];
      float step[kTrials], to_q[kTrials], error[kTrials] = {};
      for (int k = 0; k < kTrials; ++k) {
        s[k] = clamped(scale[p] + k - kTrials / 2, kLowScale, -kLowScale - 1);
        step[k] = d * static_cast<float>(s[k]), to_q[k] = inverse(step[k]);
      }
      for (int i = 0; i < kSize; ++i)
        for (int k = 0; k < kTrials; ++k) {
          const float off = v[i] - step[k] * nearest_within(v[i] * to_q[k], kLow, -kLow - 1);
          error[k] += w[i] * off * off;
        }
      const int best = place_of_least(error);
      scale[p] = static_cast<int8_t>(s[best]);
      sum += error[best];
    }
    return sum;
  }

  void fit_half() {
    float aa_[kTrials] = {}, av_[kTrials] = {};
    for (int p = 0; p < kParts; ++p) {
      const float s = scale[p], to_q = inverse(d * s);
      for (int k = 0; k < kTrials; ++k) {
        const float v = in_.v[p * kSize + k], a = s * nearest_within(v * to_q, kLow, -kLow - 1), wa = in_.w[p * kSize + k] * a;
        aa_[k] += wa * a, av_[k] += wa * v;
      }
    }
    const double aa = total(aa_), av = total(av_);
    if (aa > 0 && av != 0) d = as_half(static_cast<float>(av / aa));
  }

  const Input& in_;
};

/// Two bits a value: values 32 g + l of each half of 128 in bit pair g of byte l.
template <typename Bits>
void pack_pairs(uint8_t* bytes, Bits&& bits) {
  std::fill(bytes, bytes + 64, uint8_t{0});
  for (int i = 0; i < kValues; ++i) {
    uint8_t& byte = bytes[32 * (i / 128) + i % 32];
    byte = static_cast<uint8_t>(byte | bits(i) << (2 * (i / 32 % 4)));
  }
}

/// Four bits a value: of each 64 values, the first 32 low and the next 32 high.
void pack_nibbles(uint8_t* bytes, const uint8_t* q) {
  for (int i = 0; i < 128; ++i) {
    const int first = 64 * (i / 32) + i % 32;
    bytes[i] = static_cast<uint8_t>((q[first] & 15) | (q[first + 32] & 15) << 4);
  }
}

/// What Q4_K and Q5_K begin with: both factors, then eight scales and offsets of six bits.
template <class Affine>
void store_head(const Affine& chosen, uint8_t* block) {
  store_half(block, chosen.d);
  store_half(block + 2, chosen.dmin);
  ScalesAndOffsets scales;
  std::memcpy(scales.scale, chosen.scale, 8);
  std::memcpy(scales.offset, chosen.offset, 8);
  scales.pack(block + 4);
}

/// Calls write(chosen, block) for each block.
template <class Chosen, int64_t kBytes, typename Write>
void each_block(const float* v, const float* importance, uint8_t* block, int64_t blocks, const Write& write) {
  kernels::cpu::at_level_exactly([=] {
    for (int64_t b = 0; b < blocks; ++b) {
      const Input input(v + b * kValues, importance ? importance + b * kValues : nullptr);
      write(Chosen(input), block + b * kBytes);
    }
  });
}

}  // namespace

void write_q2_k(const float* v, const float* importance, uint8_t* block, int64_t blocks) {
  each_block<AffineBlock<16, 3, 15>, 84>(v, importance, block, blocks, [](const auto& chosen, uint8_t* block) {
    for (int p = 0; p < 16; ++p) block[p] = static_cast<uint8_t>(chosen.scale[p] | chosen.offset[p] << 4);
    pack_pairs(block + 16, [&](int i) { return chosen.q[i]; });
    store_half(block + 80, chosen.d);
    store_half(block + 82, chosen.dmin);
  });
}

void write_q3_k(const float* v, const float* importance, uint8_t* block, int64_t blocks) {
  each_block<SymmetricBlock<-4, -32>, 110>(v, importance, block, blocks, [](const auto& chosen, uint8_t* block) {
    std::fill(block, block + 32, uint8_t{0});
    for (int i = 0; i < kValues; ++i)
      block[i % 32] = static_cast<uint8_t>(block[i % 32] | ((chosen.q[i] + 4) >> 2) << (i / 32));
    pack_pairs(block + 32, [&](int i) { return (chosen.q[i] + 4) & 3; });
    pack_signed_scales(chosen.scale, block + 96);
    store_half(block + 108, chosen.d);
  });
}

void write_q4_k(const float* v, const float* importance, uint8_t* block, int64_t blocks) {
  each_block<AffineBlock<8, 15, 63>, 144>(v, importance, block, blocks, [](const auto& chosen, uint8_t* block) {
    store_head(chosen, block);
    pack_nibbles(block + 16, chosen.q);
  });
}

void write_q5_k(const float* v, const float* importance, uint8_t* block, int64_t blocks) {
  each_block<AffineBlock<8, 31, 63>, 176>(v, importance, block, blocks, [](const auto& chosen, uint8_t* block) {
    store_head(chosen, block);
    std::fill(block + 16, block + 48, uint8_t{0});
    for (int i = 0; i < kValues; ++i)
      block[16 + i % 32] = static_cast<uint8_t>(block[16 + i % 32] | (chosen.q[i] >> 4) << (i / 32));
    pack_nibbles(block + 48, chosen.q);
  });
}

void write_q6_k(const float* v, const float* importance, uint8_t* block, int64_t blocks) {
  each_block<SymmetricBlock<-32, -128>, 210>(v, importance, block, blocks, [](const auto& chosen, uint8_t* block) {
    std::fill(block, block + 192, uint8_t{0});
    for (int i = 0; i < kValues; ++i) {
      const int group = i / 32, l = i % 32, q = chosen.q[i] + 32;
      uint8_t &low = block[64 * (group / 4) + 32 * (group % 2) + l], &high = block[128 + 32 * (group / 4) + l];
      low = static_cast<uint8_t>(low | (q & 15) << (4 * (group / 2 % 2)));
      high = static_cast<uint8_t>(high | (q >> 4) << (2 * (group % 4)));
    }
    std::memcpy(block + 192, chosen.scale, 16);
    store_half(block + 208, chosen.d);
  });
}

}  // namespace switchyard::codecs
