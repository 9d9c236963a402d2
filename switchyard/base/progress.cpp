#include "switchyard/base/progress.h"
#include "switchyard/base/json.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>

namespace switchyard {

namespace {

using Clock = std::chrono::steady_clock;

class SilentReporter : public Reporter {
 public:
  void message(Level, std::string_view) override {}
  void progress(std::string_view, int64_t, int64_t, const std::vector<std::pair<std::string, std::string>>&) override {}
  void finished(std::string_view) override {}
};

std::mutex reporter_mutex;
std::shared_ptr<Reporter>& current() {
  static std::shared_ptr<Reporter> reporter = std::make_shared<SilentReporter>();
  return reporter;
}

double seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

std::string clock_text(double left) {
  const auto s = static_cast<int64_t>(left + 0.5);
  return s >= 3600 ? fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60) : fmt::format("{}:{:02}", s / 60, s % 60);
}

/// Since when a task runs, for its rate.
struct Pace {
  Clock::time_point begin = Clock::now(), shown{};
  int64_t first = 0;
  double rate(int64_t done) const {
    const double elapsed = seconds(Clock::now() - begin);
    return elapsed > 0 && done > first ? static_cast<double>(done - first) / elapsed : 0;
  }
};

class TaskPaces {
 public:
  Pace& at(std::string_view task, int64_t done) {
    auto found = paces_.find(task);
    if (found == paces_.end()) {
      found = paces_.emplace(std::string(task), Pace{}).first;
      found->second.first = done;
    }
    return found->second;
  }
  void forget(std::string_view task) {
    if (auto found = paces_.find(task); found != paces_.end()) paces_.erase(found);
  }

 private:
  std::map<std::string, Pace, std::less<>> paces_;
};

class TerminalReporter : public Reporter {
 public:
  TerminalReporter(Level lowest, std::FILE* out) : lowest_(lowest), out_(out), terminal_(::isatty(::fileno(out)) == 1) {}
  ~TerminalReporter() override { end_line(); }

  void message(Level level, std::string_view text) override {
    if (level < lowest_) return;
    std::lock_guard lock(mutex_);
    if (line_open_) std::fputs("\r\033[K", out_);
    put(fmt::format("{}{}\n", level == Level::warning ? "warning: " : "", text));
    line_open_ = false;
  }

  void progress(std::string_view task, int64_t done, int64_t total,
                const std::vector<std::pair<std::string, std::string>>& values) override {
    std::lock_guard lock(mutex_);
    Pace& pace = paces_.at(task, done);
    const auto now = Clock::now();
    const bool last = total >= 0 && done >= total;
    if (!last && pace.shown != Clock::time_point{} && now - pace.shown < (terminal_ ? fast_ : slow_)) return;
    pace.shown = now;

    std::string line = total >= 0 ? fmt::format("{} {}/{}", task, done, total) : fmt::format("{} {}", task, done);
    for (const auto& [name, value] : values) line += fmt::format("  {} {}", name, value);
    if (const double rate = pace.rate(done); rate > 0) {
      line += fmt::format("  {:.3g}/s", rate);
      if (total > done) line += fmt::format("  {} left", clock_text(static_cast<double>(total - done) / rate));
    }
    if (terminal_) {
      winsize size{};
      const size_t width = ::ioctl(::fileno(out_), TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1 : 79;
      put(fmt::format("\r{:.{}}\033[K", line, width));
      line_open_ = true;
    } else {
      put(line + "\n");
    }
  }

  void finished(std::string_view task) override {
    std::lock_guard lock(mutex_);
    paces_.forget(task);
    end_line();
  }

 private:
  void end_line() {
    if (line_open_) put("\n");
    line_open_ = false;
  }
  /// Work goes on when nobody can read its messages (a closed pipe, a full disk), so failures are ignored.
  void put(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), out_);
    std::fflush(out_);
  }

  static constexpr Clock::duration fast_ = std::chrono::milliseconds(100), slow_ = std::chrono::seconds(10);
  Level lowest_;
  std::FILE* out_;
  bool terminal_, line_open_ = false;
  std::mutex mutex_;
  TaskPaces paces_;
};

class JsonReporter : public Reporter {
 public:
  JsonReporter(Level lowest, std::FILE* out) : lowest_(lowest), out_(out) {}

  void message(Level level, std::string_view text) override {
    if (level < lowest_) return;
    constexpr const char* kNames[] = {"debug", "info", "warning"};
    put({{"event", "message"}, {"level", kNames[static_cast<int>(level)]}, {"text", text}});
  }

  void progress(std::string_view task, int64_t done, int64_t total,
                const std::vector<std::pair<std::string, std::string>>& values) override {
    nlohmann::ordered_json line{{"event", "progress"}, {"task", task}, {"done", done}};
    if (total >= 0) line["total"] = total;
    {
      std::lock_guard lock(mutex_);
      const double rate = paces_.at(task, done).rate(done);
      if (rate > 0) {
        line["rate"] = rate;
        if (total > done) line["seconds_left"] = static_cast<double>(total - done) / rate;
      }
    }
    for (const auto& [name, value] : values) {
      // A value that is a JSON number stays one.
      const bool number = !value.empty() && value.find_first_not_of("0123456789+-.eE") == std::string::npos &&
                          nlohmann::json::accept(value);
      line["values"][name] = number ? ordered_json_from(value) : nlohmann::ordered_json(value);
    }
    put(line);
  }

  void finished(std::string_view task) override {
    {
      std::lock_guard lock(mutex_);
      paces_.forget(task);
    }
    put({{"event", "finished"}, {"task", task}});
  }

 private:
  void put(const nlohmann::ordered_json& line) {
    std::string text = json_text(line) + "\n";
    std::lock_guard lock(mutex_);
    std::fputs(text.c_str(), out_);
    std::fflush(out_);
  }

  Level lowest_;
  std::FILE* out_;
  std::mutex mutex_;
  TaskPaces paces_;
};

std::atomic<bool> interrupt_flag{false};
static_assert(std::atomic<bool>::is_always_lock_free, "the signal handler sets it");

}  // namespace

Reporter& reporter() {
  std::lock_guard lock(reporter_mutex);
  return *current();
}

std::shared_ptr<Reporter> set_reporter(std::shared_ptr<Reporter> reporter) {
  if (!reporter) reporter = std::make_shared<SilentReporter>();
  std::lock_guard lock(reporter_mutex);
  std::swap(current(), reporter);
  return reporter;
}

void log_info(std::string_view text) { reporter().message(Level::info, text); }
void log_warning(std::string_view text) { reporter().message(Level::warning, text); }
void log_debug(std::string_view text) { reporter().message(Level::debug, text); }

std::shared_ptr<Reporter> terminal_reporter(Level lowest, std::FILE* out) {
  return std::make_shared<TerminalReporter>(lowest, out);
}
std::shared_ptr<Reporter> json_reporter(Level lowest, std::FILE* out) {
  return std::make_shared<JsonReporter>(lowest, out);
}

bool interrupted() { return interrupt_flag.load(std::memory_order_relaxed); }
void request_interrupt() { interrupt_flag.store(true, std::memory_order_relaxed); }
void clear_interrupt() { interrupt_flag.store(false, std::memory_order_relaxed); }

void install_interrupt_handler() {
  struct sigaction action {};
  action.sa_handler = [](int) { request_interrupt(); };
  // The second signal has its default effect: the way out when saving hangs.
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

}  // namespace switchyard
