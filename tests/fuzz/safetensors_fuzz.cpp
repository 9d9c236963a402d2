#include "switchyard/formats/safetensors_header.h"
#include "tests/fuzz/target.h"

namespace {

void safetensors(std::string_view bytes) {
  switchyard::safetensors::read_header(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), "input");
}

}  // namespace

SWITCHYARD_FUZZ_TARGET(safetensors, {"safetensors/", "malformed/st-"})
