#include "switchyard/convert/to_gguf.h"

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include "switchyard/base/files.h"
#include "switchyard/base/random.h"
#include "switchyard/convert/export.h"
#include "switchyard/formats/gguf.h"
#include "switchyard/formats/quantised.h"
#include "switchyard/formats/tokenizers/gguf_vocabulary.h"
#include "switchyard/models/checkpoint.h"
#include "switchyard/models/families/derived_weights.h"
#include "switchyard/models/families/family.h"
#include "switchyard/models/families/gguf/hub_view.h"
#include "switchyard/models/families/gguf/file_view.h"
#include "tests/files.h"
#include "tests/models/decoder_support.h"
#include "tests/support.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::golden;
using testing::run_command;
using testing::run_logits;
using testing::TemporaryFolder;

const std::vector<std::string> kGgufFamilies{"mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "deepseek_v2", "deepseek_v3", "gpt_oss", "llama", "mistral", "qwen2", "qwen3",
                                             "granitemoe", "granitemoeshared", "granitemoehybrid", "llama4", "qwen3_next", "jamba", "t5",
                                             "glm4_moe", "dots1", "minimax_m2", "ernie4_5_moe", "hunyuan_v1_moe", "phimoe", "dbrx", "gpt2", "bert"};

Node config_of(const fs::path& folder) { return parse_json(read_file(folder / "config.json"), (folder / "config.json").string()); }

/// A folder's weights in another type.
std::shared_ptr<const WeightSource> cast(const fs::path& folder, at::ScalarType type, const char* spelled) {
  std::shared_ptr<const WeightSource> file = open_weights(folder);
  auto cast = std::make_shared<DerivedWeights>(folder.string());
  for (TensorInfo info : file->tensors()) {
    info.dtype = spelled;
    cast->add({info, [file, name = info.name, type] { return file->get(name).to(type); }});
  }
  return cast;
}

TEST(ToGguf, AViewOfAViewIsTheFolderAgain) {
  for (const std::string& family : kGgufFamilies) {
    for (const auto& [type, spelled] : {std::pair{at::kFloat, "F32"}, {at::kBFloat16, "BF16"}}) {
      SCOPED_TRACE(family + spelled);
      const std::shared_ptr<const WeightSource> hub = cast(golden(family), type, spelled);
      const GgufView view = gguf_view(config_of(golden(family)), hub);
      for (const TensorInfo& info : view.weights->tensors()) {
        const bool small = info.shape.size() < 2 || info.name.find("ffn_gate_inp") != std::string::npos || !info.name.ends_with(".weight") ||
                           info.name.ends_with("_norm.weight") || info.name.find("ssm_conv1d") != std::string::npos || info.name == "token_types.weight";
        EXPECT_EQ(info.dtype, small ? "F32" : spelled) << info.name;
        const at::Tensor tensor = view.weights->get(info.name);
        EXPECT_EQ(tensor.sizes().vec(), info.shape) << info.name;
        EXPECT_EQ(tensor.nbytes(), info.bytes) << info.name;
      }
      const HubView back = hub_view(view.metadata, view.weights);
      EXPECT_EQ(back.config.find("model_type")->scalar(), family);
      EXPECT_EQ(back.weights->tensors().size(), hub->tensors().size());
      for (const TensorInfo& info : hub->tensors()) {
        const at::Tensor was = hub->get(info.name), is = back.weights->get(info.name);
        ASSERT_EQ(is.scalar_type(), was.scalar_type()) << info.name;
        EXPECT_TRUE(is.equal(was)) << info.name;
      }
    }
  }
}

TEST(ToGguf, FilesComputeWhatTheirFoldersDo) {
  TemporaryFolder folder;
  std::vector<std::string> packed = kGgufFamilies;
  std::erase(packed, "t5");  // compared below
  packed.insert(packed.end(), {"qwen3_moe_fused", "gpt_oss_mxfp4", "deepseek_v3_fp8"});
  for (const std::string& family : packed) {
    SCOPED_TRACE(family);
    const ToGgufReport report = convert_to_gguf(golden(family), folder / (family + ".gguf"));
    EXPECT_EQ(report.written.packed, 0);
    const size_t expected = family == "deepseek_v2" ? 3 : 1;  // no tokenizer; beta_fast of 16, groups by their best
    EXPECT_GE(report.notices.size(), expected);
    const LoadedModel before = load_model(golden(family), at::kFloat), after = load_model(folder / (family + ".gguf"), at::kFloat);
    const at::Tensor ids = testing::some_ids(11, 90);
    const at::Tensor there = run_logits(*after.decoder, ids, {11}), here = run_logits(*before.decoder, ids, {11});
    // The folder multiplies by its eight-bit floats as they lie, whose sums run in another order than those of plain floats.
    if (family == "deepseek_v3_fp8") EXPECT_LT(testing::difference(there, here), 1e-5);
    else EXPECT_TRUE(there.equal(here));
    EXPECT_EQ(after.end_ids, before.end_ids);
  }
  // Blocks of four-bit floats stay such blocks.
  EXPECT_EQ(Gguf(folder / "gpt_oss_mxfp4.gguf").packed("blk.1.ffn_up_exps.weight")->layout(), "MXFP4");
  // And back: names, types and bits of the hub, packed experts too, from the container or without it.
  const auto expect_back = [&](const std::string& family, const fs::path& from) {
    export_model(load_model(from), folder / "back");
    const Safetensors was(golden(family + "/model.safetensors")), is(folder / "back");
    ASSERT_EQ(is.tensors().size(), was.tensors().size());
    for (const TensorInfo& info : was.tensors()) EXPECT_TRUE(is.get(info.name).equal(was.get(info.name))) << info.name;
    const Node before = config_of(golden(family)), after = config_of(folder / "back");
    const Node *packed = before.find("quantization_config"), *again = after.find("quantization_config");
    ASSERT_EQ(packed == nullptr, again == nullptr);
    if (packed) {
      EXPECT_EQ(to_json(*again), to_json(*packed));
    }
    fs::remove_all(folder / "back");
  };
  for (const char* family : {"deepseek_v3", "hunyuan_v1_moe", "phimoe", "dbrx", "gpt2", "bert"}) expect_back(family, folder / (std::string(family) + ".gguf"));
  expect_back("gpt_oss_mxfp4", folder / "gpt_oss_mxfp4.gguf");
  expect_back("gpt_oss_mxfp4", golden("gpt_oss_mxfp4"));
  export_model(load_model(golden("gpt_oss_mxfp4")), folder / "floats", {.model_type = {}, .dtype = at::kFloat});
  EXPECT_TRUE(Safetensors(folder / "floats").has("model.layers.0.mlp.experts.gate_up_proj"));
}

/// Logits of rows that a decoder writes of one sequence that its encoder read.
at::Tensor written_logits(const Decoder& decoder, const at::Tensor& read, const at::Tensor& written) {
  const Streams random(5);
  const Facts reading(Segments::equal(1, read.size(0)));
  Facts facts(Segments::equal(1, written.size(0)));
  set_memory(facts, decoder.encode(read, Context{.facts = reading, .random = random}));
  const Context context{.facts = facts, .random = random};
  return decoder.logits(decoder.forward(written, context), context);
}

TEST(ToGguf, AnEncodersAndADecodersLayersReadTheSame) {
  TemporaryFolder folder;
  const ToGgufReport report = convert_to_gguf(golden("t5"), folder / "t5.gguf");
  EXPECT_GE(report.notices.size(), 3u);  // no tokenizer, the last bucket's distance, the scale of logits
  const LoadedModel before = load_model(golden("t5"), at::kFloat), after = load_model(folder / "t5.gguf", at::kFloat);
  const at::Tensor ids = testing::some_ids(7, 90), written = testing::some_ids(5, 90);
  EXPECT_TRUE(written_logits(*after.decoder, ids, written).equal(written_logits(*before.decoder, ids, written)));
}

/// A config of a golden family, changed.
Node changed_config(const std::string& family, const std::function<void(Node&)>& change) {
  Node config = config_of(golden(family));
  change(config);
  return config;
}

TEST(ToGguf, NumbersThatTheFileHoldsChangedComeBackToTheBit) {
  // exp takes a number of little size to a float32 that has fewer bits for it; so does adding one.
  for (const auto& [family, name] : {std::pair{"jamba", "model.layers.0.mamba.A_log"}, {"qwen3_next", "model.layers.0.input_layernorm.weight"}}) {
    const std::shared_ptr<const WeightSource> file = open_weights(golden(family));
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
      auto hub = std::make_shared<DerivedWeights>("x");
      at::Tensor numbers = file->get(name).clone().flatten();
      numbers.slice(0, 0, 6).copy_(at::tensor({1e-7, -3e-5, 0.0, -0.0, 5.5, 1e-3}));
      for (TensorInfo info : file->tensors()) {
        info.dtype = type == at::kFloat ? "F32" : type == at::kHalf ? "F16" : "BF16";
        hub->add({info, [=, of = info.name] { return (of == name ? numbers.view(file->get(of).sizes()) : file->get(of)).to(type); }});
      }
      const GgufView view = gguf_view(config_of(golden(family)), hub);
      const at::Tensor was = hub->get(name), is = hub_view(view.metadata, view.weights).weights->get(name);
      ASSERT_EQ(is.scalar_type(), type);
      EXPECT_TRUE(is.view(type == at::kFloat ? at::kInt : at::kShort).equal(was.view(type == at::kFloat ? at::kInt : at::kShort))) << family;
      // Without what the metadata says of them they are near.
      GgufMetadata plain = view.metadata;
      for (const auto& [key, value] : view.metadata.entries())
        if (key.starts_with("switchyard.restored.")) plain.erase(key);
      EXPECT_LT(testing::difference(hub_view(plain, view.weights).weights->get(name).to(at::kFloat), was.to(at::kFloat)), 2e-7 + (type == at::kFloat ? 0 : 1e-5));
    }
  }
  const GgufView view = gguf_view(config_of(golden("jamba")), open_weights(golden("jamba")));
  GgufMetadata outside = view.metadata;
  outside.set("switchyard.restored.blk.0.ssm_a", {GgufType::array, GgufArray{GgufType::u32, std::vector<uint64_t>{4000000000u, 0}}});
  EXPECT_EQ(expect_error([&] { hub_view(outside, view.weights); }).code(), "model.gguf");
}

TEST(ToGguf, OneWeightOfTheStreamIsAllThatMiniMaxCanSay) {
  const std::shared_ptr<const WeightSource> hub = open_weights(golden("minimax"));
  EXPECT_EQ(expect_error([&] { gguf_view(config_of(golden("minimax")), hub); }).code(), "convert.gguf.option");
  const Node config = changed_config("minimax", [](Node& node) {
    for (const std::string kind : {"full_attn_", "linear_attn_", "mlp_"}) {
      node[kind + "alpha_factor"] = Node("3.5");
      node[kind + "beta_factor"] = Node("1.0");
    }
  });
  const GgufView view = gguf_view(config, hub);
  EXPECT_EQ(view.metadata.text("general.architecture"), "minimax-01");
  EXPECT_EQ(view.metadata.number("minimax-01.residual_scale"), 3.5);
  EXPECT_EQ(view.metadata.flags("minimax-01.attention.recurrent_layers"), (std::vector<int64_t>{1, 0, 1}));
  const HubView back = hub_view(view.metadata, view.weights);
  EXPECT_EQ(back.config.find("model_type")->scalar(), "minimax");
  for (const TensorInfo& info : hub->tensors()) EXPECT_TRUE(back.weights->get(info.name).equal(hub->get(info.name))) << info.name;
  GgufMetadata theirs = view.metadata;  // as the reference writes it, of every eighth layer
  theirs.erase("switchyard.model_type");
  theirs.erase("minimax-01.attention.recurrent_layers");
  theirs.set("minimax-01.full_attention_interval", GgufValue::u32(2));
  const Node read = hub_view(theirs, view.weights).config;
  EXPECT_EQ(read.find("model_type")->scalar(), "minimax_text_01");
  EXPECT_EQ(read.find("attn_type_list")->items()[1].scalar(), "1");
  EXPECT_EQ(read.find("layernorm_mlp_alpha")->scalar(), "3.5");
}

TEST(ToGguf, WhatActsAndIsNotComputedIsRefusedByName) {
  const GgufView view = gguf_view(config_of(golden("qwen3_moe")), open_weights(golden("qwen3_moe")));
  for (const auto& [key, value] : {std::pair{"qwen3moe.attn_logit_softcapping", 30.0f}, {"qwen3moe.logit_scale", 2.0f}, {"qwen3moe.expert_weights_scale", 2.5f}}) {
    GgufMetadata metadata = view.metadata;
    metadata.set(key, GgufValue::f32(value));
    const Error error = expect_error([&] { hub_view(metadata, view.weights); });
    EXPECT_EQ(error.code(), "model.gguf");
    EXPECT_NE(error.message().find(key), std::string::npos) << error.what();
    metadata.set(key, GgufValue::f32(0));
    EXPECT_NO_THROW(hub_view(metadata, view.weights));
  }
}

TEST(ToGguf, DenseGraniteHasAnArchitectureOfItsOwn) {
  const Node config = changed_config("granitemoehybrid", [](Node& node) {
    for (const char* key : {"num_local_experts", "num_experts_per_tok"}) node[key] = Node("0");
    node["intermediate_size"] = Node("28");
    node["layer_types"] = Node::list();
    for (int i = 0; i < 3; ++i) node["layer_types"].append(Node("attention"));
  });
  auto hub = std::make_shared<DerivedWeights>("x");
  const std::shared_ptr<const WeightSource> file = open_weights(golden("granitemoehybrid"));
  for (const TensorInfo& info : file->tensors())
    for (const std::string layer : {"0", "1", "2"}) {
      std::string name = info.name;
      if (const size_t at = name.find("layers.1."); at != std::string::npos) name.replace(at, 9, "layers." + layer + ".");
      else if (layer != "0" || name.find("layers.") != std::string::npos) continue;
      if (name.find("block_sparse_moe") == std::string::npos) hub->add({{name, info.dtype, info.shape, info.bytes}, [file, of = info.name] { return file->get(of); }});
    }
  const GgufView view = gguf_view(config, hub);
  EXPECT_EQ(view.metadata.text("general.architecture"), "granite");
  EXPECT_TRUE(view.weights->has("blk.2.ffn_gate.weight") && !view.weights->has("blk.2.ffn_gate_shexp.weight"));
  const HubView back = hub_view(view.metadata, view.weights);
  EXPECT_EQ(back.config.find("model_type")->scalar(), "granitemoehybrid");
  for (const TensorInfo& info : hub->tensors()) EXPECT_TRUE(back.weights->get(info.name).equal(hub->get(info.name))) << info.name;
}

/// A folder with the model of a golden GGUF file and a tokenizer of the golden ones.
fs::path with_tokenizer(const TemporaryFolder& folder, const std::string& model, const std::string& tokenizer) {
  const fs::path made = folder / model;
  export_model(load_model(golden("gguf/" + model + ".gguf")), made);
  for (const auto& entry : fs::directory_iterator(golden("tokenizers/" + tokenizer)))
    if (entry.path().extension() != ".jsonl") fs::copy_file(entry.path(), made / entry.path().filename(), fs::copy_options::overwrite_existing);
  return made;
}

TEST(ToGguf, MetadataAndTensorsAreThoseOfTheReferenceFiles) {
  TemporaryFolder folder;
  for (const auto& [model, tokenizer] : {std::pair{"qwen3_moe", "qwen2"}, {"qwen2_moe", "qwen2"}, {"deepseek_v2", "deepseek-llm"}, {"deepseek_v3", "deepseek-v3"}}) {
    SCOPED_TRACE(model);
    convert_to_gguf(with_tokenizer(folder, model, tokenizer), folder / "x.gguf", {.pack = {.type = ""}, .name = std::string("tiny ") + model});
    const Gguf ours(folder / "x.gguf"), theirs(golden(std::string("gguf/") + model + ".gguf"));
    for (const auto& [key, value] : theirs.metadata().entries()) {
      if (key.ends_with("feed_forward_length")) continue;  // of dense layers, of which there are none, so our own folder has no say
      const GgufValue* mine = ours.metadata().find(key);
      ASSERT_NE(mine, nullptr) << key;
      EXPECT_EQ(mine->type, value.type) << key;
    }
    for (const char* key : {"tokenizer.ggml.tokens", "tokenizer.ggml.merges"}) EXPECT_EQ(ours.metadata().texts(key), theirs.metadata().texts(key));
    EXPECT_EQ(ours.metadata().integers("tokenizer.ggml.token_type"), theirs.metadata().integers("tokenizer.ggml.token_type"));
    EXPECT_EQ(ours.metadata().text("tokenizer.ggml.pre"), theirs.metadata().text("tokenizer.ggml.pre"));
    EXPECT_EQ(ours.metadata().text("tokenizer.chat_template"), theirs.metadata().text("tokenizer.chat_template"));
    EXPECT_EQ(ours.metadata().integer("tokenizer.ggml.eos_token_id"), theirs.metadata().integer("tokenizer.ggml.eos_token_id"));
    ASSERT_EQ(ours.tensors().size(), theirs.tensors().size());
    for (const TensorInfo& info : theirs.tensors()) {
      EXPECT_TRUE(ours.get(info.name).equal(theirs.get(info.name))) << info.name;
    }
    fs::remove(folder / "x.gguf");
  }
}

/// No folder of these is recorded.
TEST(ToGguf, SurveyDecodersComeBackToo) {
  const std::map<std::string, std::string> configs{
      {"deepseek", R"({"model_type": "deepseek", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 28, "moe_intermediate_size": 12, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "n_shared_experts": 2, "n_routed_experts": 8, "num_experts_per_tok": 3, "first_k_dense_replace": 1,
        "norm_topk_prob": false, "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0})"},
      {"grok-1", R"({"model_type": "grok-1", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_experts": 6, "num_experts_per_tok": 2, "max_position_embeddings": 64, "embedding_multiplier_scale": 78.38367176906169,
        "output_multiplier_scale": 0.5773502691896257, "attn_output_multiplier": 0.08838834764831845, "max_attn_value": 20.0, "tie_word_embeddings": false})"}};
  for (const auto& [family, text] : configs) {
    SCOPED_TRACE(family);
    TemporaryFolder folder;
    Decoder decoder(family_of(family)->read(parse_json(text, family)));
    initialise(decoder.schema(), Streams(3), at::kFloat);
    fs::create_directories(folder / "hub");
    save_published(folder / "hub", export_config(decoder, family), decoder);
    convert_to_gguf(folder / "hub", folder / "x.gguf");
    const at::Tensor ids = testing::some_ids(11, 90);
    EXPECT_TRUE(run_logits(*load_model(folder / "x.gguf").decoder, ids, {11}).equal(run_logits(decoder, ids, {11})));
    export_model(load_model(folder / "x.gguf"), folder / "back");
    EXPECT_EQ(config_of(folder / "back").find("model_type")->scalar(), family);
    const Safetensors was(folder / "hub"), is(folder / "back");
    ASSERT_EQ(is.tensors().size(), was.tensors().size());
    for (const TensorInfo& info : was.tensors()) EXPECT_TRUE(is.get(info.name).equal(was.get(info.name))) << info.name;
  }
}

TEST(ToGguf, OtherMetadataOfTheSameTensorsIsRefusedByName) {
  struct Case { const char *family, *key; GgufValue value; };
  for (const auto& [family, key, value] : std::vector<Case>{{"glm4_moe", "glm4moe.expert_gating_func", GgufValue::u32(1)},
                                                            {"glm4_moe", "glm4moe.rope.dimension_sections", GgufValue::ints({2, 1, 1, 0})},
                                                            {"dots1", "dots1.rope.dimension_count", GgufValue::u32(8)},
                                                            {"dots1", "dots1.expert_gating_func", GgufValue::u32(1)},
                                                            {"minimax_m2", "minimax-m2.expert_weights_scale", GgufValue::f32(2)},
                                                            {"ernie4_5_moe", "ernie4_5-moe.expert_gating_func", GgufValue::u32(2)},
                                                            {"hunyuan_v1_moe", "hunyuan-moe.rope.freq_base", GgufValue::f32(10000)},
                                                            {"phimoe", "switchyard.rope.config", GgufValue::text(R"({"rope_theta": 10000.0, "rope_scaling": {"short_factor": [1], "long_factor": [2]}})")},
                                                            {"dbrx", "dbrx.attention.layer_norm_epsilon", GgufValue::f32(1e-3F)},
                                                            {"gpt2", "gpt2.attention.head_count_kv", GgufValue::u32(2)}}) {
    SCOPED_TRACE(key);
    GgufView view = gguf_view(config_of(golden(family)), open_weights(golden(family)));
    view.metadata.set(key, value);
    const Error error = expect_error([&] { hub_view(view.metadata, view.weights); });
    EXPECT_EQ(error.code(), "model.gguf");
    const std::string named = std::string(key) == "hunyuan-moe.rope.freq_base" ? "switchyard.rope.config" : key;
    EXPECT_NE(error.message().find(named), std::string::npos) << error.what();
  }
}

TEST(ToGguf, AnyNumbersInTheMetadataAreAModelOrOneError) {
  int64_t errors = 0, models = 0;
  for (const std::string& family : kGgufFamilies) {
    const GgufView view = gguf_view(config_of(golden(family)), open_weights(golden(family)));
    for (const auto& [key, value] : view.metadata.entries()) {
      if (key.starts_with("general.") || (value.type != GgufType::u32 && value.type != GgufType::f32)) continue;
      const bool whole = value.type == GgufType::u32;
      for (const GgufValue& other : {whole ? GgufValue::u32(0) : GgufValue::f32(0), whole ? GgufValue::u32(7) : GgufValue::f32(-1e30F),
                                     whole ? GgufValue::u32(UINT32_MAX) : GgufValue::f32(NAN), GgufValue::text("x"), GgufValue::ints({3, -1})}) {
        SCOPED_TRACE(family + " " + key);
        GgufMetadata metadata = view.metadata;
        metadata.set(key, other);
        try {
          const HubView hub = hub_view(metadata, view.weights);
          for (const TensorInfo& info : hub.weights->tensors()) hub.weights->get(info.name);
          family_of(hub.config)->read(hub.config);
          ++models;
        } catch (const Error& error) {
          EXPECT_NE(error.code().find('.'), std::string::npos);
          ++errors;
        }
      }
    }
  }
  EXPECT_GT(errors, models);
  EXPECT_GT(models, 0);
}

TEST(ToGguf, VocabulariesOfEveryKindReadTheSame) {
  const std::map<std::string, std::string> names{
      {"gpt2", "gpt-2"}, {"neox", "olmo"}, {"llama3", "llama-bpe"}, {"qwen2", "qwen2"}, {"deepseek-v3", "deepseek-v3"}, {"deepseek-llm", "deepseek-llm"},
      {"o200k", "gpt-4o"}, {"granite", "starcoder"}, {"mixtral-legacy", "default"}, {"t5", "default"}, {"unigram-bytes", "default"}};
  for (const auto& [name, pre] : names) {
    if (!fs::exists(golden("tokenizers/" + name))) continue;
    SCOPED_TRACE(name);
    std::vector<std::string> notices;
    GgufMetadata metadata("x");
    put_vocabulary(metadata, golden("tokenizers/" + name), Node::map(), notices);
    EXPECT_TRUE(notices.empty() || name == "t5") << notices.front();
    EXPECT_EQ(metadata.text("tokenizer.ggml.pre"), pre);
    const std::shared_ptr<Tokenizer> folder = load_tokenizer(golden("tokenizers/" + name)), whole = make_tokenizer(parts_from_gguf(metadata));
    metadata.erase("tokenizer.huggingface.json");
    const std::shared_ptr<Tokenizer> keys = make_tokenizer(parts_from_gguf(metadata));
    for (const std::string text : {"Hello, world! 12345 I'll go\n\n  x", "Straße naïve 北京2024年 \xF0\x9F\x9A\x80 end ", "def f(x):\n    return x[1:]//2\n"}) {
      EXPECT_EQ(whole->encode(text, {.add_special = true}).ids, folder->encode(text, {.add_special = true}).ids) << text;
      if (name == "t5") continue;  // the container's words leave its character map out when it came as JSON
      EXPECT_EQ(keys->encode(text), folder->encode(text)) << text;
    }
  }
}

// A tokenizer that cuts by the very patterns of a name gets the name.
TEST(ToGguf, PreTokenizersGetTheirNames) {
  const nlohmann::json source = nlohmann::json::parse(read_file(golden("tokenizers/gpt2/tokenizer.json")));
  for (const char* name : {"minicpm5", "exaone-moe", "cohere2moe", "afmoe", "youtu", "jais-2", "spark2_5", "superbpe", "laguna", "bloom", "viking",
                           "chameleon", "ufakzeka"}) {
    nlohmann::json root = source, cuts = nlohmann::json::array();
    for (const char* pattern : pre_tokenization(name)->patterns)
      cuts.push_back({{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
    cuts.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}});
    root["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", cuts}};
    root["model"]["ignore_merges"] = pre_tokenization(name)->ignore_merges;
    testing::TemporaryFolder folder;
    testing::write_text(folder / "tokenizer.json", root.dump());
    std::vector<std::string> notices;
    GgufMetadata metadata("x");
    put_vocabulary(metadata, folder.path(), Node::map(), notices);
    EXPECT_EQ(metadata.text("tokenizer.ggml.pre"), name);
    EXPECT_TRUE(notices.empty()) << notices.front();
  }
}

/// Written by the reference's writer from the same vocabulary.
TEST(ToGguf, BertsVocabularyIsReadAsItsTokenizerJson) {
  const std::shared_ptr<Tokenizer> file = load_tokenizer(golden("gguf/vocabulary/bert.gguf")), folder = load_tokenizer(golden("tokenizers/bert-uncased"));
  std::istringstream cases(read_file(golden("tokenizers/bert-uncased/cases.jsonl")));
  int64_t compared = 0;
  for (std::string line; std::getline(cases, line);) {
    const auto row = nlohmann::json::parse(line);
    if (!row.contains("text") || !row["text"].is_string()) continue;
    const std::string text = row["text"];
    const Encoding here = file->encode(text, {.add_special = true, .parse_special = true}), there = folder->encode(text, {.add_special = true, .parse_special = true});
    EXPECT_EQ(here.ids, there.ids) << text;
    EXPECT_EQ(here.offsets, there.offsets) << text;
    EXPECT_EQ(file->decode(here.ids), folder->decode(here.ids)) << text;
    ++compared;
  }
  EXPECT_GT(compared, 10);
  EXPECT_EQ(file->encode_pair("one", "two", {.add_special = true}).ids, folder->encode_pair("one", "two", {.add_special = true}).ids);
}

TEST(ToGguf, PackedAtOnceIsWhatPackingLaterGives) {
  TemporaryFolder folder;
  const std::string program = std::string(SWITCHYARD_BINARY_DIR) + "/bin/switchyard";
  export_model(load_model(golden("gguf/qwen3_moe.gguf")), folder / "hub");
  const auto run = [&](const std::string& rest) {
    const auto done = run_command("'" + program + "' convert " + rest);
    ASSERT_EQ(done.status, 0) << done.output;
  };
  const std::string at = "'" + folder.path().string();
  run("gguf " + at + "/hub' " + at + "/once.gguf' --type Q8_0 --keep router=bf16,head=Q4_0");
  run("gguf " + at + "/hub' " + at + "/plain.gguf'");
  run("quantize " + at + "/plain.gguf' " + at + "/later.gguf' --type Q8_0 --keep router=bf16,head=Q4_0");
  run("quantize " + at + "/hub' " + at + "/folder.gguf' --type Q8_0 --keep router=bf16,head=Q4_0");
  EXPECT_EQ(read_file(folder / "once.gguf"), read_file(folder / "later.gguf"));
  EXPECT_EQ(read_file(folder / "once.gguf"), read_file(folder / "folder.gguf"));
  EXPECT_EQ(Gguf(folder / "once.gguf").packed("output.weight")->layout(), "Q4_0");
  SWITCHYARD_NEED_PYTHON(python, "gguf");
  const auto read = testing::run_python(python, R"(
import sys, gguf
reader = gguf.GGUFReader(sys.argv[1])
types = {t.name: t.tensor_type.name for t in reader.tensors}
assert types['output.weight'] == 'Q4_0' and types['blk.0.ffn_up_exps.weight'] == 'Q8_0' and types['output_norm.weight'] == 'F32', types
assert reader.fields['general.architecture'].contents() == 'qwen3moe'
assert len(reader.fields['tokenizer.ggml.tokens'].contents()) == [t for t in reader.tensors if t.name == 'token_embd.weight'][0].shape[1]
)", at + "/once.gguf'");
  EXPECT_EQ(read.status, 0) << read.output;
}

TEST(ToGguf, LlamaCppComputesWhatTransformersDo) {
  SWITCHYARD_NEED_PYTHON(python, "llama_cpp,torch,transformers");
  const auto done = run_command("'" + python + "' '" SWITCHYARD_SOURCE_DIR "/tests/convert/with_llama_cpp.py' '" SWITCHYARD_BINARY_DIR "/bin/switchyard'");
  EXPECT_EQ(done.status, 0) << done.output;
}

TEST(ToGguf, OwnModelsAreExportedFirst) {
  TemporaryFolder folder;
  const LoadedModel model = load_model(golden("mixtral"));
  fs::create_directories(folder / "own");
  save_model(folder / "own", *model.decoder, nullptr);
  convert_to_gguf(folder / "own", folder / "x.gguf");
  const at::Tensor ids = testing::some_ids(9, 90);
  EXPECT_TRUE(run_logits(*load_model(folder / "x.gguf").decoder, ids, {9}).equal(run_logits(*model.decoder, ids, {9})));
  int64_t left = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder.path())) ++left;
  EXPECT_EQ(left, 2);  // what was exported on the way is gone
}

TEST(ToGguf, WhatTheContainerCannotSayIsRefused) {
  TemporaryFolder folder;
  const auto error = [&](const fs::path& in) { return expect_error([&] { convert_to_gguf(in, folder / "x.gguf"); }); };
  EXPECT_EQ(error(golden("jetmoe")).code(), "convert.gguf.family");
  EXPECT_EQ(error(golden("gguf/qwen3_moe.gguf")).code(), "convert.gguf.input");
  EXPECT_EQ(error(folder / "nowhere").code(), "model.folder");
  Node config = config_of(golden("gpt_oss"));
  config["swiglu_limit"] = Node("5.0");
  const Error limit = expect_error([&] { gguf_view(config, open_weights(golden("gpt_oss"))); });
  EXPECT_EQ(limit.code(), "convert.gguf.option");
  EXPECT_NE(limit.message().find("limit is 5"), std::string::npos) << limit.what();
  auto fewer = std::make_shared<DerivedWeights>("x");
  const std::shared_ptr<const WeightSource> all = open_weights(golden("olmoe"));
  for (const TensorInfo& info : all->tensors())
    if (info.name != "model.layers.1.self_attn.q_norm.weight") fewer->add({info, [all, name = info.name] { return all->get(name); }});
  EXPECT_EQ(expect_error([&] { gguf_view(config_of(golden("olmoe")), fewer); }).code(), "model.missing_tensor");
  // ERNIE with biases everywhere but in its experts, as library 5 writes it: the tensors say so, and shared experts' biases have no name.
  const std::shared_ptr<const WeightSource> plain = open_weights(golden("ernie4_5_moe"));
  auto biased = std::make_shared<DerivedWeights>("x");
  const auto add_bias = [&](const std::string& name, int64_t size) {
    biased->add({{name, "F32", {size}, 4 * static_cast<uint64_t>(size)}, [size] { return at::zeros({size}); }});
  };
  for (const TensorInfo& info : plain->tensors()) {
    biased->add({info, [plain, name = info.name] { return plain->get(name); }});
    if (const size_t stem = info.name.rfind("proj.weight"); stem != std::string::npos && info.name.find(".experts.") == std::string::npos)
      add_bias(info.name.substr(0, stem) + "proj.bias", info.shape[0]);
    if (info.name == "model.embed_tokens.weight") add_bias("lm_head.bias", info.shape[0]);
  }
  config = config_of(golden("ernie4_5_moe"));
  config["use_bias"] = Node("true");
  const Error nameless = expect_error([&] { gguf_view(config, biased); });
  EXPECT_EQ(nameless.code(), "convert.gguf.tensor");
  EXPECT_NE(nameless.message().find("shared_experts"), std::string::npos) << nameless.what();
  testing::write_text(folder / "x.gguf", "there");
  EXPECT_EQ(error(golden("olmoe")).code(), "convert.quantise.exists");
}

}  // namespace
}  // namespace switchyard
