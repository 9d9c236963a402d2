#include "program/command_line.h"

#include <CLI/CLI.hpp>

#include <cmath>
#include <type_traits>

namespace switchyard::program {

namespace {

/// What a range lets through: "nan" is in none and compares with nothing, and a count too large for its type is cut to fit.
std::string not_a_number(const std::string& text) {
  double value = 0;
  return CLI::detail::lexical_cast(text, value) && std::isnan(value) ? text + " is no number to compute with" : std::string();
}
std::string too_large(const std::string& text) {
  double value = 0;
  return CLI::detail::lexical_cast(text, value) && std::abs(value) > 0x1p63 ? text + " is too large" : std::string();
}

template <typename Target>
constexpr bool kReal = std::is_same_v<Target, double> || std::is_same_v<Target, std::optional<double>>;
template <typename Target>
constexpr bool kWhole = std::is_integral_v<Target> || std::is_same_v<Target, std::optional<int64_t>> || std::is_same_v<Target, std::vector<int64_t>>;

}  // namespace

Argument& Argument::required() {
  option_->required();
  return *this;
}

Argument& Argument::whole_between(int64_t lowest, int64_t highest) {
  option_->check(CLI::Range(lowest, highest));
  return *this;
}

Argument& Argument::between(double lowest, double highest) {
  option_->check(CLI::Range(lowest, highest));
  return *this;
}

Argument& Argument::positive() {
  option_->check(CLI::PositiveNumber);
  return *this;
}

Argument& Argument::not_negative() {
  option_->check(CLI::NonNegativeNumber);
  return *this;
}

Argument& Argument::one_of(std::vector<std::string> words) {
  option_->check(CLI::IsMember(std::move(words)));
  return *this;
}

Argument& Argument::repeatable() {
  option_->expected(1)->take_all();
  return *this;
}

Argument& Argument::by_comma() {
  option_->delimiter(',');
  return *this;
}

Argument& Argument::excludes(const Argument& other) {
  option_->excludes(other.option_);
  return *this;
}

bool Argument::given() const { return option_->count() > 0; }

template <typename Target>
Argument CommandLine::option(const std::string& name, Target& target, const std::string& help) {
  CLI::Option* option = app_->add_option(name, target, help);
  if constexpr (kReal<Target>) option->check(not_a_number, "");
  if constexpr (kWhole<Target>) option->check(too_large, "");
  return Argument(option);
}
template Argument CommandLine::option(const std::string&, std::string&, const std::string&);
template Argument CommandLine::option(const std::string&, int&, const std::string&);
template Argument CommandLine::option(const std::string&, int64_t&, const std::string&);
template Argument CommandLine::option(const std::string&, double&, const std::string&);
template Argument CommandLine::option(const std::string&, std::optional<int64_t>&, const std::string&);
template Argument CommandLine::option(const std::string&, std::optional<double>&, const std::string&);
template Argument CommandLine::option(const std::string&, std::vector<std::string>&, const std::string&);
template Argument CommandLine::option(const std::string&, std::vector<int64_t>&, const std::string&);

Argument CommandLine::flag(const std::string& name, bool& target, const std::string& help) {
  return Argument(app_->add_flag(name, target, help));
}

Argument CommandLine::at(const std::string& name) const { return Argument(app_->get_option(name)); }

CommandLine CommandLine::subcommand(const std::string& name, const std::string& summary) {
  return CommandLine(app_->add_subcommand(name, summary));
}

void CommandLine::needs_subcommand() { app_->require_subcommand(1); }

bool CommandLine::chosen() const { return app_->parsed(); }

}  // namespace switchyard::program
