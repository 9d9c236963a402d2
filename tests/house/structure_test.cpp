// The house rules that a reader could check by hand, checked by machine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <regex>
#include <set>
#include <sstream>

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

// Two classes of one name in one namespace, in two sources, compile and link, and the linker keeps one constructor for both.
TEST(House, ClassesThatMeetAtTheLinkerHaveDifferentNames) {
  const std::regex opening("^namespace ([a-z_:]*) ?\\{|^(?:class|struct) ([A-Za-z0-9_]+)(?: final)?(?: : [^;()]*)? ?\\{");
  std::map<std::string, std::set<std::string>> defined;
  for (const auto& path : files_below(root() / "switchyard", {".h", ".cpp"})) {
    std::istringstream lines(read_file(path));
    std::vector<std::string> spaces;
    for (std::string line; std::getline(lines, line);) {
      std::smatch found;
      if (line.starts_with("}  // namespace") && !spaces.empty()) spaces.pop_back();
      if (!std::regex_search(line, found, opening)) continue;
      if (line.starts_with("namespace")) {
        spaces.push_back(found[1].str());
      } else if (std::find(spaces.begin(), spaces.end(), "") == spaces.end()) {
        std::string name;
        for (const std::string& space : spaces) name += space + "::";
        defined[name + found[2].str()].insert(name_of(path));
      }
    }
  }
  EXPECT_GE(defined.size(), 300u);
  for (const auto& [name, files] : defined) EXPECT_EQ(files.size(), 1u) << name << " is defined in " << ::testing::PrintToString(files);
}

TEST(House, NoFileNamesAMachineOrAWorkplace) {
  // Put together here, so that this file does not name them either.
  const std::vector<std::string> words{std::string("/") + "work/",
                                       std::string("/") + "wt/",
                                       std::string("../") + "shared",
                                       std::string("/tmp/") + "i3",
                                       std::string("pypi") + ".org",
                                       std::string("pythonhosted") + ".org",
                                       std::string("download.pytorch") + ".org",
                                       std::string("deb.debian") + ".org"};
  for (const auto& path : files_below(root())) {
    if (std::filesystem::file_size(path) > (1u << 22)) continue;
    const std::string text = read_file(path);
    for (const std::string& word : words)
      EXPECT_EQ(text.find(word), std::string::npos) << name_of(path) << " names " << word;
  }
}

}  // namespace
}  // namespace switchyard
