// AdamW in one pass, and sums of squares by blocks of 4096 numbers in a fixed order (optimiser.h).
#include "switchyard/kernels/cuda/device.h"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kStepThreads = 256;

__device__ double to_double(double x) { return x; }
__device__ double to_double(float x) { return x; }
__device__ double to_double(Bf16 x) { return to_float(x); }

/// Element i of numbers of any type.
__device__ double number_at(const void* data, Number number, int64_t i) {
  switch (number) {
    case Number::float32: return static_cast<const float*>(data)[i];
    case Number::bfloat16: return to_float(static_cast<const Bf16*>(data)[i]);
    default: return static_cast<const double*>(data)[i];
  }
}

__device__ void store(float& to, float x) { to = x; }
__device__ void store(double& to, double x) { to = x; }
__device__ void store(Bf16& to, float x) { to = from_float<Bf16>(x); }

/// P: the parameter's type; S: that of the moments and of the arithmetic.
template <typename P, typename S>
__global__ void __launch_bounds__(kStepThreads) adamw(AdamWArguments a) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kStepThreads + threadIdx.x;
  if (i >= a.count) return;
  P* param = static_cast<P*>(a.param);
  S *m = static_cast<S*>(a.m), *v = static_cast<S*>(a.v);
  const S beta1 = static_cast<S>(a.beta1), beta2 = static_cast<S>(a.beta2);
  const S rest1 = static_cast<S>(1 - a.beta1), rest2 = static_cast<S>(1 - a.beta2);
  const S gradient = a.gradient ? static_cast<S>(number_at(a.gradient, a.gradient_number, i)) * static_cast<S>(a.grad_scale) : S(0);
  const S mean = beta1 * m[i] + rest1 * gradient, square = beta2 * v[i] + rest2 * gradient * gradient;
  m[i] = mean;
  v[i] = square;
  const S old = static_cast<S>(to_double(param[i]));
  store(param[i], old * static_cast<S>(a.keep) -
                      static_cast<S>(a.rate) * mean / (sqrt(square) * static_cast<S>(a.root_scale) + static_cast<S>(a.eps)));
}

template <typename P>
__global__ void __launch_bounds__(kStepThreads) sum_squares(SquaresArguments a) {
  const P* x = static_cast<const P*>(a.x);
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kSquaresBlock;
  const int64_t end = begin + kSquaresBlock < a.count ? begin + kSquaresBlock : a.count;
  double sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kStepThreads) {
    const double value = to_double(x[i]);
    sum += value * value;
  }
  sum = block_sum<kStepThreads>(sum);
  if (threadIdx.x == 0) a.sums[blockIdx.x] = sum;
}

void step(const AdamWArguments& a, Stream stream) {
  const auto kernel = a.number == Number::float64    ? adamw<double, double>
                      : a.number == Number::float32 ? adamw<float, float>
                                                    : adamw<Bf16, float>;
  launch("adamw_step", kernel, ceil_div(a.count, kStepThreads), 1, kStepThreads, stream, a);
}

void squares(const SquaresArguments& a, Stream stream) {
  const auto kernel = a.number == Number::float64    ? sum_squares<double>
                      : a.number == Number::float32 ? sum_squares<float>
                                                    : sum_squares<Bf16>;
  launch("sum_of_squares", kernel, ceil_div(a.count, kSquaresBlock), 1, kStepThreads, stream, a);
}

}  // namespace

void SWITCHYARD_CUDA_FILL(optimiser)(Launchers& table) {
  table.adamw = step;
  table.squares = squares;
}

}  // namespace switchyard::kernels::cuda
