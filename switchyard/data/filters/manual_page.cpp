// Manual pages in man macros, as far as their text needs it: fonts go, paragraphs are joined to one line, what is set as
// it stands keeps its lines. References: man(7), groff_man(7), groff_char(7).
#include <algorithm>
#include <cctype>
#include <map>
#include <vector>

#include "switchyard/data/filters.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

const std::map<std::string_view, std::string_view>& special_characters() {
  static const std::map<std::string_view, std::string_view> all = {
      {"aq", "'"}, {"dq", "\""}, {"lq", "“"}, {"rq", "”"}, {"oq", "‘"}, {"cq", "’"}, {"Bq", "„"}, {"bq", "‚"}, {"Fo", "«"}, {"Fc", "»"},
      {"em", "—"}, {"en", "–"}, {"hy", "-"}, {"mi", "−"}, {"bu", "•"}, {"co", "©"}, {"rg", "®"}, {"tm", "™"}, {"de", "°"}, {"mu", "×"},
      {"di", "÷"}, {"+-", "±"}, {"<=", "≤"}, {">=", "≥"}, {"!=", "≠"}, {"==", "≡"}, {"->", "→"}, {"<-", "←"}, {"ua", "↑"}, {"da", "↓"},
      {"ha", "^"}, {"ti", "~"}, {"rs", "\\"}, {"ga", "`"}, {"aa", "´"}, {"sc", "§"}, {"ps", "¶"}, {"at", "@"}, {"sh", "#"}, {"Do", "$"},
      {"12", "½"}, {"14", "¼"}, {"34", "¾"}, {"if", "∞"}, {"sr", "√"}, {"pc", "·"}, {"ba", "|"}, {"or", "|"}, {"br", "│"}, {"ul", "_"},
      {"ss", "ß"}, {"*a", "α"}, {"*b", "β"}, {"*m", "μ"}, {"*p", "π"}, {":a", "ä"}, {":o", "ö"}, {":u", "ü"}, {":A", "Ä"}, {":O", "Ö"},
      {":U", "Ü"}, {":e", "ë"}, {":i", "ï"}, {"'a", "á"}, {"'e", "é"}, {"'i", "í"}, {"'o", "ó"}, {"'u", "ú"}, {"`a", "à"}, {"`e", "è"},
      {"^a", "â"}, {"^e", "ê"}, {"^i", "î"}, {"^o", "ô"}, {"^u", "û"}, {"~n", "ñ"}, {",c", "ç"}, {"lB", "["}, {"rB", "]"}, {"lC", "{"},
      {"rC", "}"}, {"la", "⟨"}, {"ra", "⟩"}, {"Tm", "™"}, {"R", "®"},
  };
  return all;
}

/// Takes the name after \(, \*, \f: "x", "(xx" or "[xxx]".
std::string_view take_name(std::string_view& rest) {
  std::string_view name;
  if (rest.starts_with('(')) {
    name = rest.substr(1, 2);
    rest.remove_prefix(std::min<size_t>(3, rest.size()));
  } else if (rest.starts_with('[')) {
    const size_t end = std::min(rest.find(']'), rest.size());
    name = rest.substr(1, end - 1);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  } else if (!rest.empty()) {
    name = rest.substr(0, 1);
    rest.remove_prefix(1);
  }
  return name;
}

void append_special(std::string& out, std::string_view name) {
  const auto known = special_characters().find(name);
  if (known != special_characters().end()) out += known->second;
  else if (name.size() > 4 && name[0] == 'u') utf8_append(out, static_cast<char32_t>(std::strtoul(std::string(name.substr(1)).c_str(), nullptr, 16)));
}

/// Escape sequences replaced by what they print.
std::string unescape(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t plain = std::min(text.find('\\'), text.size());
    out += text.substr(0, plain);
    text.remove_prefix(plain);
    if (text.size() < 2) break;
    const char c = text[1];
    text.remove_prefix(2);
    switch (c) {
      case '-': out += '-'; break;
      case 'e': case '\\': out += '\\'; break;
      case '\'': out += "´"; break;
      case '`': case '.': out += c; break;
      case ' ': case '~': case '0': out += ' '; break;
      case 't': out += '\t'; break;
      case '"': case '#': text = {}; break;
      case '(': text = std::string_view(text.data() - 1, text.size() + 1); append_special(out, take_name(text)); break;
      case '[': text = std::string_view(text.data() - 1, text.size() + 1); append_special(out, take_name(text)); break;
      case '*': append_special(out, take_name(text)); break;
      case 'f': case 'F': case 'm': case 'M': case 'n': case 'g': case 'k': (void)take_name(text); break;
      case 's':  // a size: sign and digits
        if (text.starts_with('+') || text.starts_with('-')) text.remove_prefix(1);
        if (text.starts_with('(') || text.starts_with('[')) (void)take_name(text);
        else while (!text.empty() && std::isdigit(static_cast<unsigned char>(text[0]))) text.remove_prefix(1);
        break;
      case 'h': case 'v': case 'w': case 'l': case 'L': case 'D': case 'o': case 'N': case 'X': case 'Z':  // 'argument'
        if (!text.empty()) text.remove_prefix(std::min(text.find(text[0], 1), text.size() - 1) + 1);
        break;
      default: break;  // \& \| \^ \/ \, \: \% \c \z and the like print nothing
    }
  }
  return out;
}

/// The arguments of a macro line: words, or "quoted" with "" for a quote.
std::vector<std::string> arguments(std::string_view text) {
  std::vector<std::string> words;
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
    if (text.empty() || text.starts_with("\\\"")) return words;
    std::string word;
    if (text[0] == '"') {
      text.remove_prefix(1);
      while (!text.empty() && (text[0] != '"' || text.starts_with("\"\""))) {
        const size_t quote = text[0] == '"' ? 1 : 0;
        word += text[0];
        text.remove_prefix(1 + quote);
      }
      if (!text.empty()) text.remove_prefix(1);
    } else {
      while (!text.empty() && text[0] != ' ' && text[0] != '\t') {
        const size_t take = text[0] == '\\' && text.size() > 1 ? 2 : 1;  // "\ " does not end a word
        word += text.substr(0, take);
        text.remove_prefix(take);
      }
    }
    words.push_back(std::move(word));
  }
}

class Page {
 public:
  void line(std::string_view text) {
    if (!skip_until_.empty()) {
      if (text.starts_with(skip_until_)) skip_until_ = {};
      return;
    }
    if (blocks_ > 0) {  // a conditional's block, whose condition we do not know
      count_blocks(text);
      return;
    }
    if (table_) return table_line(text);
    if (text.starts_with('.') || text.starts_with('\'')) return macro(text.substr(1));
    if (text.find_first_not_of(" \t") == std::string_view::npos) return paragraph();
    put(unescape(text), text[0] == ' ');
  }

  /// Empty when the page holds no text of its own.
  std::string finish() {
    paragraph();
    while (text_.ends_with('\n')) text_.pop_back();
    return title_.empty() || text_.find('\n') == std::string::npos ? std::string() : text_ + "\n";
  }

 private:
  void count_blocks(std::string_view text) {
    for (size_t i = 0; i + 1 < text.size(); ++i)
      if (text[i] == '\\') {
        blocks_ += text[i + 1] == '{' ? 1 : text[i + 1] == '}' ? -1 : 0;
        ++i;
      }
    blocks_ = std::max(0, blocks_);
  }

  /// Text of one input line; `alone`: it keeps a line of its own.
  void put(std::string_view words, bool alone) {
    if (words.find_first_not_of(" \t") == std::string_view::npos) return;
    if (as_it_stands_ || alone || line_next_) {
      flush();
      text_ += words;
      text_ += '\n';
      line_next_ = false;
    } else {
      if (!filled_.empty()) filled_ += ' ';
      filled_ += words;
    }
  }
  void flush() {
    if (!filled_.empty()) text_ += filled_ + '\n';
    filled_.clear();
  }
  void paragraph() {
    flush();
    if (!text_.empty() && !text_.ends_with("\n\n")) text_ += '\n';
  }
  void heading(const std::string& words) {
    paragraph();
    if (!words.empty()) text_ += words + "\n";
    as_it_stands_ = false;
  }

  void table_line(std::string_view text) {
    if (text.starts_with(".TE")) {
      table_ = false;
      return paragraph();
    }
    if (!table_rows_) {  // the layout, up to a line that ends with a full stop
      const size_t last = text.find_last_not_of(" \t");
      table_rows_ = last != std::string_view::npos && text[last] == '.';
      return;
    }
    if (text.starts_with('.') || text == "_" || text == "=") return;
    std::string row = unescape(text);
    for (const std::string_view mark : {"T{", "T}"})
      for (size_t at = row.find(mark); at != std::string::npos; at = row.find(mark, at)) row.erase(at, mark.size());
    for (size_t at = row.find('\t'); at != std::string::npos; at = row.find('\t', at)) row.replace(at, 1, "  ");
    put(row, true);
  }

  void macro(std::string_view text) {
    text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
    const size_t end = std::min(text.find_first_of(" \t\\"), text.size());
    const std::string_view name = text.substr(0, end);
    const std::string_view rest = text.substr(end);
    if (name.empty() || name == "so") return;
    if (name == "TH") return take_title(arguments(rest));
    if (name == "SH" || name == "SS") {
      const std::string words = joined(arguments(rest), " ");
      heading(words);
      line_next_ = words.empty();
      return;
    }
    if (name == "de" || name == "de1" || name == "am" || name == "ig") {
      skip_until_ = "..";
    } else if (name == "EQ") {
      skip_until_ = ".EN";
    } else if (name == "if" || name == "ie" || name == "el") {
      count_blocks(rest);
    } else if (name == "TS") {
      paragraph();
      table_ = true;
      table_rows_ = false;
    } else if (name == "nf" || name == "EX") {
      flush();
      as_it_stands_ = true;
    } else if (name == "fi" || name == "EE") {
      as_it_stands_ = false;
    } else if (name == "br" || name == "RS" || name == "RE") {
      flush();
    } else if (name == "PP" || name == "P" || name == "LP" || name == "HP" || name == "sp") {
      paragraph();
    } else if (name == "TP" || name == "TQ") {
      if (name == "TP") paragraph();
      else flush();
      line_next_ = true;
    } else if (name == "IP") {
      paragraph();
      if (const auto words = arguments(rest); !words.empty()) put(unescape(words[0]), words[0].size() > 4);
    } else if (name == "B" || name == "I" || name == "SM" || name == "SB" || name == "R") {
      put(joined(arguments(rest), " "), false);
    } else if (name == "BR" || name == "RB" || name == "BI" || name == "IB" || name == "IR" || name == "RI") {
      put(joined(arguments(rest), ""), false);
    } else if (name == "UR" || name == "MT") {
      link_ = joined(arguments(rest), " ");
    } else if (name == "UE" || name == "ME") {
      put(link_ + joined(arguments(rest), ""), false);
    } else if (name == "SY") {
      paragraph();
      put(joined(arguments(rest), " "), false);
    } else if (name == "OP") {
      put("[" + joined(arguments(rest), " ") + "]", false);
    }
  }

  void take_title(const std::vector<std::string>& words) {
    if (words.empty()) return;
    title_ = unescape(words[0]) + (words.size() > 1 ? "(" + unescape(words[1]) + ")" : "");
    text_ = title_ + "\n";
  }

  static std::string joined(const std::vector<std::string>& words, std::string_view between) {
    std::string all;
    for (size_t i = 0; i < words.size(); ++i) {
      if (i > 0) all += between;
      all += words[i];
    }
    return unescape(all);
  }

  std::string text_, filled_, title_, link_, skip_until_;
  int blocks_ = 0;
  bool as_it_stands_ = false, table_ = false, table_rows_ = false;
  bool line_next_ = false;  ///< the next text keeps a line of its own: a tag, a heading
};

}  // namespace

void filter_manual_page(const FilterInput& input, const EmitDocument& emit) {
  Page page;
  std::string joined;  // a line that ends with a backslash goes on
  for (std::string_view rest = input.bytes; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    joined += line;
    if (joined.ends_with('\\') && !joined.ends_with("\\\\") && !rest.empty()) {
      joined.pop_back();
      continue;
    }
    page.line(joined);
    joined.clear();
  }
  if (std::string text = page.finish(); !text.empty()) emit(std::move(text));
}

}  // namespace switchyard
