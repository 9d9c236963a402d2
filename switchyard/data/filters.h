// Filters: what turns a file of some format into documents. A domain names one in its options.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

struct FilterInput {
  std::filesystem::path path;
  std::string_view bytes;  ///< unpacked
};
using EmitDocument = std::function<void(std::string)>;

struct Filter {
  std::string name;
  std::string line;  ///< what it does
  /// Throws data.filter when the file is not of its format.
  void (*run)(const FilterInput& input, const EmitDocument& emit);
};

const std::vector<Filter>& filters();
/// Throws data.filter with the nearest name.
const Filter& find_filter(const std::string& name);

}  // namespace switchyard
