#include "program/adapters.h"

#include <charconv>
#include <filesystem>

#include "switchyard/base/error.h"

namespace switchyard::program {

namespace fs = std::filesystem;

void add_adapter_options(CommandLine& line, AdapterArguments& arguments) {
  line.option("--adapter", arguments.adapters,
              "folder of an adapter in peft's form, or folder=weight; given several times, what they add is summed")
      .repeatable();
  line.option("--expert", arguments.experts, "NAME=DIR: where an adapter of an X-LoRA is, when not beside it")
      .repeatable();
}

std::pair<std::string, double> adapter_and_weight(const std::string& word) {
  const size_t equals = word.rfind('=');
  if (equals == std::string::npos || fs::is_directory(word)) return {word, 1};
  double weight = 0;
  const char *begin = word.data() + equals + 1, *end = word.data() + word.size();
  const auto [rest, error] = std::from_chars(begin, end, weight);
  check(error == std::errc() && rest == end && begin != end, "program.usage", "--adapter {}: '{}' is no number; give folder=weight", word,
        word.substr(equals + 1));
  return {word.substr(0, equals), weight};
}

std::vector<std::pair<peft::AdapterFile, double>> read_adapters(const AdapterArguments& arguments) {
  std::map<std::string, fs::path> experts;
  for (const std::string& word : arguments.experts) {
    const size_t equals = word.find('=');
    check(equals != std::string::npos && equals > 0, "program.usage", "--expert {} is not NAME=DIR", word);
    experts[word.substr(0, equals)] = word.substr(equals + 1);
  }
  std::vector<std::pair<peft::AdapterFile, double>> files;
  for (const std::string& word : arguments.adapters) {
    const auto [folder, weight] = adapter_and_weight(word);
    files.emplace_back(peft::read_adapter(folder, experts), weight);
  }
  return files;
}

std::vector<ActiveAdapter> load_adapters(AdapterSet& set, const std::vector<std::pair<peft::AdapterFile, double>>& adapters) {
  std::vector<ActiveAdapter> active;
  for (const auto& [file, weight] : adapters) {
    std::string name = fs::path(file.where).lexically_normal().filename().string();
    if (name.empty() || set.has(name)) name = file.where;
    set.load(name, file);
    active.push_back({name, weight});
  }
  return active;
}

void use_adapters(AdaptedModel& model, const AdapterArguments& arguments) {
  const std::vector<std::pair<peft::AdapterFile, double>> files = read_adapters(arguments);
  if (files.size() == 1 && files.front().first.config.kind == peft::Kind::xlora) {
    check(files.front().second == 1, "adapters.kind", "{} is an X-LoRA, which finds its weights itself; {} was asked for",
          files.front().first.where, files.front().second);
    model.load_xlora(files.front().first);
    return;
  }
  if (!files.empty()) model.use(load_adapters(model.adapters(), files));
}

}  // namespace switchyard::program
