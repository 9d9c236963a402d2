// Few rows: each row of a matrix is read once and meets all rows of its expert, one warp a row of the matrix (or one row of gate
// and one of up). Only the experts that were chosen are read. This is what decoding is bound by.
#include "switchyard/kernels/cuda/activation.h"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kFewWarps = 8;

/// Blocks: rows of the matrix, by positions. The block of the first of up to kFewRows positions of an expert works for them all.
template <typename T, bool gated>
__global__ void __launch_bounds__(kFewWarps* kWarp) map_few_rows(MapArguments m) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t first = blockIdx.y, expert = owner(m.offset, m.experts, first);
  if ((first - m.offset[expert]) % kFewRows != 0) return;
  const int64_t left = m.offset[expert + 1] - first;
  const int rows = static_cast<int>(left < kFewRows ? left : kFewRows);
  const int64_t warp = static_cast<int64_t>(blockIdx.x) * kFewWarps + threadIdx.x / kWarp;
  // Two rows of weights: f of gate and of up, or f and f + 1.
  const int64_t f = gated ? warp : 2 * warp;
  if (f >= m.out) return;
  const int parts = gated ? 1 : m.parts;
  const bool both = gated || f + 1 < m.out;

  float sums[kFewRows][2];
#pragma unroll
  for (int r = 0; r < kFewRows; ++r) sums[r][0] = sums[r][1] = 0;
  for (int p = 0; p < parts; ++p) {
    const T* x = static_cast<const T*>(m.part[p].x);
    const Matrices &one = m.part[p].stack, &other = gated ? m.part[1].stack : one;
    const int64_t one_row = (expert * m.out + f) * m.in, other_row = gated ? one_row : one_row + m.in;
    for (int64_t k = lane * Vector<T>::kCount; k < m.in; k += kWarp * Vector<T>::kCount) {
      const Vector<T> a = load_vector<T>(one.data, one_row + k, m.in - k, one.wide);
      const Vector<T> b = load_vector<T>(other.data, other_row + k, both ? m.in - k : 0, other.wide);
#pragma unroll
      for (int r = 0; r < kFewRows; ++r) {
        if (r >= rows) continue;
        const int64_t source = m.row ? m.row[first + r] : first + r;
        const Vector<T> v = load_vector<T>(x, source * m.in + k, m.in - k, false);
#pragma unroll
        for (int i = 0; i < Vector<T>::kCount; ++i) {
          sums[r][0] += to_float(a.value[i]) * to_float(v.value[i]);
          sums[r][1] += to_float(b.value[i]) * to_float(v.value[i]);
        }
      }
    }
  }

  T *y = static_cast<T*>(m.y), *keep = static_cast<T*>(m.keep), *keep_gate = static_cast<T*>(m.keep_gate);
  const auto bias = [&](const void* values, int64_t column) {
    return values ? to_float(static_cast<const T*>(values)[expert * m.out + column]) : 0.0f;
  };
#pragma unroll
  for (int r = 0; r < kFewRows; ++r) {
    if (r >= rows) continue;
    const float s0 = warp_sum(sums[r][0]), s1 = warp_sum(sums[r][1]);
    if (lane != 0) continue;
    const int64_t at = (first + r) * m.out + f;
    if (gated) {
      const float gate = s0 + bias(m.gate_bias, f), up = s1 + bias(m.bias, f);
      if (keep_gate) keep_gate[at] = from_float<T>(gate);
      if (keep) keep[at] = from_float<T>(up);
      if (y) y[at] = from_float<T>(activate(m.activation, gate, up));
    } else {
      for (int i = 0; i < (both ? 2 : 1); ++i) {
        const float up = (i ? s1 : s0) + bias(m.bias, f + i);
        if (keep) keep[at + i] = from_float<T>(up);
        if (y) y[at + i] = from_float<T>(activate(m.activation, up));
      }
    }
  }
}

template <typename T>
void map_few_typed(const MapArguments& m, Stream stream) {
  const int64_t warps = m.gated ? m.out : ceil_div(m.out, 2);
  const auto kernel = m.gated ? map_few_rows<T, true> : map_few_rows<T, false>;
  launch("grouped_map_few", kernel, ceil_div(warps, kFewWarps), m.positions, kFewWarps * kWarp, stream, m);
}

void map_few(const MapArguments& m, Stream stream) {
  if (m.number == Number::float32) map_few_typed<float>(m, stream);
  else map_few_typed<Bf16>(m, stream);
}

}  // namespace

void SWITCHYARD_CUDA_FILL(few_rows)(Launchers& table) { table.map_few = map_few; }

}  // namespace switchyard::kernels::cuda
