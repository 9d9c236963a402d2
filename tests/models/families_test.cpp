#include "switchyard/models/families/family.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "switchyard/base/files.h"
#include "switchyard/convert/export.h"
#include "switchyard/infer/generate.h"
#include "switchyard/infer/named_outputs.h"
#include "switchyard/infer/network_model.h"
#include "switchyard/models/families/hub_keys.h"
#include "tests/files.h"
#include "tests/models/decoder_support.h"
#include "tests/models/recordings.h"
#include "tests/support.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::difference;
using testing::expect_error;
using testing::find;
using testing::golden;
using testing::TemporaryFolder;
using testing::write_text;

std::set<int64_t> row_set(const at::Tensor& ids, int64_t row) {
  const at::Tensor plain = ids[row].contiguous();
  return {plain.const_data_ptr<int64_t>(), plain.const_data_ptr<int64_t>() + plain.numel()};
}

/// What the family's reference implementation recorded (float32): logits, hidden states and routing of a padded batch, and a greedy
/// continuation. 1e-4 absolute is float32 rounding through three layers of logits of size 1.
void expect_golden(const fs::path& model_folder, const fs::path& recording_path, int least_routings = 2, bool padded = true) {
  const NetworkModel model(load_model(model_folder));
  const Safetensors recording(recording_path);
  const at::Tensor ids = recording.get("input_ids"), mask = recording.get("attention_mask");
  const NamedTensors got = named_outputs(model, ids, mask, {.hidden = true, .routing = true});
  const at::Tensor valid = mask.to(at::kBool);
  const at::Tensor usable = valid.clone();
  if (!padded) usable[1].fill_(false);  // the library counted its pads as positions
  EXPECT_LT(difference(find(got, "logits").index({usable}), recording.get("logits").index({usable})), 1e-4);
  EXPECT_LT(difference(find(got, "logits")[1].index({valid[1]}), recording.get("logits_row1_unpadded")), 1e-4);
  int layers = 0;
  for (const TensorInfo& info : recording.tensors()) {
    const std::string& name = info.name;
    const at::Tensor flat = usable.flatten();
    if (name.starts_with("hidden_states.")) {
      EXPECT_LT(difference(find(got, name)[0], recording.get(name)), 1e-4) << name;
    } else if (name.starts_with("router_logits.") || name.starts_with("topk_weights.")) {
      EXPECT_LT(difference(find(got, name).index({flat}), recording.get(name).index({flat})), 1e-4) << name;
    } else if (name.starts_with("topk_ids.")) {
      ++layers;
      for (int64_t row = 0; row < flat.numel(); ++row) {
        if (!flat[row].item<bool>()) continue;
        EXPECT_EQ(row_set(find(got, name), row), row_set(recording.get(name), row)) << name << " row " << row;
      }
    }
  }
  EXPECT_GE(layers, least_routings);

  GenerateOptions greedy;
  greedy.temperature = 0;
  greedy.max_tokens = 16;
  greedy.ignore_end = true;
  const at::Tensor first = ids[0].contiguous();
  const std::vector<int64_t> prompt(first.const_data_ptr<int64_t>(), first.const_data_ptr<int64_t>() + first.numel());
  EXPECT_TRUE(at::tensor(generate(model, {prompt}, greedy).front().ids).equal(recording.get("generate")));
  greedy.prefill_rows = 5;  // the prompt in four pieces
  EXPECT_TRUE(at::tensor(generate(model, {prompt}, greedy).front().ids).equal(recording.get("generate")));
}

/// Rows of one sequence: all at once, or nine and then one by one, or in pieces of six where angles do not go by the length of a pass.
void expect_cached_steps(const Decoder& decoder, const Safetensors& recording) {
  const at::Tensor ids = recording.get("input_ids").to(at::kLong)[0], expected = recording.get("logits")[0];
  if (decoder.options().rope_scaling.kind != RotaryScaling::Kind::longrope) {
    ContiguousState pieces;
    at::NoGradGuard guard;
    for (int64_t t = 0; t < ids.size(0); t += 6) {
      const int64_t here = std::min<int64_t>(6, ids.size(0) - t);
      EXPECT_LT(difference(testing::run_cached(decoder, ids.narrow(0, t, here), {here}, {t}, pieces), expected.narrow(0, t, here)), 1e-4) << t;
    }
  }
  ContiguousState state;
  at::NoGradGuard guard;
  EXPECT_LT(difference(testing::run_cached(decoder, ids.narrow(0, 0, 9), {9}, {0}, state), expected.narrow(0, 0, 9)), 1e-4);
  for (int64_t t = 9; t < ids.size(0); ++t)
    EXPECT_LT(difference(testing::run_cached(decoder, ids.narrow(0, t, 1), {1}, {t}, state), expected.narrow(0, t, 1)), 1e-4) << t;
}

/// The recorded loss over both rows without their padding, and its graph.
at::Tensor recorded_loss(const Decoder& decoder, const Safetensors& recording) {
  const at::Tensor ids = recording.get("input_ids").to(at::kLong), labels = recording.get("labels").to(at::kLong);
  const at::Tensor mask = recording.get("attention_mask");
  std::vector<at::Tensor> rows, targets;
  std::vector<int64_t> lengths;
  for (int64_t b = 0; b < 2; ++b) {
    const at::Tensor place = mask[b].nonzero().squeeze(1);
    rows.push_back(ids[b].index_select(0, place));
    targets.push_back(at::cat({labels[b].index_select(0, place).slice(0, 1), at::full({1}, -100, at::kLong)}));
    lengths.push_back(place.size(0));
  }
  const at::Tensor logits = testing::run_logits(decoder, at::cat(rows), lengths);
  return at::cross_entropy_loss(logits, at::cat(targets), {}, at::Reduction::Mean, -100);
}

void expect_loss_and_gradients(const fs::path& folder, const Safetensors& recording) {
  const LoadedModel model = load_model(folder);
  const at::Tensor loss = recorded_loss(*model.decoder, recording);
  EXPECT_NEAR(loss.item<double>(), recording.get("loss").item<double>(), 1e-4);
  loss.backward();
  // Gradients are named as the file names the tensors: what is linked to the same place.
  NamedTensors gradients;
  const LoadedModel shadow = load_model(folder);
  for (const Parameter& parameter : shadow.decoder->schema().all()) {
    const at::Tensor gradient = model.decoder->schema().find(parameter.name()).tensor().grad();
    if (!parameter.spec().buffer) parameter.bind(gradient.defined() ? gradient.clone() : at::zeros_like(parameter.tensor()));
  }
  NameMap map(shadow.decoder->schema());
  const std::string type = find_at(parse_json(read_file(folder / "config.json"), "config"), "model_type")->scalar();
  family_of(type)->names(map, shadow.decoder->options(), {});
  for (const auto& [name, gradient] : map.collect())
    if (recording.has("grad." + name)) {
      EXPECT_LT(difference(gradient, recording.get("grad." + name)), 1e-4) << name;
    }
}

/// Steps down the gradient of the recorded batch lower its loss.
void expect_to_train(const fs::path& folder, const Safetensors& recording) {
  const LoadedModel model = load_model(folder);
  std::vector<double> losses;
  for (int step = 0; step < 4; ++step) {
    const at::Tensor loss = recorded_loss(*model.decoder, recording);
    losses.push_back(loss.item<double>());
    loss.backward();
    at::NoGradGuard guard;
    for (const Parameter& parameter : model.decoder->schema().all()) {
      at::Tensor value = parameter.tensor();
      if (!value.grad().defined()) continue;
      value.sub_(value.grad() * (0.05 / std::max(1e-6, value.grad().norm().item<double>())));
      value.mutable_grad().reset();
    }
  }
  EXPECT_LT(losses.back(), losses.front());
}

at::Tensor some_logits(const fs::path& folder) {
  return named_outputs(NetworkModel(load_model(folder)), at::arange(34).view({2, 17}), {})[0].second;
}

/// One file, shards of it, and its tensors in another order give equal bits; so does what is exported from it.
void expect_equal_bits(const fs::path& folder) {
  const Safetensors file(folder);
  NamedTensors reversed;
  for (const TensorInfo& info : file.tensors()) reversed.insert(reversed.begin(), {info.name, file.get(info.name)});
  TemporaryFolder other;
  fs::copy_file(folder / "config.json", other / "config.json");
  write_safetensors_folder(other.path(), reversed, 70000);
  EXPECT_TRUE(fs::exists(other / "model.safetensors.index.json"));
  const at::Tensor expected = some_logits(folder);
  EXPECT_TRUE(some_logits(other.path()).equal(expected));

  const std::string type = find_at(parse_json(read_file(folder / "config.json"), "config"), "model_type")->scalar();
  export_model(load_model(folder), other / "out", {.model_type = type});
  const Safetensors after(other / "out");
  EXPECT_EQ(after.tensors().size(), file.tensors().size());
  for (const TensorInfo& info : file.tensors())
    if (after.has(info.name)) EXPECT_TRUE(after.get(info.name).equal(file.get(info.name))) << info.name;
    else ADD_FAILURE() << "not exported: " << info.name;
  EXPECT_TRUE(some_logits(other / "out").equal(expected));
}

/// Everything that is asked of a decoder's family.
void expect_golden(const std::string& family) {
  SCOPED_TRACE(family);
  const fs::path folder = golden(family);
  const Safetensors recording(folder / "golden.safetensors");
  expect_golden(folder, folder / "golden.safetensors", 0, family != "llama4");
  expect_cached_steps(*load_model(folder).decoder, recording);
  if (family != "llama4") expect_loss_and_gradients(folder, recording);  // its recorded loss counts the pads as positions
  expect_to_train(folder, recording);
  expect_equal_bits(folder);
}

/// A copy of a golden model folder to change.
void copy_model(const std::string& family, const fs::path& to) {
  for (const char* name : {"config.json", "model.safetensors"}) fs::copy_file(golden(family + "/" + name), to / name);
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(Catalogue, mixtral_gives_the_recorded_logits_routing_and_text) { expect_golden("mixtral"); }
TEST(Catalogue, olmoe_gives_the_recorded_logits_routing_and_text) { expect_golden("olmoe"); }
TEST(Catalogue, qwen3_moe_gives_the_recorded_logits_routing_and_text) { expect_golden("qwen3_moe"); }
TEST(Catalogue, qwen3_moe_reads_fused_experts) {
  expect_golden(golden("qwen3_moe_fused"), golden("qwen3_moe_fused/golden.safetensors"));
}
TEST(Catalogue, qwen2_moe_gives_the_recorded_logits_routing_and_text) { expect_golden("qwen2_moe"); }
TEST(Catalogue, deepseek_v2_gives_the_recorded_logits_routing_and_text) { expect_golden("deepseek_v2"); }
TEST(Catalogue, deepseek_v3_gives_the_recorded_logits_routing_and_text) { expect_golden("deepseek_v3"); }

TEST(Catalogue, gpt_oss_gives_the_recorded_logits_routing_and_text) { expect_golden("gpt_oss"); }
TEST(Catalogue, phi_moe_gives_the_recorded_logits_routing_and_text) { expect_golden("phimoe"); }
TEST(Catalogue, granite_moe_gives_the_recorded_logits_routing_and_text) { expect_golden("granitemoe"); }
TEST(Catalogue, granite_moe_shared_gives_the_recorded_logits_routing_and_text) { expect_golden("granitemoeshared"); }
TEST(Catalogue, granite_moe_hybrid_gives_the_recorded_logits_routing_and_text) { expect_golden("granitemoehybrid"); }
TEST(Catalogue, glm4_moe_gives_the_recorded_logits_routing_and_text) { expect_golden("glm4_moe"); }
TEST(Catalogue, dots1_gives_the_recorded_logits_routing_and_text) { expect_golden("dots1"); }
TEST(Catalogue, minimax_m2_gives_the_recorded_logits_routing_and_text) { expect_golden("minimax_m2"); }
TEST(Catalogue, minimax_gives_the_recorded_logits_routing_and_text) { expect_golden("minimax"); }
TEST(Catalogue, ernie4_5_moe_gives_the_recorded_logits_routing_and_text) { expect_golden("ernie4_5_moe"); }
TEST(Catalogue, hunyuan_moe_gives_the_recorded_logits_routing_and_text) { expect_golden("hunyuan_v1_moe"); }
TEST(Catalogue, flex_olmo_gives_the_recorded_logits_routing_and_text) { expect_golden("flex_olmo"); }
TEST(Catalogue, dbrx_gives_the_recorded_logits_routing_and_text) { expect_golden("dbrx"); }
TEST(Catalogue, jamba_gives_the_recorded_logits_routing_and_text) { expect_golden("jamba"); }
TEST(Catalogue, qwen3_next_gives_the_recorded_logits_routing_and_text) { expect_golden("qwen3_next"); }
TEST(Catalogue, jetmoe_gives_the_recorded_logits_routing_and_text) { expect_golden("jetmoe"); }
TEST(Catalogue, gpt2_gives_the_recorded_logits_and_text) { expect_golden("gpt2"); }
TEST(Catalogue, llama4_gives_the_recorded_logits_routing_and_text) { expect_golden("llama4"); }

TEST(Catalogue, llama4_text_is_the_same_model_without_the_outer_names) {
  // Keys and names one level up, as text models save them.
  TemporaryFolder folder;
  Node config = *find_at(parse_json(read_file(golden("llama4/config.json")), "config"), "text_config");
  write_text(folder / "config.json", to_json(config));
  const Safetensors file(golden("llama4"));
  NamedTensors tensors;
  for (const TensorInfo& info : file.tensors()) tensors.emplace_back(info.name.substr(std::string("language_model.").size()), file.get(info.name));
  write_safetensors_folder(folder.path(), tensors);
  EXPECT_TRUE(some_logits(folder.path()).equal(some_logits(golden("llama4"))));
}

TEST(Catalogue, deepseek_v3_is_kimi_k2_under_another_name) {
  TemporaryFolder folder;
  fs::copy_file(golden("deepseek_v3/model.safetensors"), folder / "model.safetensors");
  write_text(folder / "config.json", replaced(read_file(golden("deepseek_v3/config.json")), "\"deepseek_v3\"", "\"kimi_k2\""));
  EXPECT_TRUE(some_logits(folder.path()).equal(some_logits(golden("deepseek_v3"))));
  export_model(load_model(folder.path()), folder / "out", {.model_type = "kimi_k2"});
  EXPECT_TRUE(some_logits(folder / "out").equal(some_logits(golden("deepseek_v3"))));
}

TEST(Families, PackedWeightsLoadAsWhatTheyStandFor) {
  for (const std::string folder : {"deepseek_v3_fp8", "gpt_oss_mxfp4"}) expect_golden(golden(folder), golden(folder + "/golden.safetensors"));
}

/// Parameters of a loaded model that are packed, and those that are matrices and are not.
std::pair<std::set<std::string>, std::set<std::string>> packed_and_plain(const LoadedModel& model) {
  std::set<std::string> packed, plain;
  for (const Parameter& parameter : model.decoder->schema().all()) {
    if (parameter.spec().shape.size() < 2 || parameter.spec().buffer) continue;
    (parameter.packed() ? packed : plain).insert(parameter.name());
  }
  return {packed, plain};
}

TEST(Families, WhatAFileHasPackedStaysSoWhenLoaded) {
  using Names = std::set<std::string>;
  const auto plain_of = [](const fs::path& path) { return packed_and_plain(load_model(path, at::kFloat)).second; };
  // Outside of the experts gpt-oss is bfloat16; each of DeepSeek's maps but router, table and head has eight bits.
  const auto [blocks, others] = packed_and_plain(load_model(golden("gpt_oss_mxfp4"), at::kFloat));
  for (const char* name : {"gate", "up", "down"}) EXPECT_TRUE(blocks.contains(fmt::format("layers.0.feed_forward.experts.{}", name))) << name;
  const Names plain = plain_of(golden("deepseek_v3_fp8"));
  for (const std::string& name : plain)
    EXPECT_TRUE(name.find("router") != std::string::npos || name.starts_with("embedding") || name.starts_with("head")) << name;
  // Rows that a GGUF file has in another order: pairs of positions in mixtral's queries and keys, gates and maps of gpt-oss.
  for (const std::string& name : plain_of(golden("gguf/mixtral-mixed.gguf")))  // its table is bfloat16
    EXPECT_TRUE(name.find("router") != std::string::npos || name.starts_with("embedding")) << name;
  const Names gpt_oss = packed_and_plain(load_model(golden("gguf/gpt_oss-mxfp4.gguf"), at::kFloat)).first;
  for (const char* name : {"gate", "up", "down"}) EXPECT_TRUE(gpt_oss.contains(fmt::format("layers.1.feed_forward.experts.{}", name))) << name;
}

/// GPTQ's and AWQ's parts of random integers for a map [out, in], and the floats that they stand for.
struct PackedMap { NamedTensors parts; at::Tensor floats; };
PackedMap packed_map(const std::string& stem, int64_t out, int64_t in, bool awq, uint64_t seed) {
  const Streams random(seed);
  const int64_t groups = 2, run = in / groups;
  const at::Tensor q = random.integers(16, {in, out}, {.purpose = "q"}), zeros = random.integers(15, {groups, out}, {.purpose = "z"}) + 1;
  const at::Tensor scales = (random.uniform({groups, out}, {.purpose = "s"}, at::kFloat) * 0.02).to(at::kHalf);
  at::Tensor group = at::arange(in, at::kLong).div(run, "floor");
  if (!awq) group = group.flip(0).contiguous();  // an order of activations
  // Eight values of four bits a word: GPTQ's along inputs and, for zeros, along outputs; AWQ's along outputs, in its own order.
  const auto words = [](const at::Tensor& eights) {  // [.., 8]
    return eights.bitwise_left_shift(at::arange(8, at::kLong) * 4).sum(-1).to(at::kInt);
  };
  const auto along_outputs = [&](const at::Tensor& values) {
    at::Tensor eights = values.reshape({values.size(0), -1, 8});
    if (awq) eights = eights.index_select(2, at::tensor({0, 2, 4, 6, 1, 3, 5, 7}, at::kLong));
    return words(eights);
  };
  PackedMap map;
  map.parts = {{stem + ".qweight", awq ? along_outputs(q) : words(q.reshape({-1, 8, out}).transpose(1, 2))},
               {stem + ".qzeros", along_outputs(awq ? zeros : zeros - 1)},
               {stem + ".scales", scales}};
  if (!awq) map.parts.emplace_back(stem + ".g_idx", group.to(at::kInt));
  map.floats = (scales.to(at::kFloat).index_select(0, group) * (q - zeros.index_select(0, group)).to(at::kFloat)).t().contiguous();
  return map;
}

TEST(Families, GptqAndAwqComputeAsTheirFloatsDo) {
  const Safetensors file(golden("qwen3_moe"));
  for (const bool awq : {false, true}) {
    SCOPED_TRACE(awq ? "awq" : "gptq");
    TemporaryFolder packed, floats;
    NamedTensors parts, plain;
    uint64_t seed = 1;
    for (const TensorInfo& info : file.tensors()) {
      // Words hold eight values along either side, and there are two groups; so experts are wider here.
      std::vector<int64_t> shape = info.shape;
      std::replace(shape.begin(), shape.end(), int64_t{12}, int64_t{16});
      const bool map = info.name.ends_with("_proj.weight") && shape[0] % 8 == 0 && shape[1] % 16 == 0;
      if (!map) {
        parts.emplace_back(info.name, file.get(info.name));
        plain.emplace_back(info.name, file.get(info.name));
        continue;
      }
      const PackedMap made = packed_map(info.name.substr(0, info.name.size() - 7), shape[0], shape[1], awq, seed++);
      parts.insert(parts.end(), made.parts.begin(), made.parts.end());
      plain.emplace_back(info.name, made.floats);
    }
    write_safetensors_folder(packed.path(), parts);
    write_safetensors_folder(floats.path(), plain);
    const std::string config = replaced(read_file(golden("qwen3_moe/config.json")), "\"moe_intermediate_size\": 12", "\"moe_intermediate_size\": 16");
    write_text(floats / "config.json", config);
    Node with = parse_json(config, "config");
    with["quantization_config"] = parse_json(awq ? R"({"quant_method": "awq", "bits": 4})" : R"({"quant_method": "gptq", "bits": 4, "desc_act": true})", "q");
    write_text(packed / "config.json", to_json(with));
    EXPECT_LT(difference(some_logits(packed.path()), some_logits(floats.path())), 1e-4);
    for (const std::string& name : packed_and_plain(load_model(packed.path(), at::kFloat)).second)
      EXPECT_TRUE(name.find("router") != std::string::npos || name.starts_with("embedding") || name.starts_with("head") ||
                  name.starts_with("layers.0.feed_forward.")) << name;  // that layer has no experts, and 28 places
  }
}

TEST(Families, LayersWithoutEndAreOneErrorAndNoMemory) {
  TemporaryFolder folder;
  copy_model("llama", folder.path());
  const std::string config = read_file(golden("llama/config.json"));
  const Node tree = parse_json(config, "config");
  const std::string from = "\"num_hidden_layers\": " + tree.find("num_hidden_layers")->scalar();
  for (const std::string count : {"65537", "2000000000", "9223372036854775807", "99999999999999999999", "1e9", "-1"}) {
    write_text(folder / "config.json", replaced(config, from, "\"num_hidden_layers\": " + count));
    const Error error = expect_error([&] { load_model(folder.path()); });
    EXPECT_TRUE(error.code().starts_with("options.") || error.code().starts_with("model.")) << count << ": " << error.what();
  }
  // As many as are allowed are declared, and found to be missing.
  write_text(folder / "config.json", replaced(config, from, "\"num_hidden_layers\": 4000"));
  EXPECT_EQ(expect_error([&] { load_model(folder.path()); }).code(), "model.missing_tensor");
}

TEST(Families, EveryModelTypeIsHeldToARecordingOrAVector) {
  // By hand: types whose tests stand above or in check_vectors_test.cpp.
  std::set<std::string> proven{"llama4_text", "kimi_k2", "minimax_text_01", "llama_moe", "deepseek", "grok-1", "skywork", "arctic", "yuan", "openmoe"};
  for (const auto& entry : fs::directory_iterator(golden("")))
    if (fs::exists(entry.path() / "golden.safetensors") && fs::exists(entry.path() / "config.json"))
      proven.insert(find_at(parse_json(read_file(entry.path() / "config.json"), "config"), "model_type")->scalar());
  for (const std::string& type : known_model_types()) EXPECT_TRUE(proven.contains(type)) << type << " is in docs/models.md, but nothing proves it";
}

TEST(Families, KeysThatActAndAreNotSupportedAreRefused) {
  const auto code_with = [](const std::string& family, const std::string& from, const std::string& to) {
    TemporaryFolder folder;
    copy_model(family, folder.path());
    write_text(folder / "config.json", replaced(read_file(golden(family + "/config.json")), from, to));
    const Error error = expect_error([&] { load_model(folder.path()); });
    EXPECT_NE(error.message().find(to.substr(1, to.find('"', 1) - 1)), std::string::npos) << error.what();
    return error.code();
  };
  EXPECT_EQ(code_with("mixtral", "\"rope_theta\"", "\"clip_qkv\": 4.0, \"rope_theta\""), "model.config");
  EXPECT_EQ(code_with("mixtral", "\"rope_theta\"", "\"final_logit_softcapping\": 30.0, \"rope_theta\""), "model.config");
  EXPECT_EQ(code_with("deepseek_v3", "\"scoring_func\": \"sigmoid\"", "\"scoring_func\": \"softmax\""), "model.config");
  EXPECT_EQ(code_with("hunyuan_v1_moe", "\"use_cla\": false", "\"use_cla\": true"), "model.config");
}

TEST(Catalogue, dense_decoders_give_the_recorded_logits_and_text) {
  for (const std::string family : {"llama", "mistral", "qwen2", "qwen3"}) expect_golden(family);
}

TEST(Families, ConfigsOfLibraryFiveReadAlike) {
  for (const std::string family : {"mixtral", "qwen3_moe", "deepseek_v3"}) {
    TemporaryFolder folder;
    fs::copy_file(golden(family + "/model.safetensors"), folder / "model.safetensors");
    fs::copy_file(golden(family + "/config.v5.json"), folder / "config.json");
    expect_golden(folder.path(), golden(family + "/golden.safetensors"));
  }
}

TEST(Families, EveryKeyThatActsIsRead) {
  const std::map<std::string, std::vector<std::pair<std::string, std::string>>> changes{
      {"mixtral", {{"\"sliding_window\": 8", "\"sliding_window\": null"}, {"\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 3"},
                   {"1000000.0", "10000.0"}, {"1e-05", "1e-01"}}},
      {"olmoe", {{"\"clip_qkv\": 0.5", "\"clip_qkv\": null"}, {"\"norm_topk_prob\": false", "\"norm_topk_prob\": true"}}},
      {"qwen3_moe", {{"\"norm_topk_prob\": true", "\"norm_topk_prob\": false"},
                     {"\"sliding_window\": null", "\"sliding_window\": 4"}}}};
  for (const auto& [family, edits] : changes)
    for (const auto& [from, to] : edits) {
      TemporaryFolder folder;
      fs::copy_file(golden(family + "/model.safetensors"), folder / "model.safetensors");
      std::string config = replaced(read_file(golden(family + "/config.json")), from, to);
      if (from == "\"sliding_window\": null")  // acts only together with its switch
        config = replaced(config, "\"use_sliding_window\": false", "\"use_sliding_window\": true");
      write_text(folder / "config.json", config);
      const Safetensors recording(golden(family + "/golden.safetensors"));
      const NetworkModel model(load_model(folder.path()));
      const at::Tensor logits = named_outputs(model, recording.get("input_ids").narrow(0, 0, 1), {})[0].second;
      EXPECT_GT(difference(logits[0], recording.get("logits")[0]), 1e-3) << family << ": " << to;
    }
}

TEST(Families, WrongTensorsAreNamed) {
  const Safetensors file(golden("mixtral"));
  const std::string victim = "model.layers.1.block_sparse_moe.experts.3.w2.weight";
  const auto load_with = [&](const std::function<void(NamedTensors&, size_t)>& change) {
    NamedTensors tensors;
    size_t place = 0;
    for (const TensorInfo& info : file.tensors()) {
      if (info.name == victim) place = tensors.size();
      tensors.emplace_back(info.name, file.get(info.name));
    }
    change(tensors, place);
    TemporaryFolder folder;
    fs::copy_file(golden("mixtral/config.json"), folder / "config.json");
    write_safetensors_folder(folder.path(), tensors);
    const Error error = expect_error([&] { load_model(folder.path()); });
    EXPECT_NE(error.message().find(victim), std::string::npos) << error.what();
    return error.code();
  };
  EXPECT_EQ(load_with([](NamedTensors& t, size_t i) { t.erase(t.begin() + static_cast<std::ptrdiff_t>(i)); }), "model.missing_tensor");
  EXPECT_EQ(load_with([](NamedTensors& t, size_t i) { t[i].second = t[i].second.narrow(0, 0, 31); }), "model.tensor_shape");
  EXPECT_EQ(load_with([](NamedTensors& t, size_t i) { t[i].second = t[i].second.to(at::kInt); }), "model.tensor_dtype");
  EXPECT_EQ(load_with([&](NamedTensors& t, size_t) { t.emplace_back(victim + ".extra", at::ones(1)); }), "model.unexpected_tensor");
}

TEST(Families, MalformedConfigsAreRefused) {
  const std::map<std::string, std::string> codes{{"missing-heads", "options.missing"}, {"negative-layers", "options.range"},
                                                 {"topk-too-large", "model.config"}};
  for (const auto& [name, code] : codes) {
    TemporaryFolder folder;
    copy_model("mixtral", folder.path());
    fs::copy_file(golden("malformed/cfg-" + name + ".config.json"), folder / "config.json", fs::copy_options::overwrite_existing);
    const Error error = expect_error([&] { load_model(folder.path()); });
    EXPECT_EQ(error.code(), code) << name << ": " << error.what();
  }
}

TEST(Families, AnUnknownFamilyAndRotaryScalingAreRefused) {
  const auto error_with = [](const std::string& from, const std::string& to) {
    TemporaryFolder folder;
    copy_model("mixtral", folder.path());
    write_text(folder / "config.json", replaced(read_file(golden("mixtral/config.json")), from, to));
    return expect_error([&] { load_model(folder.path()); });
  };
  const Error unknown = error_with("\"mixtral\"", "\"mixtrail\"");
  EXPECT_EQ(unknown.code(), "model.family");
  EXPECT_NE(unknown.message().find("mixtral"), std::string::npos) << unknown.what();
  EXPECT_EQ(error_with("\"rope_theta\"", "\"rope_scaling\": {\"type\": \"twisted\", \"factor\": 4}, \"rope_theta\"").code(), "model.config");
  EXPECT_EQ(error_with("\"silu\"", "\"mish\"").code(), "options.choice");
}

}  // namespace
}  // namespace switchyard
