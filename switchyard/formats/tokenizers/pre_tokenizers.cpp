#include "switchyard/formats/tokenizers/pre_tokenizers.h"

#include "switchyard/formats/tokenizers/byte_symbols.h"
#include "switchyard/formats/tokenizers/known_patterns.h"
#include "switchyard/formats/tokenizers/regex.h"
#include "switchyard/formats/tokenizers/unicode.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

struct Part {
  Span span;
  bool match;
};

/// The matches and what lies between them.
void cover(const std::vector<Span>& matches, uint32_t size, bool inverted, std::vector<Part>& parts) {
  parts.clear();
  uint32_t at = 0;
  for (const Span match : matches) {
    if (at != match.begin) parts.push_back({{at, match.begin}, inverted});
    parts.push_back({match, !inverted});
    at = match.end;
  }
  if (at != size) parts.push_back({{at, size}, inverted});
}

/// Joins parts as the behaviour says; what is left are the words.
void join(std::vector<Part>& parts, SplitBehavior behavior) {
  if (behavior == SplitBehavior::isolated || behavior == SplitBehavior::removed) return;
  std::vector<Part> joined;
  bool previous = false;  // whether the part before was a match
  if (behavior == SplitBehavior::merged_with_next) {
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
      if (part->match && !previous && !joined.empty()) joined.back().span.begin = part->span.begin;
      else joined.push_back(*part);
      previous = part->match;
    }
    parts.assign(joined.rbegin(), joined.rend());
    return;
  }
  for (const Part& part : parts) {
    const bool merge = behavior == SplitBehavior::contiguous ? part.match == previous : part.match && !previous;
    if (merge && !joined.empty()) joined.back().span.end = part.span.end;
    else joined.push_back(part);
    previous = part.match;
  }
  parts = std::move(joined);
}

/// Runs f on the words, each as a slice of the text that may be changed; rebuilds text and words.
template <typename F>
void change_words(Words& words, F&& f) {
  Words result;
  result.text.tracked = words.text.tracked;
  result.text.base = words.text.base;
  for (const Span span : words.spans) {
    AlignedText word = words.text.slice(span.begin, span.end);
    f(word);
    if (word.text.empty()) continue;
    const auto begin = static_cast<uint32_t>(result.text.text.size());
    if (result.text.tracked)
      for (size_t i = 0; i < word.text.size(); ++i) result.text.origins.push_back(word.origin(i));
    result.text.text += word.text;
    result.spans.push_back({begin, static_cast<uint32_t>(result.text.text.size())});
  }
  words = std::move(result);
}

}  // namespace

void write_symbols(Words& words) {
  if (!words.symbols) return;
  words.symbols = false;
  Rewrite rewrite(words.text);
  const std::string_view text = words.text.text;
  size_t at = 0;
  for (Span& span : words.spans) {
    rewrite.drop(span.begin - at);
    rewrite.part(span.begin);
    at = span.end;
    const auto begin = static_cast<uint32_t>(rewrite.written());
    for (size_t i = span.begin; i < span.end;) {
      const size_t length = utf8_length(text[i]);
      rewrite.replace(byte_symbol(static_cast<unsigned char>(text[i])));
      for (size_t j = 1; j < length; ++j) rewrite.insert(byte_symbol(static_cast<unsigned char>(text[i + j])));
      i += length;
    }
    span = {begin, static_cast<uint32_t>(rewrite.written())};
  }
  words.text = std::move(rewrite).finish();
}

Finder find_pattern(const std::string& pattern) {
  if (Finder known = known_pattern(pattern)) return known;
  return [regex = std::make_shared<const Regex>(pattern, RegexDialect::ruby)](std::string_view word, std::vector<Span>& matches) {
    regex->find_all(word, matches);
  };
}

Finder find_text(std::string text) {
  if (text.empty()) return find_pattern("");
  return [text = std::move(text)](std::string_view word, std::vector<Span>& matches) {
    for (size_t at = 0; (at = word.find(text, at)) != std::string_view::npos; at += text.size())
      matches.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + text.size())});
  };
}

Finder find_characters(std::function<bool(char32_t)> wanted) {
  return [wanted = std::move(wanted)](std::string_view word, std::vector<Span>& matches) {
    for (size_t at = 0; at < word.size();) {
      const size_t length = utf8_length(word[at]);
      if (wanted(utf8_code_point(word.substr(at, length)))) matches.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + length)});
      at += length;
    }
  };
}

PreTokenizer split(Finder finder, SplitBehavior behavior, bool inverted) {
  return [finder = std::move(finder), behavior, inverted](Words& words) {
    std::vector<Span> matches, result;
    std::vector<Part> parts;
    result.reserve(words.spans.size() * 2);
    for (size_t i = 0; i < words.spans.size(); ++i) {
      const uint32_t base = words.spans[i].begin, size = words.spans[i].end - base;
      matches.clear();
      finder(words.word(i), matches);
      cover(matches, size, inverted, parts);
      join(parts, behavior);
      for (const Part& part : parts)
        if (part.span.end > part.span.begin && !(behavior == SplitBehavior::removed && part.match))
          result.push_back({base + part.span.begin, base + part.span.end});
    }
    words.spans = std::move(result);
  };
}

PreTokenizer byte_level(ByteLevel options) {
  PreTokenizer cut;
  if (options.use_regex)
    cut = split(find_pattern(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"), SplitBehavior::isolated);
  return [options, cut = std::move(cut)](Words& words) {
    if (options.add_prefix_space)
      change_words(words, [](AlignedText& word) {
        if (!word.text.starts_with(' ')) prepend(word, " ");
      });
    if (cut) cut(words);
    words.symbols = true;
  };
}

PreTokenizer metaspace(std::string replacement, PrependScheme scheme, bool cut) {
  const PreTokenizer cutter = split(find_text(replacement), SplitBehavior::merged_with_next);
  return [replacement = std::move(replacement), scheme, cut, cutter](Words& words) {
    change_words(words, [&](AlignedText& word) {
      const bool at_start = word.origin(0).begin == 0;
      if (word.text.find(' ') != std::string::npos) {
        Rewrite rewrite(word);
        size_t at = 0;
        for (size_t found; (found = word.text.find(' ', at)) != std::string::npos; at = found + 1) {
          rewrite.keep(found - at);
          rewrite.replace(replacement);
        }
        rewrite.keep(word.text.size() - at);
        word = std::move(rewrite).finish();
      }
      if (word.text.starts_with(replacement)) return;
      if (scheme == PrependScheme::always || (scheme == PrependScheme::first && at_start)) prepend(word, replacement);
    });
    if (cut) cutter(words);
  };
}

PreTokenizer whitespace() {
  const auto words_and_others = [](std::string_view word, std::vector<Span>& matches) {
    enum { blank, word_like, other } before = blank;
    for (size_t at = 0; at < word.size();) {
      const size_t length = utf8_length(word[at]);
      const char32_t c = utf8_code_point(word.substr(at, length));
      const auto kind = unicode::is_word(c) ? word_like : unicode::is(c, unicode::kSpace) ? blank : other;
      if (kind != blank && kind == before) matches.back().end += static_cast<uint32_t>(length);
      else if (kind != blank) matches.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + length)});
      before = kind;
      at += length;
    }
  };
  return split(words_and_others, SplitBehavior::removed, true);
}

PreTokenizer whitespace_split() {
  return split(find_characters([](char32_t c) { return unicode::is(c, unicode::kSpace); }), SplitBehavior::removed);
}

PreTokenizer punctuation(SplitBehavior behavior) { return split(find_characters(unicode::is_punctuation), behavior); }

PreTokenizer digits(bool individual) {
  return split(find_characters([](char32_t c) { return unicode::is(c, unicode::kNumber); }),
               individual ? SplitBehavior::isolated : SplitBehavior::contiguous);
}

PreTokenizer bert_pre_tokenizer() {
  return [words_of = whitespace_split(), marks = punctuation(SplitBehavior::isolated)](Words& words) {
    words_of(words);
    marks(words);
  };
}

PreTokenizer fixed_length(size_t characters) {
  return [characters](Words& words) {
    std::vector<Span> result;
    for (const Span span : words.spans) {
      uint32_t begin = span.begin;
      size_t count = 0;
      for (uint32_t at = span.begin; at < span.end;) {
        at += static_cast<uint32_t>(utf8_length(words.text.text[at]));
        if (++count < characters && at < span.end) continue;
        result.push_back({begin, at});
        begin = at;
        count = 0;
      }
    }
    words.spans = std::move(result);
  };
}

PreTokenizer unicode_scripts() {
  return [](Words& words) {
    std::vector<Span> result;
    for (const Span span : words.spans) {
      int before = -1;
      for (uint32_t at = span.begin; at < span.end;) {
        const auto length = static_cast<uint32_t>(utf8_length(words.text.text[at]));
        const int script = unicode::script(utf8_code_point(std::string_view(words.text.text).substr(at, length)));
        if (script >= 0 && script != before) {
          if (before >= 0) result.back().end = at;
          result.push_back({at, span.end});  // what stands before the first script goes, as in the original
          before = script;
        }
        at += length;
      }
    }
    words.spans = std::move(result);
  };
}

}  // namespace switchyard
