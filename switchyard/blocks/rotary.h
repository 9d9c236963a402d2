// Rotary position embedding (Su et al. 2024; survey 4.2.3): queries and keys turn by an angle that grows with
// their position, so that their product depends on the distance alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "switchyard/base/options.h"
#include "switchyard/contract/facts.h"

namespace switchyard {

/// How frequencies f change so that a model reads further than it was trained. n coordinates turn, theta is the base.
struct RotaryScaling {
  enum class Kind {
    none,
    linear,    ///< f / factor (Chen et al. 2023)
    dynamic,   ///< a larger base once a sequence of S tokens is longer than the training's:
               ///< theta (factor S / original - factor + 1)^(n/(n-2)); with alpha, theta alpha^(n/(n-2)) always (Hunyuan)
    llama3,    ///< f / factor for waves longer than original / low, f for those shorter than original / high, between them
               ///< a blend that is linear in original / wavelength (Llama 3.1)
    yarn,      ///< a blend of f / factor and f over the index of a pair, by how often it turns in the training's context
               ///< (Peng et al. 2023); what turns grows by a multiplier
    longrope,  ///< f divided pair by pair by a list, one for sequences within the training's context, one for longer
               ///< ones (Ding et al. 2024); what turns grows by a multiplier
  };
  Kind kind = Kind::none;
  double factor = 1, low = 1, high = 4;
  int64_t original = 8192;              ///< the context of the training, in tokens
  double alpha = 0;                     ///< dynamic; 0 = by the length
  double fast = 32, slow = 1;           ///< yarn: turns in the training's context that bound the blend
  bool truncate = true;                 ///< yarn: the bounds are whole indices
  double mscale = 0, mscale_all = 0;    ///< yarn: of the multiplier's rule; 0 = not given
  double multiplier = 0;                ///< yarn, longrope: of what turns; 0 = by the rule
  std::vector<double> short_factors, long_factors;
  double short_multiplier = 0, long_multiplier = 0;  ///< longrope: in place of multiplier
  static void describe(Fields<RotaryScaling>& f);
};

/// 0.1 · mscale · ln(factor) + 1: how much softmax sharpens in a context `factor` times longer (yarn).
double yarn_multiplier(double factor, double mscale);

/// Which coordinates turn together.
enum class RotaryPairs {
  half,      ///< i with i + n/2 (Llama, Mixtral, Qwen)
  adjacent,  ///< 2i with 2i + 1 (DeepSeek, Llama 4)
};

struct RotaryOptions {
  double theta = 10000;    ///< angle of pair i at position p: p · theta^(−2i/n)
  double fraction = 1;     ///< share of the head's coordinates that turn, the first ones
  RotaryPairs pairs = RotaryPairs::half;
  RotaryScaling scaling;
};

class Rotary {
 public:
  /// n = fraction · head_dim coordinates turn; throws blocks.rotary when n is odd or a scaling does not fit.
  Rotary(RotaryOptions options, int64_t head_dim);

  /// The angles of a pass: positions [T] int64 → cosines and sines [T, n/2] float32 (float64 for `wide`).
  struct Angles { at::Tensor cosine, sine; };
  /// length: of each row's sequence [T] int64, for scalings that depend on it; undefined = within the training's context.
  Angles angles(const at::Tensor& positions, bool wide, const at::Tensor& length = {}) const;
  /// Of the rows of a pass; `who` asks for their positions.
  Angles angles(const Facts& facts, std::string_view who, bool wide) const;
  /// x: [T, H, head_dim]; returns the same shape and type, computed in the angles' type. Adjacent pairs come back with
  /// all first coordinates before all second ones, which changes no product of a query and a key.
  at::Tensor turn(const at::Tensor& x, const Angles& angles) const;

 private:
  bool depends_on_length() const;
  /// Frequencies [n/2] of sequences of `length` tokens, and the multiplier.
  std::pair<at::Tensor, double> frequencies(int64_t length, at::ScalarType type) const;
  RotaryOptions options_;
  std::string key_;  ///< equal for rotaries of equal angles
  int64_t head_dim_, turning_;
  std::vector<std::pair<at::Tensor, double>> fixed_;  ///< frequencies in float32 and float64, where no length changes them
};

}  // namespace switchyard
