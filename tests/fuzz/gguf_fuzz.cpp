#include "switchyard/formats/gguf_header.h"
#include "switchyard/formats/tokenizer.h"
#include "switchyard/models/families/gguf/hub_view.h"
#include "tests/fuzz/target.h"

namespace {

/// The header; of a file that has a good one also what a model and a tokenizer are made from.
void gguf(std::string_view bytes) {
  using namespace switchyard;
  gguf::read_header(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), "input");
  const std::filesystem::path file = fuzz::as_file("model.gguf", bytes) / "model.gguf";
  try {
    const HubView view = hub_view(std::make_shared<Gguf>(file));
    for (const TensorInfo& info : view.weights->tensors()) view.weights->get(info.name);
  } catch (const Error&) {
  }
  load_tokenizer(file)->encode("Hello, wörld 123\n");
}

}  // namespace

SWITCHYARD_FUZZ_TARGET(gguf, {"gguf/vocabulary/", "gguf/", "malformed/gguf-"})
