// GNU message catalogues: two tables of (length, offset), originals and translations, then the strings
// (The Format of GNU MO Files, gettext manual).
#include <algorithm>

#include "switchyard/base/error.h"
#include "switchyard/data/filters.h"

namespace switchyard {

void filter_gettext(const FilterInput& input, const EmitDocument& emit) {
  const std::string_view bytes = input.bytes;
  bool swapped = false;
  const auto word = [&](uint64_t at) -> uint64_t {
    check(at + 4 <= bytes.size(), "data.filter", "{} ends at byte {}, inside a table; it is no whole message catalogue",
          input.path.string(), bytes.size());
    uint32_t value = 0;
    for (uint64_t i = 0; i < 4; ++i)
      value |= static_cast<uint32_t>(static_cast<unsigned char>(bytes[at + i])) << (8 * (swapped ? 3 - i : i));
    return value;
  };
  constexpr uint64_t kMagic = 0x950412DE;
  if (word(0) != kMagic) swapped = true;
  check(word(0) == kMagic, "data.filter", "{} is no message catalogue (.mo)", input.path.string());
  const auto text = [&](uint64_t table, uint64_t i) {
    const uint64_t length = word(table + 8 * i), offset = word(table + 8 * i + 4);
    check(offset + length <= bytes.size(), "data.filter", "{}: message {} lies outside the file", input.path.string(), i);
    return bytes.substr(offset, length);
  };
  const uint64_t count = word(8), originals = word(12), translations = word(16);
  std::string document;
  for (uint64_t i = 0; i < count; ++i) {
    if (text(originals, i).empty()) continue;  // the catalogue's header
    std::string_view message = text(translations, i);
    // Plural forms are separated by zero bytes.
    while (!message.empty()) {
      const std::string_view form = message.substr(0, message.find('\0'));
      message.remove_prefix(std::min(form.size() + 1, message.size()));
      document += form;
      if (!form.ends_with('\n')) document += '\n';
    }
  }
  if (!document.empty()) emit(std::move(document));
}

}  // namespace switchyard
