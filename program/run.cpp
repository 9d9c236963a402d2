// The frame around every verb: arguments, reporter, signals, and errors as one line.
#include <CLI/CLI.hpp>
#include <fmt/ranges.h>
#if __has_include(<malloc.h>)
#include <malloc.h>
#endif
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <memory>
#include <new>
#include <set>
#include <system_error>

#include "program/verb.h"
#include "switchyard/base/error.h"
#include "switchyard/base/large_blocks.h"
#include "switchyard/base/memory.h"
#include "switchyard/base/options.h"
#include "switchyard/base/progress.h"

namespace switchyard::program {

namespace {

constexpr int kUserError = 2, kOurError = 3;

/// Thrown when the reader of stdout has gone.
struct ReaderGone {};

std::string first_line(std::string_view text) { return std::string(text.substr(0, text.find('\n'))); }

/// Line breaks inside a message (a quoted value) become spaces: an error is one line.
std::string one_line(std::string text) {
  std::replace_if(text.begin(), text.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
  return text;
}

void report(std::string_view code, std::string_view message) {
  set_reporter(nullptr);  // ends an open progress line
  const std::string line = one_line(fmt::format("switchyard: [{}] {}", code, message)) + "\n";
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
}

/// Runs `call`; whatever it throws becomes one line and an exit status.
int guarded(const std::function<int()>& call) {
  try {
    const int status = call();
    print("");  // what is still in the buffer may fail
    return status;
  } catch (const ReaderGone&) {
    return 0;
  } catch (const Error& error) {
    report(error.code(), error.message());
    return kUserError;
  } catch (const std::filesystem::filesystem_error& error) {
    // A folder that may not be read, links in a circle, a name that is too long.
    const std::string path = error.path1().string();
    report("file.access", fmt::format("{}{}{}", path, path.empty() ? "" : ": ", error.code().message()));
    return kUserError;
  } catch (const std::bad_alloc&) {
    report("program.memory", "the machine's memory is exhausted; choose a smaller batch, context or model");
    return kUserError;
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::broken_pipe) return 0;
    report("internal", first_line(error.what()));
    return kOurError;
  } catch (const std::exception& error) {
    // libtorch's own errors carry a backtrace below their first line.
    const std::string what = first_line(error.what());
    if (what.find("can't allocate memory") != std::string::npos) {
      report("program.memory", what + "; choose a smaller batch, context or model");
      return kUserError;
    }
    report("internal", what);
    return kOurError;
  } catch (...) {
    report("internal", "something was thrown that is no exception");
    return kOurError;
  }
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

/// What CLI11 refused, in our words.
[[noreturn]] void usage(const CLI::App& app, const std::string& called, const CLI::ParseError& error) {
  std::string text = one_line(error.what());
  if (dynamic_cast<const CLI::ExtrasError*>(&error)) {
    const std::vector<std::string> extras = app.remaining(true);
    if (!extras.empty()) {
      const std::string given = extras.front().substr(0, extras.front().find('='));
      const std::string near = given.starts_with("-") ? nearest(given, option_names(app)) : std::string();
      text = fmt::format("'{}' was not expected{}", extras.front(),
                         near.empty() ? "" : fmt::format("; did you mean {}?", near));
    }
  }
  fail("program.usage", "{}; see {} --help", text, called);
}

[[noreturn]] void unknown_verb(const std::vector<Verb>& verbs, std::string_view word) {
  std::vector<std::string> names;
  for (const Verb& verb : verbs) names.push_back(verb.name);
  const std::string near = nearest(word, names);
  if (!near.empty()) fail("program.verb", "there is no verb '{}'; did you mean '{}'?", word, near);
  fail("program.verb", "there is no verb '{}'; the verbs are {}", word, fmt::join(names, ", "));
}

int run_verb(const Verb& verb, int argc, const char* const* argv) {
  CLI::App app{verb.summary, "switchyard " + verb.name};
  app.footer("Example:\n  " + verb.example);
  app.option_defaults()->always_capture_default();
  app.allow_windows_style_options(false);
  app.fallthrough();  // our own flags may stand behind a verb's subcommand
  CommandLine line(&app);
  const std::function<int()> call = verb.setup(line);
  bool json = false, quiet = false;
  // A verb whose result can be JSON has the flag already; its messages then follow the result's form.
  if (!app.get_option_no_throw("--json"))
    app.add_flag("--json", json, "progress and messages as JSON, one object a line, on stderr");
  if (!app.get_option_no_throw("--quiet")) app.add_flag("--quiet", quiet, "warnings and errors only");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    print(app.help());
    return 0;
  } catch (const CLI::CallForAllHelp&) {
    print(app.help());
    return 0;
  } catch (const CLI::ParseError& error) {
    usage(app, app.get_name(), error);
  }
  if (const CLI::Option* own = app.get_option_no_throw("--json")) json = own->count() > 0;
  const Level lowest = quiet ? Level::warning : Level::info;
  set_reporter(json ? json_reporter(lowest) : terminal_reporter(lowest));
  const int status = call();
  set_reporter(nullptr);
  return status;
}

std::string overview(const std::vector<Verb>& verbs) {
  std::string text =
      "Mixture-of-experts language models, from a recipe to a trained, inspected, exported model.\n\n"
      "Usage: switchyard VERB [arguments]\n\nVerbs:\n";
  for (const Verb& verb : verbs) text += fmt::format("  {:<12}{}\n", verb.name, verb.summary);
  text +=
      "\n`switchyard VERB --help` explains a verb and shows an example; `switchyard --version` says which program this "
      "is.\n";
  return text;
}

}  // namespace

/// Tensors come and go with every step. The allocator would give their pages back each time, and the system clear them anew: up to
/// a quarter of a training step. So freed memory stays with the process, that of large tensors apart from the heap. (libtorch's own
/// way to huge pages, THP_MEM_ALLOC_ENABLE, aligns every tensor to 2 MB; small pieces then settle in the gaps, and the heap grows for
/// ever.)
void keep_memory() {
#if defined(__GLIBC__)
  ::mallopt(M_MMAP_MAX, 0);
  ::mallopt(M_TRIM_THRESHOLD, -1);  // never
#endif
  (void)keep_large_blocks();  // else the heap serves as before
}

void print(std::string_view text) {
  errno = 0;
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  if (written) return;
  const int error = errno;
  std::clearerr(stdout);
  if (error == EPIPE) throw ReaderGone{};
  fail("program.output", "the output cannot be written: {}", std::generic_category().message(error));
}

int run(const std::vector<Verb>& verbs, int argc, const char* const* argv) {
  ::signal(SIGPIPE, SIG_IGN);
  install_interrupt_handler();
  return guarded([&] {
    const std::string word = argc > 1 ? argv[1] : "--help";
    if (word == "--help" || word == "-h" || word == "help") {
      print(overview(verbs));
      return argc > 1 ? 0 : kUserError;
    }
    if (word == "--version") {
      print("switchyard " SWITCHYARD_VERSION "\n");
      return 0;
    }
    for (const Verb& verb : verbs)
      if (verb.name == word) {
        if (verb.computes) {
          keep_memory();
          give_back_code();
        }
        return run_verb(verb, argc - 1, argv + 1);
      }
    unknown_verb(verbs, word);
  });
}

}  // namespace switchyard::program
