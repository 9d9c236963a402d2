#include "switchyard/blocks/norm.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "switchyard/base/differentiable.h"
#include "switchyard/base/error.h"
#include "switchyard/base/registry.h"
#include "switchyard/kernels/row_math.h"

namespace switchyard {

PartPtr make_norm(Norm kind, int64_t width, double eps) {
  switch (kind) {
    case Norm::rms: break;
    case Norm::rms_centred: return std::make_shared<RmsNorm>(width, eps, /*centred=*/true);
    case Norm::layer: return std::make_shared<LayerNorm>(width, eps);
    case Norm::layer_unbiased: return std::make_shared<LayerNorm>(width, eps, /*biased=*/false);
  }
  return std::make_shared<RmsNorm>(width, eps);
}

at::Tensor unit_rms(const at::Tensor& x, double eps) {
  const bool half = x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf;
  const at::Tensor wide = half ? x.to(at::kFloat) : x;
  return (wide * at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps)).to(x.scalar_type());
}

void RmsNorm::declare(const Schema& schema) {
  weight_ = schema.add("weight", {width_}, Role::norm, centred_ ? Init::zeros() : Init::ones());
}

namespace {

/// Plain ATen: other devices, and second derivatives.
at::Tensor plain_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return unit_rms(x, eps) * weight.to(x.scalar_type());
}

/// Sums over rows go over this many fixed runs, so that they do not depend on the thread count.
constexpr int64_t kRuns = 64;

/// T: the rows' type; A: what sums run in. One pass over each row where ATen's operations take eight.
template <typename T, typename A>
void forward_rows(const T* x, const A* weight, T* y, A* scale, int64_t rows, int64_t width, double eps) {
  at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / width), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) scale[r] = kernels::rms_norm_row(x + r * width, weight, y + r * width, width, eps);
  });
}

/// The weight's gradient a run of rows.
template <typename T, typename A>
void backward_rows(const T* x, const A* weight, const A* scale, const T* grad, T* grad_x, A* grad_weight_runs, int64_t rows,
                   int64_t width) {
  const int64_t run = (rows + kRuns - 1) / kRuns;
  at::parallel_for(0, kRuns, 1, [&](int64_t first, int64_t last) {
    for (int64_t r = first * run; r < std::min(rows, last * run); ++r)
      kernels::rms_norm_row_gradient(x + r * width, weight, scale[r], grad + r * width, grad_x + r * width, grad_weight_runs + r / run * width, width);
  });
}

/// Calls run(T{}, A{}) with the types of rows like x.
template <typename Run>
void with_types(const at::Tensor& x, const Run& run) {
  if (x.scalar_type() == at::kDouble) run(double{}, double{});
  else if (x.scalar_type() == at::kFloat) run(float{}, float{});
  else run(at::BFloat16{}, float{});
}

/// saved: x, weight, the scale of each row.
std::vector<at::Tensor> row_gradients(const std::vector<at::Tensor>& saved, const at::Tensor& given, double eps) {
  const at::Tensor &x = saved[0], &weight = saved[1], &scale = saved[2];
  if (at::GradMode::is_enabled())  // a second derivative is wanted
    return gradients({plain_rms_norm(x, weight, eps)}, {x, weight}, {given}, true, /*create_graph=*/true);
  const int64_t width = weight.size(0), rows = x.numel() / width;
  const at::Tensor grad = given.to(x.scalar_type()).contiguous();
  at::Tensor grad_x = at::empty_like(x), runs = at::zeros({kRuns, width}, weight.options());
  with_types(x, [&]<typename T, typename A>(T, A) {
    backward_rows(x.const_data_ptr<T>(), weight.const_data_ptr<A>(), scale.const_data_ptr<A>(), grad.const_data_ptr<T>(),
                  grad_x.mutable_data_ptr<T>(), runs.mutable_data_ptr<A>(), rows, width);
  });
  return {grad_x, runs.sum(0)};
}

/// x: [..., width] contiguous; weight: [width] of the sums' type.
at::Tensor norm_rows(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return differentiable({x, weight}, [&] {
    const int64_t width = weight.size(0), rows = x.numel() / width;
    at::Tensor y = at::empty_like(x), scale = at::empty({rows}, weight.options());
    with_types(x, [&]<typename T, typename A>(T, A) {
      forward_rows(x.const_data_ptr<T>(), weight.const_data_ptr<A>(), y.mutable_data_ptr<T>(), scale.mutable_data_ptr<A>(), rows,
                   width, eps);
    });
    return Computed{{y}, {x, weight, scale}, [eps](const std::vector<at::Tensor>& saved, const std::vector<at::Tensor>& grads) {
                      return row_gradients(saved, grads[0], eps);
                    }};
  })[0];
}

}  // namespace

at::Tensor RmsNorm::forward(const at::Tensor& x, const Context& context) const {
  at::Tensor weight = context[weight_];
  if (centred_) weight = weight.to(weight.scalar_type() == at::kDouble ? at::kDouble : at::kFloat) + 1;
  check(x.dim() > 0 && x.size(-1) == width_, "blocks.width", "{} norms rows of width {}, not {}", weight_.name(), width_,
        x.dim() > 0 ? x.size(-1) : 0);
  const bool native = x.is_cpu() && weight.is_cpu() &&
                      (x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble || x.scalar_type() == at::kBFloat16);
  if (!native) return plain_rms_norm(x, weight, eps_);
  return norm_rows(x.contiguous(), weight.to(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat), eps_);
}

void LayerNorm::declare(const Schema& schema) {
  weight_ = schema.add("weight", {width_}, Role::norm, Init::ones());
  if (biased_) bias_ = schema.add("bias", {width_}, Role::norm, Init::zeros());
}

at::Tensor LayerNorm::forward(const at::Tensor& x, const Context& context) const {
  return at::layer_norm(x, {width_}, context[weight_], biased_ ? context[bias_] : at::Tensor(), eps_);
}

}  // namespace switchyard

SWITCHYARD_REGISTER(norms) {
  registry.add_card({.slug = "rmsnorm", .name = "RMSNorm", .paper = "Zhang and Sennrich, Root mean square layer normalization",
                     .year = 2019, .section = "4.2.3", .room = "blocks", .coupling = "none",
                     .line = "rows divided by their root mean square: `norm: rms`", .recipe = "recipes/quickstart.yaml"});
}
