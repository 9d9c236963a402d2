// Debian's machine-readable copyright files: stanzas of fields, whose further lines are indented and write a blank line
// as " ." (copyright-format 1.0). The lists of files and people are left out.
#include <algorithm>

#include "switchyard/data/filters.h"

namespace switchyard {

void filter_copyright(const FilterInput& input, const EmitDocument& emit) {
  if (!input.bytes.starts_with("Format:")) return emit(std::string(input.bytes));
  std::string text;
  bool licence = false, body = false;
  const auto finish = [&] {
    if (body) emit(std::move(text));
    text.clear();
    licence = body = false;
  };
  for (std::string_view rest = input.bytes; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (line.starts_with("License:")) {
      finish();
      licence = true;
      const size_t name = line.find_first_not_of(' ', 8);
      if (name != std::string_view::npos) text = std::string(line.substr(name)) + "\n\n";
    } else if (!line.starts_with(' ') && !line.starts_with('\t')) {
      finish();
    } else if (licence) {
      body = true;
      if (line != " .") text += line.substr(1);
      text += '\n';
    }
  }
  finish();
}

}  // namespace switchyard
