// Grouped-query attention (Ainslie et al. 2023): H query heads share Hk key and value heads. Hk = H is multi-head
// attention (Vaswani et al. 2017), Hk = 1 multi-query attention.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full_like.h>

#include "switchyard/base/registry.h"
#include "switchyard/blocks/attend.h"
#include "switchyard/blocks/body.h"
#include "switchyard/blocks/norm.h"
#include "switchyard/blocks/site_linear.h"

namespace switchyard {
namespace {

/// RMSNorm of queries and keys.
enum class QueryKeyNorm {
  none,
  head,    ///< each head by itself, one weight for all heads, before they turn (Qwen3)
  full,    ///< over all heads at once, before they turn (OLMoE)
  turned,  ///< each head by itself, after they turned (Hunyuan)
  unit,    ///< the same without a weight, where they turn at all (Llama 4)
};

struct GroupedQueryOptions {
  int64_t heads = 8, kv_heads = 0, head_dim = 0, window = 0, chunk = 0;
  bool bias = false, output_bias = false, positions = true, sinks = false, gate = false;
  QueryKeyNorm qk_norm = QueryKeyNorm::none;
  double clip = 0, scale = 0, cap = 0, temperature = 0;
  int64_t temperature_floor = 8192;

  static void describe(Fields<GroupedQueryOptions>& f) {
    using O = GroupedQueryOptions;
    f.title("Grouped-query attention", "Softmax attention whose query heads share key and value heads.");
    f("heads", &O::heads, "query heads H").range(1, 1 << 16);
    f("kv_heads", &O::kv_heads, "key and value heads, a divisor of heads; 0 = as many as heads").range(0, 1 << 16);
    f("head_dim", &O::head_dim, "width of a head; 0 = model width / heads").range(0, 1 << 16);
    f("bias", &O::bias, "biases on query, key and value");
    f("output_bias", &O::output_bias, "a bias on the output");
    f("positions", &O::positions, "the model's rotary or relative positions; false = this attention knows none");
    f("qk_norm", &O::qk_norm, "RMSNorm of queries and keys: none, each head by itself, the full width; each head after it "
      "turned, with a weight or without").choices({"none", "head", "full", "turned", "unit"});
    f("clip", &O::clip, "queries, keys and values are cut at this size; 0 = never (OLMoE, DBRX)").range(0);
    f("window", &O::window, "a row sees itself and the window - 1 rows before it; 0 = all before it").range(0).unit("tokens");
    f("chunk", &O::chunk, "a row sees its own chunk of so many rows only; 0 = no chunks (Llama 4)").range(0).unit("tokens");
    f("scale", &O::scale, "multiplies the scores; 0 = 1/sqrt(head_dim)").range(0);
    f("cap", &O::cap, "scores s become cap * tanh(s / cap); 0 = never (Grok-1)").range(0);
    f("sinks", &O::sinks, "a learned logit a head takes part in each softmax and brings no value (gpt-oss)");
    f("gate", &O::gate, "a learned sigmoid of each row multiplies what the heads bring (Qwen3-Next)");
    f("temperature", &O::temperature, "queries at position p grow by 1 + temperature * ln(1 + floor((p + 1) / "
      "temperature_floor)); 0 = never (Llama 4)").range(0);
    f("temperature_floor", &O::temperature_floor, "see temperature").range(1).unit("tokens");
  }
};

class GroupedQueryAttention : public Body {
 public:
  explicit GroupedQueryAttention(GroupedQueryOptions options) : options_(options) {}

  void prepare(const BodyPlace& place) override {
    name_ = place.name;
    heads_ = options_.heads;
    kv_heads_ = options_.kv_heads > 0 ? options_.kv_heads : heads_;
    check(heads_ % kv_heads_ == 0, "blocks.heads", "{}: {} query heads cannot share {} key heads evenly", name_, heads_,
          kv_heads_);
    check(options_.head_dim > 0 || place.width % heads_ == 0, "blocks.heads",
          "{}: a width of {} does not divide among {} heads; set head_dim", name_, place.width, heads_);
    head_dim_ = options_.head_dim > 0 ? options_.head_dim : place.width / heads_;
    query_ = SiteLinear(place, "query", place.width, heads_ * head_dim_, options_.bias);
    key_ = SiteLinear(place, "key", place.width, kv_heads_ * head_dim_, options_.bias);
    value_ = SiteLinear(place, "value", place.width, kv_heads_ * head_dim_, options_.bias);
    output_ = SiteLinear(place, "output", heads_ * head_dim_, place.width, options_.output_bias);
    if (options_.gate) gate_.emplace(place, "gate", place.width, heads_ * head_dim_, options_.bias);
    if (place.rotary && options_.positions) {
      rotary_.emplace(*place.rotary, head_dim_);
      const RotaryScaling& scaling = place.rotary->scaling;
      moves_ = scaling.kind == RotaryScaling::Kind::longrope || (scaling.kind == RotaryScaling::Kind::dynamic && scaling.alpha == 0);
    }
    if (place.relative && options_.positions) {
      relative_ = place.relative;
      relative_->join(heads_, name_);
    }
    norm_eps_ = place.norm_eps;
    if (options_.qk_norm != QueryKeyNorm::none && options_.qk_norm != QueryKeyNorm::unit) {
      const bool full = options_.qk_norm == QueryKeyNorm::full, centred = place.norm == Norm::rms_centred;
      query_norm_ = std::make_shared<RmsNorm>(full ? heads_ * head_dim_ : head_dim_, place.norm_eps, centred);
      key_norm_ = std::make_shared<RmsNorm>(full ? kv_heads_ * head_dim_ : head_dim_, place.norm_eps, centred);
    }
  }

  void declare(const Schema& schema) override {
    for (SiteLinear* map : {&query_, &key_, &value_, &output_}) map->declare(schema);
    if (gate_) gate_->declare(schema);
    if (options_.sinks) sinks_ = schema.add("sinks", {heads_}, Role::bias, Init::zeros());
    if (query_norm_) query_norm_->declare(schema.in("query_norm"));
    if (key_norm_) key_norm_->declare(schema.in("key_norm"));
  }

  at::Tensor forward(const at::Tensor& x, const Context& context) const override {
    at::Tensor q = in_heads(query_(x, context), query_norm_, heads_, context);
    at::Tensor k = in_heads(key_(x, context), key_norm_, kv_heads_, context);
    const at::Tensor v = in_heads(value_(x, context), {}, kv_heads_, context);
    const bool moving = moves_ && context.state != nullptr;
    if (rotary_) {
      const Rotary::Angles angles = rotary_->angles(context.facts, name_, x.scalar_type() == at::kDouble);
      q = after_turn(rotary_->turn(q, angles), query_norm_, context);
      if (!moving) k = after_turn(rotary_->turn(k, angles), key_norm_, context);
    }
    if (options_.temperature > 0) q = q * temperature(context).to(q.scalar_type());
    AttendOptions options{.name = name_, .scale = {}, .window = options_.window, .chunk = options_.chunk, .cap = options_.cap};
    if (moving)
      options.turn = [&](const at::Tensor& keys) {
        const at::Tensor position = at::arange(keys.size(0), at::kLong), length = at::full_like(position, keys.size(0));
        return after_turn(rotary_->turn(keys, rotary_->angles(position, keys.scalar_type() == at::kDouble, length)), key_norm_, context);
      };
    if (options_.scale > 0) options.scale = options_.scale;
    if (sinks_) options.sinks = context[sinks_];
    if (relative_) options.bias = [&](int64_t first, int64_t queries, int64_t keys) { return relative_->scores(first, queries, keys, context); };
    at::Tensor y = attend(q, k, v, context, options).reshape({x.size(0), heads_ * head_dim_});
    if (gate_) y = y * (*gate_)(x, context).sigmoid();
    return output_(y, context);
  }

  std::vector<StateSpec> states() const override { return attend_states(name_, kv_heads_, head_dim_, head_dim_); }

  Reach reach(const Overrides& overrides, Phase phase) const override {
    Reach reach;
    for (const SiteLinear* map : {&query_, &key_, &value_, &output_})
      reach = larger(reach, map->site().reach(overrides, phase));
    return gate_ ? larger(reach, gate_->site().reach(overrides, phase)) : reach;
  }

  void each_child(const std::function<void(Part&)>& visit) override {
    for (const SiteLinear* map : {&query_, &key_, &value_, &output_}) map->site().each_child(visit);
    if (gate_) gate_->site().each_child(visit);
    if (query_norm_) visit(*query_norm_);
    if (key_norm_) visit(*key_norm_);
  }

 private:
  /// [T, heads · d] → [T, heads, d], normed and cut where the options say.
  at::Tensor in_heads(at::Tensor rows, const std::shared_ptr<RmsNorm>& norm, int64_t heads, const Context& context) const {
    if (norm && options_.qk_norm == QueryKeyNorm::full) rows = norm->forward(rows, context);
    rows = rows.view({rows.size(0), heads, head_dim_});
    if (norm && options_.qk_norm == QueryKeyNorm::head) rows = norm->forward(rows, context);
    return options_.clip > 0 ? rows.clamp(-options_.clip, options_.clip) : rows;
  }

  /// [T, heads, d], normed where that comes after turning.
  at::Tensor after_turn(at::Tensor rows, const std::shared_ptr<RmsNorm>& norm, const Context& context) const {
    if (options_.qk_norm == QueryKeyNorm::turned) return norm->forward(rows, context);
    return options_.qk_norm == QueryKeyNorm::unit ? unit_rms(rows, norm_eps_) : rows;
  }

  /// [T, 1, 1] float.
  at::Tensor temperature(const Context& context) const {
    const at::Tensor steps = (context.facts.row("position", name_) + 1).floor_divide(options_.temperature_floor);
    return (steps.to(at::kFloat).log1p() * options_.temperature + 1).view({-1, 1, 1});
  }

  GroupedQueryOptions options_;
  std::string name_;
  int64_t heads_ = 0, kv_heads_ = 0, head_dim_ = 0;
  double norm_eps_ = 0;
  bool moves_ = false;  ///< positions turn otherwise as a sequence grows
  std::optional<SiteLinear> gate_;
  Parameter sinks_;
  SiteLinear query_, key_, value_, output_;
  std::shared_ptr<RmsNorm> query_norm_, key_norm_;
  std::optional<Rotary> rotary_;
  std::shared_ptr<RelativeBias> relative_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(grouped_query_attention) {
  using namespace switchyard;
  registry.add<Body, GroupedQueryAttention, GroupedQueryOptions>(
      {.slug = "gqa", .name = "Grouped-query attention", .paper = "Ainslie et al., GQA", .year = 2023, .section = "4.2.3",
       .room = "blocks", .coupling = "none", .line = "query heads in groups share a key and a value head",
       .recipe = "recipes/quickstart.yaml"});
}
