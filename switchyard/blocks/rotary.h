// Rotary position embedding (Su et al. 2024; survey 4.2.3): queries and keys turn by an angle that grows with
// their position, so that their product depends on the distance alone. Half-split layout: coordinate i pairs
// with i + n/2 (Llama, Mixtral, Qwen).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "switchyard/base/options.h"

namespace switchyard {

/// How frequencies f change so that a model reads further than it was trained.
struct RotaryScaling {
  enum class Kind {
    none,
    linear,  ///< f / factor (Chen et al. 2023)
    llama3,  ///< f / factor for waves longer than original / low, f for those shorter than original / high, between them
             ///< a blend that is linear in original / wavelength (Llama 3.1)
  };
  Kind kind = Kind::none;
  double factor = 1, low = 1, high = 4;
  int64_t original = 8192;  ///< the context of the training, in tokens
  static void describe(Fields<RotaryScaling>& f);
};

struct RotaryOptions {
  double theta = 10000;    ///< angle of pair i at position p: p · theta^(−2i/n)
  double fraction = 1;     ///< share of the head's coordinates that turn, the first ones
  RotaryScaling scaling;
};

class Rotary {
 public:
  /// n = fraction · head_dim coordinates turn; throws blocks.rotary when n is odd.
  Rotary(RotaryOptions options, int64_t head_dim);

  /// The angles of a pass: positions [T] int64 → cosines and sines [T, n/2] float32 (float64 for `wide`).
  struct Angles { at::Tensor cosine, sine; };
  Angles angles(const at::Tensor& positions, bool wide) const;
  /// x: [T, H, head_dim]; returns the same shape and type, computed in the angles' type.
  at::Tensor turn(const at::Tensor& x, const Angles& angles) const;

 private:
  RotaryOptions options_;
  int64_t head_dim_, turning_;
};

}  // namespace switchyard
