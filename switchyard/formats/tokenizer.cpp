#include "switchyard/formats/tokenizer.h"

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/formats/piece_tokenizer.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {

std::string Tokenizer::decode(const std::vector<int64_t>& ids) const { return utf8_repair(bytes(ids)); }

std::string TextStream::push(int64_t id) {
  std::vector<int64_t> both = last_;
  both.push_back(id);
  held_ += tokenizer_.bytes(both).substr(tokenizer_.bytes(last_).size());
  last_ = {id};
  const size_t certain = held_.size() - utf8_unfinished(held_);
  std::string text = utf8_repair(std::string_view(held_).substr(0, certain));
  held_.erase(0, certain);
  return text;
}

std::string TextStream::flush() {
  std::string text = utf8_repair(held_);
  held_.clear();
  last_.clear();
  return text;
}

void TokenizerOptions::describe(Fields<TokenizerOptions>& f) {
  f.title("Tokenizer", "How text becomes token ids.");
  f("from", &TokenizerOptions::from, "folder of an existing tokenizer; empty = train one on the data");
  f("kind", &TokenizerOptions::kind, "byte-pair encoding or the unigram model").choices({"bpe", "unigram"});
  f("vocabulary", &TokenizerOptions::vocabulary, "tokens, special tokens and 256 bytes included").range(384, 1 << 20).unit("tokens");
  f("sample_bytes", &TokenizerOptions::sample_bytes, "text that training looks at, spread over the domains")
      .range(1, 1LL << 34).unit("bytes");
}

std::shared_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& folder) {
  const auto file = folder / "tokenizer.json";
  check(std::filesystem::exists(file), "tokenizer.missing", "{} holds no tokenizer.json", folder.string());
  PieceTable table = piece_table_from_json(read_file(file, uint64_t{1} << 28), file.string());
  if (const auto model = folder / "tokenizer.model"; std::filesystem::exists(model))
    table.sentencepiece = read_file(model, uint64_t{1} << 28);
  return std::make_shared<PieceTokenizer>(std::move(table));
}

}  // namespace switchyard
