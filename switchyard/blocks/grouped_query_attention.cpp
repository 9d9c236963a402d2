// Grouped-query attention (Ainslie et al. 2023): H query heads share Hk key and value heads. Hk = H is multi-head
// attention (Vaswani et al. 2017), Hk = 1 multi-query attention.
#include <ATen/core/Tensor.h>

#include "switchyard/base/registry.h"
#include "switchyard/blocks/attend.h"
#include "switchyard/blocks/body.h"
#include "switchyard/blocks/norm.h"
#include "switchyard/blocks/site_linear.h"

namespace switchyard {
namespace {

/// RMSNorm of queries and keys before they turn.
enum class QueryKeyNorm {
  none,
  head,  ///< each head by itself, one weight for all heads (Qwen3)
  full,  ///< over all heads at once (OLMoE)
};

struct GroupedQueryOptions {
  int64_t heads = 8, kv_heads = 0, head_dim = 0, window = 0;
  bool bias = false, output_bias = false;
  QueryKeyNorm qk_norm = QueryKeyNorm::none;
  double clip = 0;

  static void describe(Fields<GroupedQueryOptions>& f) {
    using O = GroupedQueryOptions;
    f.title("Grouped-query attention", "Softmax attention whose query heads share key and value heads.");
    f("heads", &O::heads, "query heads H").range(1, 1 << 16);
    f("kv_heads", &O::kv_heads, "key and value heads, a divisor of heads; 0 = as many as heads").range(0, 1 << 16);
    f("head_dim", &O::head_dim, "width of a head; 0 = model width / heads").range(0, 1 << 16);
    f("bias", &O::bias, "biases on query, key and value");
    f("output_bias", &O::output_bias, "a bias on the output");
    f("qk_norm", &O::qk_norm, "RMSNorm of queries and keys: none, each head by itself, or the full width")
        .choices({"none", "head", "full"});
    f("clip", &O::clip, "queries, keys and values are cut at this size; 0 = never (OLMoE, DBRX)").range(0);
    f("window", &O::window, "a row sees itself and the window - 1 rows before it; 0 = all before it").range(0).unit("tokens");
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
    if (place.rotary) rotary_.emplace(*place.rotary, head_dim_);
    if (options_.qk_norm != QueryKeyNorm::none) {
      const bool full = options_.qk_norm == QueryKeyNorm::full;
      query_norm_ = std::make_shared<RmsNorm>(full ? heads_ * head_dim_ : head_dim_, place.norm_eps);
      key_norm_ = std::make_shared<RmsNorm>(full ? kv_heads_ * head_dim_ : head_dim_, place.norm_eps);
    }
  }

  void declare(const Schema& schema) override {
    for (SiteLinear* map : {&query_, &key_, &value_, &output_}) map->declare(schema);
    if (query_norm_) query_norm_->declare(schema.in("query_norm"));
    if (key_norm_) key_norm_->declare(schema.in("key_norm"));
  }

  at::Tensor forward(const at::Tensor& x, const Context& context) const override {
    at::Tensor q = in_heads(query_(x, context), query_norm_, heads_, context);
    at::Tensor k = in_heads(key_(x, context), key_norm_, kv_heads_, context);
    const at::Tensor v = in_heads(value_(x, context), {}, kv_heads_, context);
    if (rotary_) {
      const Rotary::Angles angles = rotary_->angles(context.facts.row("position", name_), x.scalar_type() == at::kDouble);
      q = rotary_->turn(q, angles);
      k = rotary_->turn(k, angles);
    }
    const at::Tensor y = attend(q, k, v, context, {.name = name_, .scale = {}, .window = options_.window});
    return output_(y.reshape({x.size(0), heads_ * head_dim_}), context);
  }

  std::vector<StateSpec> states() const override { return attend_states(name_, kv_heads_, head_dim_, head_dim_); }

  Reach reach(const Overrides& overrides, Phase phase) const override {
    Reach reach;
    for (const SiteLinear* map : {&query_, &key_, &value_, &output_})
      reach = larger(reach, map->site().reach(overrides, phase));
    return reach;
  }

  void each_child(const std::function<void(Part&)>& visit) override {
    for (const SiteLinear* map : {&query_, &key_, &value_, &output_}) map->site().each_child(visit);
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

  GroupedQueryOptions options_;
  std::string name_;
  int64_t heads_ = 0, kv_heads_ = 0, head_dim_ = 0;
  SiteLinear query_, key_, value_, output_;
  std::shared_ptr<RmsNorm> query_norm_, key_norm_;
  std::optional<Rotary> rotary_;
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
