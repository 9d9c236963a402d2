#include "switchyard/train/trainer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "switchyard/base/error.h"

namespace switchyard {
namespace {

bool finite(const at::Tensor& t) { return !t.defined() || at::isfinite(t).all().item<bool>(); }

constexpr int64_t kHeldOut = -1;  ///< the step in the key of draws over held-out batches
constexpr const char* kWayOut =
    "Nothing was changed by this step and the last checkpoint stands; resume with a lower train.optimiser.lr, a longer "
    "train.schedule.warmup or a smaller train.optimiser.clip";

}  // namespace

// A cast that was cached without gradient (evaluation, recomputation) would be found again with one.
PrecisionScope::PrecisionScope(Precision precision) : scope_({.enabled = precision == Precision::bfloat16}) {}

namespace {

/// Parts of as many segments each, for rows that are not as many in every segment.
std::vector<Batch> split_segments(const Batch& batch, int64_t count) {
  const Segments& segments = batch.facts.segments;
  std::vector<Batch> parts;
  for (int64_t i = 0; i < count; ++i) {
    const auto first = static_cast<size_t>(i * segments.count() / count), last = static_cast<size_t>((i + 1) * segments.count() / count);
    const auto rows = [&](const Segments& of) { return at::arange(of.begin[first], of.begin[last], at::kLong); };
    const at::Tensor here = rows(segments), source = rows(batch.source_segments);
    Batch one;
    one.ids = batch.ids.index_select(0, here);
    one.targets = batch.targets.index_select(0, here);
    one.facts = batch.facts.take(here);
    one.predicted = one.targets.ge(0).sum().item<int64_t>();
    one.source = batch.source.index_select(0, source);
    one.source_segments = batch.source_segments.take(source);
    parts.push_back(std::move(one));
  }
  return parts;
}

}  // namespace

std::vector<Batch> split(const Batch& batch, int64_t count) {
  if (count == 1) return {batch};
  if (batch.source.defined()) return split_segments(batch, count);
  const int64_t rows = batch.ids.size(0);
  check(rows % count == 0, "train.accumulate", "a batch of {} rows cannot be cut into {} micro-batches", rows, count);
  const int64_t part = rows / count;
  const std::vector<int64_t>& begins = batch.facts.segments.begin;
  std::vector<Batch> parts;
  for (int64_t i = 0; i < count; ++i) {
    check(std::binary_search(begins.begin(), begins.end(), i * part), "train.accumulate",
          "a document's segment crosses row {} of the batch, where micro-batch {} begins", i * part, i);
    Batch one;
    one.ids = batch.ids.narrow(0, i * part, part);
    one.targets = batch.targets.narrow(0, i * part, part);
    one.facts = batch.facts.take(at::arange(i * part, (i + 1) * part, at::kLong));
    one.predicted = one.targets.ge(0).sum().item<int64_t>();
    parts.push_back(std::move(one));
  }
  return parts;
}

Trainer::Trainer(const TrainOptions& options, std::shared_ptr<Decoder> decoder, std::function<Batch(int64_t)> next_batch,
                 uint64_t seed)
    : options_(options), model_(std::move(decoder)), next_batch_(std::move(next_batch)), random_(seed),
      objective_(options.objective.make()), scheme_(options.scheme.make()),
      optimiser_(model_->schema(), options.optimiser) {
  check(model_->options().classes == 0 && !model_->options().patches, "train.objective",
        "the model names classes{}, and no objective trains that; models of tokens are trained", model_->options().patches ? " of images" : " of sequences");
  check(model_->options().causal || objective_->sees_ahead(), "train.objective",
        "model.causal is false, so each token sees the one that '{}' asks for; train with train.objective: masked-lm",
        objective_->name());
  check(model_->encodes() == objective_->gives_source(), "train.objective",
        "the model has {} encoder, but '{}' gives one {}; a model with an encoder is trained with train.objective: span-corruption",
        model_->encodes() ? "an" : "no", objective_->name(), objective_->gives_source() ? "something to read" : "nothing to read");
  for (const PlacedRouting& routing : model_->routings()) stations_.push_back(routing.station);
}

std::vector<Batch> Trainer::next_micro_batches() {
  Batch batch = next_batch_(options_.batch);
  const Context now = context(batch, 0);
  return split(objective_->prepare(std::move(batch), *model_, now), options_.accumulate);
}

Context Trainer::context(const Batch& batch, int64_t micro) const {
  return Context{.facts = batch.facts, .random = random_, .phase = Phase::train, .step = step(), .micro = micro, .place = {},
                 .recompute = options_.recompute};
}

LossSum Trainer::forward(Runner& runner, int64_t micro) const {
  try {
    return objective_->loss(runner);
  } catch (const Error& error) {
    if (error.code() != "routing.nan") throw;  // a router met it before the loss did
    check_finite(objective_->name(), std::numeric_limits<double>::quiet_NaN(), runner.batch(), micro);
    throw;
  }
}

std::string Trainer::first_not_finite(const Batch& batch, int64_t micro) const {
  for (const Parameter& parameter : model_->schema().all())
    if (!finite(parameter.tensor().detach()))
      return fmt::format("the parameter {} holds values that are not finite", parameter.name());
  const at::NoGradGuard guard;
  const PrecisionScope precision(options_.precision);
  Records records;
  RoutedStore routed;
  Context context = this->context(batch, micro);
  context.records = &records;
  context.routed = &routed;
  std::vector<at::Tensor> hidden;
  std::string routing;
  try {
    hidden_rows(*model_, batch, context, &hidden);
  } catch (const Error& error) {
    routing = error.message();
  }
  for (size_t i = 0; i < hidden.size(); ++i)
    if (!finite(hidden[i]))
      return i == 0 ? "the embedding's output is the first that is not finite"
                    : fmt::format("the output of layers.{} is the first that is not finite", i - 1);
  if (!routing.empty() && !hidden.empty())
    return fmt::format("inside layers.{}, whose input is finite, {}", hidden.size() - 1, routing);
  return "every block's output is finite, so it arises in the loss itself";
}

void Trainer::check_finite(const std::string& term, double value, const Batch& batch, int64_t micro) const {
  if (!std::isfinite(value))
    fail("train.not_finite", "step {}: the loss term '{}' is {}: {}. {}", step() + 1, term, value, first_not_finite(batch, micro),
         kWayOut);
}

void Trainer::check_gradient(double norm) const {
  if (std::isfinite(norm)) return;
  const std::string name = optimiser_.first_not_finite();
  fail("train.not_finite", "step {}: the loss is finite, but the gradient of {} is not. {}", step() + 1,
       name.empty() ? "all parameters together" : name, kWayOut);
}

void Trainer::update(double gradient_norm, const std::vector<LayerLoad>& loads) {
  optimiser_.step(options_.schedule.at(step(), options_.steps), gradient_norm);
  for (const auto& station : stations_)
    for (const LayerLoad& one : loads) {
      if (one.site != station->site()) continue;
      StepLoad load = one.load;
      load.step = step();
      for (const auto& controller : station->controllers()) controller->after_step(load);
    }
}

Evaluation evaluate(const Trainer& trainer, const std::vector<Batch>& held_out, const std::vector<std::string>& domains) {
  const at::NoGradGuard guard;
  const PrecisionScope precision(trainer.options().precision);
  std::vector<double> sums(domains.size());
  std::vector<int64_t> counts(domains.size());
  Evaluation result;
  double sum = 0;
  for (size_t i = 0; i < held_out.size(); ++i) {
    Context context = trainer.context(held_out[i], static_cast<int64_t>(i));
    context.phase = Phase::evaluate;
    context.step = kHeldOut;  // every evaluation asks for the same tokens
    const Batch batch = trainer.objective().prepare(held_out[i], trainer.model(), context);
    context.step = trainer.step();
    context.micro = 0;
    Runner runner(trainer.model(), batch, context);
    const at::Tensor losses = trainer.objective().loss(runner).per_row;
    sum += losses.sum(at::kDouble).item<double>();
    result.tokens += batch.predicted;
    if (!batch.facts.has("domain")) continue;
    const at::Tensor domain = batch.facts.row("domain", "evaluation");
    for (size_t d = 0; d < domains.size(); ++d) {
      const at::Tensor here = domain.eq(static_cast<int64_t>(d)).logical_and(batch.targets.ge(0));
      sums[d] += losses.masked_select(here).sum(at::kDouble).item<double>();
      counts[d] += here.sum().item<int64_t>();
    }
  }
  if (result.tokens > 0) result.loss = sum / static_cast<double>(result.tokens);
  for (size_t d = 0; d < domains.size(); ++d)
    if (counts[d] > 0) result.domains.emplace_back(domains[d], sums[d] / static_cast<double>(counts[d]));
  return result;
}

}  // namespace switchyard
