#include "switchyard/inspect/description.h"
#include "tests/fuzz/target.h"

namespace {

void adapter_config(std::string_view bytes) { switchyard::describe(switchyard::fuzz::as_file("adapter_config.json", bytes)); }

}  // namespace

SWITCHYARD_FUZZ_TARGET(adapter_config, {"peft/"})
