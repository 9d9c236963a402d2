// switchyard catalog: the methods that recipes can name, from the cards beside their code.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "program/verb.h"
#include "switchyard/base/error.h"
#include "switchyard/base/json.h"
#include "switchyard/base/registry.h"
#include "switchyard/models/families/family.h"
#include "switchyard/models/families/gguf/architecture.h"

namespace switchyard::program {

namespace {

using Json = nlohmann::ordered_json;

/// The interfaces that the method of this card implements; empty for a preset.
std::vector<const Method*> methods_of(const Card& card) {
  std::vector<const Method*> found;
  for (const std::string& interface : Registry::instance().interfaces())
    for (const Method* method : Registry::instance().of(interface))
      if (method->card.slug == card.slug) found.push_back(method);
  return found;
}

std::string roles(const Card& card) {
  std::vector<std::string> names;
  for (const Method* method : methods_of(card)) names.push_back(method->interface);
  return names.empty() ? "preset" : fmt::format("{}", fmt::join(names, ", "));
}

std::map<std::string, std::vector<const Card*>> by_room() {
  std::map<std::string, std::vector<const Card*>> rooms;
  for (const Card* card : Registry::instance().cards()) rooms[card->room].push_back(card);
  return rooms;
}

std::string source(const Card& card) {
  if (card.paper.empty()) return card.year ? std::to_string(card.year) : "";
  return card.year ? fmt::format("{} ({})", card.paper, card.year) : card.paper;
}

Json json_of(const Card& card) {
  Json out{{"slug", card.slug},         {"name", card.name},       {"paper", card.paper},
           {"year", card.year},         {"section", card.section}, {"room", card.room},
           {"coupling", card.coupling}, {"line", card.line},       {"recipe", card.recipe}};
  out["interfaces"] = Json::array();
  for (const Method* method : methods_of(card)) out["interfaces"].push_back(method->interface);
  return out;
}

std::string list_text() {
  std::string out;
  for (const auto& [room, cards] : by_room()) {
    out += room + "\n";
    for (const Card* card : cards) out += fmt::format("  {:<24}{}\n", card->slug, card->line);
  }
  return out + fmt::format("\n{} methods; `switchyard catalog SLUG` shows one.\n", Registry::instance().cards().size());
}

std::string card_text(const Card& card) {
  std::string out = fmt::format("{} ({})\n{}\n\n", card.name, card.slug, card.line);
  auto row = [&](const char* name, const std::string& value) {
    if (!value.empty()) out += fmt::format("{:<10}{}\n", name, value);
  };
  row("is", roles(card));
  row("paper", source(card));
  row("survey", card.section);
  row("room", "switchyard/" + card.room);
  row("looks at", card.coupling == "none" ? "its own row" : card.coupling.empty() ? "" : "the " + card.coupling);
  row("recipe", card.recipe);
  for (const Method* method : methods_of(card)) {
    const Description options = method->defaults();
    out += fmt::format("\nOptions as a {}:\n{}", method->interface,
                       options.fields.empty() ? "  none\n" : help_text(options));
  }
  return out;
}

std::string cell(std::string text) {
  for (size_t i = 0; (i = text.find('|', i)) != std::string::npos; i += 2) text.insert(i, "\\");
  return text;
}

std::string markdown() {
  std::string out = fmt::format(
      "# Catalogue\n\nWritten by `switchyard catalog --markdown`; {} methods. A recipe names a method by its slug; its "
      "options are in "
      "[reference.md](reference.md).\n",
      Registry::instance().cards().size());
  for (const auto& [room, cards] : by_room()) {
    out += fmt::format(
        "\n## {}\n\n| slug | name | what it does | is | source | survey | recipe |\n| --- | --- | --- | --- | --- | "
        "--- | --- |\n",
        room);
    for (const Card* card : cards)
      out +=
          fmt::format("| `{}` | {} | {} | {} | {} | {} | {} |\n", card->slug, cell(card->name), cell(card->line),
                      roles(*card), cell(source(*card)), card->section,
                      card->recipe.empty()
                          ? ""
                          : fmt::format("[{}](../{})", card->recipe.substr(card->recipe.rfind('/') + 1), card->recipe));
  }
  return out;
}

/// docs/models.md: what the registered families say of themselves.
std::string models_markdown() {
  std::string out =
      "# Published models\n\nWritten by `switchyard catalog --models` from the families' own descriptions; a test holds every model type below "
      "to all of it.\n\n"
      "A folder of any of these loads as it is published: one file or shards, float32, bfloat16 or float16, config keys of library 4 or 5, experts "
      "one by one or fused. It runs and decodes from its cache (`switchyard generate DIR`, `logits`, `chat`), trains from a recipe (`from: DIR`), and is "
      "given back by `switchyard convert export` under the same names and keys, bit for bit. Folders in FP8 blocks and MXFP4 load as the models "
      "they stand for. Keys that change what a model computes and are not supported are refused by name; keys that cannot matter are reported "
      "once.\n\n"
      "Models with an encoder read the prompt with it, write from the config's start token, and train by `span-corruption`; Switch and NLLB-MoE, and "
      "OpenMoE, limit places in evaluation too, so each step of theirs computes its sequence again. BERT and ViT do not write: they are asked by "
      "`logits`, and BERT trains by `masked-lm`; recipes have no images for ViT.\n\n"
      "Where a container's architecture is named, GGUF files of it load, `switchyard convert gguf` writes them, and `convert quantize` packs "
      "their weights. Of BERT, llama.cpp reads files of models that name classes; one that names hidden tokens keeps its head under the hub's names.\n\n"
      "Where implementations of a family disagree, the code that came with its weights is followed. `--set KEY=VALUE` takes another side, as it changes any option "
      "that `switchyard show DIR --options` lists: `mixtures.0.combine.overflow=scaled_identity` for a Switch Transformer whose tokens without a place pass "
      "times their probability, `attention.yarn_scale=false` for a DeepSeek-V2 without the square of YaRN's factor in its scores. What is exported so says "
      "so in its config.\n\n"
      "The decays of MiniMax-Text-01's lightning attention follow from its config, as in its own code. transformers writes tables of them among the "
      "weights and reads them, rounded in a folder in bfloat16: `--set attention.table_rows=256`, with the config's block_size, reads them here too.\n\n"
      "| family | `model_type` | GGUF | what is its own | source | survey |\n| --- | --- | --- | --- | --- | --- |\n";
  for (const Method* method : Registry::instance().of(Family::kInterface)) {
    const Card& card = method->card;
    std::vector<std::string> types, containers;
    for (const std::string& type : Registry::instance().make<Family>(card.slug, Node::map())->model_types()) {
      types.push_back("`" + type + "`");
      const gguf::Architecture* architecture = gguf::architecture_of(type);
      const std::string name = architecture ? "`" + architecture->name + "`" : "";
      if (architecture && std::find(containers.begin(), containers.end(), name) == containers.end()) containers.push_back(name);
    }
    out += fmt::format("| {} | {} | {} | {} | {} | {} |\n", cell(card.name), fmt::join(types, ", "), fmt::join(containers, ", "), cell(card.line),
                       cell(source(card)), card.section);
  }
  return out;
}

const Card& find(const std::string& slug) {
  if (const Card* card = Registry::instance().card(slug)) return *card;
  std::vector<std::string> slugs;
  for (const Card* card : Registry::instance().cards()) slugs.push_back(card->slug);
  const std::string near = nearest(slug, slugs);
  fail("registry.unknown", "the catalogue has no method '{}'{}; `switchyard catalog` lists all", slug,
       near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
}

}  // namespace

Verb catalog_verb() {
  return {.name = "catalog",
          .summary = "the methods that recipes can name",
          .example = "switchyard catalog switch-top1",
          .setup = [](CommandLine& line) -> std::function<int()> {
            struct Arguments {
              std::string slug;
              bool json = false, markdown = false, models = false;
            };
            auto given = std::make_shared<Arguments>();
            line.option("slug", given->slug, "show this method's card and options");
            const Argument as_json = line.flag("--json", given->json, "the cards as JSON");
            line.flag("--markdown", given->markdown, "the documentation's catalogue page").excludes(as_json);
            line.flag("--models", given->models, "the documentation's page of published models").excludes(as_json);
            return [given] {
              const Arguments& a = *given;
              if (a.models) {
                check(a.slug.empty() && !a.markdown, "program.usage", "--models writes its page alone");
                print(models_markdown());
              } else if (!a.slug.empty()) {
                check(!a.markdown, "program.usage", "--markdown writes the whole page; leave out the slug '{}'",
                      a.slug);
                print(a.json ? json_text(json_of(find(a.slug)), 2) + "\n" : card_text(find(a.slug)));
              } else if (a.json) {
                Json all = Json::array();
                for (const Card* card : Registry::instance().cards()) all.push_back(json_of(*card));
                print(json_text(all, 2) + "\n");
              } else {
                print(a.markdown ? markdown() : list_text());
              }
              return 0;
            };
          }};
}

}  // namespace switchyard::program
