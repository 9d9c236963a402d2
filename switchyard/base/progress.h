// Logging and progress behind one interface: the library speaks to a Reporter and never prints.
// The program installs one that writes a terminal line, or JSON lines with --json.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace switchyard {

enum class Level { debug, info, warning };

class Reporter {
 public:
  virtual ~Reporter() = default;
  virtual void message(Level level, std::string_view text) = 0;
  /// One step of long work. total < 0 = unknown. `values` are shown in order ("loss", "2.31").
  virtual void progress(std::string_view task, int64_t done, int64_t total,
                        const std::vector<std::pair<std::string, std::string>>& values) = 0;
  virtual void finished(std::string_view task) = 0;
};

/// The present reporter; the default one is silent. set_reporter returns the one before.
Reporter& reporter();
std::shared_ptr<Reporter> set_reporter(std::shared_ptr<Reporter> reporter);

void log_info(std::string_view text);
void log_warning(std::string_view text);
void log_debug(std::string_view text);

/// Terminal reporter: messages as lines, progress as one rewritten line with rate and time left
/// (a line every ten seconds when `out` is no terminal). Json reporter: one object a line.
std::shared_ptr<Reporter> terminal_reporter(Level lowest = Level::info, std::FILE* out = stderr);
std::shared_ptr<Reporter> json_reporter(Level lowest = Level::info, std::FILE* out = stderr);

/// Set by Ctrl-C and SIGTERM (install_interrupt_handler) or request_interrupt; long work polls it,
/// saves and stops. A second signal ends the process at once.
bool interrupted();
void request_interrupt();
void clear_interrupt();
void install_interrupt_handler();

}  // namespace switchyard
