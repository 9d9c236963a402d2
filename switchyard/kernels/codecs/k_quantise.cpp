// Choosing scales, offsets and integers of a K block so that the weighted squared error sum_i w_i (v_i - v'_i)^2 is small.
//
// First each sub-block alone: for a row of trial steps the integers follow by rounding, the best real scale (and offset) for
// those integers by least squares, and the error in closed form. Then the block: the scales become small integers under the
// halves d and dmin, and two moves alternate while they help: each sub-block tries the neighbouring integers for its scale and
// offset, and d and dmin are fitted again by least squares to everything chosen.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "switchyard/kernels/codecs/fit.h"
#include "switchyard/kernels/codecs/half.h"
#include "switchyard/kernels/codecs/k_blocks.h"

namespace switchyard::codecs {
namespace {

constexpr int kValues = 256;
constexpr int kRounds = 3;

/// The block's values, finite, and their weights, not all zero.
struct Input {
  float v[kValues], w[kValues];
  Input(const float* values, const float* importance) {
    float most = 0;
    for (int i = 0; i < kValues; ++i) {
      v[i] = std::isfinite(values[i]) ? values[i] : 0;
      w[i] = importance == nullptr ? 1 : importance[i] > 0 && importance[i] <= std::numeric_limits<float>::max() ? importance[i] : 0;
      most = std::max(most, w[i]);
    }
    // Squares of weights must not leave float's range, and a value without importance still counts a little.
    for (int i = 0; i < kValues; ++i) w[i] = most > 0 ? w[i] / most + 1e-6f : 1;
  }
};

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
      most_scale = std::max(most_scale, fit[p].scale);
      most_offset = std::max(most_offset, fit[p].offset);
    }
    d = rounded(most_scale / kMostScale);
    dmin = rounded(most_offset / kMostScale);
    for (int p = 0; p < kParts; ++p) {
      scale[p] = static_cast<uint8_t>(clamped(fit[p].scale * inverse(d), 0, kMostScale));
      offset[p] = static_cast<uint8_t>(clamped(fit[p].offset * inverse(dmin), 0, kMostScale));
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
    for (int i = 0; i < kValues; ++i) {
      const int p = i / kSize;
      const float step = d * static_cast<float>(scale[p]), low = dmin * static_cast<float>(offset[p]);
      q[i] = static_cast<uint8_t>(clamped((in_.v[i] + low) * inverse(step), 0, kMost));
    }
  }

 private:
  AffineBlock(const AffineBlock&) = default;

  void copy_choice(const AffineBlock& other) {
    d = other.d, dmin = other.dmin;
    std::copy(other.scale, other.scale + kParts, scale);
    std::copy(other.offset, other.offset + kParts, offset);
  }

  static float rounded(float x) { return half_to_float(float_to_half(x)); }

  double error(int p, int s, int o) const {
    const float *v = in_.v + p * kSize, *w = in_.w + p * kSize;
    const float step = d * static_cast<float>(s), low = dmin * static_cast<float>(o), to_q = inverse(step);
    Lanes sum{};
    for (int i = 0; i < kSize; i += 4) {
      const Lanes at = load_lanes(v + i) + low, off = at - step * clamped(at * to_q, 0, kMost);
      sum += load_lanes(w + i) * off * off;
    }
    return total(sum);
  }

  /// Moves each sub-block to its best neighbour; the error of all.
  double improve_parts() {
    double total = 0;
    for (int p = 0; p < kParts; ++p) {
      const int s0 = scale[p], o0 = offset[p];
      double best = std::numeric_limits<double>::infinity();
      for (int s = std::max(s0 - 1, 0); s <= std::min(s0 + 1, kMostScale); ++s)
        for (int o = std::max(o0 - 1, 0); o <= std::min(o0 + 1, kMostScale); ++o)
          if (const double here = error(p, s, o); here < best) {
            best = here;
            scale[p] = static_cast<uint8_t>(s), offset[p] = static_cast<uint8_t>(o);
          }
      total += best;
    }
    return total;
  }

  /// Least squares in d and dmin for the integers as they are: v = d a - dmin b with a = scale q, b = offset.
  void fit_halves() {
    double aa = 0, ab = 0, bb = 0, av = 0, bv = 0;
    for (int p = 0; p < kParts; ++p) {
      const float step = d * static_cast<float>(scale[p]), low = dmin * static_cast<float>(offset[p]), to_q = inverse(step);
      Lanes q_{}, qq_{}, qv_{}, w_{}, wv_{};
      for (int i = p * kSize; i < (p + 1) * kSize; i += 4) {
        const Lanes w = load_lanes(in_.w + i), v = load_lanes(in_.v + i), q = clamped((v + low) * to_q, 0, kMost), wq = w * q;
        q_ += wq, qq_ += wq * q, qv_ += wq * v, w_ += w, wv_ += w * v;
      }
      const double s = scale[p], b = offset[p];
      aa += s * s * total(qq_), ab += s * b * total(q_), bb += b * b * total(w_), av += s * total(qv_), bv += b * total(wv_);
    }
    const double determinant = aa * bb - ab * ab;
    double fresh_d = aa > 0 ? av / aa : d, fresh_min = dmin;
    if (determinant > 1e-9 * aa * bb) {
      fresh_d = (av * bb - bv * ab) / determinant;
      fresh_min = (av * ab - bv * aa) / determinant;
    }
    if (fresh_d > 0) d = rounded(static_cast<float>(fresh_d));
    if (fresh_min >= 0) dmin = rounded(static_cast<float>(fresh_min));
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
    d = rounded(extreme / kLowScale);
    for (int p = 0; p < kParts; ++p) scale[p] = static_cast<int8_t>(clamped(fit[p] * inverse(d), kLowScale, -kLowScale - 1));
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
    for (int i = 0; i < kValues; ++i)
      q[i] = static_cast<int8_t>(clamped(in_.v[i] * inverse(d * static_cast<float>(scale[i / kSize])), kLow, -kLow - 1));
  }

 private:
  SymmetricBlock(const SymmetricBlock&) = default;

  static float rounded(float x) { return half_to_float(float_to_half(x)); }

  double error(int p, int s) const {
    const float *v = in_.v + p * kSize, *w = in_.w + p * kSize;
    const float step = d * static_cast<float>(s), to_q = inverse(step);
    Lanes sum{};
    for (int i = 0; i < kSize; i += 4) {
      const Lanes x = load_lanes(v + i), off = x - step * clamped(x * to_q, kLow, -kLow - 1);
      sum += load_lanes(w + i) * off * off;
    }
    return total(sum);
  }

  double improve_parts() {
    double total = 0;
    for (int p = 0; p < kParts; ++p) {
      const int s0 = scale[p];
      double best = std::numeric_limits<double>::infinity();
      for (int s = std::max(s0 - 2, kLowScale); s <= std::min(s0 + 2, -kLowScale - 1); ++s)
        if (const double here = error(p, s); here < best) {
          best = here;
          scale[p] = static_cast<int8_t>(s);
        }
      total += best;
    }
    return total;
  }

  void fit_half() {
    double aa = 0, av = 0;
    for (int p = 0; p < kParts; ++p) {
      const float to_q = inverse(d * static_cast<float>(scale[p]));
      Lanes qq_{}, qv_{};
      for (int i = p * kSize; i < (p + 1) * kSize; i += 4) {
        const Lanes v = load_lanes(in_.v + i), q = clamped(v * to_q, kLow, -kLow - 1), wq = load_lanes(in_.w + i) * q;
        qq_ += wq * q, qv_ += wq * v;
      }
      const double s = scale[p];
      aa += s * s * total(qq_), av += s * total(qv_);
    }
    if (aa > 0 && av != 0) d = rounded(static_cast<float>(av / aa));
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

}  // namespace

void write_q2_k(const float* v, const float* importance, uint8_t* block) {
  const Input input(v, importance);
  const AffineBlock<16, 3, 15> chosen(input);
  for (int p = 0; p < 16; ++p) block[p] = static_cast<uint8_t>(chosen.scale[p] | chosen.offset[p] << 4);
  pack_pairs(block + 16, [&](int i) { return chosen.q[i]; });
  store_half(block + 80, chosen.d);
  store_half(block + 82, chosen.dmin);
}

void write_q3_k(const float* v, const float* importance, uint8_t* block) {
  const Input input(v, importance);
  const SymmetricBlock<-4, -32> chosen(input);
  std::fill(block, block + 32, uint8_t{0});
  for (int i = 0; i < kValues; ++i)
    block[i % 32] = static_cast<uint8_t>(block[i % 32] | ((chosen.q[i] + 4) >> 2) << (i / 32));
  pack_pairs(block + 32, [&](int i) { return (chosen.q[i] + 4) & 3; });
  pack_signed_scales(chosen.scale, block + 96);
  store_half(block + 108, chosen.d);
}

void write_q4_k(const float* v, const float* importance, uint8_t* block) {
  const Input input(v, importance);
  const AffineBlock<8, 15, 63> chosen(input);
  store_head(chosen, block);
  pack_nibbles(block + 16, chosen.q);
}

void write_q5_k(const float* v, const float* importance, uint8_t* block) {
  const Input input(v, importance);
  const AffineBlock<8, 31, 63> chosen(input);
  store_head(chosen, block);
  std::fill(block + 16, block + 48, uint8_t{0});
  for (int i = 0; i < kValues; ++i)
    block[16 + i % 32] = static_cast<uint8_t>(block[16 + i % 32] | (chosen.q[i] >> 4) << (i / 32));
  pack_nibbles(block + 48, chosen.q);
}

void write_q6_k(const float* v, const float* importance, uint8_t* block) {
  const Input input(v, importance);
  const SymmetricBlock<-32, -128> chosen(input);
  std::fill(block, block + 192, uint8_t{0});
  for (int i = 0; i < kValues; ++i) {
    const int group = i / 32, l = i % 32, q = chosen.q[i] + 32;
    uint8_t &low = block[64 * (group / 4) + 32 * (group % 2) + l], &high = block[128 + 32 * (group / 4) + l];
    low = static_cast<uint8_t>(low | (q & 15) << (4 * (group / 2 % 2)));
    high = static_cast<uint8_t>(high | (q >> 4) << (2 * (group % 4)));
  }
  std::memcpy(block + 192, chosen.scale, 16);
  store_half(block + 208, chosen.d);
}

}  // namespace switchyard::codecs
