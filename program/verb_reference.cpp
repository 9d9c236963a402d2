// switchyard reference: every option of a recipe and of every method, from
// their one description.
#include <fmt/format.h>

#include "program/verb.h"
#include "switchyard/base/error.h"
#include "switchyard/base/registry.h"
#include "switchyard/train/recipe.h"

namespace switchyard::program {

namespace {

std::string methods_markdown() {
  std::string out;
  for (const std::string& interface : Registry::instance().interfaces()) {
    out += fmt::format("## Methods: {}\n\n", interface);
    for (const Method* method : Registry::instance().of(interface)) {
      out += fmt::format("### `{}` as {}\n\n{}: {}.\n\n", method->card.slug, interface, method->card.name,
                         method->card.line);
      Description options = method->defaults();
      if (options.fields.empty()) {
        out += "No options.\n\n";
        continue;
      }
      // The heading is written already; the tables follow it, nested groups a
      // level below.
      const std::string section = reference_markdown(options, 3);
      out += section.substr(section.find('\n') + 2);
    }
  }
  return out;
}

std::string markdown() {
  std::string page =
      "# Reference of options\n\nWritten by `switchyard reference --markdown` "
      "from the descriptions that also read and check every recipe. "
      "A dotted path such as `train.optimiser.lr=3e-4` on the command line "
      "sets one value; `include: other.yaml` takes over another "
      "file's settings. Where an option takes a method, write its slug, or a "
      "map with `type: SLUG` and the method's own options.\n\n";
  page += reference_markdown(described_defaults<Recipe>(), 2) + methods_markdown();
  while (page.ends_with("\n\n")) page.pop_back();
  return page;
}

}  // namespace

Verb reference_verb() {
  return {.name = "reference",
          .summary = "every option of a recipe, as text, a page, or a JSON schema",
          .example = "switchyard reference --schema > recipe.schema.json",
          .setup = [](CommandLine& line) -> std::function<int()> {
            struct Arguments {
              bool markdown = false, schema = false;
            };
            auto given = std::make_shared<Arguments>();
            const Argument page = line.flag("--markdown", given->markdown, "the documentation's reference page, with every method");
            line.flag("--schema", given->schema, "JSON schema of recipes, for editors").excludes(page);
            return [given] {
              if (given->schema)
                print(json_schema(described_defaults<Recipe>(), "Switchyard recipe"));
              else if (given->markdown)
                print(markdown());
              else
                print(help_text(described_defaults<Recipe>()));
              return 0;
            };
          }};
}

}  // namespace switchyard::program
