#include "switchyard/base/node.h"
#include "tests/fuzz/target.h"

namespace {

/// A recipe's text; what was read must be written so that it reads again.
void yaml_recipe(std::string_view bytes) {
  using namespace switchyard;
  const Node node = parse_yaml(bytes, "input");
  parse_yaml(to_yaml(node), "written");
}

}  // namespace

SWITCHYARD_FUZZ_TARGET(yaml_recipe, {"../../recipes/"})
