// Tokenised documents on disk: one run of tokens and the place where each document begins, memory-mapped, so that
// a corpus larger than memory costs what is read of it.
//
//   FOLDER/about.json                        what it was made from; compared before it is used
//   FOLDER/training.tokens, held_out.tokens  uint16 or uint32, little-endian
//   FOLDER/training.places, held_out.places  uint64 [documents + 1]
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/base/files.h"

namespace switchyard {

/// Documents of one side of the split.
class TokenFile {
 public:
  /// Throws data.cache when sizes do not fit together or a token is not below `vocabulary` (looked at when read).
  TokenFile(const std::filesystem::path& folder, const std::string& side, int64_t token_bytes, int64_t vocabulary);
  int64_t documents() const { return documents_; }
  int64_t tokens() const { return documents_ ? static_cast<int64_t>(places_[documents_]) : 0; }
  int64_t length(int64_t document) const { return static_cast<int64_t>(places_[document + 1] - places_[document]); }
  /// Tokens [from, from + count) of a document, into `out`.
  void read(int64_t document, int64_t from, int64_t count, int64_t* out) const;

 private:
  std::unique_ptr<MappedFile> token_map_, place_map_;
  const uint64_t* places_ = nullptr;
  int64_t documents_ = 0, token_bytes_ = 2, vocabulary_ = 0;
};

class TokenFileWriter {
 public:
  TokenFileWriter(const std::filesystem::path& folder, const std::string& side, int64_t token_bytes);
  void add(const std::vector<int64_t>& tokens);
  void commit();
  int64_t tokens() const { return static_cast<int64_t>(place_); }
  int64_t documents() const { return documents_; }

 private:
  void flush();
  AtomicFile tokens_, places_;
  std::string token_buffer_, place_buffer_;
  int64_t token_bytes_, documents_ = 0;
  uint64_t place_ = 0;
};

}  // namespace switchyard
