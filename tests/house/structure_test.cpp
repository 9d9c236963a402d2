// The house rules that a reader could check by hand, checked by machine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <regex>
#include <sstream>

#include "switchyard/base/registry.h"
#include "tests/house/tree.h"

namespace switchyard {
namespace {

using testing::files_below;
using testing::name_of;
using testing::root;

/// The rooms in the order of docs/design.md; rooms between commas stand on one step.
std::map<std::string, int> room_order() {
  const std::string page = read_file(root() / "docs/design.md");
  const std::regex line("\n *(base → [^\n]+)");
  std::smatch found;
  std::map<std::string, int> order;
  if (!std::regex_search(page, found, line)) return order;
  std::istringstream words(found[1].str());
  int step = 0;
  for (std::string word; words >> word;) {
    if (word == "→") {
      ++step;
      continue;
    }
    if (word.ends_with(",")) word.pop_back();
    order[word] = step;
  }
  return order;
}

TEST(House, IncludesRunOneWay) {
  const std::map<std::string, int> order = room_order();
  ASSERT_GE(order.size(), 15u) << "docs/design.md says no order of rooms";
  const std::regex include("#include \"(switchyard|program|tests)/(?:([a-z_]+)/)?");
  for (const auto& path : files_below(root() / "switchyard", {".h", ".cpp"})) {
    const std::string name = name_of(path), text = read_file(path);
    std::string room = name.substr(std::string("switchyard/").size());
    room = room.substr(0, room.find('/'));
    if (room == "classical") continue;  // stands beside the model, on routing and formats
    ASSERT_TRUE(order.contains(room)) << name << ": the room '" << room << "' is not in docs/design.md";
    for (auto it = std::sregex_iterator(text.begin(), text.end(), include); it != std::sregex_iterator(); ++it) {
      EXPECT_EQ((*it)[1], "switchyard") << name << " includes what is above the library";
      const std::string other = (*it)[2];
      if ((*it)[1] != "switchyard") continue;
      ASSERT_TRUE(order.contains(other)) << name << " includes the unknown room " << other;
      EXPECT_LE(order.at(other), order.at(room)) << name << " includes " << other << ", which stands above " << room;
    }
  }
}

TEST(House, HeadersStayLight) {
  for (const auto& path : files_below(root() / "switchyard", {".h"})) {
    const std::string text = read_file(path);
    for (const char* heavy : {"<torch/torch.h>", "<ATen/ATen.h>", "<torch/nn/"})
      EXPECT_EQ(text.find(heavy), std::string::npos) << name_of(path) << " includes " << heavy;
    EXPECT_NE(text.find("#pragma once"), std::string::npos) << name_of(path);
  }
}

TEST(House, FilesAreAboutOneThing) {
  for (const char* folder : {"switchyard", "program", "examples"}) {
    for (const auto& path : files_below(root() / folder, {".h", ".cpp", ".cu"})) {
      const std::string text = read_file(path), stem = path.stem().string();
      EXPECT_LE(std::count(text.begin(), text.end(), '\n'), 800) << name_of(path) << ": look for the two things in it";
      for (const char* word : {"utils", "util", "helpers", "helper", "misc", "common"})
        EXPECT_NE(stem, word) << name_of(path) << " says nothing by its name";
    }
  }
}

TEST(House, EveryCardIsFilledAndHasARecipeThatIsRead) {
  const std::map<std::string, int> order = room_order();
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
    for (auto it = std::sregex_iterator(text.begin(), text.end(), test); it != std::sregex_iterator(); ++it) names.push_back((*it)[2]);
  }
  return names;
}

TEST(House, EveryCardHasAProof) {
  // A test counts for the longest slug that begins its name: copy_expert_x proves copy-expert, not copy.
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
      const bool begins = test.starts_with(name) && (test.size() == name.size() || test[name.size()] == '_' || std::isupper(test[name.size()]));
      if (begins && name.size() > best.size()) best = name;
    }
    if (!best.empty()) proven.insert(slug_of[best]);
  }
  for (const auto& [name, slug] : slug_of) EXPECT_TRUE(proven.contains(slug)) << "no test TEST(Catalogue, " << name << "...)";
}

TEST(House, NoFileNamesAMachineOrAWorkplace) {
  // Put together here, so that this file does not name them either.
  const std::vector<std::string> words{std::string("/") + "work/", std::string("/") + "wt/", std::string("../") + "shared", std::string("/tmp/") + "i3",
                                       std::string("pypi") + ".org", std::string("pythonhosted") + ".org", std::string("download.pytorch") + ".org",
                                       std::string("deb.debian") + ".org"};
  for (const auto& path : files_below(root())) {
    if (std::filesystem::file_size(path) > (1u << 22)) continue;
    const std::string text = read_file(path);
    for (const std::string& word : words) EXPECT_EQ(text.find(word), std::string::npos) << name_of(path) << " names " << word;
  }
}

}  // namespace
}  // namespace switchyard
