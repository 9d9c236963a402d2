#include "switchyard/train/cross_entropy.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "switchyard/base/differentiable.h"
#include "switchyard/base/error.h"
#include "switchyard/train/token_losses.h"

namespace switchyard {
namespace {

/// What the chunks need besides tensors.
struct Job {
  const Decoder& model;
  const at::Tensor& targets;
  const Context& context;
  int64_t chunk;
  at::Tensor per_row;  ///< out
};

/// The summed loss, its gradients taken chunk by chunk at once, so that no more than one chunk's logits ever exist.
/// parameters: every leaf that the head may use.
Computed chunked_loss(const at::Tensor& hidden, const std::vector<at::Tensor>& parameters, Job& job) {
  const int64_t rows = hidden.size(0);
  at::Tensor sum = at::zeros({}, hidden.options().dtype(job.per_row.scalar_type()));
  std::vector<at::Tensor> found(1 + parameters.size());
  found[0] = at::empty_like(hidden);
  for (int64_t begin = 0; begin < rows; begin += job.chunk) {
    const int64_t n = std::min(job.chunk, rows - begin);
    const at::AutoGradMode with_gradient(true);
    const at::Tensor part = hidden.narrow(0, begin, n).detach().requires_grad_();
    const at::Tensor losses = token_losses(job.model.logits(part, job.context), job.targets.narrow(0, begin, n));
    const at::Tensor loss = losses.sum();
    std::vector<at::Tensor> wanted{part};
    wanted.insert(wanted.end(), parameters.begin(), parameters.end());
    const std::vector<at::Tensor> more = gradients({loss}, wanted);
    const at::AutoGradMode without(false);
    job.per_row.narrow(0, begin, n).copy_(losses.detach());
    sum.add_(loss.detach());
    found[0].narrow(0, begin, n).copy_(more[0]);
    for (size_t i = 1; i < more.size(); ++i) {
      if (!more[i].defined()) continue;
      if (found[i].defined()) found[i].add_(more[i]);
      else found[i] = more[i];
    }
  }
  return {{sum}, std::move(found), [](std::vector<at::Tensor> result, const std::vector<at::Tensor>& grads) {
            check(!at::GradMode::is_enabled(), "train.second_order",
                  "the chunked cross-entropy keeps first derivatives only; take logits and log_softmax where you need second ones");
            for (at::Tensor& one : result)
              if (one.defined()) one = one * grads[0].to(one.scalar_type());
            return result;
          }};
}

}  // namespace

CrossEntropy cross_entropy(const Decoder& model, const at::Tensor& hidden, const at::Tensor& targets, const Context& context,
                           int64_t chunk) {
  const int64_t rows = hidden.size(0);
  check(targets.dim() == 1 && targets.size(0) == rows, "train.targets", "{} rows have {} targets", rows, targets.numel());
  if (rows > 0)
    if (const int64_t largest = targets.max().item<int64_t>(); largest >= model.options().vocabulary)
      fail("train.targets", "a target is token {}, but the model's vocabulary has {}", largest, model.options().vocabulary);
  const auto type = hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  Job job{model, targets, context, chunk, at::zeros({rows}, hidden.options().dtype(type).requires_grad(false))};

  if (!at::GradMode::is_enabled()) {
    for (int64_t begin = 0; begin < rows; begin += chunk) {
      const int64_t n = std::min(chunk, rows - begin);
      job.per_row.narrow(0, begin, n).copy_(
          token_losses(model.logits(hidden.narrow(0, begin, n), context), targets.narrow(0, begin, n)));
    }
    return {job.per_row.sum(), job.per_row};
  }
  std::vector<at::Tensor> parameters;
  for (const Parameter& parameter : model.schema().all())
    if (parameter.bound() && parameter.tensor().requires_grad()) parameters.push_back(parameter.tensor());
  std::vector<at::Tensor> inputs{hidden};
  inputs.insert(inputs.end(), parameters.begin(), parameters.end());
  at::Tensor sum = differentiable(inputs, [&] { return chunked_loss(hidden, parameters, job); })[0];
  return {std::move(sum), std::move(job.per_row)};
}

}  // namespace switchyard
