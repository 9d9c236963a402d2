#include "switchyard/formats/tokenizer.h"
#include "tests/fuzz/target.h"

namespace {

void tokenizer_model(std::string_view bytes) {
  using namespace switchyard;
  load_tokenizer(fuzz::as_file("tokenizer.model", bytes))->encode("Hello, wörld 123\n");
}

}  // namespace

SWITCHYARD_FUZZ_TARGET(tokenizer_model, {"tokenizers/"})
