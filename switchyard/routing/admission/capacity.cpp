#include "switchyard/routing/admission/capacity.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

#include "switchyard/base/error.h"
#include "switchyard/base/registry.h"

namespace switchyard {

void CapacityOptions::describe(Fields<CapacityOptions>& f) {
  f.title("Capacity", "A limited number of places an expert.");
  describe_fields(f);
}

Claims capacity_claims(const Selection& selection, const Context& context, const CapacityOptions& options) {
  if (context.phase == Phase::generate || selection.pairs() == 0) return {};
  const double factor =
      context.wishes().capacity.value_or(context.training() ? options.factor : options.evaluation_factor);
  const int64_t experts = selection.experts;
  const int64_t fixed = context.wishes().capacity ? 0 : context.training() ? options.places : options.evaluation_places;
  const double k = static_cast<double>(selection.pairs()) / static_cast<double>(selection.units);
  // A share that is whole but for rounding is whole.
  const auto up = [](double share) { return static_cast<int64_t>(std::ceil(share - 1e-9 * (1 + share))); };
  const auto places = [&](int64_t rows) {
    if (fixed > 0) return fixed;
    const double r = static_cast<double>(rows), e = static_cast<double>(experts);
    if (!context.training() && options.evaluation_of == PlaceCount::rows)
      return std::max(options.minimum, static_cast<int64_t>(std::ceil(factor * r)));
    switch (options.rounding) {
      case PlaceRounding::up: break;
      case PlaceRounding::by_choice: return std::max(options.minimum, static_cast<int64_t>(k * static_cast<double>(up(factor * r / e))));
      case PlaceRounding::even: {
        const auto down = static_cast<int64_t>(std::floor(factor * k * r / e + 1e-9));
        return std::max(options.minimum, down + down % 2);
      }
    }
    return std::max(options.minimum, up(factor * k * r / e));
  };
  const at::Tensor padded = context.facts.has(kPaddedLength) ? context.facts.segment(kPaddedLength, "capacity") : at::Tensor();
  Claims claims;
  claims.bin = selection.expert;
  if (options.scope == PlaceScope::batch) {
    claims.capacity = at::full({experts}, places(padded.defined() ? padded.sum().item<int64_t>() : selection.units), selection.expert.options());
    return claims;
  }
  const Segments& segments = context.facts.segments;
  check(segments.rows() == selection.units, "routing.capacity_scope",
        "{}: places by sequence need one unit a row; {} units stand for {} rows", context.place.site, selection.units,
        segments.rows());
  std::vector<int64_t> each;
  for (int64_t s = 0; s < segments.count(); ++s) each.push_back(places(padded.defined() ? padded[s].item<int64_t>() : segments.length(s)));
  const at::Tensor segment = segments.segment_of_row().to(selection.expert.device());
  claims.bin = segment.index_select(0, selection.unit) * experts + selection.expert;
  claims.capacity = at::tensor(each, at::kLong).to(selection.expert.device()).repeat_interleave(experts);
  return claims;
}

at::Tensor serve_by(const at::Tensor& place, const Selection& selection, ServeOrder order) {
  at::Tensor turn = place.index_select(0, selection.unit);
  if (order == ServeOrder::choice) turn = turn + selection.rank * selection.units;
  return -turn.to(at::kDouble);
}

Reach capacity_reach(const CapacityOptions& options, Phase phase, bool future, std::string because) {
  if (phase == Phase::generate && options.generation == PlacesInGeneration::open) return {};
  if (phase == Phase::generate) return {Reach::Unit::sequence, false, std::move(because)};
  const auto unit = options.scope == PlaceScope::batch ? Reach::Unit::batch : Reach::Unit::sequence;
  return {unit, future, std::move(because)};
}

namespace {

class Capacity : public Admission {
 public:
  explicit Capacity(CapacityOptions options) : options_(options) {}

  Claims claims(const Selection& selection, const Context& context) const override {
    Claims claims = capacity_claims(selection, context, options_);
    if (claims.bin.defined() && options_.order == ServeOrder::choice)
      claims.priority = serve_by(at::arange(selection.units, selection.unit.options()), selection, options_.order);
    return claims;
  }
  Reach reach(const Overrides&, Phase phase) const override {
    const bool future = options_.order == ServeOrder::choice;
    return capacity_reach(options_, phase, future,
                          future ? "serving first choices before second ones (order: choice)" : "places shared by tokens");
  }

 private:
  CapacityOptions options_;
};

class Dropless : public Admission {
 public:
  Claims claims(const Selection&, const Context&) const override { return {}; }
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(capacity) {
  using namespace switchyard;
  registry.add<Admission, Capacity, CapacityOptions>(
      {.slug = "capacity", .name = "Expert capacity", .paper = "Lepikhin et al., GShard", .year = 2020, .section = "4.1.1",
       .room = "routing/admission", .coupling = "batch", .line = "a limited number of places an expert; who comes late is dropped",
       .recipe = "recipes/methods/capacity.yaml"});
  registry.add<Admission, Dropless, NoOptions>(
      {.slug = "dropless", .name = "Dropless", .paper = "Gale et al., MegaBlocks", .year = 2022, .section = "4.3",
       .room = "routing/admission", .coupling = "none", .line = "every pair is computed",
       .recipe = "recipes/methods/sparse-topk.yaml"});
}
