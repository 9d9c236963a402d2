#include "switchyard/formats/tokenizers/normalisers.h"

#include <algorithm>

#include "switchyard/formats/tokenizers/byte_symbols.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

/// Calls f(code point, its bytes) for every character.
template <typename F>
void for_each_character(std::string_view text, F&& f) {
  for (size_t at = 0; at < text.size();) {
    const std::string_view bytes = text.substr(at, utf8_length(text[at]));
    f(utf8_code_point(bytes), bytes);
    at += bytes.size();
  }
}

/// Keeps the characters that keep(c) likes, and puts map(c) in their place.
template <typename Keep, typename Map>
void filter_map(AlignedText& text, Keep&& keep, Map&& map) {
  Rewrite rewrite(text);
  std::string character;
  for_each_character(text.text, [&](char32_t c, std::string_view bytes) {
    if (!keep(c)) return rewrite.drop(bytes.size());
    const char32_t other = map(c);
    if (other == c) return rewrite.keep(bytes.size());
    character.clear();
    utf8_append(character, other);
    rewrite.replace(character);
  });
  text = std::move(rewrite).finish();
}

template <typename Keep>
void filter(AlignedText& text, Keep&& keep) {
  filter_map(text, keep, [](char32_t c) { return c; });
}

void to_lowercase(AlignedText& text) {
  std::vector<Edit> edits;
  edits.reserve(text.text.size());
  for_each_character(text.text, [&](char32_t c, std::string_view) { unicode::append_lower(edits, c); });
  transform(text, edits);
}

bool chinese(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
         (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

bool bert_white(char32_t c) { return unicode::is(c, unicode::kSpace); }

bool bert_control(char32_t c) { return c != '\t' && c != '\n' && c != '\r' && unicode::is_other(c); }

void space_around_chinese(AlignedText& text) {
  std::vector<Edit> edits;
  edits.reserve(text.text.size());
  for_each_character(text.text, [&](char32_t c, std::string_view) {
    if (!chinese(c)) return edits.push_back({c, 0});
    edits.push_back({' ', 0});
    edits.push_back({c, 1});
    edits.push_back({' ', 1});
  });
  transform(text, edits);
}

/// Edits that put `after` in the place of `before`.
void add_replacement(std::vector<Edit>& edits, std::string_view before, std::string_view after) {
  const auto count = [](std::string_view s) { return static_cast<int32_t>(std::count_if(s.begin(), s.end(), [](char c) { return !utf8_continues(c); })); };
  const int32_t more = count(after) - count(before);
  for_each_character(after, [&](char32_t c, std::string_view) { edits.push_back({c, 0}); });
  for (int32_t i = 0; i < more; ++i) edits[edits.size() - 1 - static_cast<size_t>(i)].change = 1;
  if (more < 0 && !edits.empty()) edits.back().change += more;
}

}  // namespace

Normaliser normal_form(unicode::Form form) {
  return [form](AlignedText& text) { unicode::normalise(text, form); };
}

Normaliser lowercase() { return to_lowercase; }

Normaliser strip_accents() {
  return [](AlignedText& text) { filter(text, [](char32_t c) { return !unicode::is_combining_mark(c); }); };
}

Normaliser strip(bool left, bool right) {
  return [left, right](AlignedText& text) {
    const std::string_view all = text.text;
    size_t begin = 0, end = all.size();
    while (left && begin < end) {
      const size_t length = utf8_length(all[begin]);
      if (!unicode::is(utf8_code_point(all.substr(begin, length)), unicode::kSpace)) break;
      begin += length;
    }
    while (right && end > begin) {
      size_t last = end - 1;
      while (last > begin && utf8_continues(all[last])) --last;
      if (!unicode::is(utf8_code_point(all.substr(last, end - last)), unicode::kSpace)) break;
      end = last;
    }
    if (begin > 0 || end < all.size()) text = text.slice(begin, end);
  };
}

Normaliser prepend_text(std::string prefix) {
  return [prefix = std::move(prefix)](AlignedText& text) { prepend(text, prefix); };
}

Normaliser replace_matches(std::shared_ptr<const Regex> pattern, std::string content) {
  return [pattern = std::move(pattern), content = std::move(content)](AlignedText& text) {
    std::vector<Span> matches;
    pattern->find_all(text.text, matches);
    if (matches.empty()) return;
    Rewrite rewrite(text);
    size_t at = 0;
    for (const Span match : matches) {
      rewrite.keep(match.begin - at);
      rewrite.drop(match.end - match.begin);
      rewrite.insert(content);
      at = match.end;
    }
    rewrite.keep(text.text.size() - at);
    text = std::move(rewrite).finish();
  };
}

Normaliser replace_text(const std::string& wanted, std::string content) {
  if (wanted.empty()) return replace_matches(std::make_shared<Regex>("", RegexDialect::ruby), std::move(content));
  return [wanted, content = std::move(content)](AlignedText& text) {
    if (text.text.find(wanted) == std::string::npos) return;
    Rewrite rewrite(text);
    size_t at = 0;
    for (size_t found; (found = text.text.find(wanted, at)) != std::string::npos; at = found + wanted.size()) {
      rewrite.keep(found - at);
      rewrite.drop(wanted.size());
      rewrite.insert(content);
    }
    rewrite.keep(text.text.size() - at);
    text = std::move(rewrite).finish();
  };
}

Normaliser nmt() {
  return [](AlignedText& text) {
    filter_map(
        text,
        [](char32_t c) {
          return !((c >= 0x01 && c <= 0x08) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F);
        },
        [](char32_t c) -> char32_t {
          const bool blank = c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 || (c >= 0x200B && c <= 0x200F) ||
                             c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
          return blank ? ' ' : c;
        });
  };
}

Normaliser byte_level_normaliser() {
  return [](AlignedText& text) {
    Rewrite rewrite(text);
    for_each_character(text.text, [&](char32_t, std::string_view bytes) {
      rewrite.replace(byte_symbol(static_cast<unsigned char>(bytes[0])));
      for (const char byte : bytes.substr(1)) rewrite.insert(byte_symbol(static_cast<unsigned char>(byte)));
    });
    text = std::move(rewrite).finish();
  };
}

Normaliser mapped(std::shared_ptr<const CharacterMap> map) {
  return [map = std::move(map)](AlignedText& text) {
    // Short grapheme clusters are looked up whole, whatever an entry covers of them; then character by character.
    constexpr size_t kWhole = 6;
    std::vector<Edit> edits;
    edits.reserve(text.text.size());
    bool changed = false;
    const std::string_view all = text.text;
    size_t at = 0;
    for (const size_t end : unicode::grapheme_ends(all)) {
      const std::string_view cluster = all.substr(at, end - at);
      at = end;
      if (cluster.size() < kWhole) {
        if (const CharacterMap::Match match = map->shortest(cluster); match.bytes > 0) {
          add_replacement(edits, cluster, match.replacement);
          changed = true;
          continue;
        }
      }
      for_each_character(cluster, [&](char32_t c, std::string_view bytes) {
        const CharacterMap::Match match = map->shortest(bytes);
        if (match.bytes == 0) return edits.push_back({c, 0});
        add_replacement(edits, bytes, match.replacement);
        changed = true;
      });
    }
    if (changed) transform(text, edits);
  };
}

Normaliser bert_normaliser(BertNormalisation options) {
  return [options](AlignedText& text) {
    if (options.clean_text)
      filter_map(text, [](char32_t c) { return c != 0 && c != 0xFFFD && !bert_control(c); },
                 [](char32_t c) -> char32_t { return bert_white(c) ? ' ' : c; });
    if (options.chinese_characters) space_around_chinese(text);
    if (options.strip_accents.value_or(options.lowercase)) {
      unicode::normalise(text, unicode::Form::nfd);
      filter(text, [](char32_t c) { return !unicode::is_nonspacing_mark(c); });
    }
    if (options.lowercase) to_lowercase(text);
  };
}

}  // namespace switchyard
