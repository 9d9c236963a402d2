// A run folder with a small model that was never trained, and its tokenizer; and the program on it.
#pragma once

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "switchyard/formats/tokenizer.h"
#include "switchyard/models/checkpoint.h"
#include "tests/files.h"
#include "tests/models/decoder_support.h"

namespace switchyard::testing {

inline Finished switchyard_program(const std::string& arguments) {
  return run_command(std::string(SWITCHYARD_BINARY_DIR) + "/bin/switchyard " + arguments);
}

/// Standard output alone.
inline Finished switchyard_output(const std::string& arguments) {
  return run_command("( " + std::string(SWITCHYARD_BINARY_DIR) + "/bin/switchyard " + arguments + " 2>/dev/null )");
}

inline void expect_refused(const std::string& arguments, const std::string& code) {
  const Finished done = switchyard_program(arguments);
  EXPECT_EQ(done.status, 2) << arguments << "\n" << done.output;
  EXPECT_THAT(done.output, ::testing::HasSubstr("[" + code + "]")) << arguments;
  EXPECT_EQ(std::count(done.output.begin(), done.output.end(), '\n'), 1) << done.output;
}

inline void write_small_run(const std::filesystem::path& folder) {
  int left = 200;
  const auto tokenizer = train_tokenizer({.vocabulary = 400, .sample_bytes = 1 << 16}, [&](std::string& text) {
    text = "in the beginning was the word and the word was with the people number " + std::to_string(left % 7);
    return left-- > 0;
  });
  const auto decoder = make_decoder(fmt::format(R"(
vocabulary: {}
width: 16
layers: 2
context: 64
attention: {{type: gqa, heads: 2}}
tied_embeddings: false
mixtures: [{{experts: 4, expert: {{type: swiglu, hidden: 8}}, router: {{type: sparse-topk, k: 2}}}}]
)", tokenizer->vocabulary()), at::kFloat);
  std::filesystem::create_directories(folder / "checkpoints/step-00000010");
  save_model(folder / "checkpoints/step-00000010", *decoder, tokenizer.get());
}

/// Tests that share one such run folder.
class SmallRun : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    run_ = new TemporaryFolder;
    write_small_run(run_->path());
  }
  static void TearDownTestSuite() { delete run_; }
  static std::string run() { return run_->path().string(); }
  inline static TemporaryFolder* run_ = nullptr;
};

}  // namespace switchyard::testing
