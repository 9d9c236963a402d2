// Mixture of attention heads: proofs.
#include "switchyard/base/differentiable.h"
#include "switchyard/base/registry.h"
#include "switchyard/blocks/body.h"
#include "tests/models/decoder_support.h"

namespace switchyard::testing {
namespace {

/// Counts calls of what it surrounds.
struct Counter : Around {
  mutable int calls = 0;
  void declare(const Schema&, const Where&) override {}
  at::Tensor call(const at::Tensor& x, const Base& base, const Context& context) const override {
    ++calls;
    return base(x, context);
  }
};

/// One attention body alone, named layers.0.attention, with values.
struct Attention {
  explicit Attention(const std::string& slug, const std::string& options, int64_t width, bool rotary = false) {
    Choice<Body> choice = slug;
    choice.options = parse_yaml(options, "test");
    body = choice.make();
    BodyPlace place{.width = width, .name = "layers.0.attention", .init_deviation = 0.5, .rotary = {}, .site = {}};
    if (rotary) place.rotary.emplace();
    place.site = [this](const std::string& inner, int64_t in, int64_t out) {
      Site site("layers.0.attention." + inner, 0, in, out);
      auto counter = std::make_shared<Counter>();
      counters[inner] = counter;
      site.occupy(counter);
      return site;
    };
    body->prepare(place);
    body->declare(schema.in("layers.0.attention"));
    initialise(schema, Streams(3), at::kDouble);
    at::NoGradGuard guard;
    for (const Parameter& parameter : schema.all()) parameter.tensor().mul_(parameter.spec().role == Role::router ? 40 : 1);
  }
  const at::Tensor& operator[](const std::string& name) const { return schema.find("layers.0.attention." + name).tensor(); }
  at::Tensor run(const at::Tensor& x, const Context& context) const { return body->forward(x, context); }

  std::shared_ptr<Body> body;
  Schema schema;
  std::map<std::string, std::shared_ptr<Counter>> counters;
};

TEST(Catalogue, moa_with_every_expert_at_equal_weight_is_multi_query_attention) {
  // E = k = H: the query experts are the query heads and the output experts the columns of the output map.
  const int64_t width = 12, heads = 4, d = 2;
  for (const bool rotary : {false, true}) {
    const Attention moa("moa", "{experts: 4, head_dim: 2, init_deviation: 0.5, router: {type: sparse-topk, k: 4}}", width, rotary);
    const Attention plain("gqa", "{heads: 4, kv_heads: 1, head_dim: 2}", width, rotary);
    at::NoGradGuard guard;
    moa["router.weight"].zero_();  // every weight 1/E
    plain["query.weight"].copy_(moa["experts.query.weight"].reshape({heads * d, width}));
    plain["key.weight"].copy_(moa["key.weight"]);
    plain["value.weight"].copy_(moa["value.weight"]);
    plain["output.weight"].copy_(moa["experts.output.weight"].permute({1, 0, 2}).reshape({width, heads * d}) / 4);
    const Pass pass(10, 2);
    const at::Tensor x = randn({10, width}, 1);
    EXPECT_LT(difference(moa.run(x, pass.context), plain.run(x, pass.context)), 1e-12);
  }
}

TEST(Catalogue, moa_with_one_expert_is_multi_head_attention_with_positions) {
  const int64_t width = 8;
  const Attention moa("moa", "{experts: 1, head_dim: 4, kv_heads: 2, output_bias: true, init_deviation: 0.5, router: {type: switch-top1}}",
                      width, true);
  const Attention plain("gqa", "{heads: 2, head_dim: 4, output_bias: true}", width, true);
  at::NoGradGuard guard;
  plain["query.weight"].copy_(moa["experts.query.weight"][0]);
  plain["key.weight"].copy_(moa["key.weight"]);
  plain["value.weight"].copy_(moa["value.weight"]);
  plain["output.weight"].copy_(moa["experts.output.weight"][0]);
  moa["output.bias"].copy_(randn({width}, 8));
  plain["output.bias"].copy_(moa["output.bias"]);
  const Pass pass(9, 1);
  const at::Tensor x = randn({9, width}, 1);
  EXPECT_LT(difference(moa.run(x, pass.context), plain.run(x, pass.context)), 1e-12);
}

/// The published formula, token by token and expert by expert.
at::Tensor by_hand(const Attention& moa, const at::Tensor& x, int64_t k, int64_t heads, int64_t d, bool attached = false) {
  const at::Tensor p = at::linear(x, moa["router.weight"]).softmax(-1);
  const auto [best, ids] = p.topk(k, 1);
  const at::Tensor sum = best.sum(1, true);
  const at::Tensor weight = best / (attached ? sum : sum.detach());
  const at::Tensor key = at::linear(x, moa["key.weight"]).view({-1, heads, d}), value = at::linear(x, moa["value.weight"]).view({-1, heads, d});
  std::vector<at::Tensor> rows;
  for (int64_t t = 0; t < x.size(0); ++t) {
    at::Tensor row = at::zeros({x.size(1)}, x.options());
    for (int64_t j = 0; j < k; ++j) {
      const int64_t e = ids[t][j].item<int64_t>();
      const at::Tensor q = at::matmul(moa["experts.query.weight"][e], x[t]).view({heads, d});
      std::vector<at::Tensor> seen;
      for (int64_t h = 0; h < heads; ++h) {
        const at::Tensor scores = at::matmul(key.slice(0, 0, t + 1).select(1, h), q[h]) / std::sqrt(static_cast<double>(d));
        seen.push_back(at::matmul(scores.softmax(0), value.slice(0, 0, t + 1).select(1, h)));
      }
      row = row + weight[t][j] * at::matmul(moa["experts.output.weight"][e], at::cat(seen));
    }
    rows.push_back(row);
  }
  return at::stack(rows);
}

TEST(Catalogue, moa_equals_a_loop_over_tokens_and_experts) {
  for (const int64_t heads : {1, 2}) {
    const Attention moa("moa", fmt::format("{{experts: 5, head_dim: 3, kv_heads: {}, init_deviation: 0.5}}", heads), 6);
    const Pass pass(7);
    const at::Tensor x = randn({7, 6}, 1);
    EXPECT_LT(difference(moa.run(x, pass.context), by_hand(moa, x, 2, heads, 3)), 1e-12);
    // Keys and values once, however many experts look at them.
    EXPECT_EQ(moa.counters.at("key")->calls, 1);
    EXPECT_EQ(moa.counters.at("value")->calls, 1);
  }
}

TEST(Catalogue, moa_counts_its_parameters) {
  const int64_t width = 6, d = 3, experts = 5;
  const Attention moa("moa", "{experts: 5, head_dim: 3}", width);
  EXPECT_EQ(moa.schema.count(), 2 * width * d + experts * 2 * width * d + experts * width);
  EXPECT_EQ(moa.body->states().size(), 2u);
  EXPECT_EQ(moa.body->states()[0].shape, (std::vector<int64_t>{1, d}));
}

TEST(Catalogue, moa_takes_no_gradient_through_the_sum_of_weights) {
  const Attention moa("moa", "{experts: 5, head_dim: 3, init_deviation: 0.5}", 6);
  const Pass pass(7);
  const at::Tensor x = randn({7, 6}, 1), gradient = randn({7, 6}, 2), router = moa["router.weight"];
  const at::Tensor ours = gradients({moa.run(x, pass.context)}, {router}, {gradient})[0];
  const at::Tensor detached = gradients({by_hand(moa, x, 2, 1, 3)}, {router}, {gradient})[0];
  const at::Tensor attached = gradients({by_hand(moa, x, 2, 1, 3, true)}, {router}, {gradient})[0];
  EXPECT_LT(difference(ours, detached), 1e-12);
  EXPECT_GT(difference(ours, attached), 1e-3);
}

const char* const kHeadsModel =
    "{vocabulary: 29, width: 16, layers: 2, attention: {type: moa, experts: 4, head_dim: 4, kv_heads: 2, "
    "losses: [lb-loss, router-z]}}";

TEST(Catalogue, moa_is_causal_and_keeps_documents_apart) {
  const auto decoder = make_decoder(kHeadsModel);
  at::Tensor ids = some_ids(9, 29);
  const at::Tensor before = run_logits(*decoder, ids, {4, 5});
  EXPECT_LT(difference(before.narrow(0, 4, 5), run_logits(*decoder, ids.narrow(0, 4, 5), {5})), 1e-12);
  ids[7] = (ids[7] + 1) % 29;
  const at::Tensor after = run_logits(*decoder, ids, {4, 5});
  EXPECT_LT(difference(before.narrow(0, 0, 7), after.narrow(0, 0, 7)), 1e-12);
  EXPECT_GT(difference(before.narrow(0, 7, 2), after.narrow(0, 7, 2)), 1e-6);
}

TEST(Catalogue, moa_decodes_from_its_cache) {
  const auto decoder = make_decoder(kHeadsModel);
  const at::Tensor ids = some_ids(8, 29);
  const at::Tensor whole = run_logits(*decoder, ids, {8});
  ContiguousState state;
  EXPECT_LT(difference(run_cached(*decoder, ids.narrow(0, 0, 5), {5}, {0}, state), whole.narrow(0, 0, 5)), 1e-12);
  for (int64_t t = 5; t < 8; ++t)
    EXPECT_LT(difference(run_cached(*decoder, ids.narrow(0, t, 1), {1}, {t}, state), whole.narrow(0, t, 1)), 1e-12);
}

TEST(Catalogue, moa_leaves_a_record_for_its_losses) {
  const auto decoder = make_decoder(kHeadsModel);
  Records records;
  (void)run_logits(*decoder, some_ids(8, 29), {8}, Phase::train, &records);
  ASSERT_EQ(records.all().size(), 2u);
  EXPECT_EQ(records.all()[0].place.site, "layers.0.attention");
  EXPECT_EQ(records.all()[0].selection()->pairs(), 16);
  ASSERT_EQ(decoder->routings().size(), 2u);
  EXPECT_EQ(decoder->routings()[1].station->site(), "layers.1.attention");
  EXPECT_EQ(decoder->routings()[1].station->losses().size(), 2u);
}

TEST(MixtureOfHeads, GradientsDroppedPairsAndFewRows) {
  // Capacity 0.5 drops pairs; weights that are not divided by their sum, so that differences see the whole gradient.
  const Attention moa("moa", "{experts: 3, head_dim: 2, kv_heads: 2, init_deviation: 0.5, output_bias: true, "
                      "admission: {type: capacity, factor: 0.5}, combine: {renormalise: never}}", 4, true);
  const Pass pass(6, 2, Phase::train);
  const at::Tensor x = randn({6, 4}, 1).requires_grad_();
  std::vector<at::Tensor> leaves{x};
  for (const Parameter& parameter : moa.schema.all()) leaves.push_back(parameter.tensor());
  expect_gradients([&] { return moa.run(x, pass.context); }, leaves, 1e-6);
  ASSERT_FALSE(pass.records.all().empty());
  EXPECT_FALSE(pass.records.all()[0].selection()->kept.all().item<bool>());
  const Pass none(0);
  EXPECT_EQ(moa.run(at::empty({0, 4}, at::kDouble), none.context).sizes(), (std::vector<int64_t>{0, 4}));
  const Pass one(1);
  EXPECT_TRUE(moa.run(randn({1, 4}, 1), one.context).isfinite().all().item<bool>());
}

TEST(MixtureOfHeads, RefusesWhatItCannotRun) {
  const Error error = expect_error([] { Attention("moa", "{experts: 3, combine: {overflow: identity}}", 4); });
  EXPECT_EQ(error.code(), "blocks.moa_combine");
  EXPECT_THAT(error.message(), ::testing::HasSubstr("overflow: zero"));
  const Attention merged("moa", "{experts: 3, head_dim: 2, router: {type: sparse-topk, run: merged}}", 4);
  const Pass pass(3);
  EXPECT_EQ(expect_error([&] { merged.run(randn({3, 4}, 1), pass.context); }).code(), "blocks.moa_engagement");
}

}  // namespace
}  // namespace switchyard::testing
