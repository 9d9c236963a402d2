#include "program/generation.h"

#include <fmt/ranges.h>
#include <time.h>
#include <unistd.h>

#include <charconv>
#include <cmath>
#include <fstream>
#include <iterator>
#include <sstream>

#include "switchyard/base/error.h"
#include "switchyard/base/memory.h"
#include "switchyard/base/progress.h"
#include "switchyard/infer/generation_config.h"
#include "switchyard/kernels/packed_weight.h"

namespace switchyard::program {

void add_generation_options(CommandLine& line, GenerationArguments& arguments) {
  line.option("--temperature", arguments.temperature, "0 = always the most probable token; higher = more daring. This and what "
              "follows is as the model's generation_config.json says, when not given; where that says nothing, temperature "
              "0.8 and top-p 0.95")
      .between(0.0, 100.0);
  line.option("--top-k", arguments.top_k, "only the k most probable tokens; 0 = all").between(0, 1 << 24);
  line.option("--top-p", arguments.top_p, "only the fewest most probable tokens whose probabilities sum to p")
      .between(0.0, 1.0);
  line.option("--min-p", arguments.min_p, "only tokens with at least this share of the highest probability")
      .between(0.0, 1.0);
  line.option("--typical,--typical-p", arguments.typical, "only tokens whose surprise is nearest to the expected one, until their "
              "probabilities sum to this; 1 = all").between(0.0, 1.0);
  line.option("--repetition-penalty", arguments.repetition_penalty, "divides the positive and multiplies the negative logits "
              "of all tokens of the prompt and the text; 1 = none").between(1e-3, 1e3);
  line.option("--presence-penalty", arguments.presence_penalty, "taken from the logits of tokens that were written")
      .between(-100.0, 100.0);
  line.option("--frequency-penalty", arguments.frequency_penalty, "taken from a token's logit for each time it was written")
      .between(-100.0, 100.0);
  line.option("--logit-bias", arguments.logit_bias, "TOKEN=NUMBER: added to a token's logit, -inf forbids it. TOKEN is an id, or "
              "the text of one token, in quotes when it is digits (may be given several times)").repeatable();
  line.option("--seed", arguments.seed, "the same seed writes the same text").not_negative();
  line.option("--max-tokens", arguments.max_tokens, "tokens written at most; without it 256").between(0, 1 << 24);
  line.option("--stop", arguments.stop, "a text or special token that ends the writing (may be given several times)")
      .repeatable();
  line.option("--prefill-rows", arguments.prefill_rows, "tokens of a prompt that are read in one pass, which bounds the memory of long ones; without it 1024").between(1, 1 << 24);
  line.flag("--ignore-end", arguments.ignore_end, "write on past the end of the text");
  line.option("--fact", arguments.facts, "name=number: what a router asks about the text, such as domain=2")
      .repeatable();
  line.option("--dtype", arguments.dtype, "type of the weights in memory: float32, bfloat16, float16; default as stored, or float32 where tensors are of several types and config.json says so");
  add_activations_option(line, arguments.activations);
  add_set_option(line, arguments.set);
  add_adapter_options(line, arguments.adapters);
}

void add_set_option(CommandLine& line, std::vector<std::string>& set) {
  line.option("--set", set, "KEY=VALUE: another value of one of the model's options, which `switchyard show DIR --options` lists: mixtures.0.router.k=4 lets four "
              "experts work (may be given several times)").repeatable();
}

void add_activations_option(CommandLine& line, std::string& activations) {
  line.option("--activations", activations, "int8: float32 rows are rounded to 8 bits where they meet packed weights, as bfloat16 rows always are; faster. "
              "Default exact");
}

namespace {

template <typename T>
bool whole_number(std::string_view word, T& value) {
  const auto [rest, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  return !word.empty() && error == std::errc() && rest == word.data() + word.size();
}

/// The token that a word of --logit-bias names.
int64_t named_token(const std::string& word, const std::string& option, const Tokenizer* tokenizer) {
  int64_t id = 0;
  if (whole_number(word, id)) return id;
  check(tokenizer != nullptr, "infer.tokenizer", "--logit-bias {}: the model has no tokenizer, so a token is named by its id", option);
  const bool quoted = word.size() > 2 && (word.front() == '"' || word.front() == '\'') && word.back() == word.front();
  const std::string text = quoted ? word.substr(1, word.size() - 2) : word;
  const std::vector<int64_t> ids = tokenizer->encode(text);
  if (ids.size() == 1) return ids.front();
  if (const std::optional<int64_t> known = tokenizer->id_of(text)) return *known;
  fail("program.usage", "--logit-bias {}: '{}' is no single token but {}: {}; give ids", option, text, ids.size(), fmt::join(ids, ", "));
}

void add_bias(const std::string& option, const LanguageModel& model, GenerateOptions& options) {
  const size_t equals = option.rfind('=');
  double bias = 0;
  check(equals != std::string::npos && equals > 0 && whole_number(std::string_view(option).substr(equals + 1), bias) && !std::isnan(bias) &&
            !(std::isinf(bias) && bias > 0),
        "program.usage", "--logit-bias {} is not TOKEN=NUMBER", option);
  const int64_t id = named_token(option.substr(0, equals), option, model.tokenizer());
  check(id >= 0 && id < model.vocabulary(), "program.usage", "--logit-bias {}: the vocabulary has {} tokens", option, model.vocabulary());
  options.logit_bias[id] = bias;
}

}  // namespace

GenerateOptions generate_options(const GenerationArguments& arguments, const AdaptedModel& model) {
  GenerateOptions options;
  options.temperature = 0.8;
  options.top_p = 0.95;
  const GenerationConfig config = read_generation_config(model.network().loaded().folder);
  config.apply(options);
  if (!config.ignored.empty())
    log_warning(fmt::format("generation_config.json asks for {}, which is not done here", fmt::join(config.ignored, ", ")));
  const auto given = [](const auto& argument, auto& option) {
    if (argument) option = *argument;
  };
  given(arguments.temperature, options.temperature);
  given(arguments.top_k, options.top_k);
  given(arguments.top_p, options.top_p);
  given(arguments.min_p, options.min_p);
  given(arguments.typical, options.typical);
  given(arguments.repetition_penalty, options.repetition_penalty);
  given(arguments.max_tokens, options.max_tokens);
  given(arguments.prefill_rows, options.prefill_rows);
  options.presence_penalty = arguments.presence_penalty;
  options.frequency_penalty = arguments.frequency_penalty;
  options.seed = arguments.seed;
  options.ignore_end = arguments.ignore_end;
  for (const std::string& stop : arguments.stop) check(!stop.empty(), "program.usage", "--stop is empty; nothing would be written");
  if (!arguments.stop.empty()) options.stop = arguments.stop;
  if (model.tokenizer() == nullptr && arguments.stop.empty()) options.stop.clear();
  for (const std::string& bias : arguments.logit_bias) add_bias(bias, model, options);
  for (const std::string& fact : arguments.facts) {
    const size_t equals = fact.find('=');
    int64_t value = 0;
    check(equals != std::string::npos && equals > 0 && whole_number(std::string_view(fact).substr(equals + 1), value), "program.usage",
          "--fact {} is not name=number", fact);
    options.facts[fact.substr(0, equals)] = value;
  }
  return options;
}

std::shared_ptr<const AdaptedModel> open_model(const std::string& folder, const ModelArguments& arguments) {
  const auto& [dtype, activations, set, adapters] = arguments;
  check(activations.empty() || activations == "exact" || activations == "int8", "program.usage", "--activations {} is neither exact nor int8", activations);
  LoadedModel loaded = load_model(folder, dtype.empty() ? type_of_mixed(folder) : std::optional(dtype_named(dtype)), set);
  if (activations == "int8") kernels::round_rows(loaded.decoder->schema());
  auto model = std::make_shared<AdaptedModel>(std::move(loaded));
  give_back_code();  // what reading a model's files needed
  use_adapters(*model, adapters);
  return model;
}

double seconds_since_start() {
  // The 22nd word of /proc/self/stat, counted behind the name in brackets: ticks from the machine's start to the process's.
  std::ifstream file("/proc/self/stat");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::istringstream words(text.substr(std::min(text.size(), text.rfind(')') + 1)));
  std::string word;
  for (int i = 0; i < 20; ++i) words >> word;
  double ticks = 0;
  timespec now{};
  if (!whole_number(std::string_view(word), ticks) || ::clock_gettime(CLOCK_BOOTTIME, &now) != 0) return 0;
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9 - ticks / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

}  // namespace switchyard::program
