// Families whose code came with their weights: tiny models whose every weight is a hash of its name and place, and the logits that
// the published code gives for them (in double precision; float32 differs by rounding).
#include <ATen/ATen.h>

#include "switchyard/base/files.h"
#include "switchyard/formats/safetensors.h"
#include "switchyard/infer/named_outputs.h"
#include "switchyard/infer/network_model.h"
#include "switchyard/models/families/family.h"
#include "tests/files.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using testing::TemporaryFolder;
using testing::write_text;

/// Values of a tensor from its published name: u in [-1, 1) by an integer hash, scaled by what the tensor is.
at::Tensor filled(const std::string& name, const at::Tensor& like) {
  uint32_t hash = 0x811C9DC5;
  for (const unsigned char c : name) hash = (hash ^ c) * 0x01000193;
  at::Tensor values = at::empty(like.sizes(), at::kFloat);
  const bool norm = name.find("norm") != std::string::npos && !name.ends_with(".bias");
  const bool whole = name == "model.embed_tokens.weight" || name == "lm_head.weight" || name == "shared.weight" || name == "model.shared.weight";
  for (int64_t i = 0; i < values.numel(); ++i) {
    uint32_t z = hash + static_cast<uint32_t>(i) * 0x9E3779B1;
    z ^= z >> 16;
    z *= 0x85EBCA6B;
    z ^= z >> 13;
    z *= 0xC2B2AE35;
    z ^= z >> 16;
    const double u = z / 2147483648.0 - 1;
    const double value = like.dim() == 1 ? (norm ? 1 + 0.2 * u : 0.3 * u) : whole ? u : 0.4 * u;
    values.mutable_data_ptr<float>()[i] = static_cast<float>(value);
  }
  return values;
}

struct Vector {
  std::string config;
  std::vector<double> logits;  ///< of the last position, ids 0 to 3
  double rms;                  ///< of all logits
  std::vector<double> weights; ///< of the last token in the first mixture, best first
  bool translates = false;     ///< the tokens are the encoder's, and the decoder gets five of its own
};

const std::string kCommon = R"("vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
  "max_position_embeddings": 64, "rope_theta": 10000.0, )";

void expect_vector(const Vector& vector) {
  TemporaryFolder folder;
  const std::string text = "{" + kCommon + vector.config + "}";
  write_text(folder / "config.json", text);
  const Node config = parse_json(text, "config.json");
  const auto family = family_of(config.find("model_type")->scalar());
  ASSERT_NE(family, nullptr);
  const ModelOptions options = family->read(config);
  const Decoder decoder(options);
  initialise(decoder.schema(), Streams(1));
  NameMap map(decoder.schema());
  family->names(map, options, {});
  NamedTensors tensors;
  for (const auto& [name, tensor] : map.collect()) tensors.emplace_back(name, filled(name, tensor));
  write_safetensors_folder(folder.path(), tensors);

  const NetworkModel model(load_model(folder.path()));
  NamedInputs inputs;
  inputs.input_ids = at::tensor(std::vector<int64_t>{3, 17, 5, 29, 11, 2, 23}, at::kLong);
  if (vector.translates) inputs.decoder_input_ids = at::tensor(std::vector<int64_t>{0, 9, 14, 6, 27}, at::kLong);
  const NamedTensors outputs = named_outputs(model, inputs, {.routing = true});
  const at::Tensor logits = outputs[0].second[0];
  for (size_t i = 0; i < vector.logits.size(); ++i)
    EXPECT_NEAR(logits[logits.size(0) - 1][static_cast<int64_t>(i)].item<double>(), vector.logits[i], 1e-4) << i;
  EXPECT_NEAR(logits.square().mean().sqrt().item<double>(), vector.rms, 1e-4);
  for (const auto& [name, tensor] : outputs) {
    if (!name.starts_with("topk_weights")) continue;
    for (size_t i = 0; i < vector.weights.size(); ++i)
      EXPECT_NEAR(tensor[6][static_cast<int64_t>(i)].item<double>(), vector.weights[i], 1e-4) << name;
    break;
  }
}

TEST(CheckVectors, FillingIsTheDocumentedHash) {
  const at::Tensor head = filled("lm_head.weight", at::empty({1, 3}));
  EXPECT_NEAR(head[0][0].item<double>(), 0.61933432, 1e-7);
  EXPECT_NEAR(head[0][2].item<double>(), -0.99776386, 1e-7);
  EXPECT_NEAR(filled("model.norm.weight", at::empty({3}))[1].item<double>(), 0.88257515, 1e-7);
  EXPECT_NEAR(filled("model.layers.0.self_attn.q_proj.weight", at::empty({1, 3}))[0][1].item<double>(), 0.00341520, 1e-7);
}

TEST(Catalogue, llama_moe_gives_the_published_codes_logits) {
  expect_vector({R"("model_type": "llama_moe", "intermediate_size": 48, "num_experts": 4, "num_selects": 2, "gate_network": "mlp",
                    "score_scale_factor": 2.0, "rms_norm_eps": 1e-6)",
                 {-1.97372, 1.96829, -0.30324, -1.12367}, 2.41152, {1.11947, 0.88053}});
}

TEST(Catalogue, deepseek_v1_gives_the_descriptions_logits) {
  expect_vector({R"("model_type": "deepseek", "intermediate_size": 20, "moe_intermediate_size": 12, "n_routed_experts": 4,
                    "n_shared_experts": 2, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "rms_norm_eps": 1e-6)",
                 {1.51958, -0.23060, -0.03325, -0.34266}, 2.34402, {0.53538, 0.2978}});
}

TEST(Catalogue, grok_1_gives_the_published_codes_logits_with_either_gelu) {
  const std::string config = R"("model_type": "grok-1", "num_key_value_heads": 2, "intermediate_size": 12, "num_experts": 4,
    "num_experts_per_tok": 2, "embedding_multiplier_scale": 4.0, "output_multiplier_scale": 0.5773502691896257,
    "attn_output_multiplier": 0.5, "max_attn_value": 1.0, "rms_norm_eps": 1e-5)";
  expect_vector({config, {-1.08935, -1.78325, -0.97008, 1.99099}, 1.39564, {0.36681, 0.24786}});
  expect_vector({config + R"(, "hidden_act": "gelu_erf")", {-1.08938, -1.78337, -0.97013, 1.99090}, 1.39565, {}});
}

TEST(Catalogue, skywork_moe_gives_the_descriptions_logits) {
  expect_vector({R"("model_type": "skywork", "intermediate_size": 12, "num_experts": [4], "moe_2layer_gate": true,
                    "moe_use_logits_norm": true, "moe_gate_norm_std": 1.0, "moe_use_mixtral_gating": true, "rms_norm_eps": 1e-6)",
                 {0.19525, 0.56616, -0.48972, 1.22808}, 2.25027, {0.65231, 0.34769}});
}

TEST(Catalogue, arctic_gives_the_published_codes_logits) {
  expect_vector({R"("model_type": "arctic", "num_key_value_heads": 2, "intermediate_size": 12, "num_local_experts": 4,
                    "num_experts_per_tok": 2, "moe_layer_frequency": 1, "parallel_attn_mlp_res": true, "rms_norm_eps": 1e-5)",
                 {2.48545, -2.08856, -2.08128, 2.47068}, 2.32577, {0.63182, 0.36818}});
}

TEST(Catalogue, openmoe_gives_the_descriptions_logits_with_its_places_and_without) {
  const std::string config = R"("model_type": "openmoe", "head_dim": 8, "intermediate_size": 12, "num_experts": 4, "moe_layer_interval": 2,
    "rms_norm_eps": 1e-6, )";
  // Two places an expert: the last token has none.
  expect_vector({config + R"("router_capacity_factor_eval": 0.5, "router_min_capacity": 1)", {2.23090, -1.33504, -2.40472, 1.26082}, 2.27041, {0, 0}});
  expect_vector({config + R"("drop_tks": false)", {2.27098, -1.57774, -2.53897, 1.36014}, 2.27005, {}});
  // Files of the published code bear the common type, and say whose they are by the architecture.
  EXPECT_EQ(family_of(parse_json(R"({"model_type": "llama", "architectures": ["OpenMoeForCausalLM"]})", "config.json"))->model_types(),
            std::vector<std::string>{"openmoe"});
}

TEST(CheckVectors, SwitchAndNllbGiveTheLibrarysLogits) {
  expect_vector({R"("model_type": "switch_transformers", "d_model": 16, "d_kv": 4, "num_heads": 4, "d_ff": 12, "num_layers": 2,
                    "num_decoder_layers": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "num_experts": 4, "expert_capacity": 2)",
                 {-0.20617, -0.33771, 0.38537, -0.27780}, 0.53246, {}, true});
  expect_vector({R"("model_type": "nllb-moe", "d_model": 16, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 12,
                    "decoder_ffn_dim": 12, "encoder_layers": 2, "decoder_layers": 2, "encoder_sparse_step": 2, "decoder_sparse_step": 2,
                    "num_experts": 4, "moe_eval_capacity_token_fraction": 0.3, "moe_token_dropout": 0.2, "pad_token_id": 1)",
                 {0.52824, -2.46810, 2.33886, -3.10365}, 3.03635, {0, 0}, true});
}

TEST(Catalogue, yuan_m32_gives_the_published_codes_logits) {
  expect_vector({R"("model_type": "yuan", "attention_projection_size": 32, "ffn_hidden_size": 12, "tie_word_embeddings": false,
                    "moe_config": {"moe_num_experts": 4, "moe_top_k": 2, "norm_topk_prob": true, "ffn_hidden_size": 12}, "rms_norm_eps": 1e-6)",
                 {1.93251, 3.79827, -2.18645, 0.72997}, 2.21378, {0.52585, 0.47415}});
}

}  // namespace
}  // namespace switchyard
