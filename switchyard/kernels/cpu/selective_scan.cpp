#include "switchyard/kernels/selective_scan.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "switchyard/kernels/cpu/exp.h"
#include "switchyard/kernels/cpu/parallel.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels {
namespace {

/// Channels of a task: their decays and states stay in the nearest cache.
constexpr int64_t kChannels = 64;

struct Rows {
  const float *u, *step, *in, *out;
  float* y;
  int64_t length, channels, states;
};

/// `count` channels from `first`, row by row. decay, held: [n, kChannels].
void scan(const Rows& rows, int64_t first, int64_t count, const float* decay, float* held) {
  cpu::at_level([&] {
    for (int64_t t = 0; t < rows.length; ++t) {
      const float* u = rows.u + t * rows.channels + first;
      const float* step = rows.step + t * rows.channels + first;
      const float *in = rows.in + t * rows.states, *out = rows.out + t * rows.states;
      float* y = rows.y + t * rows.channels + first;
      float scaled[kChannels], sum[kChannels];
      for (int64_t c = 0; c < count; ++c) {
        scaled[c] = step[c] * u[c];
        sum[c] = 0;
      }
      for (int64_t n = 0; n < rows.states; ++n) {
        const float *a = decay + n * kChannels, b = in[n], r = out[n];
        float* h = held + n * kChannels;
#pragma GCC ivdep
        for (int64_t c = 0; c < count; ++c) {
          h[c] = cpu::exp_fast(step[c] * a[c]) * h[c] + scaled[c] * b;
          sum[c] += h[c] * r;
        }
      }
      for (int64_t c = 0; c < count; ++c) y[c] = sum[c];
    }
  });
}

}  // namespace

bool can_scan(std::initializer_list<at::Tensor> operands) {
  for (const at::Tensor& t : operands)
    if (!t.device().is_cpu() || t.scalar_type() != at::kFloat || (at::GradMode::is_enabled() && t.requires_grad())) return false;
  return true;
}

at::Tensor selective_scan(const at::Tensor& u, const at::Tensor& step, const at::Tensor& a, const at::Tensor& in, const at::Tensor& out,
                          at::Tensor& state) {
  const at::Tensor rows = u.contiguous(), steps = step.contiguous(), decays = a.contiguous(), ins = in.contiguous(), outs = out.contiguous();
  const int64_t batch = rows.size(0), length = rows.size(1), channels = rows.size(2), states = decays.size(1);
  at::Tensor y = at::empty(rows.sizes(), rows.options());
  const int64_t pieces = (channels + kChannels - 1) / kChannels;
  const float* decay = decays.const_data_ptr<float>();
  float* kept = state.mutable_data_ptr<float>();
  cpu::parallel_tasks(batch * pieces, batch * length * channels * states * 8, [&](int64_t task) {
    const int64_t b = task / pieces, first = task % pieces * kChannels, count = std::min(kChannels, channels - first);
    cpu::Scratch<cpu::For::task> scratch(2 * cpu::bytes_of<float>(states * kChannels));
    float *by_state = scratch.take<float>(states * kChannels), *held = scratch.take<float>(states * kChannels);
    float* own = kept + (b * channels + first) * states;
    for (int64_t c = 0; c < count; ++c)
      for (int64_t n = 0; n < states; ++n) {
        by_state[n * kChannels + c] = decay[(first + c) * states + n];
        held[n * kChannels + c] = own[c * states + n];
      }
    const int64_t at = b * length;
    scan({rows.const_data_ptr<float>() + at * channels, steps.const_data_ptr<float>() + at * channels, ins.const_data_ptr<float>() + at * states,
          outs.const_data_ptr<float>() + at * states, y.mutable_data_ptr<float>() + at * channels, length, channels, states},
         first, count, by_state, held);
    for (int64_t c = 0; c < count; ++c)
      for (int64_t n = 0; n < states; ++n) own[c * states + n] = held[n * kChannels + c];
  });
  return y;
}

}  // namespace switchyard::kernels
