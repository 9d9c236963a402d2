#include "switchyard/convert/export.h"

#include <ATen/ATen.h>

#include "switchyard/base/files.h"
#include "switchyard/formats/safetensors.h"
#include "switchyard/infer/named_outputs.h"
#include "switchyard/infer/network_model.h"
#include "tests/files.h"
#include "tests/models/decoder_support.h"
#include "tests/support.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::difference;
using testing::expect_error;
using testing::golden;
using testing::make_decoder;
using testing::model_options;
using testing::run_python;
using testing::TemporaryFolder;
using testing::write_text;

/// Small models that are a family's by composition, spelled as a recipe would.
const std::map<std::string, std::string> kFamilies{
    {"mixtral", R"(
vocabulary: 40
width: 16
layers: 2
context: 64
norm_eps: 1e-6
attention: {type: gqa, heads: 4, kv_heads: 2}
tied_embeddings: false
mixtures: [{experts: 4, expert: {type: swiglu, hidden: 12}, router: {type: sparse-topk, k: 2}, losses: [router-z]}]
)"},
    {"olmoe", R"(
vocabulary: 40
width: 16
layers: 2
context: 64
attention: {type: gqa, heads: 4, qk_norm: full, clip: 0.7}
tied_embeddings: true
mixtures: [{experts: 6, expert: {type: swiglu, hidden: 12}, router: {type: sparse-topk, k: 3, softmax: all}}]
)"},
    {"qwen3_moe", R"(
vocabulary: 40
width: 16
layers: 4
context: 64
rope_theta: 50000
attention: {type: gqa, heads: 2, kv_heads: 1, head_dim: 6, qk_norm: head}
feed_forward: {type: feed-forward, activation: swiglu, hidden: 20}
tied_embeddings: false
mixtures:
  - layers: {every: 2}
    experts: 4
    expert: {type: swiglu, hidden: 12}
    router: {type: sparse-topk, k: 2, softmax: all}
    combine: {renormalise: before_drop}
)"},
    {"llama", R"(
vocabulary: 40
width: 16
layers: 2
context: 64
rope_scaling: {kind: llama3, factor: 4, low: 1, high: 4, original: 16}
attention: {type: gqa, heads: 4, kv_heads: 2}
feed_forward: {type: feed-forward, activation: swiglu, hidden: 20}
tied_embeddings: false
)"},
    {"qwen2", R"(
vocabulary: 40
width: 16
layers: 3
context: 64
attention: {type: gqa, heads: 4, bias: true}
variants: [{layers: {last: 1}, attention: {type: gqa, heads: 4, bias: true, window: 5}}]
feed_forward: {type: feed-forward, activation: swiglu, hidden: 20}
)"}};

LoadedModel model_of(const std::string& yaml) {
  LoadedModel model;
  model.decoder = make_decoder(yaml, at::kFloat, 6);
  return model;
}

TEST(Export, LoadingWhatWasExportedGivesTheSameModel) {
  for (const auto& [type, yaml] : kFamilies) {
    TemporaryFolder folder;
    const LoadedModel model = model_of(yaml);
    EXPECT_EQ(export_model(model, folder / "out"), type);
    const LoadedModel back = load_model(folder / "out");
    for (const Parameter& parameter : model.decoder->schema().all())
      EXPECT_TRUE(back.decoder->schema().find(parameter.name()).tensor().equal(parameter.tensor())) << type << parameter.name();
    const at::Tensor ids = at::arange(24).view({2, 12});
    EXPECT_LT(difference(named_outputs(NetworkModel(back), ids, {})[0].second,
                         named_outputs(NetworkModel(model), ids, {})[0].second), 1e-5) << type;  // weights may be divided in another order
  }
}

TEST(Export, AScaleThatNoConfigSaysGoesIntoTheWeights) {
  for (const char* scale : {"2", "0.5", "1.7"})
    for (const char* expert : {"{type: swiglu, hidden: 12}", "{type: swiglu, hidden: 12, bias: true}"}) {
      TemporaryFolder folder;
      std::string yaml = kFamilies.at("mixtral");
      yaml.replace(yaml.find("{type: swiglu, hidden: 12}"), 26, expert + std::string(", combine: {scale: ") + scale + "}");
      const LoadedModel model = model_of(yaml);
      if (std::string(expert).find("bias") != std::string::npos) {  // still refused, and for the bias alone
        const Error error = expect_error([&] { export_model(model, folder / "out", {.model_type = "mixtral"}); });
        EXPECT_EQ(error.code(), "convert.export.option");
        EXPECT_EQ(error.message().find("scale"), std::string::npos) << error.message();
        EXPECT_NE(error.message().find("bias"), std::string::npos) << error.message();
        continue;
      }
      EXPECT_EQ(export_model(model, folder / "out"), "mixtral");
      const at::Tensor ids = at::arange(24).view({2, 12});
      const at::Tensor before = named_outputs(NetworkModel(model), ids, {})[0].second;
      const at::Tensor after = named_outputs(NetworkModel(load_model(folder / "out")), ids, {})[0].second;
      EXPECT_LT(difference(after, before), 1e-5) << scale;
      EXPECT_GT(difference(after, named_outputs(NetworkModel(model_of(kFamilies.at("mixtral"))), ids, {})[0].second), 1e-2) << scale;
    }
}

TEST(Export, TheLibraryComputesTheSameLogits) {
  SWITCHYARD_NEED_PYTHON(python, "torch,safetensors,transformers");
  TemporaryFolder folder;
  const at::Tensor ids = at::arange(40).roll({7}).view({2, 20});
  const at::Tensor mask = at::ones({2, 20}, at::kLong);
  mask[1].narrow(0, 0, 6).zero_();
  std::string arguments = folder.path().string();
  for (const auto& [type, yaml] : kFamilies) {
    const LoadedModel model = model_of(yaml);
    export_model(model, folder / type);
    write_safetensors(folder / (type + ".in"), {{"input_ids", ids}, {"attention_mask", mask}});
    arguments += " " + type;
  }
  // Loading must report nothing missing or unexpected; what the library saves again must load here too.
  const auto done = run_python(python, R"(
import sys, torch, transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
folder = sys.argv[1]
for name in sys.argv[2:]:
    model, info = AutoModelForCausalLM.from_pretrained(f'{folder}/{name}', dtype=torch.float32, output_loading_info=True,
                                                       attn_implementation='eager')
    assert not info['missing_keys'] and not info['unexpected_keys'] and not info['mismatched_keys'], (name, info)
    batch = load_file(f'{folder}/{name}.in')
    with torch.no_grad():
        logits = model.eval()(**batch).logits
    save_file({'logits': logits.contiguous()}, f'{folder}/{name}.logits')
    model.save_pretrained(f'{folder}/{name}-again')
)", arguments);
  ASSERT_EQ(done.status, 0) << done.output;
  for (const auto& [type, yaml] : kFamilies) {
    const NetworkModel model(model_of(yaml)), again(load_model(folder / (type + "-again")));
    const at::Tensor theirs = Safetensors(folder / (type + ".logits")).get("logits");
    const at::Tensor ours = named_outputs(model, ids, mask)[0].second;
    const at::Tensor valid = mask.to(at::kBool);
    EXPECT_GT(theirs.index({valid}).std().item<float>(), 0.1) << type << ": logits too flat to compare";
    EXPECT_LT(difference(ours.index({valid}), theirs.index({valid})), 1e-4) << type;
    EXPECT_LT(difference(named_outputs(again, ids, mask)[0].second, ours), 1e-4) << type << " saved by the library";
  }
}

TEST(Export, WhatStandsInTheWayIsNamed) {
  const auto refusal = [](std::string yaml, const std::string& from, const std::string& to, const std::string& family) {
    const size_t at = yaml.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    yaml.replace(at, from.size(), to);
    const Decoder decoder(model_options(yaml));
    const Error error = expect_error([&] { export_config(decoder, family); });
    EXPECT_EQ(error.code(), "convert.export.option") << to << ": " << error.what();
    return error.message();
  };
  const std::string& mixtral = kFamilies.at("mixtral");
  const auto expect_named = [](const std::string& message, const std::string& part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  expect_named(refusal(mixtral, "type: swiglu", "type: relu", "mixtral"),
               "mixtral: layers.0.mixtures.0.expert is relu, there swiglu");
  expect_named(refusal(mixtral, "k: 2}", "k: 2}, admission: {type: capacity}", "mixtral"), "layers.0.mixtures.0.admission is capacity");
  expect_named(refusal(mixtral, "k: 2}", "k: 2, softmax: all}", "mixtral"), "layers.0.mixtures.0.router.softmax is all");
  expect_named(refusal(mixtral, "context: 64", "context: 64\nblock: parallel", "mixtral"), "block is parallel, there pre_norm");
  expect_named(refusal(mixtral, "context: 64", "context: 64\nnorm: layer", "mixtral"), "norm is layer");
  expect_named(refusal(mixtral, "context: 64", "context: 64\ncausal: false", "mixtral"), "causal is false");
  expect_named(refusal(mixtral, "heads: 4,", "heads: 4, qk_norm: head,", "mixtral"), "layers.0.attention.qk_norm is head");
  const std::string nobody = refusal(mixtral, "context: 64", "context: 64\nnorm: layer", "");
  expect_named(nobody, "no published family has this composition: mixtral: norm is layer, there rms;");
  expect_named(nobody, "; olmoe: ");
  expect_named(refusal(mixtral, "mixtures: [{", "mixtures: [{layers: {list: [0]}, ", "mixtral"), "layers.1.feed_forward is feed-forward");
  expect_named(refusal(mixtral, "losses:", "shared: [{expert: {type: swiglu, hidden: 8}}], losses:", "mixtral"),
               "layers.0.mixtures.0.shared is a list of 1, there a list of 0");
}

TEST(Export, TheFamilyIsTheOneThatFits) {
  std::string yaml = kFamilies.at("mixtral");
  yaml.replace(yaml.find("heads: 4,"), 9, "heads: 4, qk_norm: head,");
  EXPECT_EQ(export_config(Decoder(model_options(yaml))).find("model_type")->scalar(), "qwen3_moe");
}

TEST(Export, BadRequestsAreRefusedAndLeaveNothing) {
  TemporaryFolder folder;
  const LoadedModel model = model_of(kFamilies.at("mixtral"));
  EXPECT_EQ(expect_error([&] { export_model(model, folder / "out", {.model_type = "gpt9"}); }).code(), "convert.export.family");
  EXPECT_FALSE(fs::exists(folder / "out"));
  fs::create_directories(folder / "full");
  write_text(folder / "full" / "file", "precious");
  EXPECT_EQ(expect_error([&] { export_model(model, folder / "full"); }).code(), "convert.export.exists");
  EXPECT_EQ(read_file(folder / "full" / "file"), "precious");
}

TEST(Export, TokenizerFilesAndTypeGoAlong) {
  TemporaryFolder folder;
  LoadedModel model = model_of(kFamilies.at("mixtral"));
  fs::create_directories(folder / "source");
  write_text(folder / "source" / "tokenizer_config.json", "{\"a\": 1}");
  model.folder = folder / "source";
  model.end_ids = {2, 3};
  export_model(model, folder / "out", {.model_type = {}, .dtype = at::kBFloat16});
  EXPECT_EQ(read_file(folder / "out" / "tokenizer_config.json"), "{\"a\": 1}");
  const LoadedModel back = load_model(folder / "out");
  EXPECT_EQ(back.end_ids, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(back.decoder->schema().find("norm.weight").tensor().scalar_type(), at::kBFloat16);
}

TEST(Export, EveryKindOfVocabularyAndTemplateGoesAlong) {
  TemporaryFolder folder;
  LoadedModel model = model_of(kFamilies.at("mixtral"));
  for (const char* name : {"words.tiktoken", "sentencepiece.bpe.model", "additional_chat_templates/rag.jinja", "modeling_mixtral.py"}) {
    fs::create_directories((folder / "source" / name).parent_path());
    write_text(folder / "source" / name, name);
  }
  model.folder = folder / "source";
  export_model(model, folder / "out");
  for (const char* name : {"words.tiktoken", "sentencepiece.bpe.model", "additional_chat_templates/rag.jinja"})
    EXPECT_EQ(read_file(folder / "out" / name), name);
  EXPECT_FALSE(fs::exists(folder / "out" / "modeling_mixtral.py"));
}

TEST(Export, WhatOnlyTrainingReadsIsKept) {
  TemporaryFolder folder;
  fs::create_directories(folder / "source");
  for (const char* name : {"config.json", "model.safetensors"}) fs::copy_file(golden(std::string("mixtral/") + name), folder / "source" / name);
  Node config = parse_json(read_file(folder / "source" / "config.json"), "config");
  config["router_aux_loss_coef"] = Node("0.125");
  config["num_hidden_groups"] = Node("1");  // of no family here
  write_text(folder / "source" / "config.json", to_json(config));
  const LoadedModel model = load_model(folder / "source");
  const Node same = published_config(model);
  EXPECT_EQ(same.find("router_aux_loss_coef")->scalar(), "0.125");
  EXPECT_EQ(same.find("num_hidden_groups"), nullptr);
}

}  // namespace
}  // namespace switchyard
