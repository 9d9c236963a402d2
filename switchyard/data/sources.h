// Documents of one domain, read one after another from its files without ever holding more than one file's worth.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "switchyard/data/data.h"

namespace switchyard {

/// A file of a domain, with what tells that it changed.
struct SourceFile {
  std::filesystem::path path;
  int64_t bytes = 0;
  int64_t modified = 0;  ///< file time, nanoseconds
};

/// The files that a domain's paths name: files as they are, folders with all below them, globs expanded; links to one file
/// count once. The order is fixed by the hash of the path, so that a limit takes from everywhere. A path without any
/// file throws data.missing, naming the domain's package; with `missing_ok` it is left out with a warning.
std::vector<SourceFile> find_sources(const DomainOptions& domain, bool missing_ok);

/// What reading met; told once at the end.
struct ReadingCounts {
  int64_t documents = 0;
  int64_t bytes = 0;             ///< of the documents given out
  int64_t repaired = 0;          ///< documents with some invalid UTF-8, replaced by U+FFFD
  int64_t not_text = 0;          ///< documents (or files) left out because they are no UTF-8 text
  int64_t empty = 0;             ///< documents of white space alone
  std::string example;           ///< a file of not_text
};

/// The documents of a domain in the order of `files`: cleaned by the filter, cut to at most `document_bytes` at sensible
/// borders, valid UTF-8. Throws data.read (unreadable or damaged file), data.json and data.field (file and line named),
/// data.too_large (a file that a filter or a JSON line would have to hold whole).
class DocumentReader {
 public:
  DocumentReader(const DomainOptions& domain, std::vector<SourceFile> files, int64_t document_bytes);
  ~DocumentReader();
  /// False at the end, or when the domain's limit is reached.
  bool next(std::string& document);
  const ReadingCounts& counts() const { return counts_; }
  int64_t total_bytes() const;  ///< of all files, as they lie on disk
  int64_t bytes_read() const;   ///< of the files already finished
  const std::string& domain() const { return domain_.name; }

 private:
  struct Input;
  void open_next();
  void take(std::string text);  ///< queues a document, checked and cut
  void read_more();
  void read_json_line();
  void read_text();
  DomainOptions domain_;
  std::vector<SourceFile> files_;
  int64_t document_bytes_;
  size_t file_ = 0;
  int64_t finished_bytes_ = 0;
  std::unique_ptr<Input> input_;
  std::deque<std::string> queue_;
  ReadingCounts counts_;
};

/// Where to cut the beginning of `text` so that the part is at most `most` bytes: after a blank line, else a line, else a
/// word, else a character. Never 0.
size_t document_cut(std::string_view text, size_t most);

}  // namespace switchyard
