// Norms, rotary positions, attention and the block: proofs.
#include "switchyard/base/differentiable.h"
#include "switchyard/blocks/block.h"

#include <ATen/Parallel.h>

#include "switchyard/base/registry.h"
#include "switchyard/blocks/attend.h"
#include "switchyard/blocks/norm.h"
#include "switchyard/blocks/rotary.h"
#include "tests/models/decoder_support.h"

namespace switchyard::testing {
namespace {

at::Tensor values(std::initializer_list<double> list) { return at::tensor(std::vector<double>(list), at::kDouble); }

/// A norm with its parameters as declared.
template <typename Norm>
struct Bound {
  Bound(int64_t width, double eps) : norm(width, eps) {
    norm.declare(schema);
    initialise(schema, Streams(1), at::kDouble);
  }
  at::Tensor operator()(const at::Tensor& x) const { return norm.forward(x, Pass(x.size(0)).context); }
  Schema schema;
  Norm norm;
};

TEST(Catalogue, rmsnorm) {
  const Bound<RmsNorm> exact(2, 0);
  EXPECT_LT(difference(exact(values({3, 4}).unsqueeze(0)), values({0.848528137, 1.131370850}).unsqueeze(0)), 1e-8);
  const Bound<RmsNorm> norm(6, 1e-12);
  const Bound<LayerNorm> layer(6, 1e-12);
  const at::Tensor x = randn({5, 6}, 1);
  EXPECT_LT(difference(norm(x * 7.5), norm(x)), 1e-9);
  EXPECT_GT(difference(norm(x + 2), norm(x)), 0.1);
  EXPECT_LT(difference(layer(x + 2), layer(x)), 1e-9);
  EXPECT_LT(difference(layer(x).mean(1), at::zeros({5})), 1e-9);
  EXPECT_TRUE(at::equal(Bound<RmsNorm>(6, 1e-6)(at::zeros({2, 6}, at::kDouble)), at::zeros({2, 6}, at::kDouble)));
  // With weight 1 the output does not change along x, so the gradient is orthogonal to x.
  at::Tensor leaf = x.clone().requires_grad_();
  (norm(leaf) * randn({5, 6}, 2)).sum().backward();
  EXPECT_LT((leaf.grad() * x).sum(1).abs().max().item<double>(), 1e-9);
  at::NoGradGuard guard;
  norm.schema.all()[0].tensor().copy_(randn({6}, 3));
  layer.schema.all()[1].tensor().copy_(randn({6}, 4));
  at::AutoGradMode grad(true);
  leaf = x.clone().requires_grad_();
  expect_gradients([&] { return norm(leaf); }, {leaf, norm.schema.all()[0].tensor()});
  expect_gradients([&] { return layer(leaf); }, {leaf, layer.schema.all()[0].tensor(), layer.schema.all()[1].tensor()});
}

TEST(Norm, HalfPrecisionRowsAreNormedInFloat) {
  const Bound<RmsNorm> norm(64, 1e-6);
  const at::Tensor x = randn({4, 64}, 1, at::kFloat).mul(1e-3).to(at::kBFloat16);
  const at::Tensor y = norm(x);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  EXPECT_LT(difference(y, norm(x.to(at::kDouble))), 0.02);
}

TEST(Norm, GradientsOfManyRowsInEveryTypeAndThreadCount) {
  // Against the formula in float64; the sum over rows does not depend on the threads.
  const at::Tensor x = randn({300, 48}, 1), g = randn({300, 48}, 2), w = randn({48}, 3);
  const at::Tensor leaf_x = x.clone().requires_grad_(), leaf_w = w.clone().requires_grad_();
  const at::Tensor expected = leaf_x * (leaf_x.square().mean(1, true) + 1e-6).rsqrt() * leaf_w;
  expected.backward(g);
  const int threads = at::get_num_threads();
  for (const auto& [type, tolerance] : {std::pair{at::kDouble, 1e-12}, {at::kFloat, 1e-4}, {at::kBFloat16, 0.5}}) {
    std::vector<at::Tensor> first;
    for (const int count : {1, 3}) {
      at::set_num_threads(count);
      RmsNorm norm(48, 1e-6);
      const Schema schema;
      norm.declare(schema);
      schema.all()[0].bind(w.to(type == at::kDouble ? at::kDouble : at::kFloat, false, true));
      const at::Tensor rows = x.to(type, false, true).requires_grad_();
      const at::Tensor y = norm.forward(rows, Pass(300).context);
      y.backward(g.to(type));
      EXPECT_LT(difference(y, expected), tolerance);
      EXPECT_LT(difference(rows.grad(), leaf_x.grad()), tolerance);
      EXPECT_LT(difference(schema.all()[0].tensor().grad(), leaf_w.grad()), tolerance * 4);
      if (first.empty()) first = {y, rows.grad(), schema.all()[0].tensor().grad()};
      EXPECT_TRUE(at::equal(y, first[0]) && at::equal(rows.grad(), first[1]) && at::equal(schema.all()[0].tensor().grad(), first[2]));
    }
  }
  at::set_num_threads(threads);
}

/// The gradient of |d f / d x|², which only a twice differentiable f gives.
at::Tensor second_order(const std::function<at::Tensor(const at::Tensor&)>& f, const at::Tensor& x) {
  const at::Tensor leaf = x.clone().requires_grad_();
  const at::Tensor first = gradients({f(leaf).sin().sum()}, {leaf}, {}, true, /*create_graph=*/true)[0];
  return gradients({first.square().sum()}, {leaf})[0];
}

TEST(Norm, SecondDerivatives) {
  const Bound<RmsNorm> norm(5, 1e-6);
  const at::Tensor x = randn({3, 5}, 1);
  EXPECT_LT(difference(second_order([&](const at::Tensor& y) { return norm(y); }, x), second_order([](const at::Tensor& y) {
                         return y * (y.square().mean(1, true) + 1e-6).rsqrt();
                       }, x)), 1e-9);
}

at::Tensor turned(const at::Tensor& x, const at::Tensor& positions, RotaryOptions options = {}) {
  const Rotary rotary(options, x.size(-1));
  return rotary.turn(x, rotary.angles(positions, true));
}

TEST(Catalogue, rope) {
  // The half-split layout: coordinate i pairs with i + d/2.
  const at::Tensor x = values({1, 0, 1, 0}).view({1, 1, 4});
  EXPECT_LT(difference(turned(x, at::ones({1}, at::kLong)).view({4}), values({-0.301168679, 0, 1.381773291, 0})), 1e-8);
  EXPECT_TRUE(at::equal(turned(x, at::zeros({1}, at::kLong)), x));
  // Products depend on the distance alone, and lengths stay.
  const at::Tensor q = randn({1, 2, 8}, 1), k = randn({1, 2, 8}, 2);
  const auto product = [&](int64_t m, int64_t n) {
    return (turned(q, at::full({1}, m, at::kLong)) * turned(k, at::full({1}, n, at::kLong))).sum(-1);
  };
  for (int64_t shift : {1, 17, 1000}) EXPECT_LT(difference(product(3, 9), product(3 + shift, 9 + shift)), 1e-9);
  EXPECT_GT(difference(product(3, 9), product(3, 10)), 1e-3);
  EXPECT_LT(difference(turned(q, at::full({1}, 77, at::kLong)).norm(), q.norm()), 1e-12);
  // Every pair by the formula with theta and position as given.
  const at::Tensor many = randn({3, 1, 6}, 3), at = at::tensor(std::vector<int64_t>{0, 5, 2});
  const at::Tensor y = turned(many, at, {.theta = 50});
  for (int64_t t = 0; t < 3; ++t)
    for (int64_t i = 0; i < 3; ++i) {
      const double angle = at[t].item<double>() * std::pow(50, -2.0 * i / 6);
      const double a = many[t][0][i].item<double>(), b = many[t][0][i + 3].item<double>();
      EXPECT_NEAR(y[t][0][i].item<double>(), a * std::cos(angle) - b * std::sin(angle), 1e-12);
      EXPECT_NEAR(y[t][0][i + 3].item<double>(), b * std::cos(angle) + a * std::sin(angle), 1e-12);
    }
}

TEST(Rotary, InterleavedPairsAreAPermutationAway) {
  // [1,0,1,0] at position 1 with pairs (2i, 2i+1) is [.540302, .841471, .999950, .010000].
  const at::Tensor order = at::tensor(std::vector<int64_t>{0, 2, 1, 3});
  const at::Tensor x = values({1, 0, 1, 0}).index_select(0, order).view({1, 1, 4});
  const at::Tensor y = turned(x, at::ones({1}, at::kLong)).view({4}).index_select(0, order);
  EXPECT_LT(difference(y, values({0.540302306, 0.841470985, 0.999950000, 0.009999833})), 1e-8);
}

TEST(Rotary, GradientsTurnBack) {
  const at::Tensor at = at::tensor(std::vector<int64_t>{3, 4, 0});
  at::Tensor x = randn({3, 2, 6}, 1).requires_grad_();
  for (const double fraction : {1.0, 2.0 / 3}) expect_gradients([&] { return turned(x, at, {.fraction = fraction}); }, {x});
  // Also when the gradient comes in strides, and through a second derivative.
  const auto f = [&](const at::Tensor& y) { return turned(y, at).transpose(0, 1); };
  expect_gradients([&] { return f(x); }, {x});
  const at::Tensor y = x.detach();
  const at::Tensor angle = at::tensor(std::vector<double>{1, std::pow(1e4, -1.0 / 3), std::pow(1e4, -2.0 / 3)}, at::kDouble);
  const auto formula = [&](const at::Tensor& z) {
    const at::Tensor a = (at.to(at::kDouble).unsqueeze(1) * angle).unsqueeze(1);
    const at::Tensor first = z.narrow(2, 0, 3), second = z.narrow(2, 3, 3);
    return at::cat({first * a.cos() - second * a.sin(), second * a.cos() + first * a.sin()}, 2);
  };
  EXPECT_LT(difference(second_order([&](const at::Tensor& z) { return turned(z, at); }, y), second_order(formula, y)), 1e-9);
  const at::Tensor half = y.to(at::kBFloat16);
  const Rotary rotary({}, 6);
  EXPECT_EQ(rotary.turn(half, rotary.angles(at, false)).scalar_type(), at::kBFloat16);
  EXPECT_LT(difference(rotary.turn(half, rotary.angles(at, false)), formula(half.to(at::kDouble))), 0.02);
}

TEST(Rotary, PartOfAHeadAndScaledFrequencies) {
  const at::Tensor x = randn({2, 1, 8}, 1), at = at::tensor(std::vector<int64_t>{3, 4});
  const at::Tensor half = turned(x, at, {.fraction = 0.5});
  EXPECT_TRUE(at::equal(half.narrow(2, 4, 4), x.narrow(2, 4, 4)));
  EXPECT_LT(difference(half.narrow(2, 0, 4), turned(x.narrow(2, 0, 4), at)), 1e-12);
  const at::Tensor slow = turned(x, at * 4, {.scaling = {.kind = RotaryScaling::Kind::linear, .factor = 4}});
  EXPECT_LT(difference(slow, turned(x, at)), 1e-12);
  EXPECT_EQ(expect_error([] { Rotary({}, 5); }).code(), "blocks.rotary");
  EXPECT_EQ(expect_error([] { Rotary({.scaling = {.kind = RotaryScaling::Kind::llama3, .low = 5, .high = 4}}, 4); }).code(),
            "blocks.rotary");
}

/// Attention by its formula, row by row, on whole segments.
at::Tensor attention_by_hand(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Segments& segments,
                             int64_t window = 0) {
  at::Tensor y = at::zeros({q.size(0), q.size(1), v.size(2)}, q.options());
  const int64_t group = q.size(1) / k.size(1);
  for (int64_t s = 0; s < segments.count(); ++s)
    for (int64_t r = segments.begin[s]; r < segments.begin[s + 1]; ++r)
      for (int64_t h = 0; h < q.size(1); ++h) {
        int64_t first = segments.begin[s];
        if (window > 0) first = std::max(first, r - window + 1);
        const int64_t last = segments.causal ? r + 1 : segments.begin[s + 1];
        const at::Tensor keys = k.slice(0, first, last).select(1, h / group);
        const at::Tensor weights = (at::mv(keys, q[r][h]) / std::sqrt(static_cast<double>(q.size(2)))).softmax(0);
        y[r][h] = at::mv(v.slice(0, first, last).select(1, h / group).t(), weights);
      }
  return y;
}

TEST(Attend, EqualsTheFormulaOnPackedSegments) {
  const at::Tensor q = randn({12, 4, 6}, 1), k = randn({12, 2, 6}, 2), v = randn({12, 2, 5}, 3);
  for (const bool causal : {true, false})
    for (const std::vector<int64_t>& begin : {std::vector<int64_t>{0, 12}, {0, 4, 8, 12}, {0, 5, 5, 6, 11, 12}})
      for (const int64_t window : {0, 2}) {
        if (window > 0 && !causal) continue;
        Segments segments;
        segments.begin = begin;
        segments.causal = causal;
        const Facts facts(segments);
        const Streams random(1);
        const Context context{.facts = facts, .random = random};
        EXPECT_LT(difference(attend(q, k, v, context, {.name = "a", .scale = {}, .window = window}),
                             attention_by_hand(q, k, v, segments, window)), 1e-12);
      }
}

TEST(Attend, AWindowSeesTheSameThroughTheCache) {
  const at::Tensor q = randn({9, 2, 4}, 1), k = randn({9, 2, 4}, 2), v = randn({9, 2, 4}, 3);
  const at::Tensor whole = attention_by_hand(q, k, v, Segments::single(9), 3);
  ContiguousState state;
  const Streams random(1);
  for (const auto& [begin, length] : std::initializer_list<std::pair<int64_t, int64_t>>{{0, 4}, {4, 3}, {7, 1}, {8, 1}}) {
    Segments segments = Segments::single(length);
    segments.past = {begin};
    const Facts facts(segments);
    const Context context{.facts = facts, .random = random, .phase = Phase::generate, .state = &state};
    const at::Tensor y = attend(q.narrow(0, begin, length), k.narrow(0, begin, length), v.narrow(0, begin, length), context,
                                {.name = "a", .scale = {}, .window = 3});
    EXPECT_LT(difference(y, whole.narrow(0, begin, length)), 1e-12);
  }
}

std::string with_heads(int64_t heads, int64_t kv_heads) {
  return fmt::format("{{vocabulary: 29, width: 12, layers: 1, attention: {{type: gqa, heads: {}, kv_heads: {}}}}}", heads, kv_heads);
}

TEST(Catalogue, gqa_with_a_key_head_a_query_head_is_multi_head_attention) {
  // Copies of the grouped key and value heads, one a query head, change nothing: head h reads head h / (H/Hk).
  const auto grouped = make_decoder(with_heads(6, 2)), full = make_decoder(with_heads(6, 6));
  at::NoGradGuard guard;
  for (const Parameter& parameter : full->schema().all()) {
    const at::Tensor& from = grouped->schema().find(parameter.name()).tensor();
    if (from.sizes() == parameter.tensor().sizes()) parameter.tensor().copy_(from);
    else parameter.tensor().copy_(from.view({2, 2, 12}).repeat_interleave(3, 0).reshape({12, 12}));
  }
  const at::Tensor ids = some_ids(7, 29);
  EXPECT_LT(difference(run_logits(*grouped, ids, {7}), run_logits(*full, ids, {7})), 1e-12);
  // Tiled instead (head h reads head h mod Hk) it is another model.
  for (const char* name : {"layers.0.attention.key.weight", "layers.0.attention.value.weight"})
    full->schema().find(name).tensor().copy_(grouped->schema().find(name).tensor().repeat({3, 1}));
  EXPECT_GT(difference(run_logits(*grouped, ids, {7}), run_logits(*full, ids, {7})), 1e-3);
}

TEST(Catalogue, gqa_counts_parameters_and_cache) {
  const int64_t width = 12, d = 2, heads = 6;
  for (const int64_t shared : {1, 2, 6}) {
    const Decoder decoder(model_options(with_heads(heads, shared)));
    int64_t count = 0;
    for (const Parameter& parameter : decoder.schema().all())
      if (parameter.name().find(".attention.") != std::string::npos) count += parameter.count();
    EXPECT_EQ(count, width * (heads + 2 * shared) * d + heads * d * width);
    ASSERT_EQ(decoder.states().size(), 3u);
    EXPECT_EQ(decoder.states()[0].name, "layers.0.attention.key");
    EXPECT_EQ(decoder.states()[0].shape, (std::vector<int64_t>{shared, d}));
  }
  const Error uneven = expect_error([] { Decoder(model_options(with_heads(6, 4))); });
  EXPECT_EQ(uneven.code(), "blocks.heads");
  EXPECT_THAT(uneven.message(), ::testing::HasSubstr("6 query heads cannot share 4 key heads"));
  EXPECT_THAT(expect_error([] { Decoder(model_options(with_heads(5, 5))); }).message(), ::testing::HasSubstr("head_dim"));
}

TEST(Catalogue, transformer_block_attention_by_hand) {
  // One head of width 1: query 1 against keys 0 and ln 3 weighs .25 and .75.
  const at::Tensor q = values({1, 1}).view({2, 1, 1}), k = values({0, std::log(3.0)}).view({2, 1, 1}), v = values({0, 1}).view({2, 1, 1});
  const Pass pass(2);
  EXPECT_LT(difference(attend(q, k, v, pass.context, {.name = "a", .scale = {}}).view({2}), values({0, 0.75})), 1e-12);
}

TEST(Catalogue, transformer_block_is_causal_and_an_encoder_is_not) {
  for (const bool causal : {true, false}) {
    const auto decoder = make_decoder(fmt::format("{{vocabulary: 29, width: 12, layers: 2, causal: {}, attention: {{type: gqa, heads: 3}}}}", causal));
    at::Tensor ids = some_ids(6, 29);
    const at::Tensor before = run_logits(*decoder, ids, {6});
    ids[5] = (ids[5] + 1) % 29;
    const at::Tensor after = run_logits(*decoder, ids, {6});
    EXPECT_EQ(at::equal(before.narrow(0, 0, 5), after.narrow(0, 0, 5)), causal);
    EXPECT_FALSE(at::equal(before[5], after[5]));
    EXPECT_EQ(decoder->reach({}, Phase::generate).future, !causal);
  }
}

TEST(Catalogue, transformer_block_without_positions_knows_no_order) {
  for (const char* positions : {"none", "rope", "learned"}) {
    const auto decoder = make_decoder(fmt::format(
        "{{vocabulary: 29, width: 12, layers: 2, causal: false, positions: {}, attention: {{type: gqa, heads: 3}}}}", positions));
    const at::Tensor ids = some_ids(6, 29), order = at::tensor(std::vector<int64_t>{3, 1, 5, 0, 4, 2});
    const double moved = difference(run_logits(*decoder, ids.index_select(0, order), {6}),
                                    run_logits(*decoder, ids, {6}).index_select(0, order));
    if (std::string(positions) == "none") EXPECT_LT(moved, 1e-12);
    else EXPECT_GT(moved, 1e-3);
  }
}

TEST(Catalogue, transformer_block_counts_its_parameters) {
  // 4 D² + 4 D for attention with biases, 2 D F + F + D for the network, 2 norms of 2 D each.
  const int64_t width = 12, hidden = 20;
  const Decoder decoder(model_options(
      "{vocabulary: 29, width: 12, layers: 2, norm: layer, attention: {type: gqa, heads: 3, bias: true, output_bias: true}, "
      "feed_forward: {type: feed-forward, activation: gelu, hidden: 20, bias: true}}"));
  const int64_t block = 4 * width * width + 4 * width + 2 * width * hidden + hidden + width + 4 * width;
  EXPECT_EQ(decoder.schema().count(), 29 * width + 2 * block + 2 * width);
  EXPECT_EQ(decoder.active_parameters(), decoder.schema().count());
}

/// x + amount.
struct Shift : Part {
  explicit Shift(double by) : amount(by) {}
  void declare(const Schema&) override {}
  at::Tensor forward(const at::Tensor& x, const Context&) const override { return x + amount; }
  double amount;
};

TEST(Block, SubLayersReadAndWriteNamedStreams) {
  std::vector<Sub> subs(3);
  subs[0] = {.name = "a", .read = "x", .write = "side", .pre = std::make_shared<Shift>(1), .body = std::make_shared<Shift>(10),
             .post = std::make_shared<Shift>(100), .site = {}};
  subs[1] = {.name = "b", .read = "side", .write = "x", .pre = {}, .body = {}, .post = {}, .keep = 2, .add = 0.5, .site = {}};
  subs[2] = {.name = "c", .read = "in", .write = "x", .pre = {}, .body = std::make_shared<Shift>(3), .post = {}, .keep = 0, .add = 1, .site = {}};
  const Pass pass(1);
  const at::Tensor x = values({4}).view({1, 1});
  const Block two("layers.0", 0, {subs[0], subs[1]}, {});
  EXPECT_EQ(two.forward(x, pass.context).item<double>(), 2 * 4 + 0.5 * (4 + 111));
  const Block three("layers.0", 0, subs, {});
  EXPECT_EQ(three.forward(x, pass.context).item<double>(), 7);
  EXPECT_EQ(expect_error([] { Block("layers.0", 0, {Sub{.name = "a", .write = "in", .pre = {}, .body = {}, .post = {}, .site = {}}}, {}); }).code(),
            "blocks.stream");
}

TEST(Block, ParallelFormAddsBothToOneNorm) {
  const auto parallel = make_decoder(
      "{vocabulary: 29, width: 12, layers: 1, block: parallel, attention: {type: gqa, heads: 3}, feed_forward: {type: feed-forward, hidden: 8}}");
  EXPECT_TRUE(static_cast<bool>(parallel->schema().find("layers.0.norm.weight")));
  EXPECT_FALSE(static_cast<bool>(parallel->schema().find("layers.0.feed_forward_norm.weight")));
  // Without the other, each sub-layer's change can be seen alone: the block adds the two.
  const auto change = [&](const char* silenced) {
    const auto one = make_decoder(
        "{vocabulary: 29, width: 12, layers: 1, block: parallel, attention: {type: gqa, heads: 3}, feed_forward: {type: feed-forward, hidden: 8}}");
    at::NoGradGuard guard;
    if (*silenced) one->schema().find(silenced).tensor().zero_();
    const Pass pass(5);
    std::vector<at::Tensor> hidden;
    (void)one->forward(some_ids(5, 29), pass.context, &hidden);
    return hidden[1] - hidden[0];
  };
  EXPECT_LT(difference(change(""), change("layers.0.attention.output.weight") + change("layers.0.feed_forward.down.weight")), 1e-12);
}

}  // namespace
}  // namespace switchyard::testing
