#include "switchyard/train/optimiser.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "switchyard/base/error.h"
#include "switchyard/kernels/optimiser.h"

namespace switchyard {

ParameterGroup group_of(const ParamSpec& spec, const OptimiserOptions& options) {
  switch (spec.role) {
    case Role::router: return {options.router_lr, options.router_weight_decay};
    case Role::norm:
    case Role::bias: return {1, 0};
    default: return {1, spec.shape.size() > 1 ? options.weight_decay : 0};
  }
}

Optimiser::Optimiser(const Schema& schema, const OptimiserOptions& options) : options_(options) {
  for (const Parameter& parameter : schema.all()) {
    if (parameter.spec().buffer || !parameter.tensor().requires_grad()) continue;
    const at::Tensor& data = parameter.tensor();
    const auto type = data.options().requires_grad(false).dtype(data.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
    parameters_.push_back(parameter);
    groups_.push_back(group_of(parameter.spec(), options));
    m_.push_back(at::zeros(data.sizes(), type));
    v_.push_back(at::zeros(data.sizes(), type));
  }
}

void Optimiser::zero_gradients() {
  for (const Parameter& parameter : parameters_) parameter.tensor().mutable_grad() = at::Tensor();
}

double Optimiser::gradient_norm() const {
  double sum = 0;
  for (const Parameter& parameter : parameters_)
    if (const at::Tensor& grad = parameter.tensor().grad(); grad.defined()) sum += kernels::sum_of_squares(grad);
  return std::sqrt(sum);
}

std::string Optimiser::first_not_finite() const {
  for (const Parameter& parameter : parameters_)
    if (const at::Tensor& grad = parameter.tensor().grad(); grad.defined() && !at::isfinite(grad).all().item<bool>())
      return parameter.name();
  return {};
}

void Optimiser::step(double share, double norm) {
  at::NoGradGuard guard;
  ++steps_;
  const double scale = options_.clip > 0 && norm > options_.clip ? options_.clip / norm : 1;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& data = parameters_[i].tensor();
    kernels::adamw_step(data, data.grad(), m_[i], v_[i],
                        {.lr = options_.lr * share * groups_[i].rate, .beta1 = options_.beta1, .beta2 = options_.beta2,
                         .eps = options_.eps, .weight_decay = groups_[i].weight_decay, .step = steps_, .grad_scale = scale});
  }
}

NamedTensors Optimiser::state() const {
  NamedTensors tensors;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    tensors.emplace_back("m." + parameters_[i].name(), m_[i]);
    tensors.emplace_back("v." + parameters_[i].name(), v_[i]);
  }
  return tensors;
}

void Optimiser::load(const Safetensors& file, int64_t steps) {
  at::NoGradGuard guard;
  const auto fill = [&](const std::string& name, at::Tensor& into) {
    check(file.has(name), "train.state", "the optimiser's state has no {}; the checkpoint is of another model", name);
    const at::Tensor found = file.get(name);
    check(found.sizes() == into.sizes() && found.scalar_type() == into.scalar_type(), "train.state",
          "{} of the optimiser's state has {} elements of {}, the model needs {} of {}", name, found.numel(),
          c10::toString(found.scalar_type()), into.numel(), c10::toString(into.scalar_type()));
    into.copy_(found);
  };
  for (size_t i = 0; i < parameters_.size(); ++i) {
    fill("m." + parameters_[i].name(), m_[i]);
    fill("v." + parameters_[i].name(), v_[i]);
  }
  steps_ = steps;
}

}  // namespace switchyard
