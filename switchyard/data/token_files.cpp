#include "switchyard/data/token_files.h"

#include <c10/util/Exception.h>

#include "switchyard/base/error.h"

namespace switchyard {
namespace fs = std::filesystem;

namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;

/// A mapping, or null for an empty file, which cannot be mapped.
std::unique_ptr<MappedFile> map_file(const fs::path& path) {
  std::error_code error;
  const auto bytes = fs::file_size(path, error);
  check(!error, "data.cache", "cannot read {}: {}", path.string(), error.message());
  return bytes == 0 ? nullptr : std::make_unique<MappedFile>(path);
}

}  // namespace

TokenFile::TokenFile(const fs::path& folder, const std::string& side, int64_t token_bytes, int64_t vocabulary)
    : token_map_(map_file(folder / (side + ".tokens"))),
      place_map_(map_file(folder / (side + ".places"))),
      token_bytes_(token_bytes),
      vocabulary_(vocabulary) {
  const uint64_t place_bytes = place_map_ ? place_map_->size() : 0;
  const uint64_t bytes = token_map_ ? token_map_->size() : 0;
  const auto damaged = [&](const char* what) {
    fail("data.cache", "{} is damaged ({} {}); delete it", folder.string(), side, what);
  };
  if (place_bytes < 8 || place_bytes % 8 != 0) damaged("places");
  places_ = reinterpret_cast<const uint64_t*>(place_map_->data());
  documents_ = static_cast<int64_t>(place_bytes / 8) - 1;
  if (places_[0] != 0 || places_[documents_] > bytes || places_[documents_] * static_cast<uint64_t>(token_bytes_) != bytes)
    damaged("tokens");
  for (int64_t d = 0; d < documents_; ++d)
    if (places_[d] >= places_[d + 1]) damaged("places");
}

void TokenFile::read(int64_t document, int64_t from, int64_t count, int64_t* out) const {
  TORCH_INTERNAL_ASSERT(document >= 0 && document < documents_ && from >= 0 && from + count <= length(document));
  const uint64_t first = places_[document] + static_cast<uint64_t>(from);
  const auto copy = [&](auto token) {
    using Token = decltype(token);
    const Token* tokens = reinterpret_cast<const Token*>(token_map_->data()) + first;
    for (int64_t i = 0; i < count; ++i) {
      check(static_cast<int64_t>(tokens[i]) < vocabulary_, "data.cache", "{} holds token {}, but the vocabulary has {}; delete it",
            token_map_->path().string(), tokens[i], vocabulary_);
      out[i] = static_cast<int64_t>(tokens[i]);
    }
  };
  if (token_bytes_ == 2) copy(uint16_t{});
  else copy(uint32_t{});
}

TokenFileWriter::TokenFileWriter(const fs::path& folder, const std::string& side, int64_t token_bytes)
    : tokens_(folder / (side + ".tokens")), places_(folder / (side + ".places")), token_bytes_(token_bytes) {
  place_buffer_.append(8, '\0');
}

void TokenFileWriter::add(const std::vector<int64_t>& tokens) {
  const auto append = [&](auto width) {
    for (const int64_t token : tokens) {
      const auto value = static_cast<decltype(width)>(token);
      token_buffer_.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
  };
  if (token_bytes_ == 2) append(uint16_t{});
  else append(uint32_t{});
  place_ += tokens.size();
  ++documents_;
  place_buffer_.append(reinterpret_cast<const char*>(&place_), 8);
  if (token_buffer_.size() > kBufferBytes) flush();
}

void TokenFileWriter::flush() {
  tokens_.write(token_buffer_);
  places_.write(place_buffer_);
  token_buffer_.clear();
  place_buffer_.clear();
}

void TokenFileWriter::commit() {
  flush();
  tokens_.commit();
  places_.commit();
}

}  // namespace switchyard
