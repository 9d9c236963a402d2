#include "switchyard/formats/safetensors.h"
#include "tests/fuzz/target.h"

namespace {

void safetensors_index(std::string_view bytes) {
  using namespace switchyard;
  const Safetensors folder(fuzz::as_file("model.safetensors.index.json", bytes));
}

}  // namespace

SWITCHYARD_FUZZ_TARGET(safetensors_index, {"malformed/idx-", "safetensors/sharded/model.safetensors.index.json"})
