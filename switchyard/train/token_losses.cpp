#include "switchyard/train/token_losses.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/log_softmax.h>

#include <algorithm>

#include "switchyard/base/differentiable.h"
#include "switchyard/kernels/row_math.h"

namespace switchyard {
namespace {

/// Plain ATen: other devices and types, and second derivatives.
at::Tensor plain_losses(const at::Tensor& logits, const at::Tensor& targets) {
  const at::Tensor log_p = at::log_softmax(logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat), 1);
  const at::Tensor picked = -log_p.gather(1, targets.clamp_min(0).unsqueeze(1)).squeeze(1);
  return picked.masked_fill(targets < 0, 0);
}

/// Calls run(T{}, A{}) with the types of the logits and of what is computed.
template <typename Run>
void with_types(const at::Tensor& logits, const Run& run) {
  if (logits.scalar_type() == at::kDouble) run(double{}, double{});
  else if (logits.scalar_type() == at::kFloat) run(float{}, float{});
  else run(at::BFloat16{}, float{});
}

template <typename F>
void for_rows(int64_t rows, int64_t width, const F& f) {
  at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / width), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) f(r);
  });
}

/// saved: logits as they were given, contiguous, targets, ln Σ exp of each row.
std::vector<at::Tensor> loss_gradients(const std::vector<at::Tensor>& saved, const at::Tensor& given) {
  const at::Tensor &logits = saved[0], &rows = saved[1], &targets = saved[2], &log_sum = saved[3];
  if (at::GradMode::is_enabled())  // a second derivative is wanted
    return gradients({plain_losses(logits, targets)}, {logits}, {given}, true, /*create_graph=*/true);
  const at::Tensor grad = given.contiguous();
  at::Tensor result = at::empty_like(rows);
  const int64_t width = rows.size(1);
  with_types(rows, [&]<typename T, typename A>(T, A) {
    const T* x = rows.const_data_ptr<T>();
    T* y = result.mutable_data_ptr<T>();
    const int64_t* target = targets.const_data_ptr<int64_t>();
    const A *sums = log_sum.const_data_ptr<A>(), *by = grad.const_data_ptr<A>();
    for_rows(rows.size(0), width, [&](int64_t r) {
      if (target[r] < 0) std::fill_n(y + r * width, width, T(0));
      else kernels::token_loss_row_gradient(x + r * width, sums[r], target[r], by[r], y + r * width, width);
    });
  });
  return {result};
}

}  // namespace

at::Tensor token_losses(const at::Tensor& logits, const at::Tensor& targets) {
  const at::ScalarType type = logits.scalar_type();
  const bool known = type == at::kFloat || type == at::kDouble || type == at::kBFloat16;
  if (!known || !logits.is_cpu() || !targets.is_cpu() || logits.numel() == 0) return plain_losses(logits, targets);
  return differentiable({logits}, [&]() -> Computed {
    const at::Tensor rows = logits.detach().contiguous(), wanted = targets.contiguous();
    const auto wide = rows.options().dtype(type == at::kDouble ? at::kDouble : at::kFloat);
    const int64_t n = rows.size(0), width = rows.size(1);
    at::Tensor losses = at::empty({n}, wide), log_sum = at::empty({n}, wide);
    with_types(rows, [&]<typename T, typename A>(T, A) {
      const T* x = rows.const_data_ptr<T>();
      const int64_t* target = wanted.const_data_ptr<int64_t>();
      A *sums = log_sum.mutable_data_ptr<A>(), *loss = losses.mutable_data_ptr<A>();
      for_rows(n, width, [&](int64_t r) {
        if (target[r] >= 0) sums[r] = kernels::log_sum_exp_row<T, A>(x + r * width, width);
        loss[r] = target[r] < 0 ? A(0) : sums[r] - static_cast<A>(x[r * width + target[r]]);
      });
    });
    return {{losses}, {logits, rows, wanted, log_sum},
            [](const std::vector<at::Tensor>& saved, const std::vector<at::Tensor>& grads) { return loss_gradients(saved, grads[0]); }};
  })[0];
}

}  // namespace switchyard
