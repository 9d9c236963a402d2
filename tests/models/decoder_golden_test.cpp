// The decoder against recordings of transformers (tests/golden/*: tiny models of published families with outputs;
// golden.json says which version recorded them). Parameters are named by hand here, apart from the library's readers.
#include "switchyard/formats/safetensors.h"
#include "tests/files.h"
#include "tests/models/decoder_support.h"

namespace switchyard::testing {
namespace {

struct Golden {
  const char* folder;
  const char* options;
  const char* mixture;   ///< the published name of the mixture, and of its experts' gate, up and down maps
  const char *gate, *up, *down;
};

// clang-format off
const Golden kGoldens[] = {
    {"llama",
     "{vocabulary: 96, width: 32, layers: 3, tied_embeddings: false, rope_theta: 10000, "
     "rope_scaling: {kind: llama3, factor: 8, low: 1, high: 4, original: 16}, "
     "attention: {type: gqa, heads: 4, kv_heads: 2, head_dim: 8}, feed_forward: {type: feed-forward, hidden: 28}}",
     "mlp", "gate_proj", "up_proj", "down_proj"},
    {"mixtral",
     "{vocabulary: 96, width: 32, layers: 3, tied_embeddings: false, rope_theta: 1000000, "
     "attention: {type: gqa, heads: 4, kv_heads: 2, window: 8}, "
     "mixtures: [{experts: 8, expert: {type: swiglu, hidden: 12}, router: {type: sparse-topk, k: 2}}]}",
     "block_sparse_moe", "w1", "w3", "w2"},
    {"olmoe",
     "{vocabulary: 96, width: 32, layers: 3, tied_embeddings: false, "
     "attention: {type: gqa, heads: 4, kv_heads: 2, qk_norm: full, clip: 0.5}, "
     "mixtures: [{experts: 8, expert: {type: swiglu, hidden: 12}, router: {type: sparse-topk, k: 3, softmax: all}, "
     "combine: {renormalise: never}}]}",
     "mlp", "gate_proj", "up_proj", "down_proj"},
    {"qwen3_moe",
     "{vocabulary: 96, width: 32, layers: 3, tied_embeddings: false, "
     "attention: {type: gqa, heads: 4, kv_heads: 2, head_dim: 16, qk_norm: head}, "
     "feed_forward: {type: feed-forward, hidden: 28}, "
     "mixtures: [{layers: {first_dense: 1}, experts: 8, expert: {type: swiglu, hidden: 12}, "
     "router: {type: sparse-topk, k: 3, softmax: all}, combine: {renormalise: before_drop}}]}",
     "mlp", "gate_proj", "up_proj", "down_proj"},
};
// clang-format on

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  if (const size_t at = text.find(from); at != std::string::npos) text.replace(at, from.size(), to);
  return text;
}

/// Our name → the published one.
std::string published(std::string name, const Golden& golden) {
  if (name == "embedding.weight") return "model.embed_tokens.weight";
  if (name == "head.weight") return "lm_head.weight";
  for (const auto& [from, to] : std::initializer_list<std::pair<std::string, std::string>>{
           {"attention_norm", "input_layernorm"}, {"feed_forward_norm", "post_attention_layernorm"},
           {"attention.query_norm", "self_attn.q_norm"}, {"attention.key_norm", "self_attn.k_norm"},
           {"attention.query", "self_attn.q_proj"}, {"attention.key", "self_attn.k_proj"},
           {"attention.value", "self_attn.v_proj"}, {"attention.output", "self_attn.o_proj"},
           {"feed_forward.router", std::string(golden.mixture) + ".gate"}, {"feed_forward.gate", "mlp.gate_proj"},
           {"feed_forward.up", "mlp.up_proj"}, {"feed_forward.down", "mlp.down_proj"}})
    name = replaced(name, from, to);
  return "model." + name;
}

at::Tensor published_values(const Parameter& parameter, const Golden& golden, const Safetensors& file) {
  const std::string& name = parameter.name();
  const size_t at = name.find(".feed_forward.experts.");
  if (at == std::string::npos) return file.get(published(name, golden)).clone();
  const std::string map = name.substr(at + std::string(".feed_forward.experts.").size());
  const char* inner = map == "gate" ? golden.gate : map == "up" ? golden.up : golden.down;
  std::vector<at::Tensor> experts;
  for (int64_t e = 0; e < parameter.spec().shape[0]; ++e)
    experts.push_back(file.get(fmt::format("model.{}.{}.experts.{}.{}.weight", name.substr(0, at), golden.mixture, e, inner)));
  return at::stack(experts);
}

std::shared_ptr<Decoder> load(const Golden& golden_model) {
  auto decoder = std::make_shared<Decoder>(model_options(golden_model.options));
  const Safetensors file(golden(std::string(golden_model.folder) + "/model.safetensors"));
  int64_t elements = 0;
  for (const TensorInfo& tensor : file.tensors()) elements += file.get(tensor.name).numel();
  EXPECT_EQ(decoder->schema().count(), elements) << golden_model.folder;  // nothing of the file is left over
  for (const Parameter& parameter : decoder->schema().all()) parameter.bind(published_values(parameter, golden_model, file));
  return decoder;
}

class DecoderGolden : public ::testing::TestWithParam<Golden> {};

TEST_P(DecoderGolden, LogitsHiddenStatesAndRouting) {
  const auto decoder = load(GetParam());
  const Safetensors recorded(golden(std::string(GetParam().folder) + "/golden.safetensors"));
  const at::Tensor ids = recorded.get("input_ids").to(at::kLong);
  // Row 0 whole and row 1 without its left padding, packed into one pass.
  const int64_t pads = ids.size(1) - recorded.get("attention_mask")[1].sum().item<int64_t>();
  ASSERT_EQ(pads, 5);
  const Facts facts([&] {
    Segments segments;
    segments.begin = {0, 17, 29};
    return segments;
  }());
  const Streams random(1);
  Records records;
  const Context context{.facts = facts, .random = random, .records = &records};
  std::vector<at::Tensor> hidden;
  const at::Tensor last = decoder->forward(at::cat({ids[0], ids[1].slice(0, pads)}), context, &hidden);
  const at::Tensor logits = decoder->logits(last, context);
  EXPECT_LT(difference(logits.narrow(0, 0, 17), recorded.get("logits")[0]), 1e-5);
  const at::Tensor alone = recorded.get("logits_row1_unpadded").reshape({12, 96});
  EXPECT_LT(difference(logits.narrow(0, 17, 12), alone), 1e-5);
  ASSERT_EQ(hidden.size(), 4u);
  hidden[3] = last;  // the recording's last one is after the final norm
  for (int64_t i = 0; i < 4; ++i)
    EXPECT_LT(difference(hidden[i].narrow(0, 0, 17), recorded.get(fmt::format("hidden_states.{}", i)).reshape({17, 32})), 1e-5) << i;
  for (const Record& record : records.all()) {
    const Selection& selection = *record.selection();
    const int64_t k = selection.per_unit;
    const at::Tensor chosen = recorded.get(fmt::format("topk_ids.{}", record.place.layer)).narrow(0, 0, 17).to(at::kLong);
    EXPECT_TRUE(at::equal(selection.expert.view({-1, k}).narrow(0, 0, 17), chosen)) << record.place.site;
    EXPECT_LT(difference(record.routed.weight.view({-1, k}).narrow(0, 0, 17),
                         recorded.get(fmt::format("topk_weights.{}", record.place.layer)).narrow(0, 0, 17)), 1e-5);
    EXPECT_LT(difference(record.gates()[0].logits.narrow(0, 0, 17),
                         recorded.get(fmt::format("router_logits.{}", record.place.layer)).narrow(0, 0, 17)), 1e-5);
  }
}

TEST_P(DecoderGolden, PrefillAndCachedSteps) {
  const auto decoder = load(GetParam());
  const Safetensors recorded(golden(std::string(GetParam().folder) + "/golden.safetensors"));
  const at::Tensor ids = recorded.get("input_ids").to(at::kLong)[0], expected = recorded.get("logits")[0];
  ContiguousState state;
  at::NoGradGuard guard;
  EXPECT_LT(difference(run_cached(*decoder, ids.narrow(0, 0, 9), {9}, {0}, state), expected.narrow(0, 0, 9)), 1e-5);
  for (int64_t t = 9; t < 17; ++t)
    EXPECT_LT(difference(run_cached(*decoder, ids.narrow(0, t, 1), {1}, {t}, state), expected.narrow(0, t, 1)), 1e-5) << t;
}

TEST_P(DecoderGolden, LossAndGradients) {
  const auto decoder = load(GetParam());
  const Safetensors recorded(golden(std::string(GetParam().folder) + "/golden.safetensors"));
  const at::Tensor ids = recorded.get("input_ids").to(at::kLong), labels = recorded.get("labels").to(at::kLong);
  const at::Tensor logits = run_logits(*decoder, at::cat({ids[0], ids[1].slice(0, 5)}), {17, 12});
  // The next token's label, none after the last.
  const at::Tensor none = at::full({1}, -100, at::kLong);
  const at::Tensor targets = at::cat({labels[0].slice(0, 1), none, labels[1].slice(0, 6), none});
  const at::Tensor loss = at::cross_entropy_loss(logits, targets, {}, at::Reduction::Mean, -100);
  EXPECT_NEAR(loss.item<double>(), recorded.get("loss").item<double>(), 1e-5);
  loss.backward();
  for (const Parameter& parameter : decoder->schema().all()) {
    const std::string name = published(parameter.name(), GetParam());
    if (recorded.has("grad." + name)) {
      EXPECT_LT(difference(parameter.tensor().grad(), recorded.get("grad." + name)), 1e-5) << name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, DecoderGolden, ::testing::ValuesIn(kGoldens),
                         [](const auto& test) { return std::string(test.param.folder); });

}  // namespace
}  // namespace switchyard::testing
