// A verb of the program: one file each (program/verb_train.cpp), listed in program/verbs.cpp.
#pragma once

#include <CLI/CLI.hpp>

#include <functional>
#include <string>
#include <vector>

namespace switchyard::program {

struct Verb {
  std::string name;      ///< "train"
  std::string summary;   ///< one line
  std::string example;   ///< shown at the end of --help
  /// Adds the verb's arguments to `app`; the returned function runs it and gives the exit status.
  std::function<std::function<int()>(CLI::App& app)> setup;
};

/// All verbs, in the order that --help shows them.
std::vector<Verb> verbs();

// One factory a file.
Verb train_verb();
Verb resume_verb();
Verb generate_verb();
Verb chat_verb();
Verb logits_verb();
Verb inspect_verb();
Verb convert_verb();
Verb catalog_verb();
Verb reference_verb();  ///< options' reference page and JSON schema
Verb info_verb();
Verb bench_verb();

}  // namespace switchyard::program
