// The activation between two products, where a product does not apply it itself: forward, and backward with all that a pair's
// gradient needs from one reading of its rows.
#include "switchyard/kernels/cuda/activation.h"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kActivationThreads = 256;

template <typename T>
__device__ float bias_of(const void* bias, int64_t index) {
  return bias ? to_float(static_cast<const T*>(bias)[index]) : 0.0f;
}

/// One block a position.
template <typename T>
__global__ void __launch_bounds__(kActivationThreads) activate_rows(ActivateArguments a) {
  const int64_t position = blockIdx.x, bias_row = owner(a.offset, a.experts, position) * a.width, row = position * a.width;
  T *gates = static_cast<T*>(a.gate), *ups = static_cast<T*>(a.up), *h = static_cast<T*>(a.h);
  for (int64_t f = threadIdx.x; f < a.width; f += kActivationThreads) {
    const float up = to_float(ups[row + f]) + bias_of<T>(a.bias, bias_row + f);
    if (a.keep) ups[row + f] = from_float<T>(up);
    float value;
    if (gates) {
      const float gate = to_float(gates[row + f]) + bias_of<T>(a.gate_bias, bias_row + f);
      if (a.keep) gates[row + f] = from_float<T>(gate);
      value = activate(a.activation, gate, up);
    } else {
      value = activate(a.activation, up);
    }
    h[row + f] = from_float<T>(value);
  }
}

template <typename T>
__global__ void __launch_bounds__(kActivationThreads) activate_rows_backward(ActivateBackwardArguments a) {
  const int64_t position = blockIdx.x, row = position * a.width;
  const float weight = a.weight ? a.weight[position] : 1.0f;
  const T *gates = static_cast<const T*>(a.gate), *ups = static_cast<const T*>(a.up), *dhs = static_cast<const T*>(a.dh);
  T *dgate = static_cast<T*>(a.dgate), *dup = static_cast<T*>(a.dup), *h = static_cast<T*>(a.h);
  float product = 0;
  for (int64_t f = threadIdx.x; f < a.width; f += kActivationThreads) {
    const float up = to_float(ups[row + f]), dh = to_float(dhs[row + f]);
    float value;
    if (gates) {
      const float gate = to_float(gates[row + f]);
      const Slopes slopes = activation_slopes(a.activation, gate, up);
      value = activate(a.activation, gate, up);
      dgate[row + f] = from_float<T>(weight * dh * slopes.gate);
      dup[row + f] = from_float<T>(weight * dh * slopes.up);
    } else {
      value = activate(a.activation, up);
      dup[row + f] = from_float<T>(weight * dh * curve_slope(a.activation.curve, up));
    }
    h[row + f] = from_float<T>(weight * value);
    product += value * dh;
  }
  if (!a.dweight) return;
  if (a.down_bias) {
    const T* bias = static_cast<const T*>(a.down_bias) + owner(a.offset, a.experts, position) * a.out;
    const T* dy = static_cast<const T*>(a.dy) + (a.row ? a.row[position] : position) * a.out;
    for (int64_t o = threadIdx.x; o < a.out; o += kActivationThreads) product += to_float(bias[o]) * to_float(dy[o]);
  }
  product = block_sum<kActivationThreads>(product);
  if (threadIdx.x == 0) a.dweight[position] = product;
}

void activate_forward(const ActivateArguments& a, Stream stream) {
  const auto kernel = a.number == Number::float32 ? activate_rows<float> : activate_rows<Bf16>;
  launch("activate", kernel, a.positions, 1, kActivationThreads, stream, a);
}

void activate_backward(const ActivateBackwardArguments& a, Stream stream) {
  const auto kernel = a.number == Number::float32 ? activate_rows_backward<float> : activate_rows_backward<Bf16>;
  launch("activate_backward", kernel, a.positions, 1, kActivationThreads, stream, a);
}

}  // namespace

void SWITCHYARD_CUDA_FILL(activation)(Launchers& table) {
  table.activate = activate_forward;
  table.activate_backward = activate_backward;
}

}  // namespace switchyard::kernels::cuda
