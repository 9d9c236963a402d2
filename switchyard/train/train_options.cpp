#include "switchyard/train/train_options.h"

#include <cmath>
#include <numbers>

#include "switchyard/routing/controller.h"
#include "switchyard/routing/loss.h"
#include "switchyard/train/objective.h"
#include "switchyard/train/scheme.h"

namespace switchyard {

double ScheduleOptions::at(int64_t step, int64_t steps) const {
  const int64_t done = step + 1;
  if (done < warmup) return static_cast<double>(done) / static_cast<double>(warmup);
  const auto part = [&](int64_t begin) {
    return steps > begin ? static_cast<double>(done - begin) / static_cast<double>(steps - begin) : 0.0;
  };
  switch (shape) {
    case ScheduleShape::constant: return 1;
    case ScheduleShape::cosine: return floor + (1 - floor) * 0.5 * (1 + std::cos(std::numbers::pi * part(warmup)));
    case ScheduleShape::linear: return 1 - (1 - floor) * part(warmup);
    case ScheduleShape::wsd: {
      const int64_t begin = std::max(warmup, steps - static_cast<int64_t>(std::llround(decay * static_cast<double>(steps))));
      return done <= begin ? 1 : 1 - (1 - floor) * part(begin);
    }
  }
  return 1;
}

void ScheduleOptions::describe(Fields<ScheduleOptions>& f) {
  f.title("Schedule", "The learning rate over the steps: a linear rise, then a shape.");
  f("shape", &ScheduleOptions::shape, "what follows the rise; wsd = level, then a linear fall at the end")
      .choices({"constant", "cosine", "linear", "wsd"});
  f("warmup", &ScheduleOptions::warmup, "linear rise from 0").range(0).unit("steps");
  f("floor", &ScheduleOptions::floor, "rate at the last step as a share of the peak").range(0, 1);
  f("decay", &ScheduleOptions::decay, "wsd: share of the steps, at the end, that fall").range(0, 1);
}

void OptimiserOptions::describe(Fields<OptimiserOptions>& f) {
  f.title("Optimiser", "AdamW with decoupled weight decay (Loshchilov and Hutter, 2019).");
  f("lr", &OptimiserOptions::lr, "peak learning rate").range(0);
  f("beta1", &OptimiserOptions::beta1, "decay of the mean gradient").range(0, 0.999999);
  f("beta2", &OptimiserOptions::beta2, "decay of the mean squared gradient").range(0, 0.999999999);
  f("eps", &OptimiserOptions::eps, "added to the root of the mean squared gradient").range(0);
  f("weight_decay", &OptimiserOptions::weight_decay, "times lr, off every weight but norms, biases and routers").range(0);
  f("clip", &OptimiserOptions::clip, "largest norm of the whole gradient; 0 = no limit").range(0);
  f("router_lr", &OptimiserOptions::router_lr, "multiplies lr for routers").range(0);
  f("router_weight_decay", &OptimiserOptions::router_weight_decay, "weight decay of routers").range(0);
}

void TrainOptions::describe(Fields<TrainOptions>& f) {
  f.title("Training", "Steps, batch, precision, what is written when.");
  f("scheme", &TrainOptions::scheme, "who owns the step");
  f("objective", &TrainOptions::objective, "what is minimised");
  f("losses", &TrainOptions::losses, "routing losses of every mixture that has none of its own; published models have none");
  f("controllers", &TrainOptions::controllers, "controllers of every mixture that has none of its own");
  f("steps", &TrainOptions::steps, "optimiser steps").range(0);
  f("batch", &TrainOptions::batch, "sequences a step").range(1, 1 << 24);
  f("accumulate", &TrainOptions::accumulate,
    "micro-batches a step, which divide the batch; the gradient is that of the whole batch").range(1, 1 << 24);
  f("recompute", &TrainOptions::recompute, "drop the blocks' activations and compute them again in the backward pass");
  f("precision", &TrainOptions::precision, "of products; weights and optimiser stay float32").choices({"float32", "bfloat16"});
  f("optimiser", &TrainOptions::optimiser, "AdamW");
  f("schedule", &TrainOptions::schedule, "the learning rate over the steps");
  f("evaluate_every", &TrainOptions::evaluate_every, "held-out loss, also after the last step; 0 = never").range(0).unit("steps");
  f("evaluate_tokens", &TrainOptions::evaluate_tokens, "at most so many held-out tokens").range(1).unit("tokens");
  f("checkpoint_every", &TrainOptions::checkpoint_every, "also after the last step; 0 = only then").range(0).unit("steps");
  f("keep_last", &TrainOptions::keep_last, "checkpoints kept; 0 = all").range(0);
  f("log_every", &TrainOptions::log_every, "a line of metrics").range(1).unit("steps");
}

}  // namespace switchyard
