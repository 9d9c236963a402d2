// The arguments that a verb takes. CLI11 parses them; its header costs seconds in every source that includes it, so only
// command_line.cpp and run.cpp do.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace switchyard::program {

/// One argument, for what more is to be said about it.
class Argument {
 public:
  explicit Argument(CLI::Option* option) : option_(option) {}
  Argument& required();
  /// Both ends included.
  template <std::integral Whole>
  Argument& between(Whole lowest, Whole highest) {
    return whole_between(lowest, highest);
  }
  Argument& between(double lowest, double highest);
  Argument& positive();
  Argument& not_negative();
  Argument& one_of(std::vector<std::string> words);
  /// May be given several times, with one value each.
  Argument& repeatable();
  /// Values of a list are separated by commas.
  Argument& by_comma();
  /// Not together with the other.
  Argument& excludes(const Argument& other);
  /// Whether it was given; once parsing is done.
  bool given() const;

 private:
  Argument& whole_between(int64_t lowest, int64_t highest);

  CLI::Option* option_;
};

/// What a verb or a subcommand of it reads. Names that begin with a dash are options, others are positional. Targets keep
/// their value where the argument is not given, and must live until the verb has run.
class CommandLine {
 public:
  explicit CommandLine(CLI::App* app) : app_(app) {}
  /// Target: std::string, int, int64_t, double, an optional int64_t or double, a vector of strings or int64_t.
  template <typename Target>
  Argument option(const std::string& name, Target& target, const std::string& help);
  Argument flag(const std::string& name, bool& target, const std::string& help);
  /// One that is there already.
  Argument at(const std::string& name) const;
  CommandLine subcommand(const std::string& name, const std::string& summary);
  /// Exactly one subcommand must be given.
  void needs_subcommand();
  /// Whether this subcommand was; once parsing is done.
  bool chosen() const;

 private:
  CLI::App* app_;
};

}  // namespace switchyard::program
