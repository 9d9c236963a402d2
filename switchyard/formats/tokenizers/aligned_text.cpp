#include "switchyard/formats/tokenizers/aligned_text.h"

#include <algorithm>

#include "switchyard/formats/utf8.h"

namespace switchyard {

Span AlignedText::origin(size_t byte) const {
  if (!origins.empty()) return origins[std::min(byte, origins.size() - 1)];
  if (text.empty()) return {base, base};
  size_t begin = std::min(byte, text.size() - 1);
  while (begin > 0 && utf8_continues(text[begin])) --begin;
  size_t end = begin + 1;
  while (end < text.size() && utf8_continues(text[end])) ++end;
  return {base + static_cast<uint32_t>(begin), base + static_cast<uint32_t>(end)};
}

AlignedText AlignedText::slice(size_t begin, size_t end) const {
  AlignedText part{.text = text.substr(begin, end - begin), .origins = {}, .base = 0, .tracked = tracked};
  if (origins.empty()) part.base = base + static_cast<uint32_t>(begin);
  else part.origins.assign(origins.begin() + static_cast<std::ptrdiff_t>(begin), origins.begin() + static_cast<std::ptrdiff_t>(end));
  return part;
}

Rewrite::Rewrite(const AlignedText& source) : source_(source) {
  result_.tracked = source.tracked;
  result_.base = source.base;
  result_.text.reserve(source.text.size() + source.text.size() / 8 + 8);
  if (result_.tracked) result_.origins.reserve(source.text.size() + source.text.size() / 8 + 8);
}

void Rewrite::append(std::string_view characters, Span origin) {
  result_.text += characters;
  if (result_.tracked) result_.origins.insert(result_.origins.end(), characters.size(), origin);
}

void Rewrite::keep(size_t bytes) {
  result_.text.append(source_.text, at_, bytes);
  if (result_.tracked) {
    if (!source_.origins.empty()) {
      const auto from = source_.origins.begin() + static_cast<std::ptrdiff_t>(at_);
      result_.origins.insert(result_.origins.end(), from, from + static_cast<std::ptrdiff_t>(bytes));
    } else {
      for (size_t i = at_; i < at_ + bytes;) {
        const size_t length = utf8_length(source_.text[i]);
        const Span origin{source_.base + static_cast<uint32_t>(i), source_.base + static_cast<uint32_t>(i + length)};
        result_.origins.insert(result_.origins.end(), length, origin);
        i += length;
      }
    }
  }
  at_ += bytes;
}

void Rewrite::replace(std::string_view character) {
  append(character, result_.tracked ? source_.origin(at_) : Span{});
  if (at_ < source_.text.size()) at_ += utf8_length(source_.text[at_]);
}

void Rewrite::insert(std::string_view characters) {
  if (!result_.tracked) return append(characters, {});
  if (at_ > part_) return append(characters, source_.origin(at_ - 1));
  const uint32_t begin = source_.origin(part_).begin;
  append(characters, {begin, begin});
}

void transform(AlignedText& text, const std::vector<Edit>& edits) {
  Rewrite rewrite(text);
  const std::string_view source = text.text;
  size_t at = 0;
  std::string character;
  for (const Edit& edit : edits) {
    character.clear();
    utf8_append(character, edit.character);
    if (edit.change > 0) {
      rewrite.insert(character);
      continue;
    }
    rewrite.replace(character);
    size_t gone = 0;
    if (at < source.size()) at += utf8_length(source[at]);
    for (int32_t n = edit.change; n < 0 && at + gone < source.size(); ++n) gone += utf8_length(source[at + gone]);
    rewrite.drop(gone);
    at += gone;
  }
  text = std::move(rewrite).finish();
}

void prepend(AlignedText& text, std::string_view characters) {
  if (text.text.empty() || characters.empty()) return;
  Rewrite rewrite(text);
  const size_t first = utf8_length(characters[0]), next = utf8_length(text.text[0]);
  rewrite.replace(characters.substr(0, first));
  rewrite.insert(characters.substr(first));
  rewrite.insert(std::string_view(text.text).substr(0, next));
  rewrite.keep(text.text.size() - next);
  text = std::move(rewrite).finish();
}

}  // namespace switchyard
