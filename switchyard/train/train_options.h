// How a recipe trains: steps, optimiser, schedule, precision, evaluation, checkpoints.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/base/registry.h"

namespace switchyard {

class Controller;
class Objective;
class RoutingLoss;
class Scheme;

enum class ScheduleShape { constant, cosine, linear, wsd };
enum class Precision { float32, bfloat16 };

struct ScheduleOptions {
  ScheduleShape shape = ScheduleShape::cosine;
  int64_t warmup = 100;          ///< steps of linear rise
  double floor = 0.1;            ///< final rate as a share of the peak
  double decay = 0.2;            ///< wsd: the share of steps at the end that decay
  static void describe(Fields<ScheduleOptions>& f);

  /// The share of the peak rate that step `step` (0, 1, ...) of `steps` runs at: (step + 1) / warmup while it rises; the
  /// shape's end is reached at the last step.
  double at(int64_t step, int64_t steps) const;
};

struct OptimiserOptions {
  double lr = 1e-3;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;     ///< not on norms, biases and embeddings of one dimension
  double clip = 1.0;             ///< largest global gradient norm; 0 = none
  double router_lr = 1.0;        ///< multiplies lr for routers
  double router_weight_decay = 0;
  static void describe(Fields<OptimiserOptions>& f);
};

struct TrainOptions {
  Choice<Scheme> scheme = "original-scheme";   ///< owns the step (train/scheme.h)
  Choice<Objective> objective = "next-token";  ///< owns the forwards and the loss (train/objective.h)
  std::vector<Choice<RoutingLoss>> losses;     ///< of every mixture that has none of its own
  std::vector<Choice<Controller>> controllers; ///< likewise
  int64_t steps = 1000;
  int64_t batch = 16;            ///< sequences a step
  int64_t accumulate = 1;        ///< micro-batches a step; the gradient is the same as in one
  bool recompute = false;        ///< drop activations, compute them again in backward
  Precision precision = Precision::float32;
  OptimiserOptions optimiser;
  ScheduleOptions schedule;
  int64_t evaluate_every = 100;
  int64_t evaluate_tokens = 65536;
  int64_t checkpoint_every = 500;
  int64_t keep_last = 2;
  int64_t log_every = 10;
  static void describe(Fields<TrainOptions>& f);
};

}  // namespace switchyard
