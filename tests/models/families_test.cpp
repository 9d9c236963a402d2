#include "switchyard/models/families/family.h"

#include <ATen/ATen.h>

#include <set>

#include "switchyard/base/files.h"
#include "switchyard/infer/generate.h"
#include "switchyard/infer/named_outputs.h"
#include "switchyard/infer/network_model.h"
#include "tests/files.h"
#include "tests/support.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::difference;
using testing::expect_error;
using testing::golden;
using testing::TemporaryFolder;
using testing::write_text;

at::Tensor find(const NamedTensors& tensors, const std::string& name) {
  for (const auto& [known, tensor] : tensors)
    if (known == name) return tensor;
  ADD_FAILURE() << "no tensor " << name;
  return {};
}

std::set<int64_t> row_set(const at::Tensor& ids, int64_t row) {
  const at::Tensor plain = ids[row].contiguous();
  return {plain.const_data_ptr<int64_t>(), plain.const_data_ptr<int64_t>() + plain.numel()};
}

/// What the family's reference implementation recorded (float32): logits, hidden states and routing of a padded batch, and a greedy
/// continuation. 1e-4 absolute is float32 rounding through three layers of logits of size 1.
void expect_golden(const fs::path& model_folder, const fs::path& recording_path, int least_routings = 2) {
  const NetworkModel model(load_model(model_folder));
  const Safetensors recording(recording_path);
  const at::Tensor ids = recording.get("input_ids"), mask = recording.get("attention_mask");
  const NamedTensors got = named_outputs(model, ids, mask, {.hidden = true, .routing = true});
  const at::Tensor valid = mask.to(at::kBool);
  EXPECT_LT(difference(find(got, "logits").index({valid}), recording.get("logits").index({valid})), 1e-4);
  EXPECT_LT(difference(find(got, "logits")[1].index({valid[1]}), recording.get("logits_row1_unpadded")), 1e-4);
  int layers = 0;
  for (const TensorInfo& info : recording.tensors()) {
    const std::string& name = info.name;
    const at::Tensor flat = valid.flatten();
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
}

void expect_golden(const std::string& family) { expect_golden(golden(family), golden(family + "/golden.safetensors")); }

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
TEST(Catalogue, qwen3_moe_reads_fused_experts) { expect_golden("qwen3_moe_fused"); }

TEST(Catalogue, dense_decoders_give_the_recorded_logits_and_text) {
  for (const std::string family : {"llama", "mistral", "qwen2", "qwen3"})
    expect_golden(golden(family), golden(family + "/golden.safetensors"), 0);
}

TEST(Families, ConfigsOfLibraryFiveReadAlike) {
  for (const std::string family : {"mixtral", "qwen3_moe"}) {
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

TEST(Families, ShardsAndOrderChangeNothing) {
  const Safetensors file(golden("mixtral"));
  NamedTensors reversed;
  for (const TensorInfo& info : file.tensors()) reversed.insert(reversed.begin(), {info.name, file.get(info.name)});
  TemporaryFolder folder;
  fs::copy_file(golden("mixtral/config.json"), folder / "config.json");
  write_safetensors_folder(folder.path(), reversed, 70000);
  EXPECT_TRUE(fs::exists(folder / "model.safetensors.index.json"));
  const NetworkModel one(load_model(golden("mixtral"))), other(load_model(folder.path()));
  const at::Tensor ids = at::arange(20).view({2, 10});
  EXPECT_TRUE(named_outputs(one, ids, {})[0].second.equal(named_outputs(other, ids, {})[0].second));
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
  EXPECT_EQ(error_with("\"rope_theta\"", "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4}, \"rope_theta\"").code(), "model.config");
  EXPECT_EQ(error_with("\"silu\"", "\"gelu\"").code(), "options.choice");
}

}  // namespace
}  // namespace switchyard
