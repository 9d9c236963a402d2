#include "program/generation.h"

#include <charconv>

#include "switchyard/base/error.h"

namespace switchyard::program {

void add_generation_options(CLI::App& app, GenerationArguments& arguments) {
  app.add_option("--temperature", arguments.temperature, "0 = always the most probable token; higher = more daring")
      ->check(CLI::Range(0.0, 100.0));
  app.add_option("--top-k", arguments.top_k, "only the k most probable tokens; 0 = all")->check(CLI::Range(0, 1 << 24));
  app.add_option("--top-p", arguments.top_p, "only the fewest most probable tokens whose probabilities sum to p")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--min-p", arguments.min_p, "only tokens with at least this share of the highest probability")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--seed", arguments.seed, "the same seed writes the same text")->check(CLI::NonNegativeNumber);
  app.add_option("--max-tokens", arguments.max_tokens, "tokens written at most")->check(CLI::Range(0, 1 << 24));
  app.add_option("--stop", arguments.stop, "a text that ends the writing (may be given several times)")->expected(1)->take_all();
  app.add_option("--fact", arguments.facts, "name=number: what a router asks about the text, such as domain=2")
      ->expected(1)->take_all();
  app.add_option("--dtype", arguments.dtype, "type of the weights in memory: float32, bfloat16, float16; default as stored");
  add_adapter_options(app, arguments.adapters);
}

GenerateOptions generate_options(const GenerationArguments& arguments) {
  GenerateOptions options;
  options.temperature = arguments.temperature;
  options.top_k = arguments.top_k;
  options.top_p = arguments.top_p;
  options.min_p = arguments.min_p;
  options.seed = arguments.seed;
  options.max_tokens = arguments.max_tokens;
  options.stop = arguments.stop;
  for (const std::string& fact : arguments.facts) {
    const size_t equals = fact.find('=');
    int64_t value = 0;
    const char *begin = fact.data() + std::min(equals, fact.size() - 1) + 1, *end = fact.data() + fact.size();
    const auto [rest, error] = std::from_chars(begin, end, value);
    check(equals != std::string::npos && equals > 0 && error == std::errc() && rest == end, "program.usage",
          "--fact {} is not name=number", fact);
    options.facts[fact.substr(0, equals)] = value;
  }
  return options;
}

std::shared_ptr<const AdaptedModel> open_model(const std::string& folder, const std::string& dtype,
                                               const AdapterArguments& adapters) {
  auto model = std::make_shared<AdaptedModel>(load_model(folder, dtype.empty() ? std::nullopt : std::optional(dtype_named(dtype))));
  use_adapters(*model, adapters);
  return model;
}

}  // namespace switchyard::program
