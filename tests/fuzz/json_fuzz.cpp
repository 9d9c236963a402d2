#include "switchyard/base/node.h"
#include "tests/fuzz/target.h"

namespace {

void json_settings(std::string_view bytes) {
  using namespace switchyard;
  parse_json(to_json(parse_json(bytes, "input")), "written");
}

}  // namespace

SWITCHYARD_FUZZ_TARGET(json_settings, {"mixtral/config.json", "olmoe/config.json", "malformed/cfg-", "malformed/idx-"})
