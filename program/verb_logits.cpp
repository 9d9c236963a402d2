// switchyard logits: one forward of a padded batch, to compare with another implementation.
#include <fmt/format.h>

#include "program/generation.h"
#include "program/verb.h"
#include "switchyard/base/error.h"
#include "switchyard/base/options.h"
#include "switchyard/infer/named_outputs.h"

namespace switchyard::program {

namespace {

struct Arguments : ModelArguments {
  std::string model, input, output;
  std::vector<std::string> with;
};

int write_logits(const Arguments& arguments) {
  NamedOutputsOptions options;
  for (const std::string& word : arguments.with) {
    if (word == "hidden") options.hidden = true;
    else if (word == "routing") options.routing = true;
    else if (word == "scalings") options.scalings = true;
    else fail("program.usage", "--with {} is none of hidden, routing, scalings", word);
  }
  const Safetensors input(arguments.input);
  if (input.has(kAdapterFact)) options.facts.emplace_back(kAdapterFact, input.get(kAdapterFact));
  const std::shared_ptr<const AdaptedModel> model = open_model(arguments.model, arguments);
  write_safetensors(arguments.output, named_outputs(*model, named_inputs(input), options));
  return 0;
}

}  // namespace

Verb logits_verb() {
  return {.name = "logits",
          .summary = "logits, hidden states and routing of given token ids, for comparison",
          .example = "switchyard logits DIR --input ids.safetensors --output out.safetensors --with hidden,routing",
          .computes = true,
          .setup = [](CommandLine& line) -> std::function<int()> {
            auto arguments = std::make_shared<Arguments>();
            arguments->dtype = "float32";
            line.option("model", arguments->model, "folder of a run, a checkpoint or a model").required();
            line.option("--input", arguments->input, "safetensors with input_ids [B, S] (or [S]), if padded attention_mask [B, S], token_type_ids where the model has "
                        "types, decoder_input_ids [B, T] where it has an encoder; or pixel_values [B, C, H, W]; and adapter [B] when each row "
                        "uses one of the adapters by its place (-1 = none)")
                .required();
            line.option("--output", arguments->output,
                        "safetensors to write: logits [B, S, V] (or [B, classes]) and what --with asks for").required();
            line.option("--with", arguments->with, "hidden: hidden_states.{i}; routing: router_logits, topk_ids and "
                        "topk_weights of every layer; scalings: an X-LoRA's").by_comma();
            add_set_option(line, arguments->set);
            add_adapter_options(line, arguments->adapters);
            line.option("--dtype", arguments->dtype, "type of the weights: float32, bfloat16, float16, float64");
            return [arguments] { return write_logits(*arguments); };
          }};
}

}  // namespace switchyard::program
