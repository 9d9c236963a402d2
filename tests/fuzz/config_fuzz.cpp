#include "switchyard/base/node.h"
#include "switchyard/inspect/description.h"
#include "switchyard/models/families/family.h"
#include "tests/fuzz/target.h"

namespace {

/// A published config.json, read as `show` does and as the options of the family that it names.
void model_config(std::string_view bytes) {
  using namespace switchyard;
  const Node config = parse_json(bytes, "config.json");
  const Node* type = config.is_map() ? config.find("model_type") : nullptr;
  if (!type || !type->is_scalar()) return;
  try {
    describe(fuzz::as_file("config.json", bytes));
  } catch (const Error&) {
  }
  if (const std::shared_ptr<Family> family = family_of(type->scalar())) family->read(config);
}

}  // namespace

SWITCHYARD_FUZZ_TARGET(model_config, {"llama/config.json", "mixtral/config.json", "olmoe/config.json", "qwen", "mistral/config.json", "malformed/cfg-"})
