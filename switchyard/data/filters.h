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

/// A page in man macros (see man(7)), paragraphs as lines of their own; pages in mdoc macros and mere links give nothing.
void filter_manual_page(const FilterInput& input, const EmitDocument& emit);
/// A Debian copyright file: the text of each licence in it; a file of another format as it is.
void filter_copyright(const FilterInput& input, const EmitDocument& emit);
/// The translations of a GNU message catalogue (.mo), a line each.
void filter_gettext(const FilterInput& input, const EmitDocument& emit);
/// A compressed module of the SWORD project (zText): its .bzz file, with .bzs and .bzv beside it; a document a chapter.
void filter_sword(const FilterInput& input, const EmitDocument& emit);

}  // namespace switchyard
