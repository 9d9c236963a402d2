// What families make of choices that no recording has: absent keys, other spellings, other activations, weights of two types.
#include <ATen/ATen.h>

#include "switchyard/base/files.h"
#include "switchyard/convert/export.h"
#include "switchyard/infer/network_model.h"
#include "switchyard/models/families/composition.h"
#include "switchyard/models/families/hub_keys.h"
#include "switchyard/models/families/table_family.h"
#include "tests/files.h"
#include "tests/models/decoder_support.h"
#include "tests/support.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::golden;
using testing::TemporaryFolder;
using testing::write_text;

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

/// A recording's tensors by name.
std::map<std::string, at::Tensor> recorded(const std::string& folder) {
  std::map<std::string, at::Tensor> tensors;
  const Safetensors file(golden(folder + "/model.safetensors"));
  for (const TensorInfo& info : file.tensors()) tensors[info.name] = file.get(info.name).clone();
  return tensors;
}

/// A folder of that config and those tensors.
void write_model(const fs::path& folder, const Node& config, const std::map<std::string, at::Tensor>& tensors) {
  fs::create_directories(folder);
  write_text(folder / "config.json", to_json(config));
  write_safetensors_folder(folder, NamedTensors(tensors.begin(), tensors.end()));
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

TEST(FamilyChoices, WeightsSayHowManyHeadsHaveKeysWhereAConfigDoesNot) {
  // Libraries would take the number of a published model: 8, 2. The queries' map of Qwen3-Next holds gates too.
  for (const char* folder : {"mixtral", "qwen3_next", "llama4"}) {
    Node config = changed(folder, {});
    Node& keys = config.find("text_config") ? config["text_config"] : config;
    const int64_t heads = integer_at(keys, "num_key_value_heads");
    std::erase_if(keys.entries(), [](const auto& entry) { return entry.first == "num_key_value_heads"; });
    const TemporaryFolder folder_without;
    write_model(folder_without.path(), config, recorded(folder));
    const Node read = composition(*load_model(folder_without.path()).decoder);
    const int64_t at = first_layer(read, [](const Node& layer) { return find_at(layer, "attention.kv_heads") != nullptr; });
    EXPECT_EQ(integer_at(read, fmt::format("layers.{}.attention.kv_heads", at)), heads) << folder;
  }
}

// transformers writes tables of decays beside the weights, and reads them: decay_tables.safetensors has them as a folder in bfloat16 would,
// and the logits that it (5.24) then gives the golden's weights.
TEST(FamilyChoices, TablesOfDecaysOfMiniMaxAreReadWhereThatIsAskedFor) {
  const Safetensors recording(golden("minimax/decay_tables.safetensors"));
  std::map<std::string, at::Tensor> tensors = recorded("minimax");
  for (const TensorInfo& info : recording.tensors())
    if (info.name.starts_with("model.")) tensors[info.name] = recording.get(info.name).clone();
  TemporaryFolder folder;
  write_model(folder / "tables", changed("minimax", {}), tensors);
  const at::Tensor ids = recording.get("input_ids"), wanted = recording.get("logits").flatten(0, 1);
  const auto logits = [&](const LoadedModel& model) {
    at::NoGradGuard guard;
    return testing::run_logits(*model.decoder, ids.flatten(), {ids.size(1), ids.size(1)});
  };
  const auto apart = [&](const LoadedModel& model) { return (logits(model) - wanted).abs().max().item<double>(); };
  const std::vector<std::string> tables{"attention.table_rows=4"};
  EXPECT_GT(apart(load_model(folder / "tables", at::kFloat)), 1e-3) << "as published, decays follow from the config";
  const LoadedModel read = load_model(folder / "tables", at::kFloat, tables);
  EXPECT_LT(apart(read), 1e-5);

  EXPECT_EQ(export_model(read, folder / "out"), "minimax");
  EXPECT_TRUE(logits(load_model(folder / "out", at::kFloat)).equal(logits(read))) << "the config says that there are tables";
  EXPECT_EQ(expect_error([&] { load_model(golden("minimax"), at::kFloat, tables); }).code(), "model.missing_tensor");
}

TEST(FamilyChoices, TheFirstFilesOfMiniMaxAreTheSameModel) {
  // Their own type and keys: attn_type_list, layernorm_*; the weights have the same names.
  const Node newer = changed("minimax", {});
  Node older = config_from(R"({"model_type": "minimax_text_01", "architectures": ["MiniMaxText01ForCausalLM"], "postnorm": true, "shared_intermediate_size": 0})");
  for (const auto& [key, value] : newer.entries()) {
    if (key == "layer_types") {
      for (const Node& type : value.items()) older["attn_type_list"].append(hub_count(type.scalar() == "full_attention" ? 1 : 0));
    } else if (key.ends_with("_factor")) {
      std::string name = "layernorm_" + key.substr(0, key.size() - 7);
      if (const size_t at = name.find("_attn_"); at != std::string::npos) name.replace(at, 6, "_attention_");
      older[name] = value;
    } else if (!older.find(key)) {
      older[key] = value;
    }
  }
  EXPECT_TRUE(differences(meant(newer), meant(older)).empty());
  const Node written = family_of(older)->write(meant(older), "minimax_text_01");
  EXPECT_EQ(number_at(written, "layernorm_full_attention_alpha"), number_at(newer, "full_attn_alpha_factor"));
  EXPECT_EQ(written.find("layer_types"), nullptr);
  EXPECT_TRUE(differences(meant(written), meant(older)).empty());
  older["postnorm"] = hub_flag(false);
  EXPECT_EQ(expect_error([&] { meant(older); }).code(), "model.config");
}

TEST(FamilyChoices, IdsOfSpecialTokensOutliveAnExportWithoutAVocabulary) {
  TemporaryFolder folder;
  write_model(folder / "model", changed("mixtral", {}, R"({"bos_token_id": 7, "eos_token_id": [2, 5], "pad_token_id": 3})"), recorded("mixtral"));
  export_model(load_model(folder / "model"), folder / "again");
  const Node again = config_from(read_file(folder / "again" / "config.json"));
  EXPECT_EQ(integer_at(again, "bos_token_id"), 7);
  EXPECT_EQ(integer_at(again, "pad_token_id"), 3);
  EXPECT_EQ(integer_at(again, "eos_token_id.1"), 5);
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

TEST(FamilyChoices, WhatDividesTheWeightsOfATokenIsReadAndWritten) {
  const auto again = [](const Node& config) {
    const Node read = meant(config);
    EXPECT_TRUE(differences(read, meant(family_of(config)->write(read, text_at(config, "model_type")))).empty());
    return read;
  };
  const std::string combine = "layers.1.mixtures.0.combine.";
  EXPECT_EQ(number_at(again(changed("ernie4_5_moe", {}, R"({"moe_norm_min": 0.5})")), combine + "least"), 0.5);
  EXPECT_TRUE(differences(meant(changed("ernie4_5_moe", {})), meant(changed("ernie4_5_moe", {"moe_norm_min"}))).empty());
  const auto dbrx = [](const char* order) {
    Node config = changed("dbrx", {});
    config["ffn_config"]["moe_normalize_expert_weights"] = Node(order);
    return config;
  };
  const Node second = again(dbrx("2.0"));
  EXPECT_EQ(number_at(second, combine + "order"), 2);
  EXPECT_EQ(text_at(second, combine + "renormalise"), "before_drop");
  EXPECT_EQ(text_at(again(dbrx("1")), "layers.1.mixtures.0.router.softmax"), "kept");
  for (const char* order : {"0.5", "-1", "9", "0"}) EXPECT_EQ(expect_error([&] { meant(dbrx(order)); }).code(), "model.config") << order;
}

TEST(FamilyChoices, AKeyThatChangesAnotherFamilysMathematicsIsRefused) {
  for (const char* key : {R"("scoring_func": "sigmoid")", R"("n_group": 4)", R"("routed_scaling_factor": 2.5)", R"("logit_scale": 0.5)",
                          R"("layer_types": ["sliding_attention", "full_attention"])", R"("attn_logit_softcapping": 30)"}) {
    const Error error = expect_error([&] { meant(changed("olmoe", {}, std::string("{") + key + "}")); });
    EXPECT_EQ(error.code(), "model.config") << key;
  }
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

TEST(FamilyChoices, NamesOfLibraryFivesMemoryAreRead) {
  // Files that are saved as the library holds them: experts in one tensor, mixtures under other names.
  const std::vector<std::pair<std::string, std::string>> granite{{"input_linear.weight", "experts.gate_up_proj"}, {"output_linear.weight", "experts.down_proj"},
                                                                 {"router.layer.weight", "router.weight"}};
  const std::map<std::string, std::vector<std::pair<std::string, std::string>>> renamed{
      {"granitemoe", granite}, {"granitemoeshared", granite}, {"granitemoehybrid", granite},
      {"ernie4_5_moe", {{"mlp.moe_statics", "mlp.gate.moe_statics"}}},
      {"phimoe", {{"block_sparse_moe.gate", "mlp.router"}, {"block_sparse_moe", "mlp"}}},
      {"minimax", {{"block_sparse_moe", "mlp"}}},
      {"minimax_m2", {{"block_sparse_moe", "mlp"}}}};
  for (const auto& [folder, rules] : renamed) {
    std::map<std::string, at::Tensor> tensors;
    std::map<std::string, std::map<int, std::map<std::string, at::Tensor>>> experts;  // by stem, number and part
    for (const auto& [theirs, tensor] : recorded(folder)) {
      std::string name = theirs;
      for (const auto& [from, to] : rules)
        if (const size_t at = name.find(from); at != std::string::npos && name.find("shared_mlp") == std::string::npos) name.replace(at, from.size(), to);
      const size_t at = name.find("mlp.experts.");
      if (at == std::string::npos || folder == "ernie4_5_moe") {
        tensors[name] = tensor;
        continue;
      }
      const std::string rest = name.substr(at + 12);
      experts[name.substr(0, at + 11)][std::stoi(rest)][rest.substr(rest.find('.') + 1)] = tensor;
    }
    for (const auto& [stem, each] : experts) {
      std::vector<at::Tensor> both, down;
      for (const auto& [number, parts] : each) {
        both.push_back(at::cat({parts.at("w1.weight"), parts.at("w3.weight")}));
        down.push_back(parts.at("w2.weight"));
      }
      tensors[stem + ".gate_up_proj"] = at::stack(both);
      tensors[stem + ".down_proj"] = at::stack(down);
    }
    TemporaryFolder other;
    write_model(other.path(), changed(folder, {}), tensors);
    const LoadedModel published = load_model(golden(folder)), memory = load_model(other.path());
    for (const Parameter& parameter : published.decoder->schema().all())
      EXPECT_TRUE(memory.decoder->schema().find(parameter.name()).tensor().equal(parameter.tensor())) << folder << " " << parameter.name();
  }
}

TEST(FamilyChoices, AMixtureFamilysModelWithoutMixturesIsWrittenAndReadBack) {
  for (const auto& [folder, keys] : {std::pair{"deepseek_v2", R"({"first_k_dense_replace": 9})"}, std::pair{"deepseek_v3", R"({"first_k_dense_replace": 9})"},
                                     std::pair{"glm4_moe", R"({"first_k_dense_replace": 9})"}, std::pair{"dots1", R"({"first_k_dense_replace": 9})"},
                                     std::pair{"qwen2_moe", R"({"decoder_sparse_step": 9})"}, std::pair{"qwen3_next", R"({"decoder_sparse_step": 9})"},
                                     std::pair{"ernie4_5_moe", R"({"moe_layer_start_index": 9})"}, std::pair{"granitemoehybrid", R"({"num_local_experts": 0})"}}) {
    const Node config = changed(folder, {}, keys);
    const Node read = meant(config);
    ASSERT_EQ(first_layer(read, has_mixture), -1) << folder;
    const Node written = family_of(config)->write(read, text_at(config, "model_type"));
    EXPECT_TRUE(differences(read, meant(written)).empty()) << folder;
  }
  Node llama4 = changed("llama4", {});
  llama4["text_config"]["moe_layers"] = Node::list();  // an empty list is an answer
  const Node read = meant(llama4);
  EXPECT_EQ(first_layer(read, has_mixture), -1);
  EXPECT_TRUE(differences(read, meant(family_of(llama4)->write(read, "llama4"))).empty());
}

TEST(FamilyChoices, HybridsOfOneKindOfLayerAreWrittenAndReadBack) {
  const auto all = [](const char* folder, const char* kind) {
    Node config = changed(folder, {});
    for (Node& type : config["layer_types"].items()) type = hub_text(kind);
    return config;
  };
  for (const Node& config : {all("minimax", "linear_attention"), all("minimax", "full_attention"), all("granitemoehybrid", "attention"),
                             all("granitemoehybrid", "mamba"), all("qwen3_next", "linear_attention")}) {
    const Node read = meant(config);
    const Node written = family_of(config)->write(read, text_at(config, "model_type"));
    EXPECT_TRUE(differences(read, meant(written)).empty()) << text_at(config, "model_type");
    // The library checks heads of layers that are not there.
    if (written.find("mamba_n_heads")) {
      EXPECT_EQ(integer_at(written, "mamba_expand") * integer_at(written, "hidden_size") % integer_at(written, "mamba_n_heads"), 0);
    }
  }
}

TEST(FamilyChoices, ErniesExpertsHaveBiasesWhereTheFileHasThem) {
  // The published code gives them to every map by use_bias, library 5 to all but the experts'.
  const Node config = changed("ernie4_5_moe", {}, R"({"use_bias": true})");
  for (const bool published : {true, false}) {
    std::map<std::string, at::Tensor> tensors = recorded("ernie4_5_moe");
    std::map<std::string, at::Tensor> biases;
    for (const auto& [name, tensor] : tensors)
      if (name.ends_with("_proj.weight") && (published || name.find(".experts.") == std::string::npos))
        biases[name.substr(0, name.size() - 6) + "bias"] = at::full({tensor.size(0)}, 0.25);
    biases["lm_head.bias"] = at::full({tensors.at("model.embed_tokens.weight").size(0)}, 0.25);
    tensors.insert(biases.begin(), biases.end());
    TemporaryFolder folder;
    write_model(folder.path(), config, tensors);
    const LoadedModel model = load_model(folder.path());
    const NameMap declared(model.decoder->schema());
    EXPECT_EQ(declared.declares("layers.1.feed_forward.experts.up_bias"), published);
    EXPECT_TRUE(declared.declares("layers.1.feed_forward.shared.up_bias"));
    EXPECT_EQ(export_model(model, folder / "again"), "ernie4_5_moe");
    const Safetensors again(folder / "again" / "model.safetensors");
    for (const auto& [name, tensor] : tensors) EXPECT_TRUE(again.get(name).equal(tensor)) << name;
    EXPECT_EQ(again.tensors().size(), tensors.size());
  }
}

TEST(FamilyChoices, AnUntiedEncoderDecoderIsWrittenWithTheCopiesThatLibrariesRead) {
  for (const auto& [folder, shared] : {std::pair{"t5", "shared.weight"}, std::pair{"switch_transformers", "shared.weight"}, std::pair{"nllb_moe", "model.shared.weight"}}) {
    std::map<std::string, at::Tensor> tensors = recorded(folder);
    tensors["lm_head.weight"] = tensors.at(shared) * 0.5;
    TemporaryFolder out;
    write_model(out.path(), changed(folder, {}, R"({"tie_word_embeddings": false})"), tensors);
    const LoadedModel model = load_model(out.path());
    EXPECT_EQ(export_model(model, out / "again"), text_at(changed(folder, {}), "model_type"));
    const Safetensors again(out / "again" / "model.safetensors");
    const std::string prefix = std::string(shared).substr(0, std::string(shared).find("shared"));
    for (const char* copy : {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"})
      EXPECT_TRUE(again.get(prefix + copy).equal(tensors.at(shared))) << folder;
    EXPECT_TRUE(again.get("lm_head.weight").equal(tensors.at("lm_head.weight"))) << folder;
    const LoadedModel back = load_model(out / "again");
    for (const Parameter& parameter : model.decoder->schema().all())
      EXPECT_TRUE(back.decoder->schema().find(parameter.name()).tensor().equal(parameter.tensor())) << folder << " " << parameter.name();
  }
}

TEST(FamilyChoices, AnUntiedModelsCopiesAreItsEmbedding) {
  for (const auto& [folder, prefix] : {std::pair{"switch_transformers", ""}, std::pair{"nllb_moe", "model."}}) {
    std::map<std::string, at::Tensor> tensors = recorded(folder);
    const at::Tensor shared = tensors.at(std::string(prefix) + "shared.weight"), rounded = shared.to(at::kBFloat16);
    tensors["lm_head.weight"] = shared * 0.5;
    const auto load = [&, folder = folder, prefix = prefix](const at::Tensor& encoder, const at::Tensor& decoder) {
      tensors[std::string(prefix) + "encoder.embed_tokens.weight"] = encoder;
      tensors[std::string(prefix) + "decoder.embed_tokens.weight"] = decoder;
      TemporaryFolder model;
      write_model(model.path(), changed(folder, {}, R"({"tie_word_embeddings": false})"), tensors);
      return load_model(model.path(), at::kFloat).decoder->schema().find("embedding.weight").tensor().clone();
    };
    EXPECT_TRUE(load(rounded, rounded).equal(rounded.to(at::kFloat))) << folder;
    EXPECT_TRUE(load(shared + 1, shared + 1).equal(shared + 1)) << folder;  // the original is nobody's
    EXPECT_EQ(expect_error([&] { load(shared, shared + 1); }).code(), "model.tensor_differs") << folder;
  }
}

TEST(FamilyChoices, CopiesOfTheEmbeddingAreLeftAsideAndOtherNumbersUnderTheirNamesAreRefused) {
  for (const auto& [folder, prefix] : {std::pair{"t5", ""}, std::pair{"switch_transformers", ""}, std::pair{"nllb_moe", "model."}}) {
    std::map<std::string, at::Tensor> tensors = recorded(folder);
    const std::string copy = std::string(prefix) + "encoder.embed_tokens.weight";
    const at::Tensor shared = tensors.at(std::string(prefix) + "shared.weight");
    for (const at::Tensor& same : {shared, shared.to(at::kBFloat16), at::Tensor()}) {  // none: as files have it that store the tensor once
      if (same.defined()) tensors[copy] = same;
      else tensors.erase(copy);
      TemporaryFolder model;
      write_model(model.path(), changed(folder, {}), tensors);
      EXPECT_TRUE(load_model(model.path()).decoder->schema().find("embedding.weight").tensor().equal(shared)) << folder;
    }
    for (const at::Tensor& other : {shared + 0.01, shared.slice(0, 1)}) {
      tensors[copy] = other.contiguous();
      TemporaryFolder model;
      write_model(model.path(), changed(folder, {}), tensors);
      EXPECT_EQ(expect_error([&] { load_model(model.path()); }).code(), "model.tensor_differs") << folder;
    }
  }
}

TEST(FamilyChoices, PaddingAmongTheExpertsIsTakenWherePlacesSuffice) {
  const auto load = [](const char* keys) {
    TemporaryFolder model;
    write_model(model.path(), changed("nllb_moe", {}, keys), recorded("nllb_moe"));
    return load_model(model.path());
  };
  EXPECT_NO_THROW(load(R"({"router_ignore_padding_tokens": true, "moe_eval_capacity_token_fraction": 1.0})"));
  for (const char* scarce : {"0.5", "-1.0"}) {
    const Error error = expect_error([&] { load((std::string(R"({"router_ignore_padding_tokens": true, "moe_eval_capacity_token_fraction": )") + scarce + "}").c_str()); });
    EXPECT_EQ(error.code(), "model.config");
    EXPECT_NE(error.message().find("router_ignore_padding_tokens"), std::string::npos) << error.what();
  }
}

TEST(FamilyChoices, ExpertsByTheMillionAreRefusedBeforeTheyAreNamed) {
  for (const auto& [folder, key] : {std::pair{"mixtral", "num_local_experts"}, std::pair{"deepseek_v3", "n_routed_experts"}}) {
    TemporaryFolder model;
    write_model(model.path(), changed(folder, {}, fmt::format(R"({{"{}": 16777216}})", key)), recorded(folder));
    const Error error = expect_error([&] { load_model(model.path()); });
    EXPECT_EQ(error.code(), "model.missing_tensor") << folder;
    EXPECT_NE(std::string(error.what()).find("experts.16777215."), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace switchyard
