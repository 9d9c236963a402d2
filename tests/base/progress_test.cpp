#include "switchyard/base/json.h"
#include "switchyard/base/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sstream>

#include "switchyard/base/files.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

/// What a reporter writes into a file.
std::string written(const std::function<std::shared_ptr<Reporter>(std::FILE*)>& make,
                    const std::function<void(Reporter&)>& use) {
  std::FILE* out = std::tmpfile();
  {
    std::shared_ptr<Reporter> reporter = make(out);
    use(*reporter);
  }
  std::fflush(out);
  std::rewind(out);
  std::string text;
  for (int c; (c = std::fgetc(out)) != EOF;) text += static_cast<char>(c);
  std::fclose(out);
  return text;
}

TEST(Progress, TheLibraryIsSilentUntilToldOtherwise) {
  ::testing::internal::CaptureStderr();
  ::testing::internal::CaptureStdout();
  log_info("hello");
  reporter().progress("train", 1, 2, {});
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
}

struct Listener : Reporter {
  std::vector<std::string> heard;
  void message(Level, std::string_view text) override { heard.emplace_back(text); }
  void progress(std::string_view, int64_t, int64_t, const std::vector<std::pair<std::string, std::string>>&) override {}
  void finished(std::string_view) override {}
};

TEST(Progress, AReporterIsInstalledAndTakenAway) {
  auto listener = std::make_shared<Listener>();
  const std::shared_ptr<Reporter> before = set_reporter(listener);
  log_info("one");
  log_warning("two");
  EXPECT_EQ(set_reporter(before), listener);
  log_info("three");
  EXPECT_THAT(listener->heard, ::testing::ElementsAre("one", "two"));
}

TEST(Progress, TheTerminalReporterWritesLines) {
  const std::string text = written(
      [](std::FILE* out) { return terminal_reporter(Level::info, out); },
      [](Reporter& r) {
        r.message(Level::debug, "hidden");
        r.message(Level::info, "shown {}");
        r.message(Level::warning, "mind");
        r.progress("train", 1, 10, {{"loss", "2.31"}});
        r.progress("train", 2, 10, {{"loss", "2.30"}});  // less than ten seconds later: not a terminal, so no line
        r.progress("train", 10, 10, {{"loss", "1.00"}});
        r.finished("train");
      });
  EXPECT_THAT(text, Not(HasSubstr("hidden")));
  EXPECT_THAT(text, HasSubstr("shown {}\nwarning: mind\n"));
  EXPECT_THAT(text, HasSubstr("train 1/10  loss 2.31"));
  EXPECT_THAT(text, Not(HasSubstr("2.30")));
  EXPECT_THAT(text, HasSubstr("train 10/10  loss 1.00"));
  EXPECT_THAT(text, Not(HasSubstr("\033")));
}

TEST(Progress, TheJsonReporterWritesOneObjectALine) {
  const std::string text =
      written([](std::FILE* out) { return json_reporter(Level::info, out); },
              [](Reporter& r) {
                r.message(Level::warning, "quote \" line\nbreak \xff");
                r.progress("train", 5, 10, {{"loss", "2.31"}, {"name", "1.2.3"}, {"empty", ""}, {"nan", "nan"}});
                r.finished("train");
              });
  std::istringstream lines(text);
  std::vector<nlohmann::json> objects;
  for (std::string line; std::getline(lines, line);) objects.push_back(json_from(line));
  ASSERT_EQ(objects.size(), 3u);
  EXPECT_EQ(objects[0]["level"], "warning");
  EXPECT_THAT(objects[0]["text"].get<std::string>(), HasSubstr("quote \" line\nbreak "));
  EXPECT_EQ(objects[1]["done"], 5);
  EXPECT_EQ(objects[1]["total"], 10);
  EXPECT_EQ(objects[1]["values"]["loss"], 2.31);
  EXPECT_EQ(objects[1]["values"]["name"], "1.2.3");
  EXPECT_EQ(objects[1]["values"]["nan"], "nan");
  EXPECT_EQ(objects[2]["event"], "finished");
}

TEST(Progress, WorkGoesOnWhenNobodyCanRead) {
  for (const auto& make : {terminal_reporter, json_reporter}) {
    std::FILE* full = std::fopen("/dev/full", "w");
    ASSERT_NE(full, nullptr);
    std::setvbuf(full, nullptr, _IONBF, 0);
    auto reporter = make(Level::info, full);
    EXPECT_NO_THROW(reporter->message(Level::info, "lost"));
    EXPECT_NO_THROW(reporter->progress("train", 10, 10, {}));
    EXPECT_NO_THROW(reporter->finished("train"));
    reporter.reset();
    std::fclose(full);
  }
}

TEST(Progress, TheFirstSignalAsksAndTheSecondEnds) {
  EXPECT_FALSE(interrupted());
  request_interrupt();
  EXPECT_TRUE(interrupted());
  clear_interrupt();
  EXPECT_FALSE(interrupted());
  const pid_t child = ::fork();
  if (child == 0) {
    install_interrupt_handler();
    ::raise(SIGINT);
    if (!interrupted()) ::_exit(1);
    ::raise(SIGINT);
    ::_exit(2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT) << status;
}

}  // namespace
}  // namespace switchyard
