// SMEAR (Muqeeth et al. 2023): one decision a sequence, from the mean of its rows; the experts' parameters
// are averaged by it and the sequence runs through the one merged expert. The mean sees the whole sequence,
// so a causal model takes the decision from elsewhere instead (from: fact; the encoder's mean in the paper).
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/ones.h>

#include "switchyard/base/error.h"
#include "switchyard/kernels/permutation.h"
#include "switchyard/routing/select.h"

namespace switchyard {
namespace {

/// Where a sequence's routing vector comes from.
enum class VectorFrom { mean, fact };

struct SmearOptions {
  VectorFrom from = VectorFrom::mean;
  std::string fact = "routing_vector";
  double expert_dropout = 0.1;
  double deviation = 0.01;
  double gain = 0.01;
  Run run = Run::merged;
  static void describe(Fields<SmearOptions>& f) {
    f.title("SMEAR", "Experts merged by weights that are chosen once a sequence.");
    f("from", &SmearOptions::from, "what the decision looks at: the mean of the sequence's rows (sees the future), or a fact "
      "[sequences, width] that the data or an earlier part give").choices({"mean", "fact"});
    f("fact", &SmearOptions::fact, "the name of that fact");
    f("expert_dropout", &SmearOptions::expert_dropout, "chance that an expert is left out of a sequence's merge in training")
        .range(0, 0.999);
    f("deviation", &SmearOptions::deviation, "standard deviation of the initial expert vectors").range(0, 10);
    f("gain", &SmearOptions::gain, "initial gain of the norm of the expert vectors").range(0, 100);
    f("run", &SmearOptions::run, "merged: the method; rows or gated: the ensemble of outputs it approximates")
        .choices({"rows", "merged", "gated"});
  }
};

class Smear : public Router {
 public:
  explicit Smear(SmearOptions options) : options_(std::move(options)) {}

  void declare(const Schema& schema, const RouterSize& size) override {
    weight_ = schema.add("weight", {size.experts, size.width}, Role::router, Init::normal(options_.deviation), 0);
    input_gain_ = schema.add("input_norm", {size.width}, Role::norm, Init::ones());
    input_bias_ = schema.add("input_norm_bias", {size.width}, Role::norm, Init::zeros());
    const double gain = options_.gain;
    const int64_t width = size.width;
    gain_ = schema.add("norm", {width}, Role::norm, Init::computed([gain, width] { return at::ones({width}, at::kDouble) * gain; }));
    bias_ = schema.add("norm_bias", {width}, Role::norm, Init::zeros());
  }

  Engagement route(const RouterInput& input, const Context& context) const override {
    RoutingPrecision precision;
    if (options_.from == VectorFrom::mean)
      refuse_generation(context, "smear", "takes the mean of a whole sequence");
    const at::Tensor v = normed(vectors(input.x, context), context[input_gain_], context[input_bias_]);
    const at::Tensor keys = normed(routing_rows(context[weight_]), context[gain_], context[bias_]);
    Gate gate;
    gate.logits = mask_experts(router_logits(v, keys), context);
    gate.scores = gate.logits;
    gate.probabilities = without_dropped(gate.logits.softmax(-1), context);
    Selection selection = selection_of_all(std::move(gate), options_.run, context);
    selection.unit_of_row = context.facts.segments.segment_of_row().to(input.x.device());
    return selection;
  }

  Reach reach(const Overrides&, Phase) const override {
    if (options_.from == VectorFrom::fact) return {};
    return {Reach::Unit::sequence, true, "averaging the rows of a sequence (smear)"};
  }

 private:
  static at::Tensor normed(const at::Tensor& x, const at::Tensor& gain, const at::Tensor& bias) {
    const at::ScalarType type = x.scalar_type();
    return at::layer_norm(x, {x.size(-1)}, gain.to(type), bias.to(type));
  }

  /// [segments, D]
  at::Tensor vectors(const at::Tensor& rows, const Context& context) const {
    const at::Tensor x = routing_rows(rows);
    if (options_.from == VectorFrom::fact) {
      const at::Tensor given = context.facts.segment(options_.fact, "smear");
      check(given.dim() == 2 && given.size(1) == x.size(1), "routing.vector", "{}: the fact \"{}\" must hold a vector of {} numbers "
            "a sequence", context.place.site, options_.fact, x.size(1));
      return given.to(x.options());
    }
    const int64_t count = context.facts.segments.count();
    const at::Tensor segment = context.facts.segments.segment_of_row().to(x.device());
    const at::Tensor length = at::bincount(segment, {}, count).clamp_min(1).unsqueeze(1).to(x.scalar_type());
    return kernels::combine_rows(x, segment, {}, count) / length;
  }

  at::Tensor without_dropped(const at::Tensor& p, const Context& context) const {
    if (!context.training() || options_.expert_dropout == 0) return p;
    const at::Tensor draw = context.random.uniform(p.sizes(), context.key("router.dropout"), p.scalar_type()).to(p.device());
    const at::Tensor kept = p * (draw >= options_.expert_dropout).to(p.scalar_type()) + 1e-10;
    return kept / kept.sum(1, /*keepdim=*/true);
  }

  SmearOptions options_;
  Parameter weight_, input_gain_, input_bias_, gain_, bias_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(smear) {
  using namespace switchyard;
  registry.add<Router, Smear, SmearOptions>(
      {.slug = "smear", .name = "Soft merging of experts", .paper = "Muqeeth et al., Soft merging of experts with adaptive routing",
       .year = 2023, .section = "4.1.3", .room = "routing/soft", .coupling = "sequence",
       .line = "one merged expert a sequence, by weights from the sequence's mean", .recipe = "recipes/methods/smear.yaml"});
}
