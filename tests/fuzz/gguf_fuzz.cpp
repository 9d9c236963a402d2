#include "switchyard/formats/gguf_header.h"
#include "tests/fuzz/target.h"

namespace {

void gguf(std::string_view bytes) {
  switchyard::gguf::read_header(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), "input");
}

}  // namespace

SWITCHYARD_FUZZ_TARGET(gguf, {"gguf/", "malformed/gguf-"})
