// Real text as training batches: named domains of local files, tokenised once into memory-mapped
// token files, split by document hash, packed, sampled by weight, and resumable to the token.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/base/node.h"
#include "switchyard/base/options.h"
#include "switchyard/base/random.h"
#include "switchyard/data/batch.h"
#include "switchyard/formats/tokenizer.h"

namespace switchyard {

enum class TextFormat { automatic, text, jsonl };

/// One named source of documents.
struct DomainOptions {
  std::string name;
  std::vector<std::string> paths;   ///< files, folders and globs; .gz is unpacked
  TextFormat format = TextFormat::automatic;
  std::string field = "text";       ///< of a JSON line
  std::string filter;               ///< what makes documents of a file (data/filters.h): "manual-page", "gettext", ...; empty = none
  double weight = 1;                ///< share of the training tokens, relative to the others
  int64_t limit_bytes = 0;          ///< text read of this domain; 0 = all
  std::string package;              ///< the system package that brings the files, named in errors
  static void describe(Fields<DomainOptions>& f);
};

struct DataOptions {
  std::vector<DomainOptions> domains;
  double held_out = 0.02;           ///< share of documents kept for evaluation, chosen by the hash of their text
  int64_t document_bytes = 65536;   ///< longer documents are cut at a blank line, a line or a word
  int64_t sequence = 256;           ///< tokens a row of the batch
  bool missing_ok = false;          ///< leave out domains whose files are absent, with a warning
  std::string cache;                ///< folder of tokenised files; empty = ".cache/data" beside the recipe's runs
  static void describe(Fields<DataOptions>& f);
};

/// Where the sampler stands; saved in a checkpoint. Plain numbers, written as JSON.
struct DataPosition {
  int64_t step = 0;                             ///< batches drawn
  std::vector<int64_t> epoch, document, token;  ///< for each domain: pass over it, index in the pass's order, offset
  std::vector<int64_t> tokens;                  ///< for each domain: its training tokens, to notice other data
  Node write() const;
  static DataPosition read(const Node& node);   ///< throws data.position
};

/// Tokenised data, opened. Throws data.missing (naming the package), data.empty, data.encoding, data.read, data.json,
/// data.field, data.filter, data.too_large, data.domains, data.cache.
class Data {
 public:
  Data(const DataOptions& options, std::shared_ptr<const Tokenizer> tokenizer, uint64_t seed);
  ~Data();

  const std::vector<std::string>& domains() const;
  int64_t training_tokens(int64_t domain) const;
  int64_t held_out_tokens(int64_t domain) const;

  /// The next training batch: `sequences` runs of options.sequence rows each. Depends on seed and position alone.
  Batch next(int64_t sequences);
  const DataPosition& position() const;
  void seek(const DataPosition& position);  ///< throws data.position, also when the data are not those it was saved with

  /// Held-out batches of one domain (-1 = all in turn), the same every time; at most `tokens` predicted tokens, none when
  /// nothing is held out. The last batch may be smaller, and the last run of a domain shorter.
  std::vector<Batch> held_out(int64_t domain, int64_t sequences, int64_t tokens) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Training documents of the domains as text, in a fixed order, about equally many bytes of each, for tokenizer training.
/// Returns false at the end.
std::function<bool(std::string&)> document_stream(const DataOptions& options, int64_t total_bytes);

}  // namespace switchyard
