// Mixture of attention heads (Zhang et al. 2022; survey 4.2.1): a token engages k of E attention experts. An expert
// owns a query map and an output map; keys and values are common and computed once. One decision serves both banks,
// with attention between them. Several key heads an expert give JetMoE's form (Shen et al. 2024).
#include <ATen/TensorOperators.h>

#include "switchyard/base/registry.h"
#include "switchyard/blocks/attend.h"
#include "switchyard/blocks/body.h"
#include "switchyard/blocks/site_linear.h"
#include "switchyard/experts/bank.h"
#include "switchyard/kernels/permutation.h"
#include "switchyard/layer/routing_station.h"

namespace switchyard {
namespace {

struct MixtureOfHeadsOptions : RoutingOptions {
  int64_t experts = 8, head_dim = 64, kv_heads = 1;
  bool output_bias = false;
  double init_deviation = 0.02;

  MixtureOfHeadsOptions() {
    // Probabilities over all experts, divided by the sum of the chosen ones, without gradient through the sum.
    router.options["softmax"] = Node("all");
    combine = CombineOptions{.renormalise = Renormalise::before_drop, .detach_sum = true};
  }

  static void describe(Fields<MixtureOfHeadsOptions>& f) {
    using O = MixtureOfHeadsOptions;
    f.title("Mixture of attention heads", "Each token chooses its attention experts; keys and values are common to all.");
    f("experts", &O::experts, "attention experts E").range(1, 1 << 16);
    f("head_dim", &O::head_dim, "width d of a head").range(1, 1 << 16);
    f("kv_heads", &O::kv_heads, "key and value heads, each read once by every chosen expert").range(1, 1 << 12);
    f("output_bias", &O::output_bias, "a bias on the output, common to the experts");
    f("init_deviation", &O::init_deviation, "standard deviation of the experts' initial weights").range(0);
    describe_fields(f);
  }
};

ExpertBank projections(int64_t experts, int64_t in, int64_t out, double deviation) {
  Choice<ExpertKind> kind = "projection-expert";
  kind.options["init_deviation"] = Node(fmt::format("{}", deviation));
  return ExpertBank({{kind.make(), experts}}, in, out);
}

class MixtureOfHeads : public Body, public HasRouting {
 public:
  explicit MixtureOfHeads(const MixtureOfHeadsOptions& options) : options_(options) {}

  void prepare(const BodyPlace& place) override {
    const CombineOptions combine = options_.combine.value_or(CombineOptions{});
    check(combine.overflow == Overflow::zero && combine.on == WeighOn::output, "blocks.moa_combine",
          "{}: attention experts weigh their outputs and give a dropped token nothing; use combine on: output, "
          "overflow: zero", place.name);
    name_ = place.name;
    inner_ = options_.kv_heads * options_.head_dim;
    query_.emplace(projections(options_.experts, place.width, inner_, options_.init_deviation));
    output_.emplace(projections(options_.experts, inner_, place.width, options_.init_deviation));
    key_ = SiteLinear(place, "key", place.width, inner_, false);
    value_ = SiteLinear(place, "value", place.width, inner_, false);
    width_ = place.width;
    if (place.rotary) rotary_.emplace(*place.rotary, options_.head_dim);
    station_ = std::make_shared<RoutingStation>(options_, place.width, options_.experts);
  }

  void declare(const Schema& schema) override {
    station_->declare(schema);
    key_.declare(schema);
    value_.declare(schema);
    query_->declare(schema.in("experts.query"));
    output_->declare(schema.in("experts.output"));
    if (options_.output_bias) bias_ = schema.in("output").add("bias", {width_}, Role::bias, Init::zeros());
  }

  at::Tensor forward(const at::Tensor& x, const Context& outer) const override {
    const Context context = outer.at(station_->site());
    const std::shared_ptr<const Routed> routed = station_->decide(x, context);
    const Selection* selection = routed->selection();
    check(selection && selection->run == Run::rows && selection->outputs == 0, "blocks.moa_engagement",
          "{}: attention experts run the pairs that a router selects; this router blends tokens or experts", name_);
    const at::Tensor y = attention(x, *routed, *selection, context);
    if (context.records) context.records->add(station_->record(routed, context));
    return bias_ ? y + context[bias_] : y;
  }

  std::vector<StateSpec> states() const override {
    return attend_states(name_, options_.kv_heads, options_.head_dim, options_.head_dim);
  }
  Reach reach(const Overrides& overrides, Phase phase) const override {
    return larger(station_->reach(overrides, phase),
                  larger(key_.site().reach(overrides, phase), value_.site().reach(overrides, phase)));
  }
  void each_child(const std::function<void(Part&)>& visit) override {
    key_.site().each_child(visit);
    value_.site().each_child(visit);
  }
  std::shared_ptr<RoutingStation> station() const override { return station_; }

 private:
  at::Tensor attention(const at::Tensor& x, const Routed& routed, const Selection& selection, const Context& context) const {
    const int64_t rows = x.size(0), heads = options_.kv_heads, d = options_.head_dim;
    const Plan& plan = routed.plan;
    // Pair (row, rank) has place row · most + rank; places of pairs that were dropped stay zero and are never read.
    int64_t most = selection.per_unit;
    if (most == 0) most = selection.pairs() > 0 ? selection.rank.max().item<int64_t>() + 1 : 1;
    const at::Tensor place = plan.row * most + selection.rank.index_select(0, plan.order);
    const at::Tensor sorted = query_->run_sorted(query_->dispatch(x, plan), plan, context);  // [A, Hk · d]
    // Query head h · most + r reads key head h: each chosen expert reads every key head once.
    at::Tensor q = kernels::combine_rows(sorted, place, {}, rows * most)
                       .view({rows, most, heads, d}).transpose(1, 2).reshape({rows, heads * most, d});
    at::Tensor k = key_(x, context).view({rows, heads, d});
    const at::Tensor v = value_(x, context).view({rows, heads, d});
    if (rotary_) {
      const Rotary::Angles angles = rotary_->angles(context.facts, name_, x.scalar_type() == at::kDouble);
      q = rotary_->turn(q, angles);
      k = rotary_->turn(k, angles);
    }
    const at::Tensor seen = attend(q, k, v, context, {.name = name_, .scale = {}})
                                .view({rows, heads, most, d}).transpose(1, 2).reshape({rows * most, inner_});
    const at::Tensor out = output_->run_sorted(kernels::gather_rows(seen, place), plan, context);
    return output_->combine(out, routed, rows);
  }

  MixtureOfHeadsOptions options_;
  std::string name_;
  int64_t width_ = 0, inner_ = 0;
  std::optional<ExpertBank> query_, output_;
  SiteLinear key_, value_;
  Parameter bias_;
  std::optional<Rotary> rotary_;
  std::shared_ptr<RoutingStation> station_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(mixture_of_heads) {
  using namespace switchyard;
  registry.add<Body, MixtureOfHeads, MixtureOfHeadsOptions>(
      {.slug = "moa", .name = "Mixture of attention heads", .paper = "Zhang et al., Mixture of attention heads", .year = 2022,
       .section = "4.2.1", .room = "blocks", .coupling = "none",
       .line = "tokens choose attention experts that share keys and values", .recipe = "recipes/methods/moa.yaml"});
}
