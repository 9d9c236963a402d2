#include "switchyard/formats/tokenizers/long_lists.h"

#include <charconv>
#include <utility>

#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

/// Walks a text of JSON. Each step returns false where the text does not go on as it says.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) {}
  size_t place() const { return at_; }
  bool done() {
    skip_blanks();
    return at_ == text_.size();
  }
  char next() {
    skip_blanks();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char wanted) {
    if (next() != wanted) return false;
    ++at_;
    return true;
  }

  /// A string literal as the text that it stands for.
  bool string(std::string& value) {
    value.clear();
    if (!take('"')) return false;
    bool ascii = true;
    for (size_t from = at_; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (static_cast<unsigned char>(c) < 0x20) return false;
      ascii = ascii && static_cast<unsigned char>(c) < 0x80;
      if (c != '"' && c != '\\') continue;
      value.append(text_, from, at_ - from);
      ++at_;
      if (c == '"') return ascii || utf8_valid(value);
      if (!escape(value)) return false;
      from = at_--;
    }
    return false;
  }

  /// A whole number from 0 up to 2^31.
  bool integer(int64_t& value) {
    const size_t begin = number_begins();
    const auto [end, error] = std::from_chars(text_.data() + begin, text_.data() + text_.size(), value);
    return finish_number(end) && error == std::errc() && value >= 0 && value < int64_t{1} << 31;
  }
  bool real(double& value) {
    const size_t begin = number_begins();
    const auto [end, error] = std::from_chars(text_.data() + begin, text_.data() + text_.size(), value);
    return finish_number(end) && error == std::errc();
  }

  /// Any value, of which only the brackets are looked at.
  bool skip() {
    const char first = next();
    if (first == '"') return skip_string();
    if (first != '{' && first != '[') {
      const size_t begin = at_;
      while (at_ < text_.size() && std::string_view(",]} \t\r\n").find(text_[at_]) == std::string_view::npos) ++at_;
      return at_ > begin;
    }
    int64_t depth = 0;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '"') {
        if (!skip_string()) return false;
        continue;
      }
      ++at_;
      if (c == '{' || c == '[') ++depth;
      else if ((c == '}' || c == ']') && --depth == 0) return true;
    }
    return false;
  }

  /// Calls member(key) at each value of an object, element() at each of a list; they read it and say whether they could.
  template <typename F>
  bool object(F&& member) {
    if (!take('{')) return false;
    if (take('}')) return true;
    std::string key;
    do {
      if (!string(key) || !take(':') || !member(key)) return false;
    } while (take(','));
    return take('}');
  }
  template <typename F>
  bool list(F&& element) {
    if (!take('[')) return false;
    if (take(']')) return true;
    do {
      if (!element()) return false;
    } while (take(','));
    return take(']');
  }

 private:
  void skip_blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r')) ++at_;
  }
  bool skip_string() {
    for (++at_; at_ < text_.size(); ++at_) {
      if (text_[at_] == '\\') ++at_;
      else if (text_[at_] == '"') return ++at_, true;
    }
    return false;
  }
  size_t number_begins() {
    skip_blanks();
    return at_;
  }
  /// Only the spellings that JSON has: a digit at both ends, no leading zero.
  bool finish_number(const char* end) {
    const size_t begin = at_;
    at_ = static_cast<size_t>(end - text_.data());
    std::string_view digits = text_.substr(begin, at_ - begin);
    if (digits.starts_with('-')) digits.remove_prefix(1);
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    if (digits.empty() || !is_digit(digits.front()) || !is_digit(digits.back())) return false;
    if (digits.size() > 1 && digits[0] == '0' && is_digit(digits[1])) return false;
    const size_t point = digits.find('.');
    return (point == std::string_view::npos || is_digit(digits[point + 1])) &&
           (at_ == text_.size() || std::string_view(".eE+-").find(text_[at_]) == std::string_view::npos);
  }
  bool four_digits(char32_t& code) {
    if (text_.size() - at_ < 4) return false;
    uint32_t value = 0;
    const char *begin = text_.data() + at_, *end = begin + 4;
    if (std::from_chars(begin, end, value, 16).ptr != end) return false;
    at_ += 4;
    code = value;
    return true;
  }
  bool escape(std::string& value) {
    if (at_ == text_.size()) return false;
    const char c = text_[at_++];
    constexpr std::string_view kLetters = "\"\\/bfnrt", kStandFor = "\"\\/\b\f\n\r\t";
    if (const size_t which = kLetters.find(c); which != std::string_view::npos) {
      value += kStandFor[which];
      return true;
    }
    char32_t code = 0, low = 0;
    if (c != 'u' || !four_digits(code)) return false;
    if (code >= 0xDC00 && code < 0xE000) return false;
    if (code >= 0xD800 && code < 0xDC00) {
      if (text_.substr(at_, 2) != "\\u") return false;
      at_ += 2;
      if (!four_digits(low) || low < 0xDC00 || low >= 0xE000) return false;
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    utf8_append(value, code);
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
};

bool read_ids(Cursor& cursor, LongLists& lists) {
  return cursor.object([&, &ids = lists.ids.emplace()](std::string& token) {
    int64_t id = 0;
    if (!cursor.integer(id)) return false;
    ids.emplace_back(std::move(token), id);
    return true;
  });
}

bool read_scores(Cursor& cursor, LongLists& lists) {
  return cursor.list([&, &scores = lists.scores.emplace()] {
    std::string token;
    double score = 0;
    if (!cursor.take('[') || !cursor.string(token) || !cursor.take(',') || !cursor.real(score) || !cursor.take(']')) return false;
    scores.emplace_back(std::move(token), score);
    return true;
  });
}

bool read_merges(Cursor& cursor, LongLists& lists) {
  std::string line, right;
  return cursor.list([&, &merges = lists.merges.emplace()] {
    if (cursor.next() == '[') {
      if (!cursor.take('[') || !cursor.string(line) || !cursor.take(',') || !cursor.string(right) || !cursor.take(']')) return false;
      merges.emplace_back(std::move(line), std::move(right));
      return true;
    }
    if (!cursor.string(line)) return false;
    if (line.starts_with("#version")) return true;
    const size_t space = line.find(' ');
    if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos) return false;
    merges.emplace_back(line.substr(0, space), line.substr(space + 1));
    return true;
  });
}

}  // namespace

std::optional<LongLists> take_long_lists(std::string_view json) {
  LongLists lists;
  Cursor cursor(json);
  size_t kept = 0;  // of the text, up to here
  const auto taken = [&](auto&& read) {
    const bool object = cursor.next() == '{';
    lists.rest.append(json, kept, cursor.place() - kept);
    lists.rest += object ? "{}" : "[]";
    const bool good = read(cursor, lists);
    kept = cursor.place();
    return good;
  };
  bool model = false;
  const bool good = cursor.object([&](const std::string& part) {
    if (part != "model") return cursor.skip();
    if (std::exchange(model, true)) return false;
    return cursor.object([&](const std::string& key) {
      if (key == "merges") return !lists.merges && cursor.next() == '[' && taken(read_merges);
      if (key != "vocab") return cursor.skip();
      if (lists.ids || lists.scores) return false;
      return cursor.next() == '{' ? taken(read_ids) : cursor.next() == '[' && taken(read_scores);
    });
  });
  if (!good || !cursor.done()) return std::nullopt;
  lists.rest.append(json, kept);
  return lists;
}

}  // namespace switchyard
