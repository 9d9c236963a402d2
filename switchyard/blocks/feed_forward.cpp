// The dense feed-forward network of a block: the same arithmetic as one feed-forward expert, each map at a site.
#include "switchyard/experts/feed_forward/feed_forward.h"

#include "switchyard/base/registry.h"
#include "switchyard/blocks/site_linear.h"

namespace switchyard {
namespace {

struct DenseFeedForwardOptions {
  std::string activation = "swiglu";
  int64_t hidden = 0;
  bool bias = false;

  static void describe(Fields<DenseFeedForwardOptions>& f) {
    using O = DenseFeedForwardOptions;
    f.title("Feed-forward network", "Two linear maps, or three for the gated kinds, with an activation between.");
    f("activation", &O::activation, "what stands between the linear maps: swiglu, geglu, gelu, relu, tanh, ...; swiglu-gated: a SwiGLU of a gate of twice "
      "the width multiplies");
    f("hidden", &O::hidden, "width F between the maps; 0 = 4 times the model width, 8/3 times for the gated kinds")
        .range(0, 1 << 24);
    f("bias", &O::bias, "add a bias to every map");
  }
};

class DenseFeedForward : public Body {
 public:
  explicit DenseFeedForward(const DenseFeedForwardOptions& options)
      : options_(options), halves_(options.activation == kSwiGluGated), tanh_(options.activation == "tanh"),
        activation_{.kind = halves_ || tanh_ ? kernels::Activation::identity : activation_named(options.activation)} {}

  void prepare(const BodyPlace& place) override {
    const bool gated = halves_ || kernels::is_gated(activation_.kind);
    int64_t hidden = options_.hidden;
    if (hidden == 0) hidden = gated ? (place.width * 8 / 3 + 7) / 8 * 8 : place.width * 4;
    if (gated) gate_.emplace(place, "gate", place.width, halves_ ? 2 * hidden : hidden, options_.bias);
    up_ = SiteLinear(place, "up", place.width, hidden, options_.bias);
    down_ = SiteLinear(place, "down", hidden, place.width, options_.bias);
  }

  void declare(const Schema& schema) override {
    each_map([&](SiteLinear& map) { map.declare(schema); });
  }

  at::Tensor forward(const at::Tensor& x, const Context& context) const override {
    const at::Tensor gate = gate_ ? (*gate_)(x, context) : at::Tensor();
    if (halves_) return down_(swiglu_gated(up_(x, context), gate), context);
    if (tanh_) return down_(up_(x, context).tanh(), context);
    return down_(kernels::activate(up_(x, context), gate, activation_), context);
  }

  Reach reach(const Overrides& overrides, Phase phase) const override {
    Reach reach = larger(up_.site().reach(overrides, phase), down_.site().reach(overrides, phase));
    return gate_ ? larger(reach, gate_->site().reach(overrides, phase)) : reach;
  }

  void each_child(const std::function<void(Part&)>& visit) override {
    each_map([&](SiteLinear& map) { map.site().each_child(visit); });
  }

 private:
  template <typename Visit>
  void each_map(const Visit& visit) {
    if (gate_) visit(*gate_);
    visit(up_);
    visit(down_);
  }

  DenseFeedForwardOptions options_;
  bool halves_;  ///< the gate's rows are gated themselves
  bool tanh_;    ///< which no kind of expert has
  kernels::ActivationOptions activation_;
  std::optional<SiteLinear> gate_;
  SiteLinear up_, down_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(dense_feed_forward) {
  using namespace switchyard;
  registry.add<Body, DenseFeedForward, DenseFeedForwardOptions>(
      {.slug = "feed-forward", .name = "Feed-forward network", .paper = "Vaswani et al., Attention is all you need",
       .year = 2017, .section = "4.2.1", .room = "blocks", .coupling = "none",
       .line = "the dense network that a mixture replaces", .recipe = "recipes/quickstart.yaml"});
}
