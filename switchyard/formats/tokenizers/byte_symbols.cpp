#include "switchyard/formats/tokenizers/byte_symbols.h"

#include <fmt/format.h>

#include <array>

#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

struct Symbols {
  std::array<std::string, 256> of_byte;
  std::array<int, 0x144> of_code;
  Symbols() {
    of_code.fill(-1);
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      const char32_t code = printable ? static_cast<char32_t>(byte) : next++;
      utf8_append(of_byte[static_cast<size_t>(byte)], code);
      of_code[code] = byte;
    }
  }
};

const Symbols& symbols() {
  static const Symbols table;
  return table;
}

}  // namespace

std::string_view byte_symbol(unsigned char byte) { return symbols().of_byte[byte]; }

int byte_of_symbol(char32_t symbol) { return symbol < symbols().of_code.size() ? symbols().of_code[symbol] : -1; }

std::string to_byte_symbols(std::string_view bytes) {
  std::string result;
  for (const char byte : bytes) result += byte_symbol(static_cast<unsigned char>(byte));
  return result;
}

void append_bytes_of_symbols(std::string_view token, std::string& bytes) {
  const Symbols& table = symbols();
  const size_t before = bytes.size();
  for (size_t at = 0; at < token.size();) {
    const size_t length = utf8_length(token[at]);
    const char32_t code = utf8_code_point(token.substr(at, length));
    if (code >= table.of_code.size() || table.of_code[code] < 0) {
      bytes.replace(before, std::string::npos, token);
      return;
    }
    bytes += static_cast<char>(table.of_code[code]);
    at += length;
  }
}

std::string from_byte_symbols(std::string_view token) {
  std::string bytes;
  append_bytes_of_symbols(token, bytes);
  return bytes;
}

std::string byte_token(int byte) { return fmt::format("<0x{:02X}>", byte); }

int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  const int high = digit(token[3]), low = digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace switchyard
