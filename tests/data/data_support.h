// What tests of data share: warnings caught, packed files, a small tokenizer.
#pragma once

#include <zlib.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "switchyard/base/files.h"
#include "switchyard/base/progress.h"
#include "switchyard/data/data.h"
#include "tests/files.h"
#include "tests/support.h"

namespace switchyard::testing {

/// Keeps the messages of a scope.
class Messages {
 public:
  Messages() : kept_(std::make_shared<Keeper>()), before_(set_reporter(kept_)) {}
  ~Messages() { set_reporter(before_); }
  std::vector<std::string> warnings() const { return kept_->warnings; }
  std::vector<std::string> infos() const { return kept_->infos; }

 private:
  struct Keeper : Reporter {
    std::vector<std::string> warnings, infos;
    void message(Level level, std::string_view text) override {
      (level == Level::warning ? warnings : infos).emplace_back(text);
    }
    void progress(std::string_view, int64_t, int64_t, const std::vector<std::pair<std::string, std::string>>&) override {}
    void finished(std::string_view) override {}
  };
  std::shared_ptr<Keeper> kept_;
  std::shared_ptr<Reporter> before_;
};

inline std::vector<int64_t> values(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<int64_t>(), tensor.const_data_ptr<int64_t>() + tensor.numel()};
}

inline std::string gzip(const std::string& text) {
  TemporaryFolder folder;
  const std::string path = (folder / "x.gz").string();
  gzFile file = ::gzopen(path.c_str(), "wb");
  ::gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  ::gzclose(file);
  return read_file(path);
}

/// Trained once on the frame's own documentation.
inline std::shared_ptr<const Tokenizer> small_tokenizer() {
  static const std::shared_ptr<const Tokenizer> tokenizer = [] {
    bool first = true;
    return train_tokenizer({.vocabulary = 700}, [&](std::string& text) {
      if (first) text = read_file(std::filesystem::path(SWITCHYARD_SOURCE_DIR) / "docs" / "design.md");
      return std::exchange(first, false);
    });
  }();
  return tokenizer;
}

}  // namespace switchyard::testing
