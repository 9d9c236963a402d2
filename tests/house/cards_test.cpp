// Every method of the catalogue has a filled card, a recipe that is read, and a
// proof.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <regex>

#include "switchyard/base/registry.h"
#include "tests/house/tree.h"

namespace switchyard {
namespace {

using testing::files_below;
using testing::root;

TEST(House, EveryCardIsFilledAndHasARecipeThatIsRead) {
  for (const Card* card : Registry::instance().cards()) {
    SCOPED_TRACE(card->slug);
    EXPECT_FALSE(card->name.empty());
    EXPECT_FALSE(card->line.empty());
    EXPECT_FALSE(card->section.empty());
    EXPECT_FALSE(card->room.empty());
    if (!card->room.empty()) {
      EXPECT_TRUE(std::filesystem::is_directory(root() / "switchyard" / card->room)) << card->room;
    }
    EXPECT_THAT(card->coupling, ::testing::AnyOf("none", "sequence", "batch"));
    ASSERT_FALSE(card->recipe.empty()) << "every method has a recipe that uses it";
    const std::filesystem::path recipe = root() / card->recipe;
    ASSERT_TRUE(std::filesystem::exists(recipe)) << card->recipe;
    EXPECT_NO_THROW((void)load_yaml(recipe.string()));
  }
}

/// Names of tests `Catalogue.NAME` over all sources.
std::vector<std::string> proofs() {
  std::vector<std::string> names;
  const std::regex test("\nTEST(?:_F|_P)?\\((Catalogue), *([A-Za-z0-9_]+)\\)");
  for (const auto& path : files_below(root() / "tests", {".cpp"})) {
    const std::string text = read_file(path);
    for (auto it = std::sregex_iterator(text.begin(), text.end(), test); it != std::sregex_iterator(); ++it)
      names.push_back((*it)[2]);
  }
  return names;
}

TEST(House, EveryCardHasAProof) {
  // A test counts for the longest slug that begins its name: copy_expert_x
  // proves copy-expert, not copy.
  std::map<std::string, std::string> slug_of;
  for (const Card* card : Registry::instance().cards()) {
    std::string name = card->slug;
    std::replace(name.begin(), name.end(), '-', '_');
    slug_of[name] = card->slug;
  }
  std::set<std::string> proven;
  for (const std::string& test : proofs()) {
    std::string best;
    for (const auto& [name, slug] : slug_of) {
      const bool begins = test.starts_with(name) &&
                          (test.size() == name.size() || test[name.size()] == '_' || std::isupper(test[name.size()]));
      if (begins && name.size() > best.size()) best = name;
    }
    if (!best.empty()) proven.insert(slug_of[best]);
  }
  for (const auto& [name, slug] : slug_of)
    EXPECT_TRUE(proven.contains(slug)) << "no test TEST(Catalogue, " << name << "...)";
}

}  // namespace
}  // namespace switchyard
