// What the documentation quotes is in the sources, what it shows runs, and
// generated pages are current.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <sstream>

#include "switchyard/base/node.h"
#include "switchyard/train/recipe.h"
#include "tests/files.h"
#include "tests/house/tree.h"

namespace switchyard {
namespace {

using testing::files_below;
using testing::name_of;
using testing::root;

/// A fenced block with the remark `<!-- ... -->` on the line above it.
struct Snippet {
  std::string page, remark, language, text;
};

std::vector<std::filesystem::path> pages() {
  std::vector<std::filesystem::path> all = files_below(root() / "docs", {".md"});
  all.push_back(root() / "README.md");
  all.push_back(root() / "CONTRIBUTING.md");
  return all;
}

std::vector<Snippet> snippets() {
  std::vector<Snippet> found;
  for (const auto& path : pages()) {
    std::istringstream lines(read_file(path));
    std::string before, line;
    while (std::getline(lines, line)) {
      if (line.starts_with("```")) {
        Snippet snippet{.page = name_of(path), .remark = before, .language = line.substr(3), .text = {}};
        while (std::getline(lines, line) && line != "```") snippet.text += line + "\n";
        found.push_back(snippet);
      }
      before = line;
    }
  }
  return found;
}

TEST(Docs, QuotesStandInTheSources) {
  int quotes = 0;
  for (const Snippet& snippet : snippets()) {
    std::smatch from;
    if (!std::regex_match(snippet.remark, from, std::regex("<!-- from ([^ ]+) -->"))) {
      EXPECT_NE(snippet.language, "cpp") << snippet.page << ": C++ that nothing compiles:\n" << snippet.text;
      continue;
    }
    ++quotes;
    const std::string source = read_file(root() / from[1].str());
    // A line `// ...` leaves something out; the pieces stand in this order.
    size_t at = 0;
    std::istringstream lines(snippet.text);
    std::string piece, line;
    auto look = [&] {
      if (piece.empty()) return;
      const size_t found = source.find(piece, at);
      EXPECT_NE(found, std::string::npos) << snippet.page << " quotes from " << from[1] << " what is not there:\n"
                                          << piece;
      if (found != std::string::npos) at = found + piece.size();
      piece.clear();
    };
    while (std::getline(lines, line)) {
      if (line.find_first_not_of(' ') != std::string::npos && line.substr(line.find_first_not_of(' ')) == "// ...")
        look();
      else
        piece += line + "\n";
    }
    look();
  }
  EXPECT_GE(quotes, 8);
}

TEST(Docs, GeneratedPagesAreCurrent) {
  const std::string program = std::string(SWITCHYARD_BINARY_DIR) + "/bin/switchyard";
  for (const auto& [page, command] :
       {std::pair{"docs/catalogue.md", "catalog --markdown"}, {"docs/models.md", "catalog --models"}, {"docs/reference.md", "reference --markdown"}}) {
    const testing::Finished written = testing::run_command("'" + program + "' " + command);
    ASSERT_EQ(written.status, 0) << written.output;
    EXPECT_TRUE(read_file(root() / page) == written.output) << page << " is out of date; run `make docs`";
  }
}

TEST(Docs, LinksLeadSomewhere) {
  const std::regex link("\\]\\(([^)#]+)(#[^)]*)?\\)");
  for (const auto& path : pages()) {
    if (path.filename() == "catalogue.md") continue;  // written from the cards, whose recipes House looks for
    const std::string text = read_file(path);
    for (auto it = std::sregex_iterator(text.begin(), text.end(), link); it != std::sregex_iterator(); ++it) {
      const std::string target = (*it)[1];
      if (target.find("://") != std::string::npos) continue;
      EXPECT_TRUE(std::filesystem::exists(path.parent_path() / target)) << name_of(path) << " links to " << target;
    }
  }
}

TEST(Docs, RecipesThatAreShownAreRead) {
  int shown = 0;
  for (const Snippet& snippet : snippets()) {
    if (snippet.language != "yaml") continue;
    if (snippet.remark != "<!-- recipe -->") {  // a part of one
      EXPECT_NO_THROW((void)parse_yaml(snippet.text, snippet.page));
      continue;
    }
    ++shown;
    std::string text = snippet.text;
    const size_t include = text.find("include: ");
    if (include != std::string::npos) text.insert(include + 9, (root() / "recipes/").string());
    const testing::TemporaryFolder folder;
    write_file_atomically(folder / "recipe.yaml", text);
    EXPECT_NO_THROW((void)load_recipe((folder / "recipe.yaml").string())) << snippet.page << ":\n" << text;
  }
  EXPECT_GE(shown, 1);
}

TEST(Docs, CiRunsExactlyTheReadmesTestCommand) {
  const std::string readme = read_file(root() / "README.md"), ci = read_file(root() / ".ci/run");
  EXPECT_NE(readme.find("    make test "), std::string::npos);
  EXPECT_TRUE(ci.ends_with("\nmake test\n")) << ci;
}

}  // namespace
}  // namespace switchyard
