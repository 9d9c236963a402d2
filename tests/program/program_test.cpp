// The program as a user meets it: the real binary, its words and its exit status.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <set>

#include "switchyard/base/json.h"
#include "switchyard/base/registry.h"
#include "tests/files.h"

namespace switchyard {
namespace {

using testing::Finished;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::run_command;
using ::testing::StartsWith;

const std::string kProgram = std::string(SWITCHYARD_BINARY_DIR) + "/bin/switchyard";

Finished program(const std::string& arguments) { return run_command("'" + kProgram + "' " + arguments); }

std::vector<std::string> verbs() {
  const std::string text = program("--help").output;
  std::vector<std::string> names;
  const std::regex line("\n  ([a-z]+) +[A-Za-z]");
  for (auto it = std::sregex_iterator(text.begin(), text.end(), line); it != std::sregex_iterator(); ++it)
    names.push_back((*it)[1]);
  return names;
}

TEST(Program, EveryVerbHasHelpWithAnExample) {
  const std::vector<std::string> names = verbs();
  EXPECT_GE(names.size(), 3u);
  for (const std::string& verb : names) {
    const Finished help = program(verb + " --help");
    EXPECT_EQ(help.status, 0) << verb;
    EXPECT_THAT(help.output, HasSubstr("Example:\n  switchyard " + verb)) << verb;
    EXPECT_THAT(help.output, HasSubstr("--json")) << verb;
  }
}

TEST(Program, EveryExampleIsAccepted) {
  // The first line of each example, with --help added, parses: it names a verb and options that exist.
  for (const std::string& verb : verbs()) {
    const std::string help = program(verb + " --help").output;
    std::smatch found;
    ASSERT_TRUE(std::regex_search(help, found, std::regex("Example:\n  switchyard ([^\n>|]+)"))) << verb;
    EXPECT_EQ(program(found[1].str() + " --help").status, 0) << found[1];
  }
}

TEST(Program, SaysItsVersion) {
  EXPECT_THAT(program("--version").output, StartsWith("switchyard 0."));
  EXPECT_EQ(program("--version").status, 0);
}

TEST(Program, NamesTheNearestVerb) {
  const Finished typo = program("catalgo");
  EXPECT_EQ(typo.status, 2);
  EXPECT_EQ(typo.output, "switchyard: [program.verb] there is no verb 'catalgo'; did you mean 'catalog'?\n");
  EXPECT_THAT(program("xyzzy").output, HasSubstr("the verbs are"));
}

TEST(Program, NamesTheNearestOption) {
  const Finished typo = program("info --jsno");
  EXPECT_EQ(typo.status, 2);
  EXPECT_THAT(typo.output, StartsWith("switchyard: [program.usage] '--jsno' was not expected; did you mean --json?"));
  EXPECT_EQ(std::count(typo.output.begin(), typo.output.end(), '\n'), 1);
  EXPECT_EQ(program("info surplus").status, 2);
}

TEST(Program, TellsWhenOutputCannotBeWritten) {
  const Finished full = run_command("{ '" + kProgram + "' info > /dev/full; }");
  EXPECT_EQ(full.status, 2);
  EXPECT_THAT(full.output,
              StartsWith("switchyard: [program.output] the output cannot be written: No space left on device"));
}

TEST(Program, EndsQuietlyWhenItsReaderGoes) {
  const Finished gone =
      run_command("bash -c \"'" + kProgram + "' catalog --json | head -c 1; echo; echo status \\${PIPESTATUS[0]}\"");
  EXPECT_EQ(gone.output, "[\nstatus 0\n");
}

TEST(Program, InfoTellsAboutThisMachine) {
  const auto info = json_from(program("info --json").output);
  EXPECT_GE(info["threads"].get<int>(), 1);
  EXPECT_FALSE(info["operations"].empty());
  EXPECT_TRUE(info.contains("cpu_level"));
  const Finished lowered = run_command("SWITCHYARD_CPU_LEVEL=portable '" + kProgram + "' info --json");
  EXPECT_EQ(json_from(lowered.output)["cpu_level"], "portable");
  const Finished unknown = run_command("SWITCHYARD_CPU_LEVEL=warp '" + kProgram + "' info");
  EXPECT_EQ(unknown.status, 2);
  EXPECT_THAT(unknown.output, StartsWith("switchyard: [kernels.cpu_level]"));
}

TEST(Program, TheCatalogueListsEveryCard) {
  const auto cards = json_from(program("catalog --json").output);
  EXPECT_EQ(cards.size(), Registry::instance().cards().size());
  const std::string text = program("catalog").output, page = program("catalog --markdown").output;
  for (const Card* card : Registry::instance().cards()) {
    EXPECT_THAT(text, HasSubstr("  " + card->slug + " "));
    EXPECT_THAT(page, HasSubstr("| `" + card->slug + "` |"));
  }
}

TEST(Program, TheCatalogueShowsOneCard) {
  const Finished one = program("catalog switch-top1");
  EXPECT_EQ(one.status, 0);
  EXPECT_THAT(one.output, HasSubstr("Fedus et al., Switch Transformers (2021)"));
  EXPECT_THAT(one.output, HasSubstr("Options as a router:"));
  EXPECT_THAT(one.output, HasSubstr("jitter"));
  EXPECT_EQ(json_from(program("catalog switch-top1 --json").output)["slug"], "switch-top1");
  const Finished typo = program("catalog swich-top1");
  EXPECT_EQ(typo.status, 2);
  EXPECT_THAT(
      typo.output,
      StartsWith(
          "switchyard: [registry.unknown] the catalogue has no method 'swich-top1'; did you mean 'switch-top1'?"));
  EXPECT_EQ(program("catalog switch-top1 --markdown").status, 2);
  EXPECT_EQ(program("catalog --json --markdown").status, 2);
}

}  // namespace
}  // namespace switchyard
