// AdamW over a model's parameters: which of them decay and how fast they move, clipping, moments.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "switchyard/contract/parameters.h"
#include "switchyard/formats/safetensors.h"
#include "switchyard/train/train_options.h"

namespace switchyard {

/// What a role's parameters are given: norms and biases (and anything with one dimension) do not decay, routers have
/// settings of their own.
struct ParameterGroup {
  double rate = 1;          ///< multiplies the learning rate
  double weight_decay = 0;
};
ParameterGroup group_of(const ParamSpec& spec, const OptimiserOptions& options);

class Optimiser {
 public:
  /// Moments begin at zero for every bound parameter that requires a gradient; buffers have none.
  Optimiser(const Schema& schema, const OptimiserOptions& options);

  const std::vector<Parameter>& parameters() const { return parameters_; }
  /// Forgets all gradients.
  void zero_gradients();
  /// Euclidean norm over all gradients, in float64 and a fixed order.
  double gradient_norm() const;
  /// The name of the first parameter whose gradient has a value that is not finite; empty when there is none.
  std::string first_not_finite() const;
  /// One step at `share` of the peak rate; gradients are scaled so that `norm` (of this step's gradient) is at most clip.
  void step(double share, double norm);
  int64_t steps() const { return steps_; }

  /// "m.NAME" and "v.NAME" for every parameter.
  NamedTensors state() const;
  /// Throws train.state naming the tensor that is missing or has another shape.
  void load(const Safetensors& file, int64_t steps);

 private:
  OptimiserOptions options_;
  std::vector<Parameter> parameters_;
  std::vector<ParameterGroup> groups_;
  std::vector<at::Tensor> m_, v_;
  int64_t steps_ = 0;
};

}  // namespace switchyard
