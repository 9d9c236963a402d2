#include "switchyard/formats/template/numbers.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>

#include "switchyard/formats/template/budget.h"
#include "switchyard/formats/template/characters.h"

namespace switchyard::jinja {
namespace {

/// Without white space around, other scripts' digits as ASCII, and single underscores between digits taken out; false where
/// an underscore stands elsewhere.
bool plain(std::string_view text, std::string& out) {
  text = strip(text, nullptr, Ends::both);
  bool before = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_character(text, at);
    if (c == '_') {
      if (!before || at >= text.size() || text[at] == '_') return false;
      before = false;
      continue;
    }
    if (c < 0x80) out.push_back(static_cast<char>(c));
    else if (is_decimal(c)) out.push_back(static_cast<char>('0' + decimal_value(c)));
    else return false;
    before = std::isalnum(static_cast<unsigned char>(out.back())) != 0;
  }
  return true;
}

}  // namespace

bool read_integer(std::string_view text, int base, Integer& value) {
  std::string digits;
  if (!plain(text, digits)) return false;
  size_t at = 0;
  const bool negative = !digits.empty() && digits[0] == '-';
  if (!digits.empty() && (digits[0] == '-' || digits[0] == '+')) at = 1;
  if (digits.size() > at + 1 && digits[at] == '0') {
    const char mark = static_cast<char>(digits[at + 1] | 32);
    const int named = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (named && (base == 0 || base == named)) {
      base = named;
      at += 2;
    } else if (base == 0 && digits.find_first_not_of('0', at) != std::string::npos) {
      return false;
    }
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36) fault("template.value", "int() base must be >= 2 and <= 36, or 0");
  if (at >= digits.size()) return false;
  value = 0;
  for (; at < digits.size(); ++at) {
    const char c = digits[at];
    const int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'z' ? (c | 32) - 'a' + 10 : 99;
    if (digit >= base) return false;
    if (__builtin_mul_overflow(value, static_cast<Integer>(base), &value) || __builtin_add_overflow(value, static_cast<Integer>(digit), &value))
      fault("template.integer", "the template reads an integer of more than 128 bits");
  }
  if (negative) value = -value;
  return true;
}

bool read_real(std::string_view text, double& value) {
  std::string digits;
  if (!plain(text, digits) || digits.empty()) return false;
  std::string low = lower(digits);
  const size_t sign = low[0] == '-' || low[0] == '+';
  const std::string word = low.substr(sign);
  if (word == "inf" || word == "infinity") {
    value = low[0] == '-' ? -HUGE_VAL : HUGE_VAL;
    return true;
  }
  if (word == "nan") {
    value = std::nan("");
    return true;
  }
  if (word.empty() || word.find_first_not_of("0123456789.e+-") != std::string::npos) return false;
  char* end = nullptr;
  value = std::strtod(digits.c_str(), &end);
  return end == digits.c_str() + digits.size();
}

}  // namespace switchyard::jinja
