#include "switchyard/formats/tokenizer.h"

#include <algorithm>
#include <initializer_list>
#include <map>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/formats/gguf.h"
#include "switchyard/formats/gguf_header.h"
#include "switchyard/formats/tokenizers/gguf_vocabulary.h"
#include "switchyard/formats/tokenizers/pipeline.h"

namespace switchyard {

TextStream::TextStream(const Tokenizer& tokenizer, bool skip_special, const std::vector<int64_t>& shown)
    : decoder_(tokenizer.incremental(skip_special)) {
  for (const int64_t id : shown) (void)decoder_->push(id);
}

void TokenizerOptions::describe(Fields<TokenizerOptions>& f) {
  f.title("Tokenizer", "How text becomes token ids.");
  f("from", &TokenizerOptions::from, "folder of an existing tokenizer; empty = train one on the data");
  f("kind", &TokenizerOptions::kind, "byte-pair encoding or the unigram model").choices({"bpe", "unigram"});
  f("vocabulary", &TokenizerOptions::vocabulary, "tokens, special tokens and 256 bytes included").range(384, 1 << 20).unit("tokens");
  f("sample_bytes", &TokenizerOptions::sample_bytes, "text that training looks at, spread over the domains")
      .range(1, 1LL << 34).unit("bytes");
}

namespace {

namespace fs = std::filesystem;

constexpr uint64_t kLargestFile = uint64_t{1} << 28;

bool is_json(std::string_view bytes) {
  const size_t first = bytes.find_first_not_of(" \t\r\n");
  return first != std::string_view::npos && (bytes[first] == '{' || bytes[first] == '[');
}

std::map<std::string, std::string> read_files(const fs::path& folder, std::initializer_list<const char*> names) {
  std::map<std::string, std::string> files;
  for (const char* name : names)
    if (fs::is_regular_file(folder / name)) files[name] = read_file(folder / name, kLargestFile);
  return files;
}

TokenizerParts parts_of_content(const std::string& content, const std::map<std::string, std::string>& files, const fs::path& path) {
  const std::string source = path.string();
  if (path.extension() == ".json" || is_json(content)) return parts_from_json(content, files, source);
  if (is_rank_file(content)) return parts_from_tiktoken(content, files, source);
  return parts_from_sentencepiece(content, files, source);
}

std::shared_ptr<Tokenizer> load_file(const fs::path& path) {
  if (path.extension() == ".gguf") return make_tokenizer(parts_from_gguf(Gguf(path).metadata()));
  const std::string content = read_file(path, kLargestFile);
  std::map<std::string, std::string> files;
  if (path.extension() == ".json" || is_rank_file(content))
    files = read_files(path.parent_path(), {"tokenizer_config.json", "special_tokens_map.json"});
  TokenizerParts parts = parts_of_content(content, files, path);
  parts.files = std::move(files);
  parts.files[path.filename().string()] = content;
  return make_tokenizer(std::move(parts));
}

/// The first file of the folder with this ending, or an empty path.
fs::path first_with(const fs::path& folder, std::string_view extension) {
  fs::path first;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == extension && (first.empty() || entry.path() < first)) first = entry.path();
  return first;
}

/// Null when it holds none.
std::shared_ptr<Tokenizer> load_folder(const fs::path& path) {
  std::map<std::string, std::string> files =
      read_files(path, {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model", "spiece.model",
                        "sentencepiece.bpe.model", "tiktoken.model", "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt"});
  for (const char* name : {"tokenizer.json", "tiktoken.model", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"}) {
    if (!files.contains(name)) continue;
    TokenizerParts parts = parts_of_content(files[name], files, path / name);
    parts.files = std::move(files);
    return make_tokenizer(std::move(parts));
  }
  for (const fs::path& file : {first_with(path, ".tiktoken"), gguf::file_in(path)})
    if (!file.empty()) return load_file(file);
  return nullptr;
}

}  // namespace

std::shared_ptr<Tokenizer> load_tokenizer(const fs::path& path) {
  if (!fs::is_directory(path)) {
    check(fs::exists(path), "tokenizer.missing", "{} does not exist; a folder with tokenizer.json or a tokenizer file is wanted", path.string());
    check(fs::is_regular_file(path), "tokenizer.missing", "{} is no regular file", path.string());
    return load_file(path);
  }
  std::error_code none;
  for (const fs::path& folder : {path, path / "tokenizer"})
    if (fs::is_directory(folder, none))
      if (std::shared_ptr<Tokenizer> tokenizer = load_folder(folder)) return tokenizer;
  fail("tokenizer.missing", "{} holds no tokenizer.json (nor a tokenizer.model or tiktoken.model)", path.string());
}

}  // namespace switchyard
