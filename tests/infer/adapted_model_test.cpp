#include "switchyard/base/json.h"
#include "switchyard/infer/adapted_model.h"

#include <ATen/ATen.h>


#include "switchyard/base/files.h"
#include "switchyard/convert/mix_adapters.h"
#include "switchyard/formats/peft/name_pattern.h"
#include "switchyard/infer/generate.h"
#include "switchyard/models/adapters/adapter_pass.h"
#include "tests/files.h"
#include "tests/support.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::difference;
using testing::expect_error;
using testing::golden;
using testing::run_python;
using testing::TemporaryFolder;
using testing::write_text;

constexpr double kTolerance = 1e-4;  // float32 against the recording's float32

fs::path folder_of(const std::string& name) { return golden("peft/" + name); }
const nlohmann::json& recorded_index() {
  static const nlohmann::json index = json_from(read_file(golden("peft/index.json")));
  return index;
}

AdaptedModel adapted(const std::string& base) { return AdaptedModel(load_model(folder_of(base))); }

/// [B, S, V] of ids [B, S]; adapter: of each row by its place, empty = what the model uses.
at::Tensor logits_of(const AdaptedModel& model, const at::Tensor& ids, const std::vector<int64_t>& adapter = {}) {
  Facts facts(Segments::equal(ids.size(0), ids.size(1)));
  if (!adapter.empty()) facts.set_segment(kAdapterFact, at::tensor(adapter, at::kLong));
  const at::Tensor logits = model.logits(ids.reshape({-1}), facts, Phase::evaluate, nullptr, LanguageModel::Rows::all);
  return logits.view({ids.size(0), ids.size(1), -1});
}

TEST(Adapters, EachRecordedAdapterActsMergesAndGoesAway) {
  for (const auto& entry : recorded_index()["adapters"]) {
    const std::string name = entry["adapter"];
    SCOPED_TRACE(name);
    const Safetensors recorded(folder_of(entry["logits"]));
    AdaptedModel model = adapted(entry["base"]);
    const at::Tensor ids = recorded.get("input_ids");
    const at::Tensor before = logits_of(model, ids);
    model.adapters().load("it", peft::read_adapter(folder_of(name)));
    model.use({{"it"}});
    const at::Tensor active = logits_of(model, ids);
    EXPECT_GT(difference(active, before), 0.1);
    if (recorded.has("active")) {
      EXPECT_LT(difference(active, recorded.get("active")), kTolerance);
    }
    model.use({});
    if (recorded.has("disabled")) {
      EXPECT_LT(difference(logits_of(model, ids), recorded.get("disabled")), kTolerance);
    }
    model.adapters().merge({{"it"}});
    model.use({});
    EXPECT_LT(difference(logits_of(model, ids), recorded.get("merged")), kTolerance);
    EXPECT_LT(difference(active, recorded.get("merged")), kTolerance);
    EXPECT_EQ(expect_error([&] { model.use({{"it"}}); }).code(), "adapters.merged");
    model.adapters().unmerge();
    AdaptedModel again(model.network().loaded());
    EXPECT_TRUE(logits_of(again, ids).equal(before)) << "unmerging gives back the base bit for bit";
  }
}

TEST(Adapters, SeveralAtOnceAndOneForEachRow) {
  const Safetensors recorded(folder_of("mixes.logits.safetensors"));
  const at::Tensor ids = recorded.get("input_ids");
  for (const auto& entry : recorded_index()["mixes"]) {
    const std::string key = entry["key"], type = entry["type"];
    SCOPED_TRACE(key + " " + type);
    AdaptedModel model = adapted("base-llama");
    at::Tensor logits;
    if (entry.contains("rows")) {
      std::vector<int64_t> rows;
      for (const auto& row : entry["rows"]) {
        if (row.is_null()) {
          rows.push_back(-1);
          continue;
        }
        rows.push_back(static_cast<int64_t>(model.adapters().names().size()));
        model.adapters().load(row, peft::read_adapter(folder_of(row)));
      }
      logits = logits_of(model, ids, rows);
    } else if (!entry.contains("weights")) {
      std::vector<ActiveAdapter> active;
      for (const auto& name : entry["adapters"]) {
        model.adapters().load(name, peft::read_adapter(folder_of(name)));
        active.push_back({name});
      }
      model.use(active);
      logits = logits_of(model, ids);
    } else {
      continue;  // recorded with dropout at work; see record_mixes.py and the next test
    }
    EXPECT_LT(difference(logits, recorded.get(key)), kTolerance);
  }
}

TEST(Adapters, MixesAreThoseOfPeft) {
  const Safetensors recorded(folder_of("mixes-eval.safetensors"));
  const at::Tensor ids = recorded.get("input_ids");
  for (const auto& entry : json_from(read_file(folder_of("mixes-eval.json")))) {
    const std::string key = entry["key"], type = entry["type"];
    SCOPED_TRACE(key + " " + type);
    MixOptions options{.mix = mix_named(type)};
    if (entry.contains("density")) options.density = entry["density"].get<double>();
    if (entry.contains("svd_rank")) options.svd_rank = entry["svd_rank"].get<int64_t>();
    if (entry.contains("svd_clamp")) options.svd_clamp = entry["svd_clamp"].get<double>();
    if (entry.value("majority_sign_method", "total") == "frequency") options.election = Election::frequency;
    std::vector<peft::AdapterFile> files;
    for (const auto& name : entry["adapters"]) files.push_back(peft::read_adapter(folder_of(name)));
    std::vector<WeightedAdapter> weighted;
    for (size_t i = 0; i < files.size(); ++i) weighted.push_back({&files[i], entry["weights"][i].get<double>()});
    TemporaryFolder out;
    write_adapter(out / "mix", mix_adapters(weighted, options));
    AdaptedModel model = adapted("base-llama");
    model.adapters().load("mix", peft::read_adapter(out / "mix"));
    model.use({{"mix"}});
    EXPECT_LT(difference(logits_of(model, ids), recorded.get(key)), kTolerance);
  }
}

TEST(Adapters, DareDropsByItsSeedAndKeepsTheMean) {
  const peft::AdapterFile one = peft::read_adapter(folder_of("lora"));
  const auto a_of = [&](double density, uint64_t seed) {
    return mix_adapters({{&one}, {&one}}, {.mix = Mix::dare_linear, .density = density, .seed = seed}).modules.front().second.a;
  };
  const at::Tensor whole = a_of(1, 0), half = a_of(0.5, 3);
  EXPECT_TRUE(half.equal(a_of(0.5, 3)));
  EXPECT_FALSE(half.equal(a_of(0.5, 4)));
  at::Tensor mean = at::zeros_like(whole);
  for (uint64_t seed = 0; seed < 400; ++seed) mean += a_of(0.5, seed) / 400;
  EXPECT_LT((mean - whole).abs().mean().item<double>(), 0.1 * whole.abs().mean().item<double>());
}

/// The recorded X-LoRA; its own folders hold half of each adapter, the whole ones stand beside it.
peft::AdapterFile recorded_xlora() {
  return peft::read_adapter(folder_of("xlora"), {{"0", folder_of("lora")}, {"1", folder_of("lora-b")}});
}

TEST(Adapters, XLoraLooksOnceThenWeighs) {
  const Safetensors recorded(folder_of("xlora.logits.safetensors"));
  AdaptedModel model = adapted("base-llama");
  model.load_xlora(recorded_xlora());
  const at::Tensor ids = recorded.get("input_ids");
  EXPECT_LT(difference(logits_of(model, ids), recorded.get("logits")), kTolerance);
  const Facts facts(Segments::equal(ids.size(0), ids.size(1)));
  const at::Tensor scalings = model.scalings(ids.reshape({-1}), facts, Phase::evaluate, nullptr);
  EXPECT_LT(difference(scalings.view(recorded.get("scalings").sizes()), recorded.get("scalings")), kTolerance);
  EXPECT_EQ(expect_error([&] { model.use({}); }).code(), "adapters.kind");
}

/// Prefill of five tokens, then one at a time, against whole sequences.
void expect_decodes(const AdaptedModel& model, const at::Tensor& ids, const std::vector<int64_t>& adapter = {}) {
  const at::Tensor whole = logits_of(model, ids, adapter);
  ContiguousState state;
  int64_t past = 0;
  for (const int64_t length : {5, 1, 1, 1, 1}) {
    Segments segments = Segments::equal(ids.size(0), length);
    for (int64_t s = 0; s < ids.size(0); ++s) {
      segments.sequence.push_back(s);
      segments.past.push_back(past);
    }
    Facts facts(segments);
    if (!adapter.empty()) facts.set_segment(kAdapterFact, at::tensor(adapter, at::kLong));
    const at::Tensor rows = ids.slice(1, past, past + length).reshape({-1});
    const at::Tensor logits = model.logits(rows, facts, Phase::generate, &state, LanguageModel::Rows::last);
    past += length;
    EXPECT_LT(difference(logits, whole.select(1, past - 1)), kTolerance);
  }
}

TEST(Adapters, CachedStepsEqualWholeSequences) {
  const at::Tensor ids = Safetensors(folder_of("mixes.logits.safetensors")).get("input_ids");
  AdaptedModel model = adapted("base-llama");
  model.load_xlora(recorded_xlora());
  expect_decodes(model, ids);
  AdaptedModel rows = adapted("base-llama");
  rows.adapters().load("one", peft::read_adapter(folder_of("dora")));
  rows.adapters().load("two", peft::read_adapter(folder_of("lora-bias-save")));
  expect_decodes(rows, ids, {1, 0});
  expect_decodes(rows, ids, {-1, 1});
}

TEST(Adapters, FactorsBesideExpertsEqualTheirMergedWeights) {
  // The golden cases run the low-rank maps; here the same stacks are read whole.
  for (const std::string name : {"mixtral-lora-experts-fused", "mixtral-lora-experts-separate"}) {
    const LoadedModel model = load_model(folder_of("base-mixtral"));
    AdapterSet set(model);
    set.load("it", peft::read_adapter(folder_of(name)));
    const auto use = set.use({{.name = "it", .weight = 0.5}});
    for (const std::string part : {"gate", "up", "down"}) {
      const Parameter stack = model.decoder->schema().find("layers.1.feed_forward.experts." + part);
      at::Tensor base;
      const StackedFactors factors = use->factors(stack, base);
      ASSERT_TRUE(factors.a.defined()) << name << " " << part;
      EXPECT_LT(difference(base + factors.b.matmul(factors.a), *use->value(stack)), 1e-6) << name << " " << part;
    }
  }
}

TEST(Adapters, TrainedRowsOfATiedTableAreTheHeadsToo) {
  const auto tied = [](const TemporaryFolder& folder, const at::Tensor& table) {
    nlohmann::json config = json_from(read_file(folder_of("base-llama/config.json")));
    config["tie_word_embeddings"] = true;
    write_text(folder.path() / "config.json", json_text(config));
    NamedTensors tensors;
    const Safetensors base(folder_of("base-llama/model.safetensors"));
    for (const TensorInfo& info : base.tensors())
      if (info.name != "lm_head.weight") tensors.emplace_back(info.name, info.name == "model.embed_tokens.weight" ? table : base.get(info.name));
    write_safetensors(folder.path() / "model.safetensors", tensors);
    return AdaptedModel(load_model(folder.path()));
  };
  peft::AdapterFile file = peft::read_adapter(folder_of("lora-tokens"));
  ASSERT_EQ(file.tokens.size(), 2u);
  const auto head = std::find_if(file.tokens.begin(), file.tokens.end(), [](const auto& tokens) { return tokens.module == "lm_head"; });
  ASSERT_NE(head, file.tokens.end());
  file.tokens.erase(head);
  file.modules.clear();
  const at::Tensor before = Safetensors(folder_of("base-llama/model.safetensors")).get("model.embed_tokens.weight");
  at::Tensor after = before.clone();
  for (size_t i = 0; i < file.tokens[0].ids.size(); ++i) after[file.tokens[0].ids[i]].copy_(file.tokens[0].rows[static_cast<int64_t>(i)]);
  const TemporaryFolder folder, edited;
  AdaptedModel model = tied(folder, before);
  const at::Tensor ids = Safetensors(folder_of("lora-tokens.logits.safetensors")).get("input_ids");
  const at::Tensor wanted = logits_of(tied(edited, after), ids);
  model.adapters().load("it", file);
  model.use({{"it"}});
  EXPECT_LT(difference(logits_of(model, ids), wanted), kTolerance);
  model.adapters().merge({{"it"}});
  model.use({});
  EXPECT_LT(difference(logits_of(model, ids), wanted), kTolerance);
}

TEST(Adapters, BiasesBesideMapsOfSharedExperts) {
  AdaptedModel model = adapted("../qwen2_moe");
  const Safetensors recorded(folder_of("qwen2_moe-b-bias.logits.safetensors"));
  model.adapters().load("it", peft::read_adapter(folder_of("qwen2_moe-b-bias")));
  model.use({{"it"}});
  EXPECT_LT(difference(logits_of(model, recorded.get("input_ids")), recorded.get("active")), kTolerance);
  EXPECT_EQ(expect_error([&] { model.adapters().merge({{"it"}}); }).code(), "adapters.merge_bias");
}

TEST(Adapters, WeightsScaleWhatIsAdded) {
  const at::Tensor ids = Safetensors(folder_of("mixes.logits.safetensors")).get("input_ids");
  AdaptedModel model = adapted("base-llama");
  model.adapters().load("a", peft::read_adapter(folder_of("lora")));
  model.use({{"a", 0.0}});
  EXPECT_LT(difference(logits_of(model, ids), logits_of(adapted("base-llama"), ids)), 1e-6);
  AdaptedModel ia3 = adapted("base-llama");
  ia3.adapters().load("v", peft::read_adapter(folder_of("ia3")));
  EXPECT_EQ(expect_error([&] { ia3.use({{"v", 0.5}}); }).code(), "adapters.weight");
  ia3.adapters().load("l", peft::read_adapter(folder_of("lora")));
  EXPECT_EQ(expect_error([&] { ia3.use({{"v"}, {"l"}}); }).code(), "adapters.kinds");
  EXPECT_EQ(expect_error([&] { ia3.use({{"x"}}); }).code(), "adapters.unknown");
  EXPECT_EQ(expect_error([&] { ia3.adapters().load("l", peft::read_adapter(folder_of("lora"))); }).code(), "adapters.name");
}

TEST(AdapterFiles, WhatIsReadIsWrittenByteForByte) {
  for (const auto& entry : recorded_index()["adapters"]) {
    const std::string name = entry["adapter"];
    SCOPED_TRACE(name);
    TemporaryFolder out;
    write_adapter(out / "again", peft::read_adapter(folder_of(name)));
    for (const std::string file : {"adapter_config.json", "adapter_model.safetensors"})
      EXPECT_EQ(read_file(out / "again" / file), read_file(folder_of(name) / file)) << file;
  }
}

TEST(AdapterFiles, AnXLoraIsWrittenWithItsAdapters) {
  const Safetensors recorded(folder_of("xlora.logits.safetensors"));
  TemporaryFolder out;
  write_adapter(out / "x", recorded_xlora());
  AdaptedModel model = adapted("base-llama");
  model.load_xlora(peft::read_adapter(out / "x"));
  EXPECT_LT(difference(logits_of(model, recorded.get("input_ids")), recorded.get("logits")), kTolerance);
}

TEST(AdapterFiles, NamePatternsMatchAsInPython) {
  struct Case { const char* pattern; const char* name; bool matches; };
  // Checked once with re.fullmatch.
  const Case cases[]{
      {".*\\.layers\\.\\d+\\.mlp\\.(gate|up)_proj", "model.layers.12.mlp.up_proj", true},
      {".*\\.layers\\.\\d+\\.mlp\\.(gate|up)_proj", "model.layers.12.mlp.down_proj", false},
      {"a{2,3}b?", "aaa", true}, {"a{2,3}b?", "a", false}, {"a{,2}", "aa", true}, {"a{x}", "a{x}", true},
      {"(?:ab)*?c+", "ababcc", true}, {"[^.]+\\.[a-c\\d]", "foo.7", true}, {"[^.]+\\.[a-c\\d]", "f.o.7", false},
      {"^model\\.(?!layers\\.0\\.).*q_proj$", "model.layers.1.q_proj", true},
      {"^model\\.(?!layers\\.0\\.).*q_proj$", "model.layers.0.q_proj", false},
      {"(?=.*proj)q\\w*", "q_proj", true}, {"\\bq\\b.*", "q.x", true}, {"\\bq\\b.*", "qx", false}, {"[]x]", "]", true},
      {"", "", true}, {"a|", "", true}, {"(?P<layer>\\d)+", "123", true}, {"(a*)*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", false}};
  for (const Case& c : cases) EXPECT_EQ(peft::NamePattern(c.pattern).matches(c.name), c.matches) << c.pattern << " on " << c.name;
  for (const char* pattern : {"(", ")", "[a", "a**", "*a", "\\1", "(?<=a)b", "a{3,2}", "\\", "(?i)a", "[b-a]", "((a{1000}){1000}){1000}",
                              "(((((){1000}){1000}){1000}){1000}){1000}", "(?=(?=a))"})
    EXPECT_EQ(expect_error([&] { peft::NamePattern{pattern}; }).code(), "formats.peft.pattern") << pattern;
}

peft::ModuleMatcher matcher(const std::string& keys) {
  return peft::ModuleMatcher(peft::parse_adapter_config(parse_json("{\"peft_type\": \"LORA\", " + keys + "}", "test")));
}

TEST(AdapterFiles, RulesMeanTheModulesThatPeftMeans) {
  const std::string q = "model.layers.3.self_attn.q_proj";
  EXPECT_TRUE(matcher(R"("target_modules": ["q_proj"])").targets(q));
  EXPECT_FALSE(matcher(R"("target_modules": ["proj"])").targets(q));
  EXPECT_TRUE(matcher(R"("target_modules": ["self_attn.q_proj"])").targets(q));
  EXPECT_FALSE(matcher(R"("target_modules": "q_proj")").targets(q));
  EXPECT_TRUE(matcher(R"("target_modules": ".*q_proj")").targets(q));
  EXPECT_TRUE(matcher(R"("target_modules": "All-Linear")").targets(q));
  EXPECT_FALSE(matcher(R"("target_modules": "all-linear")").targets("lm_head", true));
  EXPECT_FALSE(matcher(R"("target_modules": ["q_proj"], "exclude_modules": ["q_proj"])").targets(q));
  EXPECT_FALSE(matcher(R"("target_modules": ["q_proj"], "exclude_modules": ".*layers\\.3.*")").targets(q));
  EXPECT_FALSE(matcher(R"("target_modules": ["q_proj"], "modules_to_save": ["self_attn"])").targets(q));
  EXPECT_TRUE(matcher(R"("target_modules": ["q_proj"], "layers_to_transform": [1, 3])").targets(q));
  EXPECT_FALSE(matcher(R"("target_modules": ["q_proj"], "layers_to_transform": 2)").targets(q));
  EXPECT_TRUE(matcher(R"("target_modules": [")" + q + R"("], "layers_to_transform": 2)").targets(q)) << "a whole name is meant in any layer";
  EXPECT_TRUE(matcher(R"("target_modules": ["w1"], "layers_to_transform": [3])").targets("model.layers.3.moe.experts.0.w1"));
  EXPECT_FALSE(matcher(R"("target_modules": ["w1"], "layers_to_transform": [0])").targets("model.layers.3.moe.experts.0.w1"));
  EXPECT_TRUE(matcher(R"("target_modules": ["w1"], "layers_to_transform": [0], "layers_pattern": "experts")").targets("model.layers.3.moe.experts.0.w1"));
  EXPECT_TRUE(matcher(R"("target_modules": ["q"], "layers_to_transform": [0], "layers_pattern": ["h", "layers"])").targets("layers.0.q"));
  EXPECT_FALSE(matcher(R"("target_modules": ["q"], "layers_to_transform": [0])").targets("layers.0.q")) << "peft asks for a name before";
  EXPECT_TRUE(matcher(R"("target_parameters": ["experts.gate_up_proj"])").targets_parameter("model.layers.0.mlp.experts.gate_up_proj"));
  const peft::ModuleMatcher patterns = matcher(
      R"("r": 8, "lora_alpha": 4, "rank_pattern": {"layers\\.3\\..*": 2, "q_proj": 3}, "alpha_pattern": {"q_proj": 1.5}, "use_rslora": true)");
  EXPECT_EQ(patterns.rank(q), 2);
  EXPECT_EQ(patterns.rank("model.layers.1.q_proj"), 3);
  EXPECT_EQ(patterns.rank("model.layers.1.kq_proj"), 8);
  EXPECT_NEAR(patterns.scale(q, 2), 1.5 / std::sqrt(2.0), 1e-12);
  EXPECT_NEAR(patterns.scale("v_proj", 4), 2, 1e-12);
}

TEST(AdapterFiles, OptionsWhoseMathematicsIsNotThereAreRefusedByName) {
  for (const std::string key : {R"("use_qalora": true)", R"("alora_invocation_tokens": [3])",
                                R"("layer_replication": [[0, 2]])", R"("use_bdlora": {"a": 1})", R"("arrow_config": {"x": 1})",
                                R"("kasa_config": {"x": 1})", R"("init_lora_weights": "corda")", R"("init_lora_weights": "pissa_niter_4")"}) {
    const Error error = expect_error([&] { matcher(key); });
    EXPECT_EQ(error.code(), "formats.peft.option") << key;
    EXPECT_NE(error.message().find(key.substr(1, key.find('"', 1) - 1)), std::string::npos) << error.what();
  }
  EXPECT_NO_THROW(matcher(R"("use_qalora": false, "trainable_token_indices": {"embed_tokens": [1]}, "init_lora_weights": "gaussian", "eva_config": {"rho": 2})"));
  EXPECT_EQ(expect_error([] { peft::parse_adapter_config(parse_json(R"({"peft_type": "VERA"})", "x")); }).code(), "formats.peft.kind");
  for (const std::string key : {R"("r": 0)", R"("r": "8")", R"("r": 1e9)", R"("lora_alpha": "x")", R"("bias": "some")", R"("rank_pattern": [1])",
                                R"("target_modules": [[1]])", R"("use_dora": 1)", R"("layers_to_transform": [-1])"})
    EXPECT_EQ(expect_error([&] { matcher(key); }).code(), "formats.peft.config") << key;
}

/// A copy of a recorded adapter with other tensors or another config.
class Changed {
 public:
  explicit Changed(const std::string& name) : name_(name) {
    fs::create_directories(folder_ / "a");
    for (const auto& entry : fs::directory_iterator(folder_of(name)))
      if (entry.is_regular_file()) fs::copy_file(entry.path(), folder_ / "a" / entry.path().filename());
  }
  fs::path path() const { return folder_ / "a"; }
  void config(const std::string& from, const std::string& to) {
    std::string text = read_file(path() / "adapter_config.json");
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos);
    write_text(path() / "adapter_config.json", text.replace(at, from.size(), to));
  }
  void tensors(const std::function<void(NamedTensors&)>& change) {
    NamedTensors tensors;
    {
      const Safetensors file(path() / "adapter_model.safetensors");
      for (const TensorInfo& info : file.tensors()) tensors.emplace_back(info.name, file.get(info.name).clone());
    }
    change(tensors);
    write_safetensors(path() / "adapter_model.safetensors", tensors);
  }
  std::string code(const std::string& base = "base-llama") const {
    return expect_error([&] {
             AdaptedModel model = adapted(base);
             model.adapters().load("it", peft::read_adapter(path()));
             model.adapters().merge({{"it"}});
           }).code();
  }

 private:
  std::string name_;
  TemporaryFolder folder_;
};

TEST(AdapterFiles, BrokenAdaptersAreRefused) {
  const auto tensors = [](const std::string& name, const std::function<void(NamedTensors&)>& change) {
    Changed changed(name);
    changed.tensors(change);
    return changed.code();
  };
  const auto config = [](const std::string& name, const std::string& from, const std::string& to) {
    Changed changed(name);
    changed.config(from, to);
    return changed.code();
  };
  EXPECT_EQ(tensors("lora", [](NamedTensors& t) { t.pop_back(); }), "formats.peft.tensor") << "half a pair";
  EXPECT_EQ(tensors("lora", [](NamedTensors& t) { t[0].second.view({-1})[3] = NAN; }), "formats.peft.not_finite");
  EXPECT_EQ(tensors("lora", [](NamedTensors& t) { t[0].second = t[0].second.to(at::kLong); }), "formats.peft.tensor");
  EXPECT_EQ(tensors("lora", [](NamedTensors& t) { t[0].second = at::zeros({4, 31}); }), "adapters.shape");
  EXPECT_EQ(tensors("lora", [](NamedTensors& t) { t[0].second = at::zeros({32}); }), "formats.peft.tensor");
  EXPECT_EQ(tensors("lora", [](NamedTensors& t) { t[0].first = "base_model.model.model.layers.9.q_proj.lora_A.weight"; }), "formats.peft.tensor");
  EXPECT_EQ(tensors("lora", [](NamedTensors& t) {
              for (auto& [name, value] : t)
                if (const size_t at = name.find("layers.1."); at != std::string::npos) name[at + 7] = '7';
            }), "adapters.module");
  EXPECT_EQ(tensors("lora", [](NamedTensors& t) { t.emplace_back("base_model.model.model.x.lora_C.weight", at::zeros({1})); }), "formats.peft.tensor");
  EXPECT_EQ(tensors("lora", [](NamedTensors& t) { t.emplace_back("base_model.model.nowhere.weight", at::zeros({1})); }), "adapters.module");
  EXPECT_EQ(tensors("lora-bias-save", [](NamedTensors& t) {
              for (auto& [name, value] : t) if (name.ends_with("lm_head.weight")) value = at::zeros({65, 32});
            }), "adapters.shape");
  EXPECT_EQ(tensors("dora", [](NamedTensors& t) { std::erase_if(t, [](const auto& e) { return e.first.ends_with("magnitude_vector"); }); }), "formats.peft.tensor");
  EXPECT_EQ(tensors("ia3", [](NamedTensors& t) { for (auto& [name, v] : t) v = v.reshape({-1}); }), "formats.peft.tensor");
  EXPECT_EQ(config("lora", "\"r\": 4", "\"r\": 5"), "adapters.rank");
  EXPECT_EQ(config("lora", "\"LORA\"", "\"IA3\""), "formats.peft.tensor");
  EXPECT_EQ(config("lora", "\"v_proj\",\n    \"q_proj\"", "\"nothing\""), "adapters.module");
  EXPECT_EQ(config("dora", "\"use_dora\": true", "\"use_dora\": false"), "formats.peft.tensor");
  EXPECT_EQ(config("ia3", "\"feedforward_modules\": [\n    \"down_proj\"", "\"feedforward_modules\": [\n    \"k_proj\""), "adapters.shape");
  EXPECT_EQ(Changed("mixtral-lora-experts-fused").code("base-llama"), "adapters.module");
  EXPECT_EQ(Changed("xlora").code(), "formats.peft.folder") << "without the folders of its adapters";
  for (const auto& entry : fs::directory_iterator(golden("malformed"))) {
    if (entry.path().extension() != ".safetensors") continue;
    Changed broken("lora");
    fs::copy_file(entry.path(), broken.path() / "adapter_model.safetensors", fs::copy_options::overwrite_existing);
    EXPECT_TRUE(broken.code().starts_with("formats.safetensors.")) << entry.path();
  }
  TemporaryFolder empty;
  EXPECT_EQ(expect_error([&] { peft::read_adapter(empty.path()); }).code(), "formats.peft.folder");
  EXPECT_EQ(expect_error([&] { peft::read_adapter(empty / "x"); }).code(), "formats.peft.folder");
  fs::copy_file(folder_of("lora") / "adapter_config.json", empty / "adapter_config.json");
  write_text(empty / "adapter_model.bin", "pickle");
  EXPECT_EQ(expect_error([&] { peft::read_adapter(empty.path()); }).code(), "formats.peft.pickle");
  Changed escaping("xlora");
  escaping.config("\"0\": \"0\"", "\"../lora\": \"0\"");
  EXPECT_EQ(escaping.code(), "formats.peft.experts");
}

TEST(AdapterFiles, MixesThatMeanNothingAreRefused) {
  const peft::AdapterFile lora = peft::read_adapter(folder_of("lora")), all = peft::read_adapter(folder_of("lora-all-patterns"));
  const auto code = [](const std::vector<WeightedAdapter>& adapters, const MixOptions& options) {
    return expect_error([&] { mix_adapters(adapters, options); }).code();
  };
  EXPECT_EQ(code({{&lora}, {&all}}, {.mix = Mix::linear}), "adapters.mix") << "other ranks";
  EXPECT_EQ(code({{&lora}, {&lora}}, {.mix = Mix::ties}), "adapters.density");
  EXPECT_EQ(code({{&lora}, {&lora}}, {.mix = Mix::dare_ties, .density = 0.0}), "adapters.density");
  for (const std::string name : {"dora", "ia3", "lora-b-bias", "lora-bias-save", "mixtral-lora-experts-fused"}) {
    const peft::AdapterFile other = peft::read_adapter(folder_of(name));
    EXPECT_EQ(code({{&lora}, {&other}}, {.mix = Mix::cat}), "adapters.mix") << name;
  }
  EXPECT_EQ(expect_error([] { mix_named("tie"); }).code(), "adapters.mix");
}

TEST(AdapterFiles, ExactMixesAddWhatTheAdaptersAdd) {
  // cat and svd of full rank, with ranks and patterns that differ, against both adapters at once.
  const at::Tensor ids = Safetensors(folder_of("mixes.logits.safetensors")).get("input_ids");
  const peft::AdapterFile one = peft::read_adapter(folder_of("lora-all-patterns")), two = peft::read_adapter(folder_of("rslora"));
  AdaptedModel model = adapted("base-llama");
  model.adapters().load("one", one);
  model.adapters().load("two", two);
  model.use({{"one", 0.7}, {"two", -0.4}});
  const at::Tensor expected = logits_of(model, ids);
  for (const MixOptions& options : {MixOptions{.mix = Mix::cat}, MixOptions{.mix = Mix::svd, .svd_rank = 9}}) {
    AdaptedModel mixed = adapted("base-llama");
    mixed.adapters().load("mix", mix_adapters({{&one, 0.7}, {&two, -0.4}}, options));
    mixed.use({{"mix"}});
    EXPECT_LT(difference(logits_of(mixed, ids), expected), kTolerance) << to_string(options.mix);
    // Where the first is rank-stabilised the mix is too: the root of the rank that peft gives it stands before the sum.
    int64_t most = one.config.rank;
    for (const auto& [pattern, rank] : one.config.rank_pattern) most = std::max(most, rank);
    const double root = std::sqrt(static_cast<double>(options.svd_rank.value_or(most + two.config.rank)));
    mixed.adapters().load("stable", mix_adapters({{&two, -0.4 / root}, {&one, 0.7 / root}}, options));
    mixed.use({{"stable"}});
    EXPECT_LT(difference(logits_of(mixed, ids), expected), kTolerance) << to_string(options.mix);
  }
}

TEST(AdapterFiles, PeftLoadsWhatIsWritten) {
  SWITCHYARD_NEED_PYTHON(python, "torch,transformers,safetensors,peft");
  const at::Tensor ids = Safetensors(folder_of("mixes.logits.safetensors")).get("input_ids");
  TemporaryFolder folder;
  std::string arguments = folder.path().string() + " " + folder_of("base-llama").string();
  write_safetensors(folder / "ids", {{"ids", ids}});
  std::map<std::string, peft::AdapterFile> files;
  for (const std::string name : {"lora", "rslora", "dora", "ia3", "lora-bias-save", "lora-embed", "lora-b-bias", "lora-tokens"})
    files.emplace(name, peft::read_adapter(folder_of(name)));
  const peft::AdapterFile patterns = peft::read_adapter(folder_of("lora-all-patterns"));
  files.emplace("cat", mix_adapters({{&patterns, 0.5}, {&files.at("rslora"), -0.7}}, {.mix = Mix::cat}));
  files.emplace("svd", mix_adapters({{&patterns, 0.5}, {&files.at("lora-embed"), 1}}, {.mix = Mix::svd, .svd_rank = 3}));
  for (const auto& [name, file] : files) {
    write_adapter(folder / name, file);
    AdaptedModel model = adapted("base-llama");
    model.adapters().load("it", peft::read_adapter(folder / name));
    model.use({{"it"}});
    write_safetensors(folder / (name + ".ours"), {{"logits", logits_of(model, ids)}});
    arguments += " " + name;
  }
  const auto done = run_python(python, R"(
import sys, torch, warnings
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from peft import PeftModel
folder, base = sys.argv[1:3]
ids = load_file(f'{folder}/ids')['ids']
for name in sys.argv[3:]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), f'{folder}/{name}')
    assert not any('missing adapter keys' in str(w.message) for w in said), (name, [str(w.message) for w in said])
    with torch.no_grad():
        logits = model.eval()(input_ids=ids).logits
    worst = (logits - load_file(f'{folder}/{name}.ours')['logits']).abs().max().item()
    assert worst < 1e-4, (name, worst)
)", arguments);
  EXPECT_EQ(done.status, 0) << done.output;
}

}  // namespace
}  // namespace switchyard
