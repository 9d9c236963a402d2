#include "program/command_line.h"

#include <CLI/CLI.hpp>

namespace switchyard::program {

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
  return Argument(app_->add_option(name, target, help));
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
