// A verb of the program: one file each. program/verb_train.cpp defines `Verb train_verb()` (at the beginning of a line,
// in this namespace); the build finds it there, and nothing else needs to be told.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "program/command_line.h"

namespace switchyard::program {

struct Verb {
  std::string name;      ///< "train"
  std::string summary;   ///< one line
  std::string example;   ///< shown at the end of --help
  bool computes = false; ///< runs a network: see keep_memory() in run.cpp
  /// Adds the verb's arguments to `line`; the returned function runs it and gives the exit status.
  std::function<std::function<int()>(CommandLine& line)> setup;
};

/// All verbs, sorted by name; written by the build.
std::vector<Verb> verbs();

/// The program: parses, runs one verb, turns what is thrown into one line on stderr. Exit status: 0 done, 2 an error that
/// the user can mend, 3 an error of ours, else what the verb returned.
int run(const std::vector<Verb>& verbs, int argc, const char* const* argv);

/// Writes to stdout; throws program.output when it cannot be written. A reader that closed its pipe is no error: the program
/// then ends with status 0.
void print(std::string_view text);

}  // namespace switchyard::program
