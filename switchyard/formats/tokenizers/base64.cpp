#include "switchyard/formats/tokenizers/base64.h"

#include <cstdint>

#include "switchyard/base/error.h"

namespace switchyard {

std::string from_base64(std::string_view text, std::string_view place) {
  const auto digit = [](char c) {
    return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : c >= '0' && c <= '9' ? c - '0' + 52 : c == '+' ? 62 : c == '/' ? 63 : -1;
  };
  size_t padding = 0;
  while (padding < 2 && text.ends_with('=')) {
    text.remove_suffix(1);
    ++padding;
  }
  const size_t rest = text.size() % 4;
  check(rest != 1 && (text.size() + padding) % 4 == 0, "tokenizer.format", "{}: {} characters are no base64", place, text.size() + padding);
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3 + 3);
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const int value = digit(c);
    check(value >= 0, "tokenizer.format", "{}: the byte {} is no base64", place, static_cast<int>(static_cast<unsigned char>(c)));
    bits = bits << 6 | static_cast<uint32_t>(value);
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes += static_cast<char>(bits >> count & 0xFF);
    }
  }
  return bytes;
}

}  // namespace switchyard
