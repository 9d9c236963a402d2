// Text on its way through a tokenizer, which remembers where in the original each of its bytes came from, and the
// words that pre-tokenizers cut it into. Alignments follow the Hugging Face library character by character, because
// offsets are read from them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

struct Span {
  uint32_t begin = 0, end = 0;
  bool operator==(const Span&) const = default;
};

/// UTF-8 text and the span of the original (in bytes) that each byte stands for. While nothing was changed the spans are
/// those of the text's own characters, from `base` on, and are not stored.
struct AlignedText {
  std::string text;
  std::vector<Span> origins;  ///< by byte; empty while nothing was changed, or when not `tracked`
  uint32_t base = 0;
  bool tracked = true;        ///< false: nobody will ask for origins

  Span origin(size_t byte) const;
  AlignedText slice(size_t begin, size_t end) const;
};

/// Writes a changed version of a text, from left to right. `source` must outlive it.
class Rewrite {
 public:
  explicit Rewrite(const AlignedText& source);
  /// What follows belongs to the part of the source that begins here; parts come in order.
  void part(size_t begin) { part_ = at_ = begin; }
  void keep(size_t bytes);                   ///< copies characters unchanged
  void drop(size_t bytes) { at_ += bytes; }  ///< characters that leave no trace
  void replace(std::string_view character);  ///< stands in the place of the next character
  void insert(std::string_view characters);  ///< new; belongs to the character before
  size_t written() const { return result_.text.size(); }
  AlignedText finish() && { return std::move(result_); }

 private:
  void append(std::string_view characters, Span origin);
  const AlignedText& source_;
  AlignedText result_;
  size_t part_ = 0, at_ = 0;
};

/// One character of a changed text. change 0: in the place of the next one; 1: new; -n: in the place of the next one, and
/// n more are gone.
struct Edit {
  char32_t character = 0;
  int32_t change = 0;
};
void transform(AlignedText& text, const std::vector<Edit>& edits);

/// Puts characters before the first one, aligned with it; an empty text stays empty.
void prepend(AlignedText& text, std::string_view characters);

/// A text cut into words; words are not empty and in order.
struct Words {
  AlignedText text;
  std::vector<Span> spans;  ///< of text.text
  bool symbols = false;     ///< each byte stands for its symbol (byte_symbols.h), which is not yet written
  std::string_view word(size_t i) const {
    return std::string_view(text.text).substr(spans[i].begin, spans[i].end - spans[i].begin);
  }
};

}  // namespace switchyard
