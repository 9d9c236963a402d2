// Compressed scripture modules of the SWORD project (zText), little-endian:
//   .bzs  a block:  offset u32, packed size u32, size u32 (into .bzz, zlib)
//   .bzv  a verse slot, headings included:  block u32, offset u32, size u16
// The text is OSIS XML; of its markup, paragraphs and lines of verse become lines, notes are left out.
#include <zlib.h>

#include <algorithm>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/data/filters.h"

namespace switchyard {
namespace {

constexpr uint64_t kBlockLimit = uint64_t{64} << 20;

uint64_t number(std::string_view bytes, size_t at, int width) {
  uint64_t value = 0;
  for (int i = 0; i < width; ++i) value |= static_cast<uint64_t>(static_cast<unsigned char>(bytes[at + static_cast<size_t>(i)])) << (8 * i);
  return value;
}

std::string unpack_block(const FilterInput& input, std::string_view blocks, uint64_t block) {
  check((block + 1) * 12 <= blocks.size(), "data.filter", "{}: block {} is not in the .bzs file", input.path.string(), block);
  const uint64_t offset = number(blocks, block * 12, 4), packed = number(blocks, block * 12 + 4, 4),
                 size = number(blocks, block * 12 + 8, 4);
  check(offset + packed <= input.bytes.size() && size <= kBlockLimit, "data.filter", "{}: block {} lies outside the file",
        input.path.string(), block);
  std::string text(size, '\0');
  uLongf got = size;
  const int code = ::uncompress(reinterpret_cast<Bytef*>(text.data()), &got,
                                reinterpret_cast<const Bytef*>(input.bytes.data()) + offset, packed);
  check(code == Z_OK && got == size, "data.filter", "{}: block {} is damaged, or not packed with zlib", input.path.string(), block);
  return text;
}

/// The value of an attribute in a tag, or empty.
std::string_view attribute(std::string_view tag, std::string_view name) {
  for (size_t at = tag.find(name); at != std::string_view::npos; at = tag.find(name, at + 1)) {
    const std::string_view rest = tag.substr(at + name.size());
    if (at == 0 || tag[at - 1] != ' ' || !rest.starts_with("=\"")) continue;
    return rest.substr(2, rest.find('"', 2) - 2);
  }
  return {};
}

struct Chapter {
  std::string text;
  int notes = 0;  ///< depth of open notes
  void line() {
    while (text.ends_with(' ')) text.pop_back();
    if (!text.empty() && !text.ends_with('\n')) text += '\n';
  }
  void add(std::string_view part) {
    if (notes > 0) return;
    for (const char c : part) {
      const bool space = c == ' ' || c == '\n' || c == '\t' || c == '\r';
      if (!space) text += c;
      else if (!text.empty() && text.back() != ' ' && text.back() != '\n') text += ' ';
    }
  }
};

std::string_view entity(std::string_view name) {
  if (name == "amp") return "&";
  if (name == "lt") return "<";
  if (name == "gt") return ">";
  if (name == "quot") return "\"";
  if (name == "apos") return "'";
  return {};
}

}  // namespace

void filter_sword(const FilterInput& input, const EmitDocument& emit) {
  auto beside = input.path;
  const std::string blocks = read_file(beside.replace_extension(".bzs"), kBlockLimit);
  const std::string verses = read_file(beside.replace_extension(".bzv"), kBlockLimit);
  check(blocks.size() % 12 == 0 && verses.size() % 10 == 0, "data.filter", "{}: its .bzs and .bzv files are no block and verse tables",
        input.path.string());
  uint64_t open = UINT64_MAX;
  std::string block;
  Chapter chapter;
  const auto finish = [&] {
    chapter.line();
    if (!chapter.text.empty()) emit(std::move(chapter.text));
    chapter = {};
  };
  const auto markup = [&](std::string_view tag) {
    const bool ends = tag.starts_with('/');
    const std::string_view name = tag.substr(ends, tag.find_first_of(" /", ends) - ends);
    if (name == "note" && !tag.ends_with('/')) {
      chapter.notes = std::max(0, chapter.notes + (ends ? -1 : 1));
    } else if (name == "chapter" && !attribute(tag, "osisID").empty()) {
      finish();
      std::string title(attribute(tag, "osisID"));
      std::replace(title.begin(), title.end(), '.', ' ');
      chapter.text = title + "\n";
    } else if (name == "lb" || name == "l" || name == "lg" || name == "p" || name == "div" || name == "title") {
      // A verse's own wrapper is no border.
      if (attribute(tag, "subType") != "x-preverse") chapter.line();
    }
  };
  for (size_t slot = 0; slot < verses.size(); slot += 10) {
    const uint64_t number_of_block = number(verses, slot, 4), offset = number(verses, slot + 4, 4), size = number(verses, slot + 8, 2);
    if (size == 0) continue;
    if (number_of_block != open) {
      block = unpack_block(input, blocks, number_of_block);
      open = number_of_block;
    }
    check(offset + size <= block.size(), "data.filter", "{}: verse slot {} lies outside its block", input.path.string(), slot / 10);
    for (std::string_view rest = std::string_view(block).substr(offset, size); !rest.empty();) {
      const size_t end = rest[0] == '<' ? rest.find('>') : rest[0] == '&' ? rest.find(';') : rest.find_first_of("<&") - 1;
      const std::string_view part = rest.substr(0, end == std::string_view::npos ? end : end + 1);
      if (part[0] == '<' && part.ends_with('>')) markup(part.substr(1, part.size() - 2));
      else if (part[0] == '&' && part.ends_with(';')) chapter.add(entity(part.substr(1, part.size() - 2)));
      else if (part[0] != '<') chapter.add(part);
      rest.remove_prefix(part.size());
    }
    chapter.add(" ");
  }
  finish();
}

}  // namespace switchyard
