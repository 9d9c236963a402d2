#include "switchyard/base/json.h"
#include "switchyard/inspect/description.h"

#include <ATen/ATen.h>
#include <sys/stat.h>


#include "switchyard/base/files.h"
#include "switchyard/formats/gguf.h"
#include "switchyard/formats/safetensors.h"
#include "switchyard/formats/tokenizer.h"
#include "tests/files.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using testing::expect_error;
using testing::golden;
using testing::TemporaryFolder;
using testing::write_text;

std::string more(const FileSummary& description, const std::string& name) {
  for (const auto& [key, value] : description.more)
    if (key == name) return value;
  return "";
}

TEST(Show, CountsTotalAndActiveParametersOfAPublishedFolder) {
  const FileSummary mixtral = describe(golden("mixtral"));
  const auto config = json_from(read_file(golden("mixtral/config.json")));
  EXPECT_EQ(mixtral.kind, "model folder");
  EXPECT_EQ(mixtral.family, "mixtral");
  EXPECT_TRUE(mixtral.family_known);
  const int64_t layers = config["num_hidden_layers"], experts = config["num_local_experts"], k = config["num_experts_per_tok"],
                width = config["hidden_size"], hidden = config["intermediate_size"];
  EXPECT_EQ(mixtral.layers, layers);
  EXPECT_EQ(mixtral.moe_layers, layers);
  EXPECT_EQ(mixtral.experts, experts);
  EXPECT_EQ(mixtral.experts_per_token, k);
  EXPECT_EQ(mixtral.vocabulary, config["vocab_size"].get<int64_t>());
  EXPECT_EQ(mixtral.context, config["max_position_embeddings"].get<int64_t>());
  int64_t numbers = 0;
  uint64_t bytes = 0;
  const Safetensors file(golden("mixtral"));
  for (const TensorInfo& tensor : file.tensors()) {
    numbers += file.get(tensor.name).numel();
    bytes += tensor.bytes;
  }
  EXPECT_EQ(mixtral.parameters, numbers);
  // Three matrices an expert; of E experts k take part.
  EXPECT_EQ(*mixtral.active, numbers - layers * (experts - k) * 3 * width * hidden);
  ASSERT_FALSE(mixtral.memory.empty());
  EXPECT_EQ(mixtral.memory[0].weights, bytes);
  EXPECT_EQ(mixtral.memory[1].format, "F32");
  EXPECT_EQ(mixtral.memory[1].weights, static_cast<uint64_t>(numbers) * 4);
  const int64_t head = width / config["num_attention_heads"].get<int64_t>();
  const int64_t token = layers * 2 * 2 * config["num_key_value_heads"].get<int64_t>() * head;
  EXPECT_EQ(mixtral.memory[1].with_context - mixtral.memory[1].weights, static_cast<uint64_t>(token * mixtral.context));
  const FileSummary fused = describe(golden("qwen3_moe_fused"));
  const FileSummary separate = describe(golden("qwen3_moe"));
  EXPECT_EQ(fused.experts, separate.experts);
  EXPECT_LT(*fused.active, fused.parameters);
  EXPECT_EQ(*describe(golden("llama")).active, describe(golden("llama")).parameters);
}

TEST(Show, OneFileOfAModelIsDescribedAlone) {
  const FileSummary file = describe(golden("mixtral/model.safetensors"));
  EXPECT_EQ(file.kind, "safetensors file");
  EXPECT_EQ(file.parameters, describe(golden("mixtral")).parameters);
  EXPECT_EQ(describe(golden("mixtral/config.json")).kind, "model folder");
}

TEST(Show, AGgufTellsItsSizesAndItsQuantisation) {
  TemporaryFolder folder;
  GgufMetadata metadata;
  metadata.set("general.architecture", GgufValue::text("llama"));
  metadata.set("llama.block_count", GgufValue::u32(1));
  metadata.set("llama.embedding_length", GgufValue::u32(256));
  metadata.set("llama.attention.head_count", GgufValue::u32(4));
  metadata.set("llama.attention.head_count_kv", GgufValue::u32(2));
  metadata.set("llama.context_length", GgufValue::u32(100));
  metadata.set("llama.expert_count", GgufValue::u32(4));
  metadata.set("llama.expert_used_count", GgufValue::u32(1));
  metadata.set("tokenizer.ggml.model", GgufValue::text("gpt2"));
  metadata.set("tokenizer.ggml.tokens", GgufValue::texts({"a", "b", "c"}));
  const BlockCodec& q8 = *block_codec_named("Q8_0");
  write_gguf(folder / "x.gguf", metadata,
             {GgufTensor::quantised("blk.0.ffn_up_exps.weight", q8, at::randn({4, 8, 256})), GgufTensor::plain("output_norm.weight", at::ones({256}))});
  const FileSummary gguf = describe(folder / "x.gguf");
  EXPECT_EQ(gguf.kind, "GGUF file");
  EXPECT_EQ(gguf.family, "llama");
  EXPECT_EQ(gguf.parameters, 4 * 8 * 256 + 256);
  EXPECT_EQ(*gguf.active, 8 * 256 + 256);
  EXPECT_EQ(gguf.vocabulary, 3);
  EXPECT_TRUE(gguf.has_tokenizer);
  EXPECT_EQ(gguf.quantisation, "Q8_0, 8.5 bits a weight");
  EXPECT_EQ(gguf.memory[0].with_context - gguf.memory[0].weights, 100u * 1 * 2 * 2 * (64 + 64));
  EXPECT_EQ(describe(folder.path()).kind, "GGUF file");
}

TEST(Show, AdaptersAndTokenizersAreTold) {
  TemporaryFolder folder;
  std::filesystem::create_directory(folder / "adapter");
  write_text(folder / "adapter/adapter_config.json", R"({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "bias": "none"})");
  write_safetensors(folder / "adapter/adapter_model.safetensors", {{"base_model.model.layers.0.q_proj.lora_A.weight", at::zeros({8, 4})}});
  const FileSummary adapter = describe(folder / "adapter");
  EXPECT_EQ(adapter.kind, "adapter");
  EXPECT_EQ(adapter.family, "LORA");
  EXPECT_EQ(adapter.parameters, 32);
  EXPECT_EQ(more(adapter, "target_modules"), "q_proj, v_proj");
  EXPECT_EQ(more(adapter, "bias"), "");
  write_text(folder / "tokenizer.json",
             R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}, "added_tokens": [{"id": 5, "content": "<s>", "special": true}], "decoder": {"type": "ByteLevel"}})");
  const FileSummary tokenizer = describe(folder / "tokenizer.json");
  EXPECT_EQ(tokenizer.kind, "tokenizer");
  EXPECT_EQ(tokenizer.family, "BPE");
  EXPECT_EQ(tokenizer.vocabulary, 6);
  EXPECT_EQ(more(tokenizer, "decoder"), "ByteLevel");
  write_text(folder / "x.tiktoken", "YQ== 0\nYg== 1\n");
  EXPECT_EQ(expect_error([&] { describe(folder / "x.tiktoken"); }).code(), "tokenizer.format");  // most bytes have no token
  std::filesystem::copy_file(golden("tokenizers/kimi-tiktoken/tiktoken.model"), folder / "z.tiktoken");
  EXPECT_EQ(describe(folder / "z.tiktoken").vocabulary, 420);
  const std::filesystem::path pieces = golden("tokenizers/spm-bpe-nobyte/tokenizer.model");
  EXPECT_EQ(describe(pieces).vocabulary, load_tokenizer(pieces)->vocabulary());
  EXPECT_EQ(more(describe(pieces), "model"), "bpe");
}

TEST(Show, PartsOfModelsAndFoldersOfEachKindAreTold) {
  TemporaryFolder folder;
  // A shard tells what is in it, and that there is more.
  write_safetensors_folder(folder.path(), {{"model.layers.0.a.weight", at::ones({4, 4})}, {"model.layers.1.a.weight", at::ones({4, 4})}}, 64);
  write_text(folder / "config.json", R"({"model_type": "someone-elses", "num_hidden_layers": 2, "hidden_size": 4, "head_dim": 9223372036854775807})");
  const FileSummary shard = describe(folder / "model-00002-of-00002.safetensors");
  EXPECT_EQ(shard.kind, "safetensors file");
  EXPECT_EQ(shard.parameters, 16);
  EXPECT_NE(more(shard, "part of"), "");
  EXPECT_TRUE(shard.memory.empty());
  for (const std::string& name : {std::string("."), std::string("model.safetensors.index.json")}) EXPECT_EQ(describe(folder / name).parameters, 32) << name;
  // Any part of a split set is the set.
  for (const auto& entry : std::filesystem::directory_iterator(golden("gguf/split"))) {
    if (entry.path().extension() != ".gguf") continue;
    const FileSummary part = describe(entry.path());
    EXPECT_EQ(part.parameters, describe(golden("gguf/split")).parameters) << entry.path();
    EXPECT_GT(part.files, 1);
    EXPECT_TRUE(part.has_tokenizer);
  }
  const FileSummary xlora = describe(golden("peft/xlora"));
  EXPECT_EQ(xlora.kind, "adapter");
  EXPECT_EQ(xlora.family, "XLORA");
  EXPECT_NE(more(xlora, "adapters"), "");
  EXPECT_GT(xlora.parameters, 0);
  EXPECT_EQ(describe(golden("peft/lora/adapter_model.safetensors")).kind, "adapter");
  // Tokenizers alone in a folder, whatever the file's name.
  for (const std::string name : {"kimi-tiktoken", "spm-bpe-nobyte", "gpt2"}) {
    const FileSummary tokenizer = describe(golden("tokenizers/" + name));
    EXPECT_EQ(tokenizer.kind, "tokenizer") << name;
    EXPECT_GT(tokenizer.vocabulary, 256) << name;
  }
}

TEST(Show, FilesAreKnownByWhatTheyHoldAndByTheirFolder) {
  TemporaryFolder folder;
  const auto copy = [&](const std::string& from, const std::string& to) { std::filesystem::copy_file(golden(from), folder / to); };
  copy("gguf/mixtral-mixed.gguf", "blob");
  EXPECT_EQ(describe(folder / "blob").kind, "GGUF file");
  copy("safetensors/two-tensors.safetensors", "tensors.bin");
  EXPECT_EQ(describe(folder / "tensors.bin").kind, "safetensors file");
  copy("tokenizers/gpt2/tokenizer.json", "mine.json");
  EXPECT_EQ(describe(folder / "mine.json").kind, "tokenizer");
  copy("templates/chatml.jinja", "chatml.jinja");
  EXPECT_EQ(describe(folder / "chatml.jinja").kind, "chat template");
  EXPECT_EQ(describe(golden("olmoe/config.json")).kind, "model folder");
  // Packed weights of one file count as what they stand for, and alone as what they are.
  copy("quant/gptq-int4.safetensors", "model.safetensors");
  const int64_t alone = describe(folder / "model.safetensors").parameters;
  write_text(folder / "config.json", read_file(golden("quant/gptq-int4.config.json")));
  int64_t numbers = 0;
  const Safetensors expected(golden("quant/gptq-int4.expected.safetensors"));
  for (const TensorInfo& tensor : expected.tensors()) numbers += expected.get(tensor.name).numel();
  EXPECT_GE(describe(folder / "model.safetensors").parameters, numbers);
  EXPECT_LT(alone, numbers);
  // The small files beside a model's weights mean the model.
  for (const std::string name : {"generation_config.json", "tokenizer_config.json", "chat_template.jinja"}) {
    write_text(folder / name, name.ends_with(".jinja") ? "hello" : "{}");
    EXPECT_EQ(describe(folder / name).kind, "model folder") << name;
  }
}

TEST(Show, WhatIsNothingOfAModelIsRefused) {
  TemporaryFolder folder;
  EXPECT_EQ(expect_error([&] { describe(folder / "absent"); }).code(), "show.missing");
  EXPECT_EQ(expect_error([&] { describe(folder.path()); }).code(), "show.unknown");
  write_text(folder / "x.txt", "x");
  EXPECT_EQ(expect_error([&] { describe(folder / "x.txt"); }).code(), "show.unknown");
  write_text(folder / "y.model", "\x0a\xff\xff\x01");
  EXPECT_EQ(expect_error([&] { describe(folder / "y.model"); }).code(), "show.tokenizer");
  write_text(folder / "tokenizer.json", "{");
  EXPECT_EQ(expect_error([&] { describe(folder / "tokenizer.json"); }).code(), "show.tokenizer");
  write_text(folder / "z.safetensors", "short");
  EXPECT_EQ(expect_error([&] { describe(folder / "z.safetensors"); }).code(), "formats.safetensors.size");
  ASSERT_EQ(::mkfifo((folder / "pipe.gguf").c_str(), 0600), 0);  // nobody writes into it
  EXPECT_EQ(expect_error([&] { describe(folder / "pipe.gguf"); }).code(), "show.unknown");
  write_text(folder / "pytorch_model.bin", std::string("PK\x03\x04", 4));
  EXPECT_NE(expect_error([&] { describe(folder / "pytorch_model.bin"); }).message().find("pickled"), std::string::npos);
  write_text(folder / "other.json", R"({"a": 1})");
  EXPECT_EQ(expect_error([&] { describe(folder / "other.json"); }).code(), "show.unknown");
  write_text(folder / "broken.jinja", "{% if %}");
  EXPECT_EQ(expect_error([&] { describe(folder / "broken.jinja"); }).code(), "template.syntax");
  // What a loader would refuse as damaged is refused here too; what is only not supported is told.
  TemporaryFolder model;
  const std::string config = R"({"model_type": "mixtral", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
      "num_local_experts": 4, "num_experts_per_tok": 2, "vocab_size": 64, "rms_norm_eps": 1e-5, "max_position_embeddings": 64})";
  const auto code_with = [&](const std::string& from, const std::string& to) {
    std::string text = config;
    text.replace(text.find(from), from.size(), to);
    write_text(model / "config.json", text);
    return expect_error([&] { describe(model.path()); }).code();
  };
  EXPECT_EQ(code_with("\"num_attention_heads\": 4,", ""), "options.missing");
  EXPECT_EQ(code_with("\"num_hidden_layers\": 1", "\"num_hidden_layers\": -1"), "options.range");
  EXPECT_EQ(code_with("\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 9"), "show.config");
  write_text(model / "config.json", config.substr(0, config.size() - 1) + R"(, "hidden_act": "unheard-of"})");
  EXPECT_EQ(describe(model.path()).more.back().first, "not loaded here");
  write_text(folder / "merge.json", R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]}})");
  EXPECT_EQ(expect_error([&] { describe(folder / "merge.json"); }).code(), "tokenizer.format");
  TemporaryFolder piped;
  ASSERT_EQ(::mkfifo((piped / "config.json").c_str(), 0600), 0);
  EXPECT_EQ(expect_error([&] { describe(piped.path()); }).code(), "show.config");
  std::filesystem::create_symlink("circle", folder / "circle");
  const testing::Finished circle = testing::run_command(std::string(SWITCHYARD_BINARY_DIR) + "/bin/switchyard show " + (folder / "circle").string());
  EXPECT_EQ(circle.status, 2);
  EXPECT_NE(circle.output.find("[file.access]"), std::string::npos) << circle.output;
  TemporaryFolder lone;  // an index whose files are not there
  write_text(lone / "model.safetensors.index.json", R"({"weight_map": {"a": "model-00001-of-00001.safetensors"}})");
  EXPECT_TRUE(expect_error([&] { describe(lone.path()); }).code().starts_with("formats.safetensors."));
}

TEST(Show, TheProgramPrintsTextAndJson) {
  const std::string program = std::string(SWITCHYARD_BINARY_DIR) + "/bin/switchyard show " + golden("olmoe").string();
  const testing::Finished json = testing::run_command(program + " --json --tensors");
  ASSERT_EQ(json.status, 0) << json.output;
  const auto parsed = json_from(json.output);
  EXPECT_EQ(parsed["family"], "olmoe");
  EXPECT_EQ(parsed["tensors"].size(), Safetensors(golden("olmoe")).tensors().size());
  const testing::Finished text = testing::run_command(program);
  EXPECT_EQ(text.status, 0);
  for (const char* words : {"model folder", "experts", "active a token", "Memory to run", "Q4_K"})
    EXPECT_NE(text.output.find(words), std::string::npos) << words << " is not in " << text.output;
}

}  // namespace
}  // namespace switchyard
