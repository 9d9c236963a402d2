#include "switchyard/data/cache.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cctype>
#include <unordered_set>

#include "switchyard/base/error.h"
#include "switchyard/base/json.h"
#include "switchyard/base/progress.h"
#include "switchyard/data/sources.h"

namespace switchyard {
namespace fs = std::filesystem;
namespace {

constexpr int kLayoutVersion = 1;  // raise when filters or the layout of the files change
constexpr size_t kBatchBytes = size_t{4} << 20;

/// Everything that the tokens depend on.
nlohmann::json origin(const DomainOptions& domain, const DataOptions& options, const Tokenizer& tokenizer,
                      const std::vector<SourceFile>& files) {
  uint64_t hash = stable_hash("");
  for (const SourceFile& file : files)
    hash = stable_hash(fmt::format("{}\n{}\n{}\n", file.path.string(), file.bytes, file.modified), hash);
  return {{"layout", kLayoutVersion},
          {"files", files.size()},
          {"files_hash", hash},
          {"format", static_cast<int>(domain.format)},
          {"field", domain.field},
          {"filter", domain.filter},
          {"limit_bytes", domain.limit_bytes},
          {"document_bytes", options.document_bytes},
          {"held_out", options.held_out},
          {"vocabulary", tokenizer.vocabulary()},
          {"tokenizer", tokenizer.fingerprint()}};
}

int64_t token_bytes(const Tokenizer& tokenizer) { return tokenizer.vocabulary() <= 65536 ? 2 : 4; }

std::string folder_name(const std::string& domain, const nlohmann::json& made_from) {
  std::string name = domain;
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_') c = '-';
  return fmt::format("{}-{:016x}", name, stable_hash(json_text(made_from)));
}

TokenisedDomain open_folder(const fs::path& folder, const Tokenizer& tokenizer) {
  const auto open = [&](const char* side) {
    return std::make_unique<TokenFile>(folder, side, token_bytes(tokenizer), tokenizer.vocabulary());
  };
  return {open("training"), open("held_out")};
}

/// Writes the documents of a domain, tokenised a few megabytes at a time.
class DomainWriter {
 public:
  DomainWriter(const fs::path& folder, double held_out, const Tokenizer& tokenizer)
      : tokenizer_(tokenizer), share_(held_out), training_(folder, "training", token_bytes(tokenizer)),
        held_out_(folder, "held_out", token_bytes(tokenizer)) {}

  void add(std::string document) {
    if (!seen_.insert(stable_hash(document)).second) {
      ++duplicates_;
      return;
    }
    waiting_bytes_ += document.size();
    waiting_.push_back(std::move(document));
    if (waiting_bytes_ > kBatchBytes) encode();
  }

  void commit() {
    encode();
    training_.commit();
    held_out_.commit();
  }

  int64_t training_documents() const { return training_.documents(); }
  int64_t held_out_documents() const { return held_out_.documents(); }
  int64_t tokens() const { return training_.tokens() + held_out_.tokens(); }
  int64_t duplicates() const { return duplicates_; }

 private:
  void encode() {
    std::vector<std::vector<int64_t>> tokens(waiting_.size());
    at::parallel_for(0, static_cast<int64_t>(waiting_.size()), 1, [&](int64_t first, int64_t last) {
      for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i) {
        if (const auto begin = tokenizer_.begin_id()) tokens[i].push_back(*begin);
        const std::vector<int64_t> text = tokenizer_.encode(waiting_[i]);
        tokens[i].insert(tokens[i].end(), text.begin(), text.end());
        if (const auto end = tokenizer_.end_id()) tokens[i].push_back(*end);
      }
    });
    for (size_t i = 0; i < waiting_.size(); ++i) (is_held_out(waiting_[i], share_) ? held_out_ : training_).add(tokens[i]);
    waiting_.clear();
    waiting_bytes_ = 0;
  }

  const Tokenizer& tokenizer_;
  double share_;
  TokenFileWriter training_, held_out_;
  std::vector<std::string> waiting_;
  size_t waiting_bytes_ = 0;
  std::unordered_set<uint64_t> seen_;
  int64_t duplicates_ = 0;
};

void check_found(const DomainOptions& domain, const ReadingCounts& counts, size_t files, const DomainWriter& writer) {
  if (counts.documents == 0) {
    check(counts.not_text == 0, "data.encoding",
          "domain \"{}\": nothing in its {} files is UTF-8 text ({} for example); convert them, or name a filter that reads them",
          domain.name, files, counts.example);
    fail("data.empty", "domain \"{}\": its {} files hold no text", domain.name, files);
  }
  check(writer.training_documents() > 0, "data.empty",
        "domain \"{}\": all its documents ({}) are held out; give it more text, lower data.held_out or data.document_bytes",
        domain.name, writer.held_out_documents());
  if (counts.not_text > 0)
    log_warning(fmt::format("domain \"{}\": {} documents left out because they are no UTF-8 text ({} for example)", domain.name,
                            counts.not_text, counts.example));
  if (counts.repaired > 0)
    log_warning(fmt::format("domain \"{}\": invalid UTF-8 replaced in {} documents", domain.name, counts.repaired));
}

void tokenise(const DomainOptions& domain, const DataOptions& options, const Tokenizer& tokenizer,
              const std::vector<SourceFile>& files, const fs::path& folder) {
  DocumentReader reader(domain, files, options.document_bytes);
  DomainWriter writer(folder, options.held_out, tokenizer);
  const std::string task = fmt::format("tokenising {}", domain.name);
  const int64_t total = domain.limit_bytes > 0 ? domain.limit_bytes : reader.total_bytes();
  int64_t shown = 0;
  for (std::string document; reader.next(document);) {
    writer.add(std::move(document));
    const int64_t done = domain.limit_bytes > 0 ? reader.counts().bytes : reader.bytes_read();
    if (done - shown >= total / 100 + 1) {
      reporter().progress(task, done, total, {});
      shown = done;
      check(!interrupted(), "data.interrupted", "interrupted while tokenising domain \"{}\"; nothing of it was kept", domain.name);
    }
  }
  writer.commit();
  reporter().finished(task);
  check_found(domain, reader.counts(), files.size(), writer);
  log_info(fmt::format("domain \"{}\": {} documents, {} tokens; {} documents held out, {} exact duplicates left out", domain.name,
                       writer.training_documents() + writer.held_out_documents(), writer.tokens(), writer.held_out_documents(),
                       writer.duplicates()));
}

}  // namespace

bool is_held_out(std::string_view document, double share) {
  // The last step spreads the hash's low bits over all of it.
  const uint64_t hash = (stable_hash(document) ^ 0x9E3779B97F4A7C15ULL) * 0xBF58476D1CE4E5B9ULL;
  return static_cast<double>((hash ^ (hash >> 31)) >> 11) * 0x1p-53 < share;
}

TokenisedDomain open_domain(const DomainOptions& domain, const DataOptions& options, const Tokenizer& tokenizer) {
  const std::vector<SourceFile> files = find_sources(domain, options.missing_ok);
  if (files.empty()) return {};
  const nlohmann::json made_from = origin(domain, options, tokenizer, files);
  const fs::path cache = options.cache.empty() ? fs::path(".cache") / "data" : fs::path(options.cache);
  const fs::path folder = cache / folder_name(domain.name, made_from);
  if (fs::exists(folder / "about.json")) {
    try {
      if (json_if_valid(read_file(folder / "about.json", 1 << 20)) == made_from)
        return open_folder(folder, tokenizer);
    } catch (const Error& error) {
      log_warning(fmt::format("domain \"{}\" is tokenised again: {}", domain.name, error.message()));
    }
  }
  try {
    std::error_code error;
    fs::create_directories(cache, error);
    check(!error, "file.write", "cannot make {}: {}", cache.string(), error.message());
    write_folder_atomically(folder, [&](const fs::path& temporary) {
      tokenise(domain, options, tokenizer, files, temporary);
      write_file_atomically(temporary / "about.json", json_text(made_from, 1) + "\n");
    });
  } catch (const Error& error) {
    if (error.code() != "file.write") throw;
    fail("data.cache", "domain \"{}\": {}; free some space or set data.cache to another folder", domain.name, error.message());
  }
  return open_folder(folder, tokenizer);
}

}  // namespace switchyard
