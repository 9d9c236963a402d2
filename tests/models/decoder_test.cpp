// The decoder as a whole: packing, caching, gradients, names, counts and errors.
#include "tests/models/decoder_support.h"

namespace switchyard::testing {
namespace {

const char* const kDense = "{vocabulary: 29, width: 16, layers: 2, attention: {type: gqa, heads: 4, kv_heads: 2}}";
const char* const kMixture =
    "{vocabulary: 29, width: 16, layers: 2, attention: {type: gqa, heads: 4, kv_heads: 2, qk_norm: head}, "
    "mixtures: [{experts: 4, expert: {type: swiglu, hidden: 24}, shared: [{expert: {type: swiglu, hidden: 8}}]}]}";

std::vector<std::string> names(const Decoder& decoder) {
  std::vector<std::string> list;
  for (const Parameter& parameter : decoder.schema().all()) list.push_back(parameter.name());
  return list;
}

TEST(Decoder, NamesOfParametersAreStable) {
  const Decoder decoder(model_options(
      "{vocabulary: 29, width: 16, layers: 2, tied_embeddings: false, attention: {type: gqa, heads: 4, qk_norm: full, bias: true}, "
      "mixtures: [{experts: 4, expert: {type: swiglu, hidden: 24}, layers: {list: [1]}}]}"));
  EXPECT_THAT(names(decoder),
              ::testing::ElementsAre(
                  "embedding.weight", "layers.0.attention_norm.weight", "layers.0.attention.query.weight",
                  "layers.0.attention.query.bias", "layers.0.attention.key.weight", "layers.0.attention.key.bias",
                  "layers.0.attention.value.weight", "layers.0.attention.value.bias", "layers.0.attention.output.weight",
                  "layers.0.attention.query_norm.weight", "layers.0.attention.key_norm.weight",
                  "layers.0.feed_forward_norm.weight", "layers.0.feed_forward.gate.weight", "layers.0.feed_forward.up.weight",
                  "layers.0.feed_forward.down.weight", "layers.1.attention_norm.weight", "layers.1.attention.query.weight",
                  "layers.1.attention.query.bias", "layers.1.attention.key.weight", "layers.1.attention.key.bias",
                  "layers.1.attention.value.weight", "layers.1.attention.value.bias", "layers.1.attention.output.weight",
                  "layers.1.attention.query_norm.weight", "layers.1.attention.key_norm.weight",
                  "layers.1.feed_forward_norm.weight", "layers.1.feed_forward.router.weight",
                  "layers.1.feed_forward.experts.gate", "layers.1.feed_forward.experts.up",
                  "layers.1.feed_forward.experts.down", "norm.weight", "head.weight"));
  EXPECT_EQ(decoder.schema().find("layers.0.attention.query_norm.weight").spec().shape, (std::vector<int64_t>{16}));
  ASSERT_EQ(decoder.routings().size(), 1u);
  EXPECT_EQ(decoder.routings()[0].layer, 1);
  EXPECT_EQ(decoder.routings()[0].station->site(), "layers.1.feed_forward");
}

TEST(Decoder, PackedDocumentsEqualEachAlone) {
  for (const char* yaml : {kDense, kMixture}) {
    const auto decoder = make_decoder(yaml);
    for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{4, 4, 4}, {5, 1, 3, 5, 2}, {0, 3, 0, 2}}) {
      const int64_t rows = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
      const at::Tensor ids = some_ids(rows, 29);
      const at::Tensor packed = run_logits(*decoder, ids, lengths);
      int64_t begin = 0;
      for (int64_t length : lengths) {
        const at::Tensor alone = run_logits(*decoder, ids.narrow(0, begin, length), {length});
        EXPECT_LT(difference(packed.narrow(0, begin, length), alone), 1e-12);
        begin += length;
      }
    }
  }
}

TEST(Decoder, CachedStepsEqualTheWholeSequence) {
  for (const char* yaml : {kDense, kMixture}) {
    const auto decoder = make_decoder(yaml);
    const at::Tensor first = some_ids(7, 29, 1), second = some_ids(5, 29, 2);
    const at::Tensor whole_first = run_logits(*decoder, first, {7}), whole_second = run_logits(*decoder, second, {5});
    ContiguousState state;
    // Prefill of both, then a chunk beside a step, then steps of one alone.
    at::Tensor y = run_cached(*decoder, at::cat({first.narrow(0, 0, 3), second.narrow(0, 0, 2)}), {3, 2}, {0, 0}, state);
    EXPECT_LT(difference(y, at::cat({whole_first.narrow(0, 0, 3), whole_second.narrow(0, 0, 2)})), 1e-12);
    y = run_cached(*decoder, at::cat({first.narrow(0, 3, 3), second.narrow(0, 2, 1)}), {3, 1}, {3, 2}, state);
    EXPECT_LT(difference(y, at::cat({whole_first.narrow(0, 3, 3), whole_second.narrow(0, 2, 1)})), 1e-12);
    y = run_cached(*decoder, first.narrow(0, 6, 1), {1}, {6}, state, {0});
    EXPECT_LT(difference(y, whole_first.narrow(0, 6, 1)), 1e-12);
    for (int64_t t = 3; t < 5; ++t) {
      y = run_cached(*decoder, second.narrow(0, t, 1), {1}, {t}, state, {1});
      EXPECT_LT(difference(y, whole_second.narrow(0, t, 1)), 1e-12);
    }
  }
}

TEST(Decoder, GradientsOfEveryParameterAgreeWithDifferences) {
  for (const char* yaml :
       {"{vocabulary: 7, width: 4, layers: 1, attention: {type: gqa, heads: 2, kv_heads: 1, qk_norm: head, bias: true, "
        "output_bias: true}, feed_forward: {type: feed-forward, hidden: 3, bias: true}, tied_embeddings: false}",
        "{vocabulary: 7, width: 4, layers: 1, norm: layer, positions: learned, context: 8, block: parallel, "
        "attention: {type: gqa, heads: 2, qk_norm: full}, mixtures: [{experts: 3, expert: {type: swiglu, hidden: 3}}]}"}) {
    const auto decoder = make_decoder(yaml, at::kDouble, 30);
    const at::Tensor ids = some_ids(5, 7);
    std::vector<at::Tensor> leaves;
    for (const Parameter& parameter : decoder->schema().all()) leaves.push_back(parameter.tensor());
    expect_gradients([&] { return run_logits(*decoder, ids, {3, 2}); }, leaves, 1e-5);
  }
}

TEST(Decoder, NoRowsAndOneRow) {
  for (const char* yaml : {kDense, kMixture}) {
    const auto decoder = make_decoder(yaml);
    EXPECT_EQ(run_logits(*decoder, at::empty({0}, at::kLong), {}).sizes(), (std::vector<int64_t>{0, 29}));
    EXPECT_EQ(run_logits(*decoder, at::empty({0}, at::kLong), {0}).sizes(), (std::vector<int64_t>{0, 29}));
    EXPECT_TRUE(run_logits(*decoder, some_ids(1, 29), {1}).isfinite().all().item<bool>());
  }
}

}  // namespace
}  // namespace switchyard::testing
