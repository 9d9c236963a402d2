// Multi-head latent attention (DeepSeek-AI 2024, DeepSeek-V2, section 2.1): keys and values of all heads are read from one short
// latent row a token, which is all that is cached beside one turned key. Over a cache the absorbed form is used: the key map goes
// into the query and the value map behind the sum, so that heads attend over latent rows themselves.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/einsum.h>

#include <cmath>

#include "switchyard/base/registry.h"
#include "switchyard/blocks/attend.h"
#include "switchyard/blocks/body.h"
#include "switchyard/blocks/norm.h"
#include "switchyard/blocks/site_linear.h"
#include "switchyard/kernels/linear.h"

namespace switchyard {
namespace {

struct LatentOptions {
  int64_t heads = 8, query_rank = 0, latent_rank = 64, plain_dim = 32, turning_dim = 16, value_dim = 32;
  bool bias = false, yarn_scale = true;
  double latent_norm_eps = 1e-6;

  static void describe(Fields<LatentOptions>& f) {
    using O = LatentOptions;
    f.title("Latent attention", "Keys and values come from one short latent row a token.");
    f("heads", &O::heads, "query heads H").range(1, 1 << 16);
    f("query_rank", &O::query_rank, "width of the queries' latent row (q_lora_rank); 0 = queries come from the row itself").range(0, 1 << 20);
    f("latent_rank", &O::latent_rank, "width of the latent row of keys and values (kv_lora_rank)").range(1, 1 << 20);
    f("plain_dim", &O::plain_dim, "coordinates of a head that do not turn (qk_nope_head_dim)").range(1, 1 << 16);
    f("turning_dim", &O::turning_dim, "coordinates of a head that turn, of a key common to all heads (qk_rope_head_dim)").range(2, 1 << 16);
    f("value_dim", &O::value_dim, "width of a head's values (v_head_dim)").range(1, 1 << 16);
    f("bias", &O::bias, "biases on the maps to the latent rows and on the output");
    f("yarn_scale", &O::yarn_scale, "yarn scaling with mscale_all sharpens the softmax by its multiplier squared");
    f("latent_norm_eps", &O::latent_norm_eps, "added under the root of the latent rows' norms").range(0, 1);
  }
};

class LatentAttention : public Body {
 public:
  explicit LatentAttention(const LatentOptions& options) : o_(options) {}

  void prepare(const BodyPlace& place) override {
    name_ = place.name;
    const int64_t head = o_.plain_dim + o_.turning_dim;
    if (o_.query_rank > 0) {
      query_down_.emplace(place, "query_down", place.width, o_.query_rank, o_.bias);
      query_norm_ = std::make_shared<RmsNorm>(o_.query_rank, o_.latent_norm_eps);
    }
    query_ = SiteLinear(place, "query", o_.query_rank > 0 ? o_.query_rank : place.width, o_.heads * head, false);
    latent_ = SiteLinear(place, "latent", place.width, o_.latent_rank + o_.turning_dim, o_.bias);
    latent_norm_ = std::make_shared<RmsNorm>(o_.latent_rank, o_.latent_norm_eps);
    key_value_ = SiteLinear(place, "key_value", o_.latent_rank, o_.heads * (o_.plain_dim + o_.value_dim), false);
    output_ = SiteLinear(place, "output", o_.heads * o_.value_dim, place.width, o_.bias);
    scale_ = 1 / std::sqrt(static_cast<double>(head));
    if (!place.rotary) return;
    rotary_.emplace(*place.rotary, o_.turning_dim);
    const RotaryScaling& scaling = place.rotary->scaling;
    if (o_.yarn_scale && scaling.kind == RotaryScaling::Kind::yarn && scaling.mscale_all > 0)
      scale_ *= std::pow(yarn_multiplier(scaling.factor, scaling.mscale_all), 2);
  }

  void declare(const Schema& schema) override {
    each_map(*this, [&](SiteLinear& map) { map.declare(schema); });
    if (query_norm_) query_norm_->declare(schema.in("query_norm"));
    latent_norm_->declare(schema.in("latent_norm"));
  }

  at::Tensor forward(const at::Tensor& x, const Context& context) const override {
    const int64_t rows = x.size(0);
    const at::Tensor from = query_down_ ? query_norm_->forward((*query_down_)(x, context), context) : x;
    const at::Tensor q = query_(from, context).view({rows, o_.heads, o_.plain_dim + o_.turning_dim});
    const at::Tensor q_plain = q.narrow(-1, 0, o_.plain_dim);
    const at::Tensor down = latent_(x, context);
    const at::Tensor latent = latent_norm_->forward(down.narrow(-1, 0, o_.latent_rank), context);
    at::Tensor q_turned = q.narrow(-1, o_.plain_dim, o_.turning_dim);
    at::Tensor k_turned = down.narrow(-1, o_.latent_rank, o_.turning_dim).unsqueeze(1);
    if (rotary_) {
      const Rotary::Angles angles = rotary_->angles(context.facts, name_, x.scalar_type() == at::kDouble);
      q_turned = rotary_->turn(q_turned, angles);
      k_turned = rotary_->turn(k_turned, angles);
    }
    // An occupied site hides the map's weight, which the absorbed form needs by itself.
    const bool cached = context.state != nullptr && !key_value_.site().occupied();
    const bool absorbed = cached && !fresh(context);
    if (cached && !absorbed) keep(latent, k_turned, context);
    Context whole = context;
    if (cached) whole.state = nullptr;  // the latent rows are kept instead of keys and values
    const at::Tensor y = absorbed ? absorb(q_plain, q_turned, latent, k_turned, context)
                                  : expand(q_plain, q_turned, latent, k_turned, whole);
    return output_(y.reshape({rows, o_.heads * o_.value_dim}), context);
  }

  std::vector<StateSpec> states() const override {
    if (!key_value_.site().occupied()) return attend_states(name_, 1, o_.latent_rank + o_.turning_dim, 0);
    return attend_states(name_, o_.heads, o_.plain_dim + o_.turning_dim, o_.value_dim);
  }

  Reach reach(const Overrides& overrides, Phase phase) const override {
    Reach reach;
    each_map(*this, [&](const SiteLinear& map) { reach = larger(reach, map.site().reach(overrides, phase)); });
    return reach;
  }

  void each_child(const std::function<void(Part&)>& visit) override {
    each_map(*this, [&](SiteLinear& map) { map.site().each_child(visit); });
    if (query_norm_) visit(*query_norm_);
    visit(*latent_norm_);
  }

 private:
  template <typename Self, typename Visit>
  static void each_map(Self& self, const Visit& visit) {
    if (self.query_down_) visit(*self.query_down_);
    for (auto* map : {&self.query_, &self.latent_, &self.key_value_, &self.output_}) visit(*map);
  }

  /// Whether nothing is held yet of this pass's sequences. What it brings is then all there is, and cheaper to attend over head by
  /// head, whose keys are narrower than latent rows.
  bool fresh(const Context& context) const {
    const Segments& segments = context.facts.segments;
    for (int64_t s = 0; s < segments.count(); ++s)
      if (segments.length(s) > 0 && context.state->length(name_ + ".key", segments.sequence_of(s)) > 0) return false;
    return true;
  }

  /// Into the cache as the absorbed form reads it.
  void keep(const at::Tensor& latent, const at::Tensor& k_turned, const Context& context) const {
    const Segments& segments = context.facts.segments;
    const at::Tensor rows = at::cat({latent.unsqueeze(1), k_turned}, -1);
    for (int64_t s = 0; s < segments.count(); ++s)
      if (segments.length(s) > 0)
        context.state->append(name_ + ".key", segments.sequence_of(s), rows.narrow(0, segments.begin[s], segments.length(s)));
  }

  /// Keys and values of every head. q: [T, H, ·]; latent: [T, r]; k_turned: [T, 1, t]. Returns [T, H, dv].
  at::Tensor expand(const at::Tensor& q_plain, const at::Tensor& q_turned, const at::Tensor& latent, const at::Tensor& k_turned,
                    const Context& context) const {
    const at::Tensor kv = key_value_(latent, context).view({latent.size(0), o_.heads, o_.plain_dim + o_.value_dim});
    const at::Tensor q = at::cat({q_plain, q_turned}, -1);
    const at::Tensor k = at::cat({kv.narrow(-1, 0, o_.plain_dim), k_turned.expand({-1, o_.heads, -1})}, -1);
    return attend(q, k, kv.narrow(-1, o_.plain_dim, o_.value_dim), context, {.name = name_, .scale = scale_});
  }

  /// q · (W_k c) = (W_kᵀ q) · c, and Σ p W_v c = W_v Σ p c: one key head, the latent row, is cached.
  at::Tensor absorb(const at::Tensor& q_plain, const at::Tensor& q_turned, const at::Tensor& latent, const at::Tensor& k_turned,
                    const Context& context) const {
    const at::Tensor weight = context[key_value_.weight()].view({o_.heads, o_.plain_dim + o_.value_dim, o_.latent_rank});
    const auto einsum = [](const char* equation, const at::Tensor& x, const at::Tensor& w) {
      const kernels::FastProducts fast(x);
      return fast.result(at::einsum(equation, {fast(x), fast(w)}));
    };
    const at::Tensor q = at::cat({einsum("thd,hdr->thr", q_plain, weight.narrow(1, 0, o_.plain_dim)), q_turned}, -1);
    const at::Tensor k = at::cat({latent.unsqueeze(1), k_turned}, -1);
    const at::Tensor seen = attend(q, k, {}, context, {.name = name_, .scale = scale_, .value_in_key = o_.latent_rank});
    return einsum("thr,hdr->thd", seen, weight.narrow(1, o_.plain_dim, o_.value_dim));
  }

  LatentOptions o_;
  std::string name_;
  double scale_ = 1;
  std::optional<SiteLinear> query_down_;
  SiteLinear query_, latent_, key_value_, output_;
  std::shared_ptr<RmsNorm> query_norm_, latent_norm_;
  std::optional<Rotary> rotary_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(latent_attention) {
  using namespace switchyard;
  registry.add<Body, LatentAttention, LatentOptions>(
      {.slug = "mla", .name = "Multi-head latent attention", .paper = "DeepSeek-AI, DeepSeek-V2", .year = 2024, .section = "4.2.2",
       .room = "blocks", .coupling = "none", .line = "keys and values of all heads from one short latent row, the only thing cached",
       .recipe = "recipes/methods/mla.yaml"});
}
