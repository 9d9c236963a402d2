#include "switchyard/data/filters.h"

#include <fmt/ranges.h>

#include "switchyard/base/error.h"
#include "switchyard/base/options.h"

namespace switchyard {

const std::vector<Filter>& filters() {
  static const std::vector<Filter> all = {
      {"copyright", "the licences in a Debian copyright file", filter_copyright},
      {"gettext", "the translations in a message catalogue (.mo)", filter_gettext},
      {"manual-page", "the text of a manual page", filter_manual_page},
      {"sword", "the chapters of a scripture module (name its .bzz files)", filter_sword},
  };
  return all;
}

const Filter& find_filter(const std::string& name) {
  std::vector<std::string> names;
  for (const Filter& filter : filters()) {
    if (filter.name == name) return filter;
    names.push_back(filter.name);
  }
  const std::string near = nearest(name, names);
  fail("data.filter", "there is no filter \"{}\"{}; there are {}", name, near.empty() ? "" : fmt::format(", did you mean \"{}\"?", near),
       fmt::join(names, ", "));
}

}  // namespace switchyard
