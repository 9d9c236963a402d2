#include "switchyard/infer/generate.h"

#include <ATen/ATen.h>

#include <functional>
#include <set>

#include "switchyard/convert/quantise.h"
#include "switchyard/infer/named_outputs.h"
#include "switchyard/infer/network_model.h"
#include "switchyard/models/checkpoint.h"
#include "tests/files.h"
#include "tests/models/decoder_support.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using testing::difference;
using testing::expect_error;
using testing::make_decoder;

/// One letter a token: id 0 ends a text, 1 begins one, 2.. are 'a', 'b', ...
class Letters : public Tokenizer {
  struct Stream : IncrementalDecoder {
    std::string push(int64_t id) override { return id >= 2 ? std::string(1, static_cast<char>('a' + id - 2)) : ""; }
    std::string flush() override { return ""; }
  };

 public:
  int64_t vocabulary() const override { return 28; }
  std::vector<int64_t> encode(std::string_view text) const override {
    std::vector<int64_t> ids;
    for (char c : text) ids.push_back(c - 'a' + 2);
    return ids;
  }
  std::string bytes(const std::vector<int64_t>& ids) const override {
    std::string text;
    for (int64_t id : ids)
      if (id >= 2) text += token(id);
    return text;
  }
  Encoding encode(std::string_view text, const EncodeOptions&) const override { return {.ids = encode(text)}; }
  Encoding encode_pair(std::string_view first, std::string_view, const EncodeOptions&) const override { return {.ids = encode(first)}; }
  std::string decode(const std::vector<int64_t>& ids, bool = true) const override { return bytes(ids); }
  std::unique_ptr<IncrementalDecoder> incremental(bool) const override { return std::make_unique<Stream>(); }
  bool special(int64_t id) const override { return id < 2; }
  std::string token(int64_t id) const override { return std::string(1, static_cast<char>('a' + id - 2)); }
  std::optional<int64_t> id_of(std::string_view token) const override {
    if (token == "<begin>") return 1;
    return token.size() == 1 ? std::optional<int64_t>(token[0] - 'a' + 2) : std::nullopt;
  }
  std::optional<int64_t> begin_id() const override { return 1; }
  std::optional<int64_t> end_id() const override { return 0; }
  void save(const std::filesystem::path&) const override {}
  uint64_t fingerprint() const override { return 1; }
};

constexpr const char* kModel = R"(
vocabulary: 28
width: 16
layers: 2
context: 24
attention: {type: gqa, heads: 2}
mixtures: [{experts: 4, expert: {type: swiglu, hidden: 8}, router: {type: sparse-topk, k: 2}}]
)";

NetworkModel network(const std::string& yaml = kModel, bool with_tokenizer = true) {
  LoadedModel model;
  model.decoder = make_decoder(yaml, at::kFloat);
  if (with_tokenizer) model.tokenizer = std::make_shared<Letters>();
  return NetworkModel(std::move(model));
}

/// A model that says what it is told: token i of the script, whatever it reads.
class Scripted : public LanguageModel {
 public:
  Scripted(std::vector<int64_t> script, int64_t prompt) : script_(std::move(script)), prompt_(prompt) {}
  int64_t vocabulary() const override { return 28; }
  int64_t context() const override { return 100; }
  const Tokenizer* tokenizer() const override { return &letters_; }
  std::vector<int64_t> end_ids() const override { return {0}; }
  at::Tensor logits(const at::Tensor&, const Facts& facts, Phase, StateStore*, Rows, const Wanted&) const override {
    at::Tensor rows = at::zeros({facts.segments.count(), 28});
    for (int64_t s = 0; s < facts.segments.count(); ++s) {
      const int64_t at = facts.segments.past_of(s) + facts.segments.length(s) - prompt_;
      rows[s][script_.at(static_cast<size_t>(at))] = 50;
    }
    return rows;
  }
  void check_generation() const override {}

 private:
  std::vector<int64_t> script_;
  int64_t prompt_;
  Letters letters_;
};

std::vector<int64_t> ids_of(const std::string& text) { return Letters().encode(text); }

TEST(Generate, TokenByTokenEqualsTheWholeRecomputed) {
  const NetworkModel model = network();
  std::vector<int64_t> ids = ids_of("hello");
  const Continuation written = generate(model, {ids}, [] {
    GenerateOptions options;
    options.temperature = 0;
    options.max_tokens = 12;
    options.ignore_end = true;
    return options;
  }()).front();
  ASSERT_EQ(written.ids.size(), 12u);
  for (int64_t id : written.ids) {
    const at::Tensor all = model.logits(at::tensor(ids), Facts(Segments::single(static_cast<int64_t>(ids.size()))),
                                        Phase::generate, nullptr, LanguageModel::Rows::last);
    EXPECT_EQ(all[0].argmax().item<int64_t>(), id);
    ids.push_back(id);
  }
  EXPECT_EQ(written.text, Letters().decode(written.ids));
}

TEST(Generate, LongPromptsAreReadInPiecesWhereThatChangesNothing) {
  const auto yaml = [](const std::string& scaling, const std::string& router) {
    return "{vocabulary: 28, width: 16, layers: 2, context: 32, attention: {type: gqa, heads: 2}, rope_scaling: " + scaling + R"(,
      mixtures: [{experts: 4, expert: {type: swiglu, hidden: 8}, router: )" + router + "}]}";
  };
  const std::vector<int64_t> prompt = ids_of("thequickbrownfox"), other = ids_of("jumps");
  GenerateOptions options;
  options.temperature = 0;
  options.max_tokens = 6;
  options.ignore_end = true;
  for (const auto& [scaling, pieces] : {std::pair{"{kind: none}", true}, {"{kind: dynamic, factor: 2, original: 8}", false}, {"{kind: dynamic, alpha: 3, original: 8}", true}}) {
    SCOPED_TRACE(scaling);
    const NetworkModel model = network(yaml(scaling, "{type: sparse-topk, k: 2}"));
    EXPECT_EQ(model.reads_in_pieces(), pieces);
    options.prefill_rows = 1024;
    const std::vector<Continuation> whole = generate(model, {prompt, other}, options);
    for (const int64_t rows : {1, 5, 15, 16}) {
      options.prefill_rows = rows;
      GenerationTimes times;
      const std::vector<Continuation> read = generate(model, {prompt, other}, options, {.on_text = {}, .on_end = {}, .times = &times});
      for (size_t i = 0; i < 2; ++i) EXPECT_EQ(read[i].ids, whole[i].ids) << rows;
      EXPECT_EQ(times.prefilled, static_cast<int64_t>(prompt.size() + other.size()));
    }
  }
}

TEST(Generate, PrefillAndStepsGiveTheLogitsOfTheWhole) {
  // Routers that look at the token, its neighbours or its place must find these in the cache too.
  for (const char* router : {"{type: sparse-topk, k: 2}", "{type: hash-layer, of: token}", "{type: hash-layer, of: previous}",
                             "{type: hash-layer, of: bigram}", "{type: hash-layer, of: position}"}) {
    SCOPED_TRACE(router);
    const NetworkModel model = network(R"({vocabulary: 28, width: 16, layers: 2, context: 24, attention: {type: gqa, heads: 2},
      mixtures: [{experts: 4, expert: {type: swiglu, hidden: 8}, router: )" + std::string(router) + "}]}");
    const at::Tensor ids = at::tensor(ids_of("thequickbrownfox"));
    const at::Tensor whole = model.logits(ids, Facts(Segments::single(16)), Phase::generate, nullptr, LanguageModel::Rows::all);
    ContiguousState state;
    Segments first = Segments::single(9);
    at::Tensor steps = model.logits(ids.narrow(0, 0, 9), Facts(first), Phase::generate, &state, LanguageModel::Rows::all);
    for (int64_t i = 9; i < 16; ++i) {
      Segments one = Segments::single(1);
      one.past = {i};
      steps = at::cat({steps, model.logits(ids.narrow(0, i, 1), Facts(one), Phase::generate, &state, LanguageModel::Rows::all)});
    }
    EXPECT_LT(difference(steps, whole), 1e-4);
  }
}

TEST(Generate, TheSameSeedWritesTheSameText) {
  const NetworkModel model = network();
  GenerateOptions options;
  options.max_tokens = 15;
  options.ignore_end = true;
  options.seed = 4;
  const auto first = generate(model, {ids_of("abc")}, options).front();
  EXPECT_EQ(generate(model, {ids_of("abc")}, options).front().ids, first.ids);
  options.seed = 5;
  EXPECT_NE(generate(model, {ids_of("abc")}, options).front().ids, first.ids);
}

TEST(Generate, ASequenceInABatchIsWrittenAsAlone) {
  const NetworkModel model = network();
  GenerateOptions options;
  options.temperature = 0;
  options.max_tokens = 8;
  options.ignore_end = true;
  const std::vector<std::vector<int64_t>> prompts{ids_of("abc"), ids_of("thelongestofthethree"), ids_of("z")};
  const auto together = generate(model, prompts, options);
  ASSERT_EQ(together.size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(together[i].ids, generate(model, {prompts[i]}, options).front().ids) << i;
  // Fewer places than prompts: the next takes the place of the one that ended. Draws belong to prompts, not to places.
  options.temperature = 1;
  options.batch = 3;
  const auto drawn = generate(model, prompts, options);
  for (int64_t batch : {1, 2}) {
    options.batch = batch;
    std::vector<int64_t> ended;
    GenerationTimes times;
    const auto some = generate(model, prompts, options, {.on_text = {}, .on_end = [&](int64_t i, const Continuation& one) {
      ended.push_back(i);
      EXPECT_EQ(one.ids, drawn[static_cast<size_t>(i)].ids);
    }, .times = &times});
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(some[i].ids, drawn[i].ids) << batch << " places, prompt " << i;
    EXPECT_EQ(ended.size(), 3u);
    EXPECT_EQ(times.prefilled, 24);
    EXPECT_EQ(times.decoded, 7 + 4 + 7);
    EXPECT_GT(times.first_token, 0);
  }
  EXPECT_EQ(together[1].reason, StopReason::context);  // 20 of 24 were the prompt
  EXPECT_EQ(together[1].ids.size(), 5u);
  EXPECT_EQ(together[0].reason, StopReason::max_tokens);
}

TEST(Generate, StopsAtTheEndToken) {
  const Scripted model({4, 5, 0, 6}, 1);
  GenerateOptions options;
  options.max_tokens = 4;
  const Continuation stopped = generate(model, {{7}}, options).front();
  EXPECT_EQ(stopped.ids, (std::vector<int64_t>{4, 5}));
  EXPECT_EQ(stopped.text, "cd");
  EXPECT_EQ(stopped.reason, StopReason::end_token);
  options.ignore_end = true;
  EXPECT_EQ(generate(model, {{7}}, options).front().ids, (std::vector<int64_t>{4, 5, 0, 6}));
}

TEST(Generate, StopTextsAreLeftOutAndNeverShownInPart) {
  const Scripted model(ids_of("abcabxyzabcd"), 2);
  GenerateOptions options;
  options.max_tokens = 12;
  options.stop = {"xyz", "zzz"};
  std::vector<std::string> pieces;
  const Continuation written = generate(model, {{7, 8}}, options, [&](int64_t, std::string_view text) {
    pieces.emplace_back(text);
    return true;
  }).front();
  EXPECT_EQ(written.text, "abcab");
  EXPECT_EQ(written.reason, StopReason::stop_text);
  std::string shown;
  for (const std::string& piece : pieces) {
    EXPECT_EQ(piece.find('x'), std::string::npos);
    shown += piece;
  }
  EXPECT_EQ(shown, written.text);
  // A beginning of a stop text that does not go on comes out in the end.
  options.stop = {"cdq"};
  EXPECT_EQ(generate(model, {{7, 8}}, options).front().text, "abcabxyzabcd");
}

TEST(Generate, ASpecialTokenMayBeAStop) {
  const Scripted model({4, 5, 1, 6}, 1);
  GenerateOptions options;
  options.max_tokens = 4;
  options.stop = {"<begin>"};
  const Continuation written = generate(model, {{7}}, options).front();
  EXPECT_EQ(written.text, "cd");
  EXPECT_EQ(written.reason, StopReason::stop_text);
  options.stop = {""};
  EXPECT_EQ(expect_error([&] { generate(model, {{7}}, options); }).code(), "infer.stop");
}

TEST(Generate, PenaltiesKnowThePromptAndWhatWasWritten) {
  const Scripted model({4, 4, 4, 4}, 2);  // logits: 50 for one token, 0 for all others
  GenerateOptions options;
  options.temperature = 0;
  options.max_tokens = 3;
  options.ignore_end = true;
  options.frequency_penalty = 30;
  EXPECT_EQ(generate(model, {{7, 8}}, options).front().ids, (std::vector<int64_t>{4, 4, 0}));  // 50, 20, -10
  options.frequency_penalty = 0;
  options.presence_penalty = 60;
  EXPECT_EQ(generate(model, {{4, 8}}, options).front().ids, (std::vector<int64_t>{4, 0, 1}));
}

TEST(Generate, TheCallerMayStopASequence) {
  const Scripted model(ids_of("abcdefgh"), 1);
  GenerateOptions options;
  options.max_tokens = 8;
  int seen = 0;
  const Continuation written = generate(model, {{7}}, options, [&](int64_t, std::string_view) { return ++seen < 3; }).front();
  EXPECT_EQ(written.text, "abc");
  EXPECT_EQ(written.reason, StopReason::interrupted);
}

TEST(Generate, NothingIsWrittenForZeroTokens) {
  GenerateOptions options;
  options.max_tokens = 0;
  EXPECT_TRUE(generate(network(), {{5}}, options).front().ids.empty());
  EXPECT_TRUE(generate(network(), {}, options).empty());
}

TEST(Generate, BadPromptsAreRefused) {
  const NetworkModel model = network();
  EXPECT_EQ(expect_error([&] { generate(model, {{}}, {}); }).code(), "infer.prompt");
  const Error error = expect_error([&] { generate(model, {std::vector<int64_t>(25, 3)}, {}); });
  EXPECT_EQ(error.code(), "infer.prompt");
  EXPECT_NE(error.message().find("25 tokens, but the model's context is 24"), std::string::npos) << error.what();
  EXPECT_EQ(expect_error([&] { generate(model, {{99}}, {}); }).code(), "model.token_id");
  GenerateOptions options;
  options.stop = {"x"};
  EXPECT_EQ(expect_error([&] { generate(network(kModel, false), {{3}}, options); }).code(), "infer.stop");
  EXPECT_EQ(expect_error([&] { prompt_ids(network(kModel, false), "a"); }).code(), "infer.tokenizer");
  EXPECT_EQ(prompt_ids(model, ""), std::vector<int64_t>{1});
  EXPECT_EQ(prompt_ids(model, "a"), (std::vector<int64_t>{1, 2}));
}

TEST(Generate, AModelThatLooksAheadIsRefused) {
  const Error error = expect_error([&] { generate(network(std::string(kModel) + "causal: false\n"), {{3}}, {}); });
  EXPECT_EQ(error.code(), "routing.generation");
  EXPECT_NE(error.message().find("not causal"), std::string::npos) << error.what();
}

/// The types in which a model computes whose parameters had these.
std::set<at::ScalarType> settled(LoadedModel model, const std::function<at::ScalarType(const Parameter&)>& type) {
  const at::NoGradGuard guard;
  for (const Parameter& parameter : model.decoder->schema().all())
    if (!parameter.packed() && !parameter.spec().dtype) parameter.bind(parameter.tensor().detach().to(type(parameter)));
  const std::shared_ptr<Decoder> decoder = model.decoder;
  const NetworkModel network(std::move(model));
  std::set<at::ScalarType> types;
  for (const Parameter& parameter : decoder->schema().all())
    if (!parameter.spec().dtype) types.insert(parameter.packed() ? parameter.packed()->type() : parameter.tensor().scalar_type());
  return types;
}

TEST(NetworkModel, WeightsOfSeveralTypesComputeInOne) {
  const auto plain = [] { return LoadedModel{.decoder = make_decoder(kModel, at::kFloat)}; };
  using Types = std::set<at::ScalarType>;
  EXPECT_EQ(settled(plain(), [](const Parameter& p) { return p.tensor().dim() < 2 ? at::kFloat : at::kBFloat16; }), Types{at::kBFloat16});
  EXPECT_EQ(settled(plain(), [](const Parameter& p) { return p.tensor().dim() < 3 ? at::kFloat : at::kBFloat16; }), Types{at::kFloat});
  EXPECT_EQ(settled(plain(), [](const Parameter& p) { return p.tensor().dim() < 3 ? at::kHalf : at::kBFloat16; }), Types{at::kFloat});

  testing::TemporaryFolder folder;
  const std::filesystem::path file = testing::golden("gguf/mixtral-mixed.gguf");
  quantise_gguf(file, folder / "all.gguf", {.type = "Q8_0", .keep = {}});
  quantise_gguf(file, folder / "some.gguf", {.type = "Q8_0", .keep = {{"experts", "F32"}}});
  const auto half = [](const Parameter&) { return at::kBFloat16; };
  const auto norms = [](const Parameter& p) { return p.tensor().dim() < 2 ? at::kFloat : at::kBFloat16; };
  EXPECT_EQ(settled(load_model(folder / "all.gguf", at::kFloat), half), Types{at::kFloat});  // few: as the packed rows
  EXPECT_EQ(settled(load_model(folder / "some.gguf", at::kFloat), norms), (Types{at::kBFloat16, at::kFloat}));  // many: among themselves
}

TEST(NamedOutputs, PaddingChangesNothing) {
  const NetworkModel model = network();
  const at::Tensor ids = at::tensor(ids_of("abcdefghijkl")).view({2, 6});
  const at::Tensor left = at::tensor({1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1}, at::kLong).view({2, 6});
  const at::Tensor right = at::tensor({1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0}, at::kLong).view({2, 6});
  const at::Tensor shifted = at::cat({ids[0], ids[1].roll({-2})}).view({2, 6});
  const auto on_left = named_outputs(model, ids, left, {.hidden = true, .routing = true});
  const auto on_right = named_outputs(model, shifted, right, {.hidden = true, .routing = true});
  const auto alone = named_outputs(model, ids[1].narrow(0, 2, 4).unsqueeze(0), {}, {.hidden = true, .routing = true});
  ASSERT_EQ(on_left.size(), alone.size());
  EXPECT_EQ(on_left[0].second.sizes(), (std::vector<int64_t>{2, 6, 28}));
  EXPECT_LT(difference(on_left[0].second[1].narrow(0, 2, 4), alone[0].second[0]), 1e-5);
  EXPECT_LT(difference(on_right[0].second[1].narrow(0, 0, 4), alone[0].second[0]), 1e-5);
  EXPECT_EQ(on_left[0].second[1].narrow(0, 0, 2).abs().max().item<float>(), 0);
  for (size_t i = 0; i < alone.size(); ++i) {
    const auto& [name, tensor] = alone[i];
    EXPECT_EQ(on_left[i].first, name);
    if (!name.starts_with("topk_ids")) continue;
    EXPECT_TRUE(on_left[i].second.narrow(0, 8, 4).equal(tensor)) << name;
    EXPECT_EQ(on_left[i].second.narrow(0, 6, 2).max().item<int64_t>(), -1) << name;
  }
}

TEST(NamedOutputs, NothingInNothingOut) {
  const NetworkModel model = network();
  EXPECT_EQ(named_outputs(model, at::zeros({0, 3}, at::kLong), {})[0].second.sizes(), (std::vector<int64_t>{0, 3, 28}));
  EXPECT_EQ(named_outputs(model, at::zeros({2, 0}, at::kLong), {})[0].second.sizes(), (std::vector<int64_t>{2, 0, 28}));
  const auto masked = named_outputs(model, at::zeros({1, 3}, at::kLong), at::zeros({1, 3}, at::kLong), {.routing = true});
  EXPECT_EQ(masked[0].second.abs().max().item<float>(), 0);
}

TEST(NamedOutputs, BadInputIsRefused) {
  const NetworkModel model = network();
  const at::Tensor ids = at::zeros({1, 4}, at::kLong);
  const auto code = [&](const at::Tensor& input, const at::Tensor& mask) {
    return expect_error([&] { named_outputs(model, input, mask); }).code();
  };
  EXPECT_EQ(code(at::zeros({1, 4, 1}, at::kLong), {}), "infer.input");
  EXPECT_EQ(code(at::zeros({1, 4}), {}), "infer.input");
  EXPECT_EQ(code(ids, at::tensor({1, 0, 1, 1}).view({1, 4})), "infer.mask");
  EXPECT_EQ(code(ids, at::tensor({1, 2, 1, 1}).view({1, 4})), "infer.mask");
  EXPECT_EQ(code(ids, at::ones({1, 5}, at::kLong)), "infer.mask");
  EXPECT_EQ(code(at::zeros({1, 25}, at::kLong), {}), "infer.context");
  EXPECT_EQ(code(ids - 1, {}), "model.token_id");
}

}  // namespace
}  // namespace switchyard
