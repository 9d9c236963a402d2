#include "switchyard/train/cross_entropy.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "switchyard/base/error.h"

namespace switchyard {
namespace {

/// [n]: -log p(target) of logits [n, V], 0 where the target is -1.
at::Tensor row_losses(const at::Tensor& logits, const at::Tensor& targets) {
  const at::Tensor log_p = at::log_softmax(logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat), 1);
  const at::Tensor picked = -log_p.gather(1, targets.clamp_min(0).unsqueeze(1)).squeeze(1);
  return picked.masked_fill(targets < 0, 0);
}

/// What the chunks need besides tensors.
struct Job {
  const Decoder& model;
  const at::Tensor& targets;
  const Context& context;
  int64_t chunk;
  at::Tensor per_row;  ///< out
};

class ChunkedCrossEntropy : public torch::autograd::Function<ChunkedCrossEntropy> {
 public:
  /// parameters: every leaf that the head may use.
  static at::Tensor forward(torch::autograd::AutogradContext* saved, const at::Tensor& hidden,
                            at::TensorList parameters, Job* job) {
    const int64_t rows = hidden.size(0);
    at::Tensor sum = at::zeros({}, hidden.options().dtype(job->per_row.scalar_type()));
    at::Tensor d_hidden = at::empty_like(hidden);
    std::vector<at::Tensor> d_parameters(parameters.size());
    for (int64_t begin = 0; begin < rows; begin += job->chunk) {
      const int64_t n = std::min(job->chunk, rows - begin);
      const at::AutoGradMode with_gradient(true);
      const at::Tensor part = hidden.narrow(0, begin, n).detach().requires_grad_();
      const at::Tensor losses = row_losses(job->model.logits(part, job->context), job->targets.narrow(0, begin, n));
      const at::Tensor loss = losses.sum();
      std::vector<at::Tensor> wanted{part};
      wanted.insert(wanted.end(), parameters.begin(), parameters.end());
      const std::vector<at::Tensor> found =
          torch::autograd::grad({loss}, wanted, {}, /*retain_graph=*/false, /*create_graph=*/false, /*allow_unused=*/true);
      const at::AutoGradMode without(false);
      job->per_row.narrow(0, begin, n).copy_(losses.detach());
      sum.add_(loss.detach());
      d_hidden.narrow(0, begin, n).copy_(found[0]);
      for (size_t i = 0; i < parameters.size(); ++i) {
        const at::Tensor& more = found[i + 1];
        if (!more.defined()) continue;
        if (d_parameters[i].defined()) d_parameters[i].add_(more);
        else d_parameters[i] = more;
      }
    }
    std::vector<at::Tensor> gradients{d_hidden};
    gradients.insert(gradients.end(), d_parameters.begin(), d_parameters.end());
    saved->save_for_backward(std::move(gradients));
    return sum;
  }

  static std::vector<at::Tensor> backward(torch::autograd::AutogradContext* saved, std::vector<at::Tensor> grad) {
    check(!at::GradMode::is_enabled(), "train.second_order",
          "the chunked cross-entropy keeps first derivatives only; take logits and log_softmax where you need second ones");
    std::vector<at::Tensor> result = saved->get_saved_variables();
    for (at::Tensor& one : result)
      if (one.defined()) one = one * grad[0].to(one.scalar_type());
    result.emplace_back();  // the job
    return result;
  }
};

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
          row_losses(model.logits(hidden.narrow(0, begin, n), context), targets.narrow(0, begin, n)));
    }
    return {job.per_row.sum(), job.per_row};
  }
  std::vector<at::Tensor> parameters;
  for (const Parameter& parameter : model.schema().all())
    if (parameter.bound() && parameter.tensor().requires_grad()) parameters.push_back(parameter.tensor());
  at::Tensor sum = ChunkedCrossEntropy::apply(hidden, at::TensorList(parameters), &job);
  return {std::move(sum), std::move(job.per_row)};
}

}  // namespace switchyard
