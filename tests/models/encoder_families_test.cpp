// Families with an encoder: encoder-decoders (T5, Switch, NLLB-MoE) and encoders alone (BERT, ViT), held to what their reference
// implementations recorded.
#include <ATen/ATen.h>

#include <set>

#include "switchyard/base/files.h"
#include "switchyard/base/json.h"
#include "switchyard/blocks/relative_bias.h"
#include "switchyard/convert/export.h"
#include "switchyard/convert/to_gguf.h"
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

NamedTensors outputs(const fs::path& folder, const NamedInputs& inputs) {
  return named_outputs(NetworkModel(load_model(folder)), inputs, {.hidden = true, .routing = true});
}

/// Everything recorded about a batch but its losses. 1e-4 absolute is float32 rounding at logits of size 1.
void expect_recorded(const fs::path& folder, const Safetensors& recording) {
  const NamedTensors got = outputs(folder, named_inputs(recording));
  const at::Tensor mask = recording.has("attention_mask") ? recording.get("attention_mask").to(at::kBool) : at::Tensor();
  const bool translates = recording.has("decoder_input_ids");
  for (const TensorInfo& info : recording.tensors()) {
    const std::string& name = info.name;
    const at::Tensor expected = recording.get(name);
    if (name == "logits") {
      const at::Tensor logits = find(got, name);
      ASSERT_EQ(logits.sizes(), expected.sizes());
      EXPECT_LT(mask.defined() && !translates ? difference(logits.index({mask}), expected.index({mask})) : difference(logits, expected), 1e-4);
    } else if (name == "logits_row1_unpadded") {
      EXPECT_LT(difference(find(got, "logits")[1].index({mask[1]}), expected), 1e-4);
    } else if (name.starts_with("hidden_states.")) {
      EXPECT_LT(difference(find(got, name)[0], expected), 1e-4) << name;
    } else if (name.starts_with("router_logits.") || name.starts_with("topk_")) {
      // Rows of the encoder's padding are never computed.
      const at::Tensor rows = name.find("encoder") != std::string::npos ? mask.flatten() : at::ones({expected.size(0)}, at::kBool);
      const at::Tensor here = find(got, name).index({rows}), there = expected.index({rows});
      if (name.starts_with("topk_ids.")) EXPECT_TRUE(std::get<0>(here.sort(-1)).equal(std::get<0>(there.to(at::kLong).sort(-1)))) << name;
      else EXPECT_LT(difference(here, there), 1e-4) << name;
    }
  }
}

std::vector<int64_t> first_row(const Safetensors& recording, const char* name) {
  const at::Tensor row = recording.get(name).to(at::kLong)[0].contiguous();
  return {row.const_data_ptr<int64_t>(), row.const_data_ptr<int64_t>() + row.numel()};
}

void expect_recorded_text(const fs::path& folder, const Safetensors& recording) {
  GenerateOptions greedy;
  greedy.temperature = 0;
  greedy.max_tokens = 16;
  greedy.ignore_end = true;
  const NetworkModel model(load_model(folder));
  const std::vector<int64_t> prompt = first_row(recording, "input_ids"), other(prompt.begin(), prompt.begin() + 6);
  EXPECT_TRUE(at::tensor(generate(model, {prompt}, greedy).front().ids).equal(recording.get("generate").to(at::kLong)));
  // Beside another sequence the same is written.
  EXPECT_TRUE(at::tensor(generate(model, {other, prompt}, greedy).back().ids).equal(recording.get("generate").to(at::kLong)));
}

/// The decoder's rows all at once, or four and then one by one over the same encoded sequences.
void expect_cached_steps(const fs::path& folder, const Safetensors& recording) {
  const NetworkModel model(load_model(folder));
  const at::Tensor read = recording.get("input_ids").to(at::kLong)[0], ids = recording.get("decoder_input_ids").to(at::kLong)[0];
  const Memory memory = model.encode(read, Facts(Segments::single(read.size(0), false)));
  NamedInputs alone;
  alone.input_ids = read;
  alone.decoder_input_ids = ids;
  const at::Tensor expected = find(outputs(folder, alone), "logits")[0];
  ContiguousState state;
  for (int64_t t = 0; t < ids.size(0); t += t == 0 ? 4 : 1) {
    const int64_t length = t == 0 ? 4 : 1;
    Segments segments = Segments::single(length);
    segments.past = {t};
    Facts facts(segments);
    if (t == 0) set_memory(facts, memory);  // later steps find it in the state
    const at::Tensor logits = model.logits(ids.narrow(0, t, length), facts, Phase::generate, &state, LanguageModel::Rows::all);
    // Where places depend on what follows, only the last row of a step is what the whole sequence so far gives.
    NamedInputs so_far = alone;
    so_far.decoder_input_ids = ids.narrow(0, 0, t + length);
    EXPECT_LT(difference(logits[length - 1], find(outputs(folder, so_far), "logits")[0][t + length - 1]), 1e-4) << t;
  }
  EXPECT_EQ(expected.size(0), ids.size(0));
}

/// The recorded loss and its graph: rows without their padding, labels as they stand.
at::Tensor encoder_loss(const Decoder& decoder, const Safetensors& recording) {
  const Streams random(1);
  const at::Tensor labels = recording.get("labels").to(at::kLong), ids = recording.get("input_ids").to(at::kLong);
  const at::Tensor mask = recording.get("attention_mask").to(at::kBool);
  std::vector<int64_t> lengths{mask[0].sum().item<int64_t>(), mask[1].sum().item<int64_t>()};
  Segments read;
  for (const int64_t length : lengths) read.begin.push_back(read.begin.back() + length);
  Facts source(read);
  if (recording.has("token_type_ids")) source.set_row("token_type", recording.get("token_type_ids").to(at::kLong).index({mask}));
  if (read.rows() < ids.numel()) source.set_segment("padded_length", at::full({2}, ids.size(1), at::kLong));
  const Context context{.facts = source, .random = random};
  if (!recording.has("decoder_input_ids")) {
    const at::Tensor logits = decoder.logits(decoder.forward(ids.index({mask}), context), context);
    return at::cross_entropy_loss(logits, labels.index({mask}), {}, at::Reduction::Mean, -100);
  }
  const at::Tensor written = recording.get("decoder_input_ids").to(at::kLong);
  Facts facts(Segments::equal(2, written.size(1)));
  set_memory(facts, decoder.encode(ids.index({mask}), context));
  const Context there{.facts = facts, .random = random};
  return at::cross_entropy_loss(decoder.logits(decoder.forward(written.flatten(), there), there), labels.flatten(), {}, at::Reduction::Mean, -100);
}

/// Steps down the gradient of the recorded batch lower its loss, and move both stacks.
void expect_encoder_to_train(const fs::path& folder, const Safetensors& recording) {
  const LoadedModel model = load_model(folder);
  const at::Tensor first = encoder_loss(*model.decoder, recording);
  EXPECT_NEAR(first.item<double>(), recording.get("loss").item<double>(), 1e-4);
  double last = 0;
  for (int step = 0; step < 4; ++step) {
    const at::Tensor loss = encoder_loss(*model.decoder, recording);
    last = loss.item<double>();
    loss.backward();
    at::NoGradGuard guard;
    for (const Parameter& parameter : model.decoder->schema().all()) {
      at::Tensor value = parameter.tensor();
      EXPECT_TRUE(step > 0 || value.grad().defined()) << parameter.name() << " has no gradient";
      if (!value.grad().defined()) continue;
      value.sub_(value.grad() * (0.05 / std::max(1e-6, value.grad().norm().item<double>())));
      value.mutable_grad().reset();
    }
  }
  EXPECT_LT(last, first.item<double>());
}

/// One file, shards in another order, and what is exported give equal bits.
void expect_equal_bits(const fs::path& folder, const Safetensors& recording) {
  const NamedInputs inputs = named_inputs(recording);
  const Safetensors file(folder);
  NamedTensors reversed;
  for (const TensorInfo& info : file.tensors()) reversed.insert(reversed.begin(), {info.name, file.get(info.name)});
  TemporaryFolder other;
  fs::copy_file(folder / "config.json", other / "config.json");
  write_safetensors_folder(other.path(), reversed, 70000);
  EXPECT_TRUE(fs::exists(other / "model.safetensors.index.json"));
  const at::Tensor expected = find(outputs(folder, inputs), "logits");
  EXPECT_TRUE(find(outputs(other.path(), inputs), "logits").equal(expected));
  const std::string type = find_at(parse_json(read_file(folder / "config.json"), "config"), "model_type")->scalar();
  EXPECT_EQ(export_model(load_model(folder), other / "out"), type);  // nobody else has this composition
  const Safetensors after(other / "out");
  EXPECT_EQ(after.tensors().size(), file.tensors().size());
  for (const TensorInfo& info : file.tensors())
    if (after.has(info.name)) EXPECT_TRUE(after.get(info.name).equal(file.get(info.name))) << info.name;
    else ADD_FAILURE() << "not exported: " << info.name;
  EXPECT_TRUE(find(outputs(other / "out", inputs), "logits").equal(expected));
  // And saved as a model of our own.
  const LoadedModel model = load_model(folder);
  fs::create_directory(other / "ours");
  save_model(other / "ours", *model.decoder, nullptr);
  EXPECT_TRUE(find(outputs(other / "ours", inputs), "logits").equal(expected));
}

/// A padded row is what it is alone.
void expect_padding_to_be_nothing(const fs::path& folder, const Safetensors& recording) {
  const NamedInputs inputs = named_inputs(recording);
  const int64_t length = inputs.attention_mask[1].sum().item<int64_t>();
  NamedInputs alone;
  alone.input_ids = inputs.input_ids[1].narrow(0, 0, length);
  if (inputs.token_type_ids.defined()) alone.token_type_ids = inputs.token_type_ids[1].narrow(0, 0, length);
  if (inputs.decoder_input_ids.defined()) alone.decoder_input_ids = inputs.decoder_input_ids[1];
  const int64_t rows = inputs.decoder_input_ids.defined() ? inputs.decoder_input_ids.size(1) : length;
  EXPECT_LT(difference(find(outputs(folder, inputs), "logits")[1].narrow(0, 0, rows), find(outputs(folder, alone), "logits")[0]), 1e-5);
}

void expect_encoder_decoder(const std::string& family) {
  SCOPED_TRACE(family);
  const fs::path folder = golden(family);
  const Safetensors recording(folder / "golden.safetensors");
  expect_recorded(folder, recording);
  expect_recorded_text(folder, recording);
  expect_cached_steps(folder, recording);
  expect_encoder_to_train(folder, recording);
  expect_equal_bits(folder, recording);
  if (family != "nllb_moe") expect_padding_to_be_nothing(folder, recording);  // its places are a share of the padded batch
}

TEST(Catalogue, t5_gives_the_recorded_logits_and_text) { expect_encoder_decoder("t5"); }
TEST(Catalogue, switch_transformers_gives_the_recorded_logits_routing_and_text) { expect_encoder_decoder("switch_transformers"); }
TEST(Catalogue, nllb_moe_gives_the_recorded_logits_routing_and_text) { expect_encoder_decoder("nllb_moe"); }

TEST(Catalogue, bert_gives_the_recorded_logits) {
  const fs::path folder = golden("bert");
  const Safetensors recording(folder / "golden.safetensors");
  expect_recorded(folder, recording);
  expect_padding_to_be_nothing(folder, recording);
  expect_encoder_to_train(folder, recording);
  expect_equal_bits(folder, recording);
  EXPECT_EQ(expect_error([&] { NetworkModel(load_model(folder)).check_generation(); }).code(), "routing.generation");
  NamedInputs types = named_inputs(recording);
  types.token_type_ids = at::full_like(types.input_ids, 2);
  EXPECT_EQ(expect_error([&] { outputs(folder, types); }).code(), "model.token_type");
}

TEST(Catalogue, vit_gives_the_recorded_logits) {
  const fs::path folder = golden("vit");
  const Safetensors recording(folder / "golden.safetensors");
  expect_recorded(folder, recording);
  expect_equal_bits(folder, recording);
  NamedInputs one = named_inputs(recording);
  one.pixel_values = one.pixel_values[1];
  EXPECT_LT(difference(find(outputs(folder, one), "logits")[0], recording.get("logits")[1]), 1e-4);
  one.pixel_values = one.pixel_values.narrow(1, 0, 8);
  EXPECT_EQ(expect_error([&] { outputs(folder, one); }).code(), "model.images");
  NamedInputs tokens;
  tokens.input_ids = at::zeros({1, 4}, at::kLong);
  EXPECT_EQ(expect_error([&] { outputs(folder, tokens); }).code(), "infer.input");
  const LoadedModel model = load_model(folder);
  double first = 0, last = 0;
  for (int step = 0; step < 4; ++step) {
    const Facts facts(Segments::equal(2, 17, false));
    const Streams random(1);
    const Context context{.facts = facts, .random = random};
    const at::Tensor rows = model.decoder->forward(recording.get("pixel_values"), context).view({2, 17, -1}).select(1, 0);
    const at::Tensor loss = at::cross_entropy_loss(model.decoder->logits(rows, context), at::tensor({3, 7}, at::kLong));
    (step == 0 ? first : last) = loss.item<double>();
    loss.backward();
    at::NoGradGuard guard;
    for (const Parameter& parameter : model.decoder->schema().all()) {
      at::Tensor value = parameter.tensor();
      ASSERT_TRUE(value.grad().defined()) << parameter.name();
      value.sub_(value.grad() * (0.05 / std::max(1e-6, value.grad().norm().item<double>())));
      value.mutable_grad().reset();
    }
  }
  EXPECT_LT(last, first);
}

TEST(EncoderFamilies, SwitchsRecordedLossesFollowFromTheDecodersRouting) {
  // As the library counts them: sequence by sequence over both layers' tokens, a dropped token as one of expert 0.
  const Safetensors recording(golden("switch_transformers/golden.safetensors"));
  const NamedTensors got = outputs(golden("switch_transformers"), named_inputs(recording));
  std::vector<at::Tensor> logits, ids;
  for (const char* layer : {"1", "3"}) {
    logits.push_back(find(got, std::string("router_logits.decoder.") + layer).view({2, 11, 8}));
    ids.push_back(find(got, std::string("topk_ids.decoder.") + layer).view({2, 11}));
  }
  const at::Tensor z = at::cat(logits, 1), share = at::one_hot(at::cat(ids, 1).clamp_min(0), 8).to(at::kFloat).mean(1);
  EXPECT_NEAR(z.logsumexp(-1).square().mean().item<double>(), recording.get("decoder_z_loss").item<double>(), 1e-4);
  EXPECT_NEAR((share * z.softmax(-1).mean(1)).mean().item<double>() * 64, recording.get("decoder_aux_loss").item<double>(), 1e-4);
}

TEST(EncoderFamilies, ATokenOverCapacityMayReturnItselfTimesItsWeight) {
  // The library before 4.57 did so; the composition says it, and then no config of the family does.
  LoadedModel model = load_model(golden("switch_transformers"));
  ModelOptions options = model.decoder->options();
  for (MixtureOptions& mixture : options.mixtures) mixture.combine = CombineOptions{.overflow = Overflow::scaled_identity};
  auto other = std::make_shared<Decoder>(options);
  for (const Parameter& parameter : other->schema().all()) parameter.bind(model.decoder->schema().find(parameter.name()).tensor().detach());
  const Safetensors recording(golden("switch_transformers/golden.safetensors"));
  model.decoder = other;
  EXPECT_GT(difference(find(named_outputs(NetworkModel(model), named_inputs(recording), {}), "logits"), recording.get("logits")), 1e-2);
  EXPECT_EQ(expect_error([&] { export_config(*other, "switch_transformers"); }).code(), "convert.export.option");
}

TEST(Catalogue, cross_attention_sees_all_rows_of_its_own_sequence) {
  const auto model = testing::make_decoder(
      "{vocabulary: 19, width: 12, layers: 2, attention: {type: gqa, heads: 2}, cross_attention: {type: cross-attention, heads: 4, kv_heads: 2, "
      "head_dim: 5, bias: true, output_bias: true}, encoder: {layers: 1, attention: {type: gqa, heads: 2}}}");
  const Streams random(1);
  const at::Tensor read = testing::some_ids(9, 19), ids = testing::some_ids(7, 19, 3);
  const auto run = [&](const at::Tensor& source, const std::vector<int64_t>& lengths, const at::Tensor& rows, const std::vector<int64_t>& written) {
    Segments from, to;
    for (const int64_t n : lengths) from.begin.push_back(from.begin.back() + n);
    for (const int64_t n : written) to.begin.push_back(to.begin.back() + n);
    const Facts reading(from);
    Facts facts(to);
    set_memory(facts, model->encode(source, Context{.facts = reading, .random = random}));
    const Context context{.facts = facts, .random = random};
    return model->logits(model->forward(rows, context), context);
  };
  const at::Tensor both = run(read, {4, 5}, ids, {3, 4});
  // Sequences of other lengths beside each other are what they are alone.
  EXPECT_LT(difference(both.narrow(0, 0, 3), run(read.narrow(0, 0, 4), {4}, ids.narrow(0, 0, 3), {3})), 1e-12);
  EXPECT_LT(difference(both.narrow(0, 3, 4), run(read.narrow(0, 4, 5), {5}, ids.narrow(0, 3, 4), {4})), 1e-12);
  // The first row written sees the last one read, and nothing of the other sequence.
  at::Tensor changed = read.clone();
  changed[8] = (read[8] + 1) % 19;
  const at::Tensor other = run(changed, {4, 5}, ids, {3, 4});
  EXPECT_GT(difference(other[3], both[3]), 1e-6);
  EXPECT_TRUE(other.narrow(0, 0, 3).equal(both.narrow(0, 0, 3)));
  // Without encoded rows the place says what it lacks.
  EXPECT_EQ(expect_error([&] { testing::run_logits(*model, ids, {7}); }).code(), "facts.missing");
}

TEST(RelativeBias, BucketsAreThePublishedOnes) {
  // 32 buckets, distances to 128; relative = key's place less the query's.
  const auto bucket = [](int64_t relative, bool two_sided) {
    const int64_t query = relative < 0 ? -relative : 0;
    return relative_buckets(query, 1, query + relative + 1, two_sided, 32, 128)[0][query + relative].item<int64_t>();
  };
  const std::map<int64_t, int64_t> both{{-200, 15}, {-20, 10}, {-9, 8}, {-8, 8}, {-7, 7}, {-1, 1}, {0, 0}, {1, 17}, {7, 23}, {8, 24}, {16, 26}, {128, 31}};
  for (const auto& [relative, expected] : both) EXPECT_EQ(bucket(relative, true), expected) << relative;
  const std::map<int64_t, int64_t> back{{5, 0}, {-1, 1}, {-15, 15}, {-16, 16}, {-17, 16}, {-40, 23}, {-128, 31}};
  for (const auto& [relative, expected] : back) EXPECT_EQ(bucket(relative, false), expected) << relative;
  // Few buckets, or as many of one distance each as there are distances: the last holds all that is farther.
  const auto row = [](bool two_sided, int64_t buckets, int64_t distance) { return relative_buckets(3, 1, 6, two_sided, buckets, distance)[0]; };
  EXPECT_TRUE(row(true, 2, 8).equal(at::tensor({0, 0, 0, 0, 1, 1}, at::kLong)));
  EXPECT_TRUE(row(true, 4, 1).equal(at::tensor({1, 1, 1, 0, 3, 3}, at::kLong)));
  EXPECT_TRUE(row(false, 4, 2).equal(at::tensor({3, 3, 1, 0, 0, 0}, at::kLong)));
}

/// A config of a published size, counted without its weights.
int64_t parameters_of(const std::string& config) {
  const Node node = parse_json(config, "config.json");
  return Decoder(family_of(node)->read(node)).schema().count();
}

TEST(EncoderFamilies, PublishedSizesHaveThePublishedCounts) {
  const std::string base = R"({"vocab_size": 32128, "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_heads": 12, "num_layers": 12, )";
  EXPECT_EQ(parameters_of(base + R"("model_type": "t5"})"), 222903552);
  EXPECT_EQ(parameters_of(base + R"("model_type": "switch_transformers", "num_experts": 8, "num_sparse_encoder_layers": 6, "num_sparse_decoder_layers": 6})"),
            619339008);
  // With a pooler and without the head it would be 109,482,240: the pooler is as large as the head's map, beside which stand a norm and a bias.
  EXPECT_EQ(parameters_of(R"({"model_type": "bert"})"), 109482240 + 2 * 768 + 30522);
}

TEST(EncoderFamilies, BertNamesClassesBehindItsPooler) {
  TemporaryFolder folder;
  std::string config = read_file(golden("bert/config.json"));
  config.replace(config.find("BertForMaskedLM"), 15, "BertForSequenceClassification");
  config.replace(config.rfind('}'), 1, R"(, "id2label": {"0": "a", "1": "b", "2": "c"}})");
  write_text(folder / "config.json", config);
  const Safetensors file(golden("bert"));
  NamedTensors tensors;
  for (const TensorInfo& info : file.tensors())
    if (!info.name.starts_with("cls.")) tensors.emplace_back(info.name, file.get(info.name));
  const at::Tensor pooler = testing::randn({32, 32}, 1).to(at::kFloat), classifier = testing::randn({3, 32}, 2).to(at::kFloat);
  tensors.emplace_back("bert.pooler.dense.weight", pooler);
  tensors.emplace_back("bert.pooler.dense.bias", at::zeros({32}));
  tensors.emplace_back("classifier.weight", classifier);
  tensors.emplace_back("classifier.bias", at::ones({3}));
  write_safetensors_folder(folder.path(), tensors);
  const Safetensors recording(golden("bert/golden.safetensors"));
  const NamedTensors got = outputs(folder.path(), named_inputs(recording));
  const at::Tensor expected = at::linear(at::linear(recording.get("hidden_states.3").narrow(0, 0, 1), pooler).tanh(), classifier) + 1;
  EXPECT_LT(difference(find(got, "logits").narrow(0, 0, 1), expected), 1e-4);
  EXPECT_EQ(export_model(load_model(folder.path()), folder / "out"), "bert");
  EXPECT_TRUE(find(outputs(folder / "out", named_inputs(recording)), "logits").equal(find(got, "logits")));
  // A GGUF file says as much, the names of the classes too.
  convert_to_gguf(folder.path(), folder / "bert.gguf");
  EXPECT_TRUE(find(outputs(folder / "bert.gguf", named_inputs(recording)), "logits").equal(find(got, "logits")));
  export_model(load_model(folder / "bert.gguf"), folder / "back");
  for (const char* from : {"out", "back"}) {
    const Node said = parse_json(read_file(folder / from / "config.json"), from);
    EXPECT_EQ(to_json(*said.find("id2label")), to_json(parse_json(R"({"0": "a", "1": "b", "2": "c"})", "labels"))) << from;
  }
}

}  // namespace
}  // namespace switchyard
