// The exponentials of a softmax over one row of scores. Internal to kernels/.
#pragma once

#include <cstdint>
#include <limits>
#include <utility>

namespace switchyard::kernels::cpu {

/// Scores s [n] are multiplied by `scale`, become cap tanh(s / cap) where cap > 0, and then e^(s - largest): the largest of them and of `floor`.
/// Returns that, and the sum of the exponentials.
std::pair<float, float> exponentials(float* s, int64_t n, double scale, double cap, float floor = -std::numeric_limits<float>::infinity());

}  // namespace switchyard::kernels::cpu
