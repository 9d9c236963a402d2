// A short run of every fuzz target: its seeds as they are, then mutations of them, the same ones every time as far as time goes.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "switchyard/base/files.h"
#include "tests/files.h"
#include "tests/fuzz/target.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr size_t kLargestSeed = 64 << 10, kMostSeeds = 60;
constexpr std::chrono::milliseconds kTime{700};

/// Files below tests/golden whose path begins with one of the target's words.
std::vector<std::string> seeds_of(const fuzz::Target& target) {
  std::vector<fs::path> files;
  for (const std::string& word : target.seeds) {
    const fs::path whole = testing::golden(word).lexically_normal();
    const fs::path folder = fs::is_directory(whole) ? whole : whole.parent_path();
    if (!fs::is_directory(folder)) continue;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder))
      if (entry.is_regular_file() && entry.path().string().starts_with(whole.string()) && entry.file_size() <= kLargestSeed)
        files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  if (files.size() > kMostSeeds) files.resize(kMostSeeds);
  std::vector<std::string> seeds{""};
  for (const fs::path& file : files) seeds.push_back(read_file(file));
  return seeds;
}

class Mutator {
 public:
  explicit Mutator(const std::vector<std::string>& seeds) : seeds_(seeds), random_(20240607) {}

  std::string next() {
    std::string text = seeds_[number(seeds_.size())];
    for (size_t changes = 1 + number(4); changes > 0; --changes) change(text);
    return text;
  }

 private:
  size_t number(size_t below) { return below == 0 ? 0 : std::uniform_int_distribution<size_t>(0, below - 1)(random_); }

  void change(std::string& text) {
    static constexpr uint64_t kNumbers[] = {0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000, ~0ULL};
    static constexpr std::string_view kPieces[] = {"{", "}", "[", "]", "\"", ":", ",", "-1", "1e999", "null", "{{", "}}", "{%", "%}", "|", "\\u0000",
                                                   "99999999999999999999", "\xff", "\xf0\x9f", "&a", "*a", "\n", "  ", "(", ")", "../"};
    const size_t at = number(text.size() + 1);
    switch (number(8)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << number(8)));
        break;
      case 1:
        if (at < text.size()) text[at] = static_cast<char>(number(256));
        break;
      case 2: text.erase(at, 1 + number(16)); break;
      case 3: text.insert(at, kPieces[number(std::size(kPieces))]); break;
      case 4: text.resize(at); break;
      case 5: text.insert(at, text.substr(number(text.size() + 1), 1 + number(64))); break;
      case 6: {
        const uint64_t value = kNumbers[number(std::size(kNumbers))];
        const size_t bytes = size_t{1} << number(4);
        for (size_t i = 0; i < bytes && at + i < text.size(); ++i) text[at + i] = static_cast<char>(value >> (8 * i));
        break;
      }
      default: {
        const std::string& other = seeds_[number(seeds_.size())];
        if (!other.empty()) text.insert(at, other.substr(number(other.size()), 1 + number(128)));
      }
    }
  }

  const std::vector<std::string>& seeds_;
  std::mt19937_64 random_;
};

TEST(ShortFuzz, EveryTargetTakesOrRefusesItsInput) {
  ASSERT_GE(fuzz::targets().size(), 11u);
  for (const fuzz::Target& target : fuzz::targets()) {
    SCOPED_TRACE(target.name);
    const std::vector<std::string> seeds = seeds_of(target);
    const auto run = [&](const std::string& input) {
      try {
        fuzz::run_one(target.run, input);
      } catch (const std::exception& error) {
        ADD_FAILURE() << "threw " << error.what() << " for " << ::testing::PrintToString(input.substr(0, 2000));
      }
    };
    for (const std::string& seed : seeds) run(seed);
    Mutator mutator(seeds);
    int64_t runs = 0;
    for (const auto end = Clock::now() + kTime; Clock::now() < end && !HasFailure(); ++runs) run(mutator.next());
    RecordProperty(target.name + "_runs", static_cast<int>(runs));
  }
}

}  // namespace
}  // namespace switchyard
