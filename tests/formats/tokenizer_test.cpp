#include "switchyard/formats/tokenizer.h"

#include <filesystem>
#include <fstream>

#include "switchyard/base/files.h"
#include "switchyard/formats/piece_tokenizer.h"
#include "switchyard/formats/utf8.h"
#include "tests/support.h"

namespace switchyard {
namespace {

std::shared_ptr<Tokenizer> train(TokenizerKind kind, int64_t vocabulary) {
  std::vector<std::string> texts;
  const std::filesystem::path source(SWITCHYARD_SOURCE_DIR);
  texts.push_back(read_file(source / "docs/design.md"));
  texts.push_back(read_file(source / "switchyard/base/options.cpp"));
  size_t at = 0;
  return train_tokenizer({.kind = kind, .vocabulary = vocabulary}, [&](std::string& text) {
    if (at == texts.size()) return false;
    text = texts[at++];
    return true;
  });
}

TEST(Tokenizer, RoundTrips) {
  for (auto kind : {TokenizerKind::bpe, TokenizerKind::unigram}) {
    auto tokenizer = train(kind, 800);
    EXPECT_EQ(tokenizer->vocabulary(), 800);
    for (std::string text : {"", "a", "   x  y\n\n\tz ", "▁ ▁", "<0x0A></s><|end|>", "naïve Ωμέγα 漢字 😀\r\n"})
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
}

}  // namespace
}  // namespace switchyard
