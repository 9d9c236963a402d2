// Where mixtures stand, and what a model then holds: proofs by tables and by published sizes.
#include "tests/models/decoder_support.h"

namespace switchyard::testing {
namespace {

std::vector<int64_t> layers_of(const std::string& yaml, int64_t layers) {
  const Placement placement = read_options<Placement>(parse_yaml(yaml, "test"));
  std::vector<int64_t> list;
  for (int64_t layer = 0; layer < layers; ++layer)
    if (placement.includes(layer, layers)) list.push_back(layer);
  return list;
}

using Layers = std::vector<int64_t>;

TEST(Catalogue, placement) {
  EXPECT_EQ(layers_of("{}", 4), (Layers{0, 1, 2, 3}));
  // The second of two (GShard, GLaM), the fourth of four (ST-MoE), the sixth of six (OpenMoE-8B).
  EXPECT_EQ(layers_of("{every: 2}", 12), (Layers{1, 3, 5, 7, 9, 11}));
  EXPECT_EQ(layers_of("{every: 4}", 24), (Layers{3, 7, 11, 15, 19, 23}));
  EXPECT_EQ(layers_of("{every: 6}", 24), (Layers{5, 11, 17, 23}));
  EXPECT_EQ(layers_of("{every: 2, offset: 0}", 5), (Layers{0, 2, 4}));
  EXPECT_EQ(layers_of("{every: 3, offset: 1}", 9), (Layers{1, 4, 7}));
  // V-MoE: the last two, or five, of every second layer. Soft MoE: the last half.
  EXPECT_EQ(layers_of("{every: 2, last: 4}", 12), (Layers{9, 11}));
  EXPECT_EQ(layers_of("{every: 2, last: 10}", 24), (Layers{15, 17, 19, 21, 23}));
  EXPECT_EQ(layers_of("{last: 6}", 12), (Layers{6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(layers_of("{last: 40}", 3), (Layers{0, 1, 2}));
  // The middle third, and counting from the end.
  EXPECT_EQ(layers_of("{list: [4, 5, 6, 7]}", 12), (Layers{4, 5, 6, 7}));
  EXPECT_EQ(layers_of("{list: [0, -1, -3]}", 6), (Layers{0, 3, 5}));
  EXPECT_EQ(layers_of("{every: 2, first_dense: 3}", 8), (Layers{3, 5, 7}));
}

const char* const kPlacedMixture = "experts: 8, expert: {type: swiglu, hidden: 12}, router: {type: sparse-topk, k: 2}";

TEST(Catalogue, placement_changes_parameters_by_whole_layers) {
  const int64_t width = 16, dense = 3 * width * 40, mixture = 8 * 3 * width * 12 + 8 * width, idle = 6 * 3 * width * 12;
  int64_t none = 0;
  for (const auto& [placement, count] : std::initializer_list<std::pair<const char*, int64_t>>{
           {"{list: [0]}", 1}, {"{}", 6}, {"{every: 2}", 3}, {"{every: 3}", 2}, {"{last: 4}", 4}, {"{first_dense: 1}", 5}}) {
    const Decoder decoder(model_options(fmt::format(
        "{{vocabulary: 29, width: 16, layers: 6, attention: {{type: gqa, heads: 4}}, feed_forward: {{type: feed-forward, hidden: 40}}, "
        "mixtures: [{{layers: {}, {}}}]}}", placement, kPlacedMixture)));
    EXPECT_EQ(static_cast<int64_t>(decoder.routings().size()), count) << placement;
    const int64_t without = decoder.schema().count() - count * (mixture - dense);
    if (none == 0) none = without;
    EXPECT_EQ(without, none) << placement;
    EXPECT_EQ(decoder.active_parameters(), decoder.schema().count() - count * idle) << placement;
  }
}

TEST(Catalogue, placement_of_several_mixtures_in_one_layer) {
  const auto decoder = make_decoder(fmt::format(
      "{{vocabulary: 29, width: 16, layers: 2, attention: {{type: gqa, heads: 4}}, mixtures: ["
      "{{at: attention.query, join: add, layers: {{list: [1]}}, experts: 3, expert: {{type: lora, rank: 2}}, router: switch-top1}}, "
      "{{at: feed_forward.up, join: multiply, layers: {{list: [0]}}, experts: 2, expert: projection-expert}}, "
      "{{layers: {{list: [-1]}}, {}}}]}}", kPlacedMixture));
  std::vector<std::string> sites;
  for (const PlacedRouting& placed : decoder->routings()) sites.push_back(placed.station->site());
  EXPECT_THAT(sites, ::testing::ElementsAre("layers.0.feed_forward.up.around", "layers.1.attention.query.around", "layers.1.feed_forward"));
  // Beside an adapter the map keeps its weight; a replaced network has none.
  EXPECT_TRUE(static_cast<bool>(decoder->schema().find("layers.1.attention.query.weight")));
  EXPECT_FALSE(static_cast<bool>(decoder->schema().find("layers.1.feed_forward.up.weight")));
  Records records;
  EXPECT_TRUE(run_logits(*decoder, some_ids(6, 29), {6}, Phase::evaluate, &records).isfinite().all().item<bool>());
  ASSERT_EQ(records.all().size(), 3u);
  EXPECT_EQ(records.all()[0].place.site, "layers.0.feed_forward.up.around");
  EXPECT_EQ(records.all()[1].place.layer, 1);
}

TEST(Catalogue, first_layer_dense) {
  // DeepSeekMoE-16B has 16.376 billion parameters and 2.83 active, with one dense layer and no other number.
  const auto size = [](int64_t dense) {
    return model_options(fmt::format(
        "{{vocabulary: 102400, width: 2048, layers: 28, tied_embeddings: false, attention: {{type: gqa, heads: 16}}, "
        "feed_forward: {{type: feed-forward, hidden: 10944}}, mixtures: [{{layers: {{first_dense: {}}}, experts: 64, "
        "expert: {{type: swiglu, hidden: 1408}}, router: {{type: sparse-topk, k: 6}}, "
        "shared: [{{expert: {{type: swiglu, hidden: 1408}}, count: 2}}]}}]}}", dense));
  };
  const Decoder published(size(1));
  EXPECT_EQ(published.schema().count(), 16'375'728'128);
  EXPECT_NEAR(static_cast<double>(published.active_parameters()), 2.83e9, 0.005e9);
  EXPECT_EQ(published.routings().front().layer, 1);
  EXPECT_GT(Decoder(size(0)).schema().count() - published.schema().count(), 400'000'000);
  EXPECT_GT(published.schema().count() - Decoder(size(2)).schema().count(), 400'000'000);
  // Dense throughout: no layer is left for the mixture, which is said rather than trained without it.
  EXPECT_EQ(expect_error([&] { Decoder(size(28)); }).code(), "model.placement");
}

TEST(Decoder, CountsOfPublishedModels) {
  // Hand formulas: embeddings 2VD (once when tied), attention D(2H + 2Hk)d, experts 3EDF, router ED, norms.
  const auto formula = [](int64_t v, int64_t d, int64_t l, int64_t h, int64_t kv, int64_t head, int64_t e, int64_t k, int64_t f,
                          int64_t norms) {
    const int64_t shared = 2 * v * d + d + l * (d * (2 * h + 2 * kv) * head + e * d + 2 * d + norms);
    return std::pair{shared + l * 3 * e * d * f, shared + l * 3 * k * d * f};
  };
  const Decoder mixtral(model_options(
      "{vocabulary: 32000, width: 4096, layers: 32, tied_embeddings: false, attention: {type: gqa, heads: 32, kv_heads: 8}, "
      "mixtures: [{experts: 8, expert: {type: swiglu, hidden: 14336}, router: {type: sparse-topk, k: 2}}]}"));
  EXPECT_EQ(mixtral.schema().count(), 46'702'792'704);
  EXPECT_EQ(std::pair(mixtral.schema().count(), mixtral.active_parameters()), formula(32000, 4096, 32, 32, 8, 128, 8, 2, 14336, 0));
  const Decoder olmoe(model_options(
      "{vocabulary: 50304, width: 2048, layers: 16, tied_embeddings: false, attention: {type: gqa, heads: 16, qk_norm: full}, "
      "mixtures: [{experts: 64, expert: {type: swiglu, hidden: 1024}, router: {type: sparse-topk, k: 8}}]}"));
  EXPECT_EQ(olmoe.schema().count(), 6'919'161'856);
  EXPECT_EQ(std::pair(olmoe.schema().count(), olmoe.active_parameters()), formula(50304, 2048, 16, 16, 16, 128, 64, 8, 1024, 2 * 2048));
  const Decoder qwen(model_options(
      "{vocabulary: 151936, width: 2048, layers: 48, tied_embeddings: false, attention: {type: gqa, heads: 32, kv_heads: 4, "
      "head_dim: 128, qk_norm: head}, mixtures: [{experts: 128, expert: {type: swiglu, hidden: 768}, router: {type: sparse-topk, k: 8}}]}"));
  EXPECT_EQ(qwen.schema().count(), 30'532'122'624);
  EXPECT_EQ(std::pair(qwen.schema().count(), qwen.active_parameters()), formula(151936, 2048, 48, 32, 4, 128, 128, 8, 768, 2 * 128));
}

TEST(Decoder, ActiveParametersOfAttentionExperts) {
  const Decoder decoder(model_options(
      "{vocabulary: 29, width: 16, layers: 2, attention: {type: moa, experts: 4, head_dim: 8}, feed_forward: {type: feed-forward, hidden: 8}}"));
  EXPECT_EQ(decoder.schema().count() - decoder.active_parameters(), 2 * 2 * (2 * 16 * 8));
}

TEST(Decoder, LayersThatDiffer) {
  const Decoder decoder(model_options(
      "{vocabulary: 29, width: 16, layers: 3, attention: {type: gqa, heads: 4}, variants: ["
      "{layers: {list: [1]}, attention: {type: gqa, heads: 2, kv_heads: 1}, feed_forward: {type: feed-forward, activation: relu, hidden: 5}}, "
      "{layers: {list: [2]}, attention: none}]}"));
  EXPECT_EQ(decoder.schema().find("layers.1.attention.key.weight").spec().shape, (std::vector<int64_t>{8, 16}));
  EXPECT_EQ(decoder.schema().find("layers.1.feed_forward.up.weight").spec().shape, (std::vector<int64_t>{5, 16}));
  EXPECT_FALSE(static_cast<bool>(decoder.schema().find("layers.1.feed_forward.gate.weight")));
  EXPECT_FALSE(static_cast<bool>(decoder.schema().find("layers.2.attention.query.weight")));
  EXPECT_TRUE(static_cast<bool>(decoder.schema().find("layers.2.feed_forward.gate.weight")));
  EXPECT_EQ(decoder.states().size(), 5u);
}

TEST(Decoder, OptionsSurviveWritingAndReading) {
  const ModelOptions options = model_options(fmt::format(
      "{{vocabulary: 29, width: 16, layers: 2, rope_scaling: {{kind: llama3, factor: 8}}, attention: {{type: gqa, heads: 4}}, "
      "variants: [{{layers: {{list: [0]}}, attention: {{type: moa, experts: 2}}}}], "
      "mixtures: [{{join: add, {}}}], sites: [{{at: block, around: mod}}]}}", kPlacedMixture));
  const Node written = write_options(options);
  EXPECT_EQ(to_yaml(write_options(read_options<ModelOptions>(written))), to_yaml(written));
  const Decoder first(options), second(read_options<ModelOptions>(parse_yaml(to_yaml(written), "copy")));
  ASSERT_EQ(first.schema().all().size(), second.schema().all().size());
  for (size_t i = 0; i < first.schema().all().size(); ++i)
    EXPECT_EQ(first.schema().all()[i].name(), second.schema().all()[i].name());
}

TEST(Decoder, ErrorsNameTheOptionAndTheWayOut) {
  const auto error_of = [](const std::string& yaml) { return expect_error([&] { Decoder(model_options(yaml)); }); };
  Error error = error_of("{width: 16}");
  EXPECT_EQ(error.code(), "model.vocabulary");
  EXPECT_THAT(error.message(), ::testing::HasSubstr("set model.vocabulary"));
  error = error_of("{vocabulary: 29, width: 16, layers: 2, sites: [{at: attention.quary, around: mod}]}");
  EXPECT_EQ(error.code(), "model.site");
  EXPECT_THAT(error.message(), ::testing::HasSubstr("sites.0 sits at \"attention.quary\" of layer 0"));
  EXPECT_THAT(error.message(), ::testing::HasSubstr("attention.query, attention.key"));
  // A site inside a network that another mixture replaces is not there either.
  error = error_of(fmt::format("{{vocabulary: 29, width: 16, layers: 2, mixtures: [{{{0}}}, {{at: feed_forward.up, {0}}}]}}", kPlacedMixture));
  EXPECT_EQ(error.code(), "model.site");
  EXPECT_THAT(error.message(), ::testing::HasSubstr("mixtures.1"));
  error = error_of(fmt::format("{{vocabulary: 29, width: 16, layers: 2, mixtures: [{{layers: {{list: [2]}}, {}}}]}}", kPlacedMixture));
  EXPECT_EQ(error.code(), "model.placement");
  EXPECT_THAT(error.message(), ::testing::HasSubstr("lists layer 2, but the model has 2 layers"));
  error = error_of(fmt::format("{{vocabulary: 29, width: 16, layers: 2, mixtures: [{{layers: {{every: 3}}, {}}}]}}", kPlacedMixture));
  EXPECT_EQ(error.code(), "model.placement");
  EXPECT_THAT(error.message(), ::testing::HasSubstr("none of the model's 2 layers"));
}

TEST(Decoder, BadRowsAreRefused) {
  const auto decoder = make_decoder("{vocabulary: 29, width: 16, layers: 1, positions: learned, context: 4, attention: {type: gqa, heads: 4}}");
  EXPECT_EQ(expect_error([&] { run_logits(*decoder, some_ids(5, 29), {4}); }).code(), "model.rows");
  Error error = expect_error([&] { run_logits(*decoder, at::full({2}, 29, at::kLong), {2}); });
  EXPECT_EQ(error.code(), "model.token_id");
  EXPECT_THAT(error.message(), ::testing::HasSubstr("the vocabulary has 29 entries"));
  EXPECT_EQ(expect_error([&] { run_logits(*decoder, at::full({2}, -1, at::kLong), {2}); }).code(), "model.token_id");
  error = expect_error([&] { run_logits(*decoder, some_ids(5, 29), {5}); });
  EXPECT_EQ(error.code(), "model.context");
  EXPECT_THAT(error.message(), ::testing::HasSubstr("position 4 lies outside the model's context of 4 tokens"));
}

}  // namespace
}  // namespace switchyard::testing
