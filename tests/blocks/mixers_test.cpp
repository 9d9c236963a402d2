// Bodies in place of plain attention: latent attention, selective state spaces, linear attention. What holds for each: rows see
// earlier rows of their own sequence only, cached steps give what whole sequences give, and gradients are right.
#include <ATen/ATen.h>

#include "switchyard/blocks/attend.h"
#include "switchyard/blocks/body.h"
#include "tests/models/decoder_support.h"

namespace switchyard {
namespace {

using namespace testing;

std::string model_with(const std::string& attention) {
  return "{vocabulary: 29, width: 12, layers: 2, rope_pairs: adjacent, attention: " + attention +
         ", feed_forward: {type: feed-forward, hidden: 8}}";
}

/// Logits of ragged sequences in one pass, each alone, and each by cached pieces, are equal.
void expect_sequences_apart(const std::string& attention) {
  SCOPED_TRACE(attention);
  const auto decoder = make_decoder(model_with(attention), at::kDouble, 8);
  at::NoGradGuard guard;
  const std::vector<int64_t> lengths{7, 3, 0, 5};
  const at::Tensor ids = some_ids(15, 29), packed = run_logits(*decoder, ids, lengths);
  EXPECT_GT(packed.std().item<double>(), 1e-2);
  ContiguousState state;
  int64_t begin = 0;
  for (size_t s = 0; s < lengths.size(); ++s) {
    const int64_t n = lengths[s];
    if (n == 0) continue;
    const at::Tensor own = ids.narrow(0, begin, n), expected = packed.narrow(0, begin, n);
    EXPECT_LT(difference(run_logits(*decoder, own, {n}), expected), 1e-10) << "alone " << s;
    // Two rows, then one at a time.
    const auto sequence = static_cast<int64_t>(s);
    EXPECT_LT(difference(run_cached(*decoder, own.narrow(0, 0, 2), {2}, {0}, state, {sequence}), expected.narrow(0, 0, 2)), 1e-10);
    for (int64_t t = 2; t < n; ++t)
      EXPECT_LT(difference(run_cached(*decoder, own.narrow(0, t, 1), {1}, {t}, state, {sequence}), expected.narrow(0, t, 1)), 1e-10) << t;
    begin += n;
  }
  // Two running sequences of unlike length go on in one pass.
  const at::Tensor next = some_ids(3, 29, 5);
  const at::Tensor both = run_cached(*decoder, next, {2, 1}, {7, 3}, state, {0, 1});
  const at::Tensor first = run_logits(*decoder, at::cat({ids.narrow(0, 0, 7), next.narrow(0, 0, 2)}), {9});
  EXPECT_LT(difference(both.narrow(0, 0, 2), first.narrow(0, 7, 2)), 1e-10);
}

void expect_its_gradients(const std::string& attention) {
  SCOPED_TRACE(attention);
  const auto decoder = make_decoder("{vocabulary: 7, width: 6, layers: 1, rope_pairs: adjacent, attention: " + attention +
                                    ", feed_forward: {type: feed-forward, hidden: 4}}", at::kDouble, 12);
  std::vector<at::Tensor> leaves;
  for (const Parameter& parameter : decoder->schema().all())
    if (parameter.name().find(".attention.") != std::string::npos) leaves.push_back(parameter.tensor());
  const at::Tensor ids = some_ids(6, 7);
  expect_gradients([&] { return run_logits(*decoder, ids, {4, 2}); }, leaves, 1e-5);
}

const char* kLatent = "{type: mla, heads: 2, query_rank: 5, latent_rank: 6, plain_dim: 4, turning_dim: 2, value_dim: 3}";
const char* kMamba = "{type: mamba, state: 3, step_rank: 2, convolution: 3}";
const char* kMamba2 = "{type: mamba2, heads: 4, head_dim: 3, state: 5, groups: 2, convolution: 3}";
const char* kDelta = "{type: gated-delta-net, key_heads: 2, value_heads: 4, key_dim: 3, value_dim: 2, convolution: 3}";
const char* kLightning = "{type: lightning-attention, heads: 2, head_dim: 3}";

TEST(Catalogue, mla_absorbed_form_of_the_cache_equals_the_expanded_one) {
  expect_sequences_apart(kLatent);
  expect_sequences_apart("{type: mla, heads: 2, latent_rank: 6, plain_dim: 4, turning_dim: 2, value_dim: 3, bias: true}");
}
TEST(Catalogue, mla_gradients) { expect_its_gradients("{type: mla, heads: 2, query_rank: 3, latent_rank: 4, plain_dim: 2, turning_dim: 2, value_dim: 2}"); }
TEST(Catalogue, mla_caches_one_latent_row_and_one_turned_key) {
  const Decoder decoder(model_options(model_with(kLatent)));
  ASSERT_EQ(decoder.states().size(), 3u);  // one a layer, and the token ids
  EXPECT_EQ(decoder.states()[0].shape, (std::vector<int64_t>{1, 6 + 2}));
}

TEST(Catalogue, mamba_keeps_sequences_apart_and_steps_through_its_state) {
  expect_sequences_apart(kMamba);
  expect_sequences_apart("{type: mamba, state: 3, norms: false, bias: true, convolution_bias: false}");
}
TEST(Catalogue, mamba_gradients) { expect_its_gradients("{type: mamba, state: 2, step_rank: 2, convolution: 2}"); }
TEST(Catalogue, mamba_knows_the_order_of_tokens_where_attention_without_positions_does_not) {
  const at::Tensor ids = at::tensor(std::vector<int64_t>{3, 1, 4, 9}, at::kLong), other = ids.index_select(0, at::tensor(std::vector<int64_t>{2, 0, 1, 3}, at::kLong));
  for (const bool mamba : {true, false}) {
    const std::string attention = mamba ? kMamba : "{type: gqa, heads: 2, positions: false}";
    const auto decoder = make_decoder("{vocabulary: 29, width: 12, layers: 1, attention: " + attention + "}", at::kDouble, 8);
    const double moved = difference(run_logits(*decoder, ids, {4})[3], run_logits(*decoder, other, {4})[3]);
    if (mamba) EXPECT_GT(moved, 1e-4);
    else EXPECT_LT(moved, 1e-10);
  }
}

TEST(Catalogue, mamba2_keeps_sequences_apart_and_steps_through_its_state) { expect_sequences_apart(kMamba2); }
TEST(Catalogue, mamba2_gradients) { expect_its_gradients("{type: mamba2, heads: 2, head_dim: 2, state: 2, convolution: 2}"); }

TEST(Catalogue, gated_delta_net_keeps_sequences_apart_and_steps_through_its_state) { expect_sequences_apart(kDelta); }
TEST(Catalogue, gated_delta_net_gradients) {
  expect_its_gradients("{type: gated-delta-net, key_heads: 1, value_heads: 2, key_dim: 2, value_dim: 2, convolution: 2}");
}

TEST(Catalogue, lightning_attention_keeps_sequences_apart_and_steps_through_its_state) { expect_sequences_apart(kLightning); }
TEST(Catalogue, lightning_attention_with_tables_of_its_decays_is_the_same) {
  const std::string tables = "{type: lightning-attention, heads: 2, head_dim: 3, table_rows: 4}";
  expect_sequences_apart(tables);
  const auto model = [](const std::string& attention) { return make_decoder("{vocabulary: 29, width: 12, layers: 2, attention: " + attention + "}", at::kDouble, 8); };
  const at::Tensor ids = some_ids(17, 29);
  EXPECT_LT(difference(run_logits(*model(tables), ids, {11, 6}), run_logits(*model(kLightning), ids, {11, 6})), 1e-10);
  EXPECT_TRUE(model(tables)->schema().find("layers.0.attention.decay.diagonal").spec().buffer) << "they are kept, not trained";

  // Tables that say something else are seen by a sequence that begins, alone or beside one that goes on.
  const auto rounded = model(tables);
  at::NoGradGuard guard;
  for (const char* layer : {"layers.0", "layers.1"}) rounded->schema().find(std::string(layer) + ".attention.decay.query").tensor().mul_(0.9);
  const at::Tensor alone = run_logits(*rounded, ids.narrow(0, 0, 6), {6});
  EXPECT_GT(difference(alone, run_logits(*model(tables), ids.narrow(0, 0, 6), {6})), 1e-4);
  ContiguousState state;
  run_cached(*rounded, ids.narrow(0, 6, 5), {5}, {0}, state, {1});
  const at::Tensor both = run_cached(*rounded, at::cat({ids.narrow(0, 0, 6), ids.narrow(0, 11, 1)}), {6, 1}, {0, 5}, state, {0, 1});
  EXPECT_LT(difference(both.narrow(0, 0, 6), alone), 1e-10);
}
TEST(Catalogue, lightning_attention_gradients) { expect_its_gradients("{type: lightning-attention, heads: 2, head_dim: 2}"); }

TEST(Catalogue, filtered_attention_keeps_sequences_apart_and_steps_through_its_state) {
  expect_sequences_apart("{type: filtered-attention, heads: 2, head_dim: 4}");
}
TEST(Catalogue, filtered_attention_gradients) { expect_its_gradients("{type: filtered-attention, heads: 2, head_dim: 2}"); }

// In one layer, that is: what earlier layers made of the tokens before was made at the length of then.
TEST(Rotary, ScalingsThatDependOnTheLengthTurnCachedKeysAnew) {
  for (const char* scaling : {"{kind: longrope, factor: 2, original: 4, short_factors: [1, 1.3], long_factors: [3, 4], short_multiplier: 1.1, "
                              "long_multiplier: 1.3}", "{kind: dynamic, factor: 3, original: 4}"}) {
    const auto decoder = make_decoder(std::string("{vocabulary: 29, width: 8, layers: 1, attention: {type: gqa, heads: 2}, rope_scaling: ") + scaling + "}",
                                      at::kDouble, 8);
    at::NoGradGuard guard;
    const at::Tensor ids = some_ids(7, 29);
    ContiguousState state;
    run_cached(*decoder, ids.narrow(0, 0, 3), {3}, {0}, state);
    for (int64_t t = 3; t < 7; ++t)
      EXPECT_LT(difference(run_cached(*decoder, ids.narrow(0, t, 1), {1}, {t}, state), run_logits(*decoder, ids.narrow(0, 0, t + 1), {t + 1}).narrow(0, t, 1)), 1e-10) << t;
  }
}

TEST(Mixers, RunningStatesRefuseModelsThatAreNotCausal) {
  for (const char* attention : {kMamba, kMamba2, kDelta, kLightning}) {
    const auto decoder = make_decoder("{vocabulary: 29, width: 12, layers: 1, causal: false, attention: " + std::string(attention) + "}");
    EXPECT_EQ(expect_error([&] { run_logits(*decoder, some_ids(4, 29), {4}); }).code(), "blocks.causal");
  }
}

TEST(Attend, SinksCapsChunksAndValuesInKeysFollowTheirFormulas) {
  const at::Tensor q = randn({5, 2, 4}, 1), k = randn({5, 2, 4}, 2), v = randn({5, 2, 3}, 3), sinks = randn({2}, 4);
  const Facts facts(Segments::single(5));
  const Streams random(1);
  const Context context{.facts = facts, .random = random};
  const auto by_hand = [&](int64_t chunk, double cap, bool with_sinks) {
    at::Tensor y = at::zeros({5, 2, 3}, at::kDouble);
    for (int64_t r = 0; r < 5; ++r)
      for (int64_t h = 0; h < 2; ++h) {
        const int64_t first = chunk > 0 ? r / chunk * chunk : 0;
        at::Tensor scores = at::mv(k.slice(0, first, r + 1).select(1, h), q[r][h]) / 2;
        if (cap > 0) scores = (scores / cap).tanh() * cap;
        at::Tensor weights = with_sinks ? at::cat({scores, sinks[h].view({1})}).softmax(0).slice(0, 0, r + 1 - first) : scores.softmax(0);
        y[r][h] = at::mv(v.slice(0, first, r + 1).select(1, h).t(), weights);
      }
    return y;
  };
  EXPECT_LT(difference(attend(q, k, v, context, {.name = "a", .scale = {}, .chunk = 2}), by_hand(2, 0, false)), 1e-12);
  EXPECT_LT(difference(attend(q, k, v, context, {.name = "a", .scale = {}, .cap = 0.5}), by_hand(0, 0.5, false)), 1e-12);
  EXPECT_LT(difference(attend(q, k, v, context, {.name = "a", .scale = {}, .chunk = 3, .sinks = sinks}), by_hand(3, 0, true)), 1e-12);
  EXPECT_LT(difference(attend(q, k, {}, context, {.name = "a", .scale = {}, .value_in_key = 3}),
                       attend(q, k, k.narrow(2, 0, 3).contiguous(), context, {.name = "a", .scale = {}})), 1e-12);
}

TEST(Rotary, ScalingsGiveThePublishedFrequencies) {
  const auto frequency = [](const RotaryOptions& options, int64_t d, std::vector<int64_t> pairs, int64_t length = 0) {
    const Rotary rotary(options, d);
    // At position 1 an angle is its frequency; small ones are read from their sine.
    const Rotary::Angles angles = rotary.angles(at::ones({1}, at::kLong), true, length ? at::full({1}, length, at::kLong) : at::Tensor());
    std::vector<double> found;
    for (int64_t i : pairs) found.push_back(std::atan2(angles.sine[0][i].item<double>(), angles.cosine[0][i].item<double>()));
    found.push_back(std::hypot(angles.sine[0][0].item<double>(), angles.cosine[0][0].item<double>()));  // the multiplier
    return found;
  };
  const auto expect = [](const std::vector<double>& found, const std::vector<double>& wanted) {
    ASSERT_EQ(found.size(), wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(found[i], wanted[i], std::abs(wanted[i]) * 2e-6) << i;
  };
  using Kind = RotaryScaling::Kind;
  RotaryOptions oss{.theta = 150000, .scaling = {.kind = Kind::yarn, .factor = 32, .original = 4096, .truncate = false}};
  expect(frequency(oss, 64, {0, 1, 8, 12, 16, 31}), {1, 6.890443e-1, 5.081327e-2, 6.794959e-3, 4.564839e-4, 3.023511e-7, 1.346574});
  RotaryOptions v3{.theta = 10000, .scaling = {.kind = Kind::yarn, .factor = 40, .original = 4096, .mscale = 1, .mscale_all = 1}};
  expect(frequency(v3, 64, {0, 1, 10, 15, 20, 31}), {1, 7.498942e-1, 5.623413e-2, 8.334509e-3, 7.905694e-4, 3.333804e-6, 1});
  RotaryOptions llama{.theta = 500000, .scaling = {.kind = Kind::llama3, .factor = 8, .low = 1, .high = 4, .original = 8192}};
  expect(frequency(llama, 128, {0, 10, 28, 30, 34, 40, 63}),
         {1, 1.286874e-1, 3.211446e-3, 1.371894e-3, 1.785078e-4, 3.428102e-5, 3.068926e-7, 1});
  llama.scaling = {.kind = Kind::llama3, .factor = 16, .low = 1, .high = 1, .original = 8192};  // Llama 4: a step
  expect(frequency(llama, 128, {0, 10, 28, 34, 35, 40, 63}), {1, 1.286874e-1, 3.211446e-3, 9.384739e-4, 4.778106e-5, 1.714051e-5, 1.534463e-7, 1});
  RotaryOptions longer{.theta = 10000, .scaling = {.kind = Kind::longrope, .factor = 32, .original = 4096, .short_factors = {1, 2}, .long_factors = {4, 5}}};
  expect(frequency(longer, 4, {0, 1}, 4096), {1, 0.005, 1.190238});
  expect(frequency(longer, 4, {0, 1}, 4097), {0.25, 0.002, 1.190238});
  RotaryOptions dynamic{.theta = 10000, .scaling = {.kind = Kind::dynamic, .factor = 2, .original = 16}};
  expect(frequency(dynamic, 4, {1}, 16), {0.01, 1});
  expect(frequency(dynamic, 4, {1}, 32), {std::pow(10000.0 * 9, -0.5), 1});  // base · (2·2 − 1)^(4/2)
  dynamic.scaling.alpha = 10;
  expect(frequency(dynamic, 4, {1}, 32), {std::pow(10000.0 * 100, -0.5), 1});
  EXPECT_NEAR(std::pow(yarn_multiplier(40, 1), 2) / std::sqrt(192.0), 0.13523378, 1e-8);
  EXPECT_NEAR(std::pow(yarn_multiplier(40, 0.707), 2) / std::sqrt(192.0), 0.11472139, 1e-8);
}

}  // namespace
}  // namespace switchyard
