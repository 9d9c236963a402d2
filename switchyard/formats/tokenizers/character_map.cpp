#include "switchyard/formats/tokenizers/character_map.h"

#include <bit>
#include <cstring>

#include "switchyard/base/error.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {

CharacterMap::CharacterMap(std::string_view bytes) {
  static_assert(std::endian::native == std::endian::little, "the table is read as it lies");
  uint32_t trie_bytes = 0;
  if (bytes.size() >= 4) std::memcpy(&trie_bytes, bytes.data(), 4);
  check(bytes.size() > 4 && trie_bytes > 0 && trie_bytes % 4 == 0 && trie_bytes <= bytes.size() - 4, "tokenizer.format",
        "the precompiled character map says that its trie has {} bytes, but it has {} in all", trie_bytes, bytes.size());
  units_.resize(trie_bytes / 4);
  std::memcpy(units_.data(), bytes.data() + 4, trie_bytes);
  texts_ = std::string(bytes.substr(4 + trie_bytes));
  check(utf8_repair(texts_) == texts_, "tokenizer.format", "the precompiled character map holds text that is not UTF-8");
}

constexpr uint32_t kLabel = (1u << 31) | 0xFF;

// A unit: bits 0 to 7 the label (bit 31 set: a value), bit 8 whether a value hangs here, bits 9 up the offset of its children.
template <typename F>
size_t CharacterMap::walk(std::string_view text, F&& each) const {
  const auto offset = [](uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); };
  if (units_.empty()) return 0;
  size_t node = offset(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    node ^= byte;
    if (byte == 0 || node >= units_.size()) return 0;
    const uint32_t unit = units_[node];
    if ((unit & kLabel) != byte) return 0;
    node ^= offset(unit);
    if ((unit >> 8 & 1) == 0) continue;
    if (node >= units_.size()) return 0;
    if (!each(i + 1, units_[node] & 0x7FFFFFFFu)) return 0;
  }
  return node;
}

bool CharacterMap::goes_on(std::string_view text) const {
  const size_t node = walk(text, [](size_t, uint32_t) { return true; });
  for (size_t byte = 1; node != 0 && byte < 256; ++byte)
    if ((node ^ byte) < units_.size() && (units_[node ^ byte] & kLabel) == byte) return true;
  return false;
}

std::string_view CharacterMap::text_at(uint32_t place) const {
  if (place >= texts_.size()) return {};
  const size_t end = texts_.find('\0', place);
  return std::string_view(texts_).substr(place, end == std::string::npos ? end : end - place);
}

CharacterMap::Match CharacterMap::longest(std::string_view text) const {
  Match match;
  walk(text, [&](size_t bytes, uint32_t place) {
    match = {bytes, text_at(place)};
    return true;
  });
  return match;
}

CharacterMap::Match CharacterMap::shortest(std::string_view text) const {
  Match match;
  walk(text, [&](size_t bytes, uint32_t place) {
    match = {bytes, text_at(place)};
    return false;
  });
  return match;
}

}  // namespace switchyard
