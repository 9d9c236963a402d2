// What families make of choices that no recording has: absent keys, other spellings, other activations, weights of two types.
#include <ATen/ATen.h>

#include "switchyard/base/files.h"
#include "switchyard/convert/export.h"
#include "switchyard/infer/network_model.h"
#include "switchyard/models/families/composition.h"
#include "switchyard/models/families/hub_keys.h"
#include "tests/files.h"
#include "tests/support.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::golden;
using testing::TemporaryFolder;

Node config_from(const std::string& json) { return parse_json(json, "config.json"); }

/// The composition that a config means.
Node meant(const Node& config) { return composition(Decoder(family_of(config)->read(config))); }

/// A recorded config without some keys and with others.
Node changed(const std::string& folder, const std::vector<std::string>& without, const std::string& with = "{}") {
  Node config = config_from(read_file(golden(folder + "/config.json")));
  std::erase_if(config.entries(), [&](const auto& entry) { return std::find(without.begin(), without.end(), entry.first) != without.end(); });
  const Node more = config_from(with);
  for (const auto& [key, value] : more.entries()) config[key] = value;
  return config;
}

TEST(FamilyChoices, KeysThatAFileLacksAreAsTheFamilysClassHasThem) {
  const std::vector<std::string> rope{"rope_theta", "rope_scaling", "rope_parameters"};
  EXPECT_EQ(number_at(meant(changed("mixtral", rope)), "rope_theta"), 1e6);
  EXPECT_EQ(number_at(meant(changed("mixtral", {"rms_norm_eps"})), "norm_eps"), 1e-5);
  EXPECT_EQ(number_at(meant(changed("phimoe", rope)), "rope_theta"), 1e6);
  EXPECT_EQ(number_at(meant(changed("minimax_m2", rope)), "rope_theta"), 5e6);
  EXPECT_EQ(text_at(meant(changed("dots1", {"norm_topk_prob"})), "layers.2.mixtures.0.combine.renormalise"), "never");
  EXPECT_EQ(number_at(meant(changed("deepseek_v3", {"routed_scaling_factor"})), "layers.2.mixtures.0.combine.scale"), 2.5);
  EXPECT_EQ(find_at(meant(changed("deepseek_v3", {"first_k_dense_replace"})), "layers.2.mixtures.0"), nullptr);
  EXPECT_EQ(find_at(meant(changed("granitemoeshared", {"shared_intermediate_size"})), "layers.0.mixtures.0.shared.0"), nullptr);
  EXPECT_EQ(integer_at(meant(changed("mistral", {"sliding_window"})), "layers.0.attention.window"), 4096);
  EXPECT_EQ(integer_at(meant(changed("mistral", {}, R"({"sliding_window": null})")), "layers.0.attention.window"), 0);
}

TEST(FamilyChoices, EverySpellingOfAKeyCounts) {
  const char* grok = R"({"model_type": "grok-1", "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 8, "num_experts": 4, "top_k": 3, "max_position_embeddings": 64, "norm_eps": 0.01})";
  EXPECT_EQ(number_at(meant(config_from(grok)), "norm_eps"), 0.01);
  EXPECT_EQ(integer_at(meant(config_from(grok)), "layers.0.mixtures.0.router.k"), 3);
  const char* openmoe = R"({"model_type": "openmoe", "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 8, "num_experts": 4, "moe_layer_interval": 2, "max_position_embeddings": 64, "layer_norm_epsilon": 0.01})";
  EXPECT_EQ(number_at(meant(config_from(openmoe)), "norm_eps"), 0.01);
  // Library 5 calls every running state a linear attention.
  const Node older = changed("granitemoehybrid", {});
  Node newer = older;
  for (Node& type : newer["layer_types"].items()) type = Node(type.scalar() == "mamba" ? "linear_attention" : "full_attention");
  EXPECT_TRUE(differences(meant(older), meant(newer)).empty());
}

TEST(FamilyChoices, ActivationsAreReadAndWrittenByTheirNames) {
  for (const auto& [name, kind] : {std::pair{"silu", "swiglu"}, std::pair{"gelu", "geglu"}, std::pair{"gelu_pytorch_tanh", "ffn-expert"}, std::pair{"relu", "ffn-expert"}})
    for (const char* folder : {"mixtral", "qwen2_moe", "deepseek_v3", "granitemoeshared", "qwen3_next"}) {
      const Node config = changed(folder, {}, fmt::format(R"({{"hidden_act": "{}"}})", name));
      const std::shared_ptr<Family> family = family_of(config);
      const Node read = meant(config);
      EXPECT_EQ(text_at(read, "layers.2.mixtures.0.expert.type"), kind) << folder;
      const Node written = family->write(read, text_at(config, "model_type"));
      EXPECT_EQ(text_at(written, "hidden_act"), name) << folder;
      EXPECT_TRUE(differences(read, meant(written)).empty()) << folder;
    }
  EXPECT_EQ(expect_error([] { meant(changed("mixtral", {}, R"({"hidden_act": "mish"})")); }).code(), "options.choice");
  EXPECT_EQ(expect_error([] { meant(changed("jamba", {}, R"({"hidden_act": "mish"})")); }).code(), "options.choice");
}

TEST(FamilyChoices, OneExpertsWeightIsItsProbabilityWherePublishedCodeDividesOnlySeveral) {
  const char* arctic = R"({"model_type": "arctic", "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 8, "num_local_experts": 4, "num_experts_per_tok": 1, "moe_layer_frequency": 2, "parallel_attn_mlp_res": true,
    "max_position_embeddings": 64})";
  const Node one = meant(config_from(arctic));
  EXPECT_EQ(text_at(one, "layers.1.mixtures.0.router.softmax"), "all");
  EXPECT_EQ(text_at(one, "layers.0.feed_forward.type"), "feed-forward");  // between two mixtures stands a plain block
  EXPECT_EQ(text_at(one, "layers.0.extra"), "none");
}

TEST(FamilyChoices, AKeyThatChangesAnotherFamilysMathematicsIsRefused) {
  for (const char* key : {R"("scoring_func": "sigmoid")", R"("n_group": 4)", R"("routed_scaling_factor": 2.5)", R"("logit_scale": 0.5)",
                          R"("layer_types": ["sliding_attention", "full_attention"])", R"("attn_logit_softcapping": 30)"}) {
    const Error error = expect_error([&] { meant(changed("olmoe", {}, std::string("{") + key + "}")); });
    EXPECT_EQ(error.code(), "model.config") << key;
  }
  EXPECT_EQ(expect_error([] { meant(changed("ernie4_5_moe", {}, R"({"moe_norm_min": 0.5})")); }).code(), "model.config");
  EXPECT_EQ(expect_error([] { meant(changed("qwen3_next", {}, R"({"layer_types": ["full_attention"]})")); }).code(), "model.config");
}

TEST(FamilyChoices, WeightsOfTwoTypesLoseNothingAndComputeInOne) {
  // Every second tensor in bfloat16, so that stacks of experts have both.
  TemporaryFolder folder;
  const Safetensors file(golden("mixtral/model.safetensors"));
  NamedTensors mixed;
  for (const TensorInfo& info : file.tensors()) {
    const at::Tensor tensor = file.get(info.name);
    mixed.emplace_back(info.name, mixed.size() % 2 == 0 ? tensor : tensor.to(at::kBFloat16));
  }
  write_safetensors_folder(folder.path(), mixed);
  fs::copy_file(golden("mixtral/config.json"), folder.path() / "config.json");
  export_model(load_model(folder.path()), folder.path() / "again");
  const Safetensors again(folder.path() / "again" / "model.safetensors");
  for (const auto& [name, tensor] : mixed) EXPECT_TRUE(again.get(name).to(at::kFloat).equal(tensor.to(at::kFloat))) << name;
  const at::Tensor ids = at::tensor({3, 17, 5, 29}, at::kLong);
  const Facts facts(Segments::single(4));
  const auto logits = [&](std::optional<at::ScalarType> type) {
    return NetworkModel(load_model(folder.path(), type)).logits(ids, facts, Phase::evaluate, nullptr, LanguageModel::Rows::all);
  };
  EXPECT_TRUE(logits({}).equal(logits(at::kFloat)));
}

}  // namespace
}  // namespace switchyard
