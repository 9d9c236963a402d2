// Attention whose past is one matrix a head. The gated delta net (Yang et al. 2024; Qwen3-Next): the matrix decays, and a key's old
// value is corrected toward its new one. Lightning attention (Qin et al. 2024; MiniMax-01): a fixed decay a head, keys and
// values only added; the decays follow from layer and head, or are tables among the weights.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "switchyard/base/error.h"
#include "switchyard/base/registry.h"
#include "switchyard/blocks/body.h"
#include "switchyard/blocks/norm.h"
#include "switchyard/blocks/recurrent.h"
#include "switchyard/blocks/scan.h"
#include "switchyard/blocks/site_linear.h"

namespace switchyard {
namespace {

void check_causal(const Context& context, const std::string& who) {
  check(context.facts.segments.causal, "blocks.causal", "{}: a running state sees earlier rows only; use it in causal models", who);
}

at::ScalarType wide_type(const at::Tensor& x) { return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }
at::Tensor wide(const at::Tensor& x) { return x.to(wide_type(x)); }

struct DeltaNetOptions {
  int64_t key_heads = 4, value_heads = 8, key_dim = 32, value_dim = 32, convolution = 4;
  std::string activation = "silu";

  static void describe(Fields<DeltaNetOptions>& f) {
    using O = DeltaNetOptions;
    f.title("Gated delta net", "A matrix a head that decays and corrects the value of each key.");
    f("key_heads", &O::key_heads, "heads of queries and keys").range(1, 1 << 16);
    f("value_heads", &O::value_heads, "heads of values, a multiple of key_heads").range(1, 1 << 16);
    f("key_dim", &O::key_dim, "width of a query's and a key's head").range(1, 1 << 16);
    f("value_dim", &O::value_dim, "width of a value's head").range(1, 1 << 16);
    f("convolution", &O::convolution, "rows that the convolution before sees").range(1, 1 << 10).unit("tokens");
    describe_curve(f, &O::activation, "what rows pass behind the convolution");
  }
};

class GatedDeltaNet : public Body {
 public:
  explicit GatedDeltaNet(const DeltaNetOptions& options) : o_(options) {}

  void prepare(const BodyPlace& place) override {
    name_ = place.name;
    check(o_.value_heads % o_.key_heads == 0, "blocks.heads", "{}: {} value heads do not divide among {} key heads", name_,
          o_.value_heads, o_.key_heads);
    keys_ = o_.key_heads * o_.key_dim;
    values_ = o_.value_heads * o_.value_dim;
    norm_eps_ = place.norm_eps;
    in_ = SiteLinear(place, "in", place.width, 2 * keys_ + 2 * values_, false);
    gates_ = SiteLinear(place, "gates", place.width, 2 * o_.value_heads, false);
    out_ = SiteLinear(place, "out", values_, place.width, false);
  }

  void declare(const Schema& schema) override {
    for (SiteLinear* map : {&in_, &gates_, &out_}) map->declare(schema);
    const double spread = 1 / std::sqrt(static_cast<double>(o_.convolution));
    convolution_ = schema.in("convolution").add("weight", {2 * keys_ + values_, o_.convolution}, Role::projection, Init::uniform(spread));
    decay_ = schema.add("decay", {o_.value_heads}, Role::bias, Init::ones());
    step_bias_ = schema.add("step_bias", {o_.value_heads}, Role::bias, Init::ones());
    norm_ = schema.in("norm").add("weight", {o_.value_dim}, Role::norm, Init::ones());
  }

  at::Tensor forward(const at::Tensor& x, const Context& context) const override {
    check_causal(context, name_);
    const PaddedSequences sequences(context.facts.segments);
    const int64_t rows = x.size(0), group = o_.value_heads / o_.key_heads, wide_value = group * o_.value_dim;
    // A key head's part of the map: its query, its key, and values and gates of the value heads that read it.
    const at::Tensor all = in_(x, context).view({rows, o_.key_heads, 2 * o_.key_dim + 2 * wide_value});
    const auto part = [&](int64_t first, int64_t length) { return all.narrow(2, first, length).reshape({rows, -1}); };
    const at::Tensor gate = part(2 * o_.key_dim + wide_value, wide_value).view({rows, o_.value_heads, o_.value_dim});
    const at::Tensor mixed = at::cat({part(0, o_.key_dim), part(o_.key_dim, o_.key_dim), part(2 * o_.key_dim, wide_value)}, 1);
    const at::Tensor convolved = causal_convolution(sequences.spread(mixed), context[convolution_], {}, sequences, context, name_ + ".convolution");
    const at::Tensor seen = sequences.gather(curve(convolved, o_.activation));
    const auto heads = [&](int64_t first) { return seen.narrow(1, first, keys_).view({rows, o_.key_heads, o_.key_dim}); };
    const at::Tensor q = heads(0), k = heads(keys_);
    const at::Tensor v = seen.narrow(1, 2 * keys_, values_).view({rows, o_.value_heads, o_.value_dim});
    const at::Tensor both = gates_(x, context).view({rows, o_.key_heads, 2 * group});
    const at::Tensor beta = wide(both.narrow(2, 0, group).reshape({rows, o_.value_heads})).sigmoid();
    const at::Tensor a = wide(both.narrow(2, group, group).reshape({rows, o_.value_heads}));
    const at::Tensor log_keep = -wide(context[decay_]).exp() * at::softplus(a + wide(context[step_bias_]));
    at::Tensor y = scan(q, k, v, beta, log_keep, sequences, context);
    y = unit_rms(y, norm_eps_).to(x.scalar_type()) * context[norm_];
    y = (wide(y) * at::silu(wide(gate))).to(x.scalar_type());
    return out_(y.reshape({rows, values_}), context);
  }

  std::vector<StateSpec> states() const override {
    return {convolution_state(name_ + ".convolution", 2 * keys_ + values_, o_.convolution),
            {.name = name_ + ".state", .kind = StateSpec::Kind::per_sequence, .shape = {o_.value_heads, o_.key_dim, o_.value_dim}}};
  }
  Reach reach(const Overrides& overrides, Phase phase) const override {
    Reach reach;
    for (const SiteLinear* map : {&in_, &gates_, &out_}) reach = larger(reach, map->site().reach(overrides, phase));
    return reach;
  }
  void each_child(const std::function<void(Part&)>& visit) override {
    for (const SiteLinear* map : {&in_, &gates_, &out_}) map->site().each_child(visit);
  }

 private:
  /// S ← e^g S; S ← S + k (β (v − Sᵀk))ᵀ; y = Sᵀq. q, k: [T, G, dk]; v: [T, H, dv]; beta, g: [T, H]. Padding has g = 0 and k = 0.
  at::Tensor scan(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& beta, const at::Tensor& g,
                  const PaddedSequences& sequences, const Context& context) const {
    const auto spread = [&](const at::Tensor& rows) { return sequences.spread(rows); };
    const at::Tensor held = sequences.held(context, name_ + ".state", {o_.value_heads, o_.key_dim, o_.value_dim}, g);
    const Scanned scanned = delta_scan(spread(q), spread(k), spread(v), spread(beta), spread(g), held);
    sequences.keep(context, name_ + ".state", scanned.state);
    return sequences.gather(scanned.rows);
  }

  DeltaNetOptions o_;
  std::string name_;
  int64_t keys_ = 0, values_ = 0;
  double norm_eps_ = 0;
  SiteLinear in_, gates_, out_;
  Parameter convolution_, decay_, step_bias_, norm_;
};

struct LightningOptions {
  int64_t heads = 8, head_dim = 0, table_rows = 0;
  double inner_norm_eps = 1e-6;
  std::string activation = "silu";

  static void describe(Fields<LightningOptions>& f) {
    using O = LightningOptions;
    f.title("Lightning attention", "Linear attention with a fixed decay a head, slower in later layers.");
    f("heads", &O::heads, "heads H").range(1, 1 << 16);
    f("head_dim", &O::head_dim, "width of a head; 0 = model width / heads").range(0, 1 << 16);
    f("table_rows", &O::table_rows, "rows of a block whose decays are tables among the weights; 0 = they follow from layer and head").range(0, 1 << 13).unit("tokens");
    f("inner_norm_eps", &O::inner_norm_eps, "added under the root of the norm behind the heads").range(0, 1);
    describe_curve(f, &O::activation, "what queries, keys and values pass");
  }
};

/// The decays of heads in blocks of B rows, as tables: what transformers keeps beside MiniMax's weights, rounded where those are. A
/// sequence that goes on steps row by row, and reads the slope alone.
struct DecayTables {
  Parameter slope, query, key, diagonal;  ///< [H, 1, 1]; of row i e^(-slope (i + 1)) and e^(-slope (B - 1 - i)): [H, B, 1]; [1, H, B, B]

  DecayTables() = default;
  DecayTables(const Schema& schema, const std::vector<double>& slopes, int64_t rows) {
    const auto heads = static_cast<int64_t>(slopes.size());
    const auto computed = [slopes](const std::function<at::Tensor(const at::Tensor&)>& of) {
      return Init::computed([=] { return of(at::tensor(slopes, at::kDouble).view({-1, 1, 1})); });
    };
    const auto range = [rows] { return at::arange(1, rows + 1, at::kDouble); };
    slope = schema.buffer("slope", {heads, 1, 1}, computed([](const at::Tensor& s) { return s; }));
    query = schema.buffer("query", {heads, rows, 1}, computed([=](const at::Tensor& s) { return (-s * range().unsqueeze(1)).exp(); }));
    key = schema.buffer("key", {heads, rows, 1}, computed([=](const at::Tensor& s) { return (-s * (rows - range().unsqueeze(1))).exp(); }));
    diagonal = schema.buffer("diagonal", {1, heads, rows, rows}, computed([=](const at::Tensor& s) {
      const at::Tensor apart = range().unsqueeze(1) - range().unsqueeze(0);
      return (-s * apart).exp().masked_fill(apart.lt(0), 0).unsqueeze(0);
    }));
  }

  /// One sequence from its beginning. q, k, v: [L, H, d].
  Scanned scan(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Context& context) const {
    const at::Tensor slopes = wide(context[slope]), of_query = wide(context[query]), of_key = wide(context[key]), of_pair = wide(context[diagonal]).squeeze(0);
    const int64_t block = of_query.size(1), rows = q.size(0);
    at::Tensor state = at::zeros({q.size(1), k.size(2), v.size(2)}, q.options());
    std::vector<at::Tensor> seen;
    for (int64_t first = 0; first < rows; first += block) {
      const int64_t here = std::min(block, rows - first);
      const auto part = [&](const at::Tensor& all) { return all.narrow(0, first, here).transpose(0, 1); };
      const at::Tensor a = part(q), b = part(k), c = part(v);
      const at::Tensor inside = at::matmul(at::matmul(a, b.transpose(1, 2)) * of_pair.narrow(1, 0, here).narrow(2, 0, here), c);
      seen.push_back((at::matmul(a * of_query.narrow(1, 0, here), state) + inside).transpose(0, 1));
      state = state * (-slopes * static_cast<double>(here)).exp() + at::matmul((b * of_key.narrow(1, block - here, here)).transpose(1, 2), c);
    }
    return {seen.empty() ? v : at::cat(seen, 0), state};
  }
};

class LightningAttention : public Body {
 public:
  explicit LightningAttention(const LightningOptions& options) : o_(options) {}

  void prepare(const BodyPlace& place) override {
    name_ = place.name;
    check(o_.head_dim > 0 || place.width % o_.heads == 0, "blocks.heads", "{}: a width of {} does not divide among {} heads; set head_dim",
          name_, place.width, o_.heads);
    if (o_.head_dim == 0) o_.head_dim = place.width / o_.heads;
    inner_ = o_.heads * o_.head_dim;
    in_ = SiteLinear(place, "in", place.width, 3 * inner_, false);
    gate_ = SiteLinear(place, "gate", place.width, inner_, false);
    out_ = SiteLinear(place, "out", inner_, place.width, false);
    norm_ = std::make_shared<RmsNorm>(inner_, o_.inner_norm_eps);
    const double share = 1 - static_cast<double>(place.layer) / (static_cast<double>(place.layers - 1) + 1e-5) + 1e-5;
    for (int64_t h = 0; h < o_.heads; ++h)
      slope_.push_back(std::exp2(-8.0 * static_cast<double>(h + 1) / static_cast<double>(o_.heads)) * share);
  }

  void declare(const Schema& schema) override {
    for (SiteLinear* map : {&in_, &gate_, &out_}) map->declare(schema);
    norm_->declare(schema.in("norm"));
    if (o_.table_rows > 0) tables_ = DecayTables(schema.in("decay"), slope_, o_.table_rows);
  }

  at::Tensor forward(const at::Tensor& x, const Context& context) const override {
    check_causal(context, name_);
    const int64_t rows = x.size(0), d = o_.head_dim;
    const at::Tensor all = curve(in_(x, context), o_.activation).view({rows, o_.heads, 3 * d});
    const at::Tensor seen = o_.table_rows > 0 ? by_tables(all, context) : by_slopes(all, context);
    const at::Tensor normed = norm_->forward(seen.reshape({rows, inner_}).to(x.scalar_type()), context);
    return out_(normed * gate_(x, context).sigmoid(), context);
  }

  std::vector<StateSpec> states() const override {
    return {{.name = name_ + ".state", .kind = StateSpec::Kind::per_sequence, .shape = {o_.heads, o_.head_dim, o_.head_dim}}};
  }
  Reach reach(const Overrides& overrides, Phase phase) const override {
    Reach reach;
    for (const SiteLinear* map : {&in_, &gate_, &out_}) reach = larger(reach, map->site().reach(overrides, phase));
    return reach;
  }
  void each_child(const std::function<void(Part&)>& visit) override {
    for (const SiteLinear* map : {&in_, &gate_, &out_}) map->site().each_child(visit);
    visit(*norm_);
  }

 private:
  /// all: [T, H, 3 d], queries, keys and values of each head. Returns [T, H, d].
  at::Tensor by_slopes(const at::Tensor& all, const Context& context) const {
    const PaddedSequences sequences(context.facts.segments);
    const int64_t d = o_.head_dim;
    const auto part = [&](int64_t first) { return sequences.spread(all.narrow(2, first, d)); };
    // A sequence decays over its own rows alone: by the slope there, not at all in the padding.
    const at::Tensor slope = at::tensor(slope_, at::kDouble).to(all.options().dtype(wide_type(all)));
    const Scanned scanned = decayed_scan(part(0), part(d), part(2 * d), sequences.spread(-slope.expand({all.size(0), o_.heads})),
                                         sequences.held(context, name_ + ".state", {o_.heads, d, d}, slope));
    sequences.keep(context, name_ + ".state", scanned.state);
    return sequences.gather(scanned.rows);
  }
  /// A sequence that begins goes by the tables, one that goes on by the slope among them, whatever else is in the pass.
  at::Tensor by_tables(const at::Tensor& all, const Context& context) const {
    const Segments& segments = context.facts.segments;
    const PaddedSequences sequences(segments);
    const int64_t d = o_.head_dim;
    const at::Tensor values = wide(all), slope = wide(context[tables_.slope]).flatten();
    const at::Tensor held = sequences.held(context, name_ + ".state", {o_.heads, d, d}, values);
    std::vector<at::Tensor> seen, states;
    for (int64_t s = 0; s < segments.count(); ++s) {
      const at::Tensor rows = values.narrow(0, segments.begin[static_cast<size_t>(s)], segments.length(s));
      const at::Tensor q = rows.narrow(2, 0, d), k = rows.narrow(2, d, d), v = rows.narrow(2, 2 * d, d);
      const auto one = [](const at::Tensor& t) { return t.unsqueeze(0); };
      const Scanned scanned = segments.past_of(s) == 0 ? tables_.scan(q, k, v, context)
                                                       : decayed_scan(one(q), one(k), one(v), one(-slope.expand({q.size(0), o_.heads})), held.narrow(0, s, 1));
      seen.push_back(scanned.rows.reshape({q.size(0), o_.heads, d}));
      states.push_back(scanned.state.reshape({o_.heads, d, d}));
    }
    sequences.keep(context, name_ + ".state", at::stack(states, 0));
    return at::cat(seen, 0);
  }

  LightningOptions o_;
  std::string name_;
  int64_t inner_ = 0;
  std::vector<double> slope_;
  SiteLinear in_, gate_, out_;
  std::shared_ptr<RmsNorm> norm_;
  DecayTables tables_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(linear_attention) {
  using namespace switchyard;
  registry.add<Body, GatedDeltaNet, DeltaNetOptions>(
      {.slug = "gated-delta-net", .name = "Gated delta net", .paper = "Yang et al., Gated delta networks", .year = 2024,
       .section = "beyond", .room = "blocks", .coupling = "none", .line = "linear attention that decays and corrects the value of each key",
       .recipe = "recipes/methods/gated-delta-net.yaml"});
  registry.add<Body, LightningAttention, LightningOptions>(
      {.slug = "lightning-attention", .name = "Lightning attention", .paper = "Qin et al., Various lengths, constant speed", .year = 2024,
       .section = "beyond", .room = "blocks", .coupling = "none", .line = "linear attention with a fixed decay a head",
       .recipe = "recipes/methods/lightning-attention.yaml"});
}
