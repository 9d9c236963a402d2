#include "switchyard/formats/tokenizer.h"
#include "tests/fuzz/target.h"

namespace {

void tiktoken(std::string_view bytes) {
  using namespace switchyard;
  load_tokenizer(fuzz::as_file("tiktoken.model", bytes))->encode("Hello, wörld 123\n");
}

}  // namespace

SWITCHYARD_FUZZ_TARGET(tiktoken, {"tokenizers/kimi"})
