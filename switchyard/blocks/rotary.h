// Rotary position embedding (Su et al. 2024; survey 4.2.3): queries and keys turn by an angle that grows with
// their position, so that their product depends on the distance alone. Half-split layout: coordinate i pairs
// with i + n/2 (Llama, Mixtral, Qwen).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace switchyard {

struct RotaryOptions {
  double theta = 10000;    ///< angle of pair i at position p: p · theta^(−2i/n)
  double fraction = 1;     ///< share of the head's coordinates that turn, the first ones
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
