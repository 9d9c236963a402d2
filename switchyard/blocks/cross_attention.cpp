// Cross attention (Vaswani et al. 2017): queries of a decoder's rows over keys and values of an encoder's. The encoder's part is
// computed once a sequence and kept.
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>

#include "switchyard/base/registry.h"
#include "switchyard/blocks/attend.h"
#include "switchyard/blocks/body.h"
#include "switchyard/blocks/memory.h"
#include "switchyard/blocks/site_linear.h"

namespace switchyard {
namespace {

struct CrossAttentionOptions {
  int64_t heads = 8, kv_heads = 0, head_dim = 0;
  bool bias = false, output_bias = false;
  double scale = 0;

  static void describe(Fields<CrossAttentionOptions>& f) {
    using O = CrossAttentionOptions;
    f.title("Cross attention", "Softmax attention of a decoder's rows over all rows of its encoder's sequence.");
    f("heads", &O::heads, "query heads H").range(1, 1 << 16);
    f("kv_heads", &O::kv_heads, "key and value heads, a divisor of heads; 0 = as many as heads").range(0, 1 << 16);
    f("head_dim", &O::head_dim, "width of a head; 0 = model width / heads").range(0, 1 << 16);
    f("bias", &O::bias, "biases on query, key and value");
    f("output_bias", &O::output_bias, "a bias on the output");
    f("scale", &O::scale, "multiplies the scores; 0 = 1/sqrt(head_dim)").range(0);
  }
};

class CrossAttention : public Body {
 public:
  explicit CrossAttention(CrossAttentionOptions options) : options_(options) {}

  void prepare(const BodyPlace& place) override {
    name_ = place.name;
    heads_ = options_.heads;
    kv_heads_ = options_.kv_heads > 0 ? options_.kv_heads : heads_;
    check(heads_ % kv_heads_ == 0, "blocks.heads", "{}: {} query heads cannot share {} key heads evenly", name_, heads_, kv_heads_);
    check(options_.head_dim > 0 || place.width % heads_ == 0, "blocks.heads",
          "{}: a width of {} does not divide among {} heads; set head_dim", name_, place.width, heads_);
    head_dim_ = options_.head_dim > 0 ? options_.head_dim : place.width / heads_;
    query_ = SiteLinear(place, "query", place.width, heads_ * head_dim_, options_.bias);
    key_ = SiteLinear(place, "key", place.width, kv_heads_ * head_dim_, options_.bias);
    value_ = SiteLinear(place, "value", place.width, kv_heads_ * head_dim_, options_.bias);
    output_ = SiteLinear(place, "output", heads_ * head_dim_, place.width, options_.output_bias);
  }

  void declare(const Schema& schema) override {
    for (SiteLinear* map : {&query_, &key_, &value_, &output_}) map->declare(schema);
  }

  at::Tensor forward(const at::Tensor& x, const Context& context) const override {
    const at::Tensor q = query_(x, context).view({x.size(0), heads_, head_dim_});
    const auto [k, v, others] = seen(context);
    const AttendOptions options{.name = name_, .scale = options_.scale > 0 ? std::optional(options_.scale) : std::nullopt};
    return output_(attend_across(q, k, v, context.facts.segments, others, options).reshape({x.size(0), heads_ * head_dim_}), context);
  }

  std::vector<StateSpec> states() const override { return attend_states(name_, kv_heads_, head_dim_, head_dim_); }

  Reach reach(const Overrides& overrides, Phase phase) const override {
    Reach reach;
    for (const SiteLinear* map : {&query_, &key_, &value_, &output_}) reach = larger(reach, map->site().reach(overrides, phase));
    return reach;
  }

  void each_child(const std::function<void(Part&)>& visit) override {
    for (const SiteLinear* map : {&query_, &key_, &value_, &output_}) map->site().each_child(visit);
  }

 private:
  struct Seen {
    at::Tensor key, value;  ///< [U, Hk, d]
    Segments segments;
  };

  /// Keys and values of the encoder's rows: from the facts, or what the state holds of running sequences.
  Seen seen(const Context& context) const {
    if (context.state == nullptr) return computed(context);
    const Segments& segments = context.facts.segments;
    const std::string key = name_ + ".key", value = name_ + ".value";
    Seen fresh, all;
    std::vector<at::Tensor> keys, values;
    for (int64_t s = 0; s < segments.count(); ++s) {
      const int64_t sequence = segments.sequence_of(s);
      int64_t begin = 0, length = 0;
      if (segments.length(s) > 0 && context.state->length(key, sequence) == 0) {
        if (!fresh.key.defined()) fresh = computed(context);
        begin = fresh.segments.begin[static_cast<size_t>(s)];
        length = fresh.segments.length(s);
      }
      const at::Tensor& like = fresh.key.defined() ? fresh.key : none(context);
      keys.push_back(context.state->append(key, sequence, like.narrow(0, begin, length)));
      values.push_back(context.state->append(value, sequence, (fresh.value.defined() ? fresh.value : like).narrow(0, begin, length)));
      all.segments.begin.push_back(all.segments.rows() + keys.back().size(0));
    }
    all.key = keys.size() == 1 ? keys[0] : at::cat(keys, 0);
    all.value = values.size() == 1 ? values[0] : at::cat(values, 0);
    return all;
  }

  Seen computed(const Context& context) const {
    const Memory memory = memory_of(context.facts, name_);
    Facts facts(memory.segments);
    const Context there = context.with(facts);
    const int64_t rows = memory.rows.size(0);
    return {key_(memory.rows, there).view({rows, kv_heads_, head_dim_}), value_(memory.rows, there).view({rows, kv_heads_, head_dim_}),
            memory.segments};
  }

  /// No rows, to read what is held.
  const at::Tensor none(const Context& context) const {
    return context[key_.weight()].detach().new_empty({0, kv_heads_, head_dim_});
  }

  CrossAttentionOptions options_;
  std::string name_;
  int64_t heads_ = 0, kv_heads_ = 0, head_dim_ = 0;
  SiteLinear query_, key_, value_, output_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(cross_attention) {
  using namespace switchyard;
  registry.add<Body, CrossAttention, CrossAttentionOptions>(
      {.slug = "cross-attention", .name = "Cross attention", .paper = "Vaswani et al., Attention is all you need", .year = 2017,
       .section = "4.2.3", .room = "blocks", .coupling = "none", .line = "a decoder's rows look at all rows of an encoder",
       .recipe = "recipes/methods/cross-attention.yaml"});
}
