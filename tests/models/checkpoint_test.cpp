#include "switchyard/base/json.h"
#include "switchyard/models/checkpoint.h"

#include <ATen/ATen.h>


#include "switchyard/base/files.h"
#include "switchyard/convert/export.h"
#include "switchyard/formats/quantised.h"
#include "switchyard/formats/safetensors.h"
#include "switchyard/models/families/composition.h"
#include "tests/files.h"
#include "tests/models/decoder_support.h"
#include "tests/support.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::golden;
using testing::make_decoder;
using testing::run_logits;
using testing::some_ids;
using testing::TemporaryFolder;
using testing::write_text;

constexpr const char* kModel = R"(
vocabulary: 30
width: 16
layers: 3
context: 32
attention: {type: gqa, heads: 4, kv_heads: 2, qk_norm: head}
mixtures:
  - layers: {list: [1, 2]}
    experts: 4
    expert: {type: geglu, hidden: 8}
    router: {type: sparse-topk, k: 2, softmax: all}
    combine: {renormalise: before_drop, scale: 1.5}
    shared: [{expert: {type: swiglu, hidden: 6}, gate: sigmoid}]
)";

TEST(Checkpoint, AModelReadsBackBitForBit) {
  const auto decoder = make_decoder(kModel, at::kFloat);
  TemporaryFolder folder;
  save_model(folder.path(), *decoder, nullptr);
  const LoadedModel model = load_model(folder.path());
  EXPECT_EQ(model.folder, folder.path());
  EXPECT_EQ(model.tokenizer, nullptr);
  EXPECT_EQ(to_json(written_out(model.decoder->options())), to_json(written_out(decoder->options())));
  ASSERT_EQ(model.decoder->schema().all().size(), decoder->schema().all().size());
  for (const Parameter& parameter : decoder->schema().all())
    EXPECT_TRUE(model.decoder->schema().find(parameter.name()).tensor().equal(parameter.tensor())) << parameter.name();
  const at::Tensor ids = some_ids(12, 30);
  EXPECT_TRUE(run_logits(*model.decoder, ids, {7, 5}).equal(run_logits(*decoder, ids, {7, 5})));
}

TEST(Checkpoint, OptionsCanBeSetWhereAModelIsOpened) {
  TemporaryFolder folder;
  fs::create_directories(folder / "one");
  std::string config = read_file(golden("mixtral/config.json"));
  const std::string two = "\"num_experts_per_tok\": 2";
  ASSERT_NE(config.find(two), std::string::npos);
  config.replace(config.find(two), two.size(), "\"num_experts_per_tok\": 1");
  write_text(folder / "one/config.json", config);
  fs::copy_file(golden("mixtral/model.safetensors"), folder / "one/model.safetensors");
  const std::vector<std::string> set{"mixtures.0.router.k=1"};
  const at::Tensor ids = some_ids(12, 90);
  const at::Tensor wanted = run_logits(*load_model(folder / "one").decoder, ids, {12}), whole = run_logits(*load_model(golden("mixtral")).decoder, ids, {12});
  const LoadedModel changed = load_model(golden("mixtral"), {}, set);
  EXPECT_TRUE(run_logits(*changed.decoder, ids, {12}).equal(wanted));
  EXPECT_FALSE(wanted.equal(whole));
  EXPECT_EQ(export_model(changed, folder / "out"), "mixtral");
  EXPECT_EQ(json_from(read_file(folder / "out/config.json"))["num_experts_per_tok"], 1);
  // Of models saved here and of files as well.
  save_model(folder / "one", *load_model(golden("mixtral")).decoder, nullptr);
  EXPECT_TRUE(run_logits(*load_model(folder / "one", {}, set).decoder, ids, {12}).equal(wanted));
  EXPECT_EQ(load_model(golden("gguf/qwen3_moe.gguf"), {}, set).decoder->options().mixtures.at(0).router.write().find("k")->scalar(), "1");

  for (const auto& [wrong, code] : {std::pair{"mixtures.0.router.kk=1", "options.unknown_key"}, {"width", "options.override"}, {"vocabulary=50", "model.tensor_shape"},
                                    {"layers=4", "model.missing_tensor"}, {"attention.heads=four", "options.type"}, {"mixtures.0.router.k=99", "routing.k_range"}})
    EXPECT_EQ(expect_error([&] { load_model(golden("mixtral"), {}, {wrong}); }).code(), code) << wrong;
}

TEST(Checkpoint, TheConfigSaysWhatOtherToolsLookFor) {
  TemporaryFolder folder;
  save_model(folder.path(), *make_decoder(kModel, at::kFloat), nullptr);
  const auto config = json_from(read_file(folder / "config.json"));
  EXPECT_EQ(config["model_type"], "switchyard");
  EXPECT_EQ(config["architectures"], nlohmann::json::array({"SwitchyardForCausalLM"}));
  EXPECT_EQ(config["vocab_size"], 30);
  // Defaults of methods are written out: a saved model does not change when one of them does.
  EXPECT_EQ(config["switchyard"]["attention"]["window"], 0);
  EXPECT_EQ(config["switchyard"]["mixtures"][0]["router"]["scorer"]["temperature"], 1);
  EXPECT_EQ(config["switchyard"]["mixtures"][0]["expert"]["init_deviation"], 0.02);
  EXPECT_EQ(config["hidden_size"], 16);
  EXPECT_EQ(config["num_hidden_layers"], 3);
  EXPECT_EQ(config["torch_dtype"], "float32");
  EXPECT_EQ(config["tie_word_embeddings"], true);
  EXPECT_TRUE(config["switchyard"].is_object());
}

TEST(Checkpoint, WeightsChangeTheirTypeOnDiskAndInMemory) {
  const auto decoder = make_decoder(kModel, at::kFloat);
  TemporaryFolder folder;
  save_model(folder.path(), *decoder, nullptr, at::kBFloat16);
  const LoadedModel stored = load_model(folder.path()), wide = load_model(folder.path(), at::kFloat);
  for (const Parameter& parameter : decoder->schema().all()) {
    const at::Tensor& narrow = stored.decoder->schema().find(parameter.name()).tensor();
    EXPECT_EQ(narrow.scalar_type(), at::kBFloat16);
    EXPECT_TRUE(narrow.equal(parameter.tensor().to(at::kBFloat16))) << parameter.name();
    EXPECT_TRUE(wide.decoder->schema().find(parameter.name()).tensor().equal(narrow.to(at::kFloat)));
  }
  EXPECT_EQ(dtype_name(dtype_named("bfloat16")), "bfloat16");
  EXPECT_EQ(expect_error([] { dtype_named("int8"); }).code(), "model.dtype");
}

TEST(Checkpoint, AFolderOfSeveralTypesIsComputedInTheTypeThatItsConfigNames) {
  const TemporaryFolder folder;
  NamedTensors tensors;
  const auto weights = open_weights(golden("granitemoe"));
  for (const TensorInfo& info : weights->tensors()) tensors.push_back({info.name, weights->get(info.name).to(tensors.empty() ? at::kBFloat16 : at::kFloat)});
  write_safetensors(folder / "model.safetensors", tensors);
  auto config = json_from(read_file(golden("granitemoe/config.json")));
  const auto type_where_it_says = [&](const char* type) {
    config["dtype"] = type;
    write_text(folder / "config.json", config.dump());
    return type_of_mixed(folder.path());
  };
  EXPECT_EQ(type_where_it_says("float32"), at::kFloat);
  EXPECT_EQ(type_where_it_says("bfloat16"), std::nullopt);
  EXPECT_EQ(type_of_mixed(golden("granitemoe")), std::nullopt);
}

TEST(Checkpoint, LoadedWeightsCanBeTrained) {
  TemporaryFolder folder;
  save_model(folder.path(), *make_decoder(kModel, at::kFloat), nullptr);
  const LoadedModel model = load_model(folder.path());
  run_logits(*model.decoder, some_ids(8, 30), {8}).sum().backward();
  const at::Tensor weight = model.decoder->schema().find("layers.0.attention.query.weight").tensor();
  EXPECT_TRUE(weight.grad().defined());
  at::NoGradGuard guard;
  weight.add_(1);  // the file stays as it was
  EXPECT_FALSE(load_model(folder.path()).decoder->schema().find("layers.0.attention.query.weight").tensor().equal(weight));
}

TEST(Checkpoint, ARunResolvesToItsNewestCompleteCheckpoint) {
  TemporaryFolder run;
  const auto decoder = make_decoder(kModel, at::kFloat);
  for (const char* step : {"step-00000500", "step-00001000", "step-00000900"}) {
    fs::create_directories(run / "checkpoints" / step);
    save_model(run / "checkpoints" / step, *decoder, nullptr);
  }
  fs::create_directories(run / "checkpoints" / "step-00002000");             // no config: not a model
  fs::create_directories(run / "checkpoints" / ".step-00003000.tmp-x-1-0");  // being written
  EXPECT_EQ(model_folder(run.path()), run / "checkpoints" / "step-00001000");
  EXPECT_EQ(load_model(run.path()).folder, run / "checkpoints" / "step-00001000");
  EXPECT_EQ(model_folder(run / "checkpoints" / "step-00000500"), run / "checkpoints" / "step-00000500");
}

TEST(Checkpoint, FoldersThatHoldNoModelAreRefused) {
  TemporaryFolder folder;
  EXPECT_EQ(expect_error([&] { load_model(folder / "nowhere"); }).code(), "model.folder");
  EXPECT_EQ(expect_error([&] { load_model(folder.path()); }).code(), "model.folder");
  write_text(folder / "file", "");
  EXPECT_EQ(expect_error([&] { load_model(folder / "file"); }).code(), "model.folder");
  fs::create_directories(folder / "checkpoints");
  const Error error = expect_error([&] { load_model(folder.path()); });
  EXPECT_EQ(error.code(), "model.folder");
  EXPECT_NE(error.message().find("no complete checkpoint"), std::string::npos) << error.what();
}

TEST(Checkpoint, BrokenFilesAreRefused) {
  const auto broken = [](const std::function<void(const fs::path&)>& damage) {
    TemporaryFolder folder;
    save_model(folder.path(), *make_decoder(kModel, at::kFloat), nullptr);
    damage(folder.path());
    return expect_error([&] { load_model(folder.path()); });
  };
  const auto truncate = [](const char* name, int64_t by) {
    return [=](const fs::path& folder) { fs::resize_file(folder / name, fs::file_size(folder / name) - static_cast<uint64_t>(by)); };
  };
  EXPECT_EQ(broken(truncate("model.safetensors", 100)).code(), "formats.safetensors.offsets");
  EXPECT_EQ(broken(truncate("config.json", 10)).code(), "json.syntax");
  EXPECT_EQ(broken([](const fs::path& f) { fs::remove(f / "model.safetensors"); }).code(), "formats.safetensors.folder");
  EXPECT_EQ(broken([](const fs::path& f) { write_text(f / "config.json", "[]"); }).code(), "model.config");
  EXPECT_EQ(broken([](const fs::path& f) { write_text(f / "config.json", "{}"); }).code(), "model.family");
  EXPECT_EQ(broken([](const fs::path& f) { write_text(f / "config.json", R"({"switchyard": {"widht": 3}})"); }).code(),
            "options.unknown_key");
  const Error missing = broken([](const fs::path& f) {
    NamedTensors kept;
    const Safetensors file(f);
    for (const TensorInfo& info : file.tensors())
      if (info.name != "norm.weight") kept.emplace_back(info.name, file.get(info.name).clone());
    write_safetensors(f / "model.safetensors", kept);
  });
  EXPECT_EQ(missing.code(), "model.missing_tensor");
  EXPECT_NE(missing.message().find("norm.weight"), std::string::npos) << missing.what();
}

}  // namespace
}  // namespace switchyard
