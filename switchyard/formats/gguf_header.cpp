#include "switchyard/formats/gguf_header.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_set>

#include "switchyard/base/error.h"
#include "switchyard/formats/safetensors_header.h"
#include "switchyard/formats/utf8.h"

namespace switchyard::gguf {
namespace {

using safetensors::shown;

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint64_t kMaxDimensions = 4;
constexpr int kMaxDepth = 32;  // of lists in lists
// Far above what models have, and low enough that a file of holes cannot ask for more memory than a machine has.
constexpr uint64_t kMostTextBytes = uint64_t{1} << 28, kMostEntries = uint64_t{1} << 25, kMostKeys = uint64_t{1} << 20,
                   kMostTensors = uint64_t{1} << 20;
constexpr uint64_t kMinKeyBytes = 8 + 4 + 1, kMinTensorBytes = 8 + 4 + 4 + 8;

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Step step = utf8_step(text);
    if (step.kind != Utf8Step::Kind::character) return false;
    text.remove_prefix(step.bytes);
  }
  return true;
}

/// Bytes of a value of that type; 0 for texts and lists.
uint64_t width(GgufType type) {
  constexpr uint64_t kWidths[]{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return kWidths[static_cast<size_t>(type)];
}

class Reader {
 public:
  Reader(const uint8_t* bytes, uint64_t size, std::string_view file) : bytes_(bytes), size_(size), file_(file) {}

  uint64_t position() const { return at_; }
  uint64_t left() const { return size_ - at_; }

  template <typename T>
  T number(std::string_view what) {
    need(sizeof(T), what);
    T value;
    std::memcpy(&value, bytes_ + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  std::string text(std::string_view what) {
    const uint64_t length = number<uint64_t>(what);
    check(length <= left(), "formats.gguf.size", "{}: {} is said to have {} bytes, but {} are left; the file is cut short or damaged",
          file_, what, length, left());
    check(length <= kMostTextBytes, "formats.gguf.size", "{}: {} has {} bytes; at most {} are read", file_, what, length, kMostTextBytes);
    std::string value(reinterpret_cast<const char*>(bytes_ + at_), length);
    at_ += length;
    return value;
  }

  GgufType type(std::string_view key) {
    const uint32_t number = this->number<uint32_t>("a type");
    check(number <= static_cast<uint32_t>(GgufType::f64), "formats.gguf.metadata", "{}: metadata {} has type {}, which does not exist",
          file_, shown(key), number);
    return static_cast<GgufType>(number);
  }

  GgufValue value(std::string_view key) {
    const GgufType type = this->type(key);
    switch (type) {
      case GgufType::text: return {type, text("the text of metadata " + shown(key))};
      case GgufType::array: return {type, array(key, 1)};
      case GgufType::f32: case GgufType::f64: return {type, real(type)};
      case GgufType::i8: case GgufType::i16: case GgufType::i32: case GgufType::i64: return {type, integer(type)};
      default: return {type, natural(type, key)};
    }
  }

 private:
  void need(uint64_t bytes, std::string_view what) {
    check(bytes <= left(), "formats.gguf.size", "{} ends at byte {}, in the middle of {}; it is cut short", file_, size_, what);
  }

  double real(GgufType type) { return type == GgufType::f32 ? double{number<float>("a number")} : number<double>("a number"); }

  int64_t integer(GgufType type) {
    switch (type) {
      case GgufType::i8: return number<int8_t>("a number");
      case GgufType::i16: return number<int16_t>("a number");
      case GgufType::i32: return number<int32_t>("a number");
      default: return number<int64_t>("a number");
    }
  }

  uint64_t natural(GgufType type, std::string_view key) {
    switch (type) {
      case GgufType::u8: return number<uint8_t>("a number");
      case GgufType::u16: return number<uint16_t>("a number");
      case GgufType::u32: return number<uint32_t>("a number");
      case GgufType::u64: return number<uint64_t>("a number");
      default: break;
    }
    const uint8_t truth = number<uint8_t>("a truth value");
    check(truth <= 1, "formats.gguf.metadata", "{}: metadata {} has the truth value {}, which is neither 0 nor 1", file_, shown(key), truth);
    return truth;
  }

  GgufArray array(std::string_view key, int depth) {
    check(depth <= kMaxDepth, "formats.gguf.metadata", "{}: the lists of metadata {} nest deeper than {} levels", file_, shown(key), kMaxDepth);
    const GgufType type = this->type(key);
    const uint64_t count = number<uint64_t>("the length of a list");
    const uint64_t least = type == GgufType::text ? 8 : type == GgufType::array ? 12 : width(type);
    check(count <= left() / least, "formats.gguf.size", "{}: the list of metadata {} is said to have {} entries, but only {} bytes are left",
          file_, shown(key), count, left());
    entries_ += count;
    check(entries_ <= kMostEntries, "formats.gguf.size", "{}: the lists of the metadata have more than {} entries", file_, kMostEntries);
    const auto fill = [&]<typename T>(std::vector<T> list, auto&& next) {
      list.reserve(count);
      for (uint64_t i = 0; i < count; ++i) list.push_back(next());
      return GgufArray{type, std::move(list)};
    };
    switch (type) {
      case GgufType::text: return fill(std::vector<std::string>(), [&] { return text("an entry of metadata " + std::string(key)); });
      case GgufType::array: return fill(std::vector<GgufArray>(), [&] { return array(key, depth + 1); });
      case GgufType::f32: case GgufType::f64: return fill(std::vector<double>(), [&] { return real(type); });
      case GgufType::i8: case GgufType::i16: case GgufType::i32: case GgufType::i64:
        return fill(std::vector<int64_t>(), [&] { return integer(type); });
      default: return fill(std::vector<uint64_t>(), [&] { return natural(type, key); });
    }
  }

  const uint8_t* bytes_;
  uint64_t size_, at_ = 0;
  uint64_t entries_ = 0;  ///< of all lists so far
  std::string_view file_;
};

void read_metadata(Reader& reader, uint64_t count, Header& header, std::string_view file) {
  for (uint64_t i = 0; i < count; ++i) {
    const std::string key = reader.text("a metadata key");
    check(is_utf8(key), "formats.gguf.metadata", "{}: the metadata key {} is not UTF-8", file, shown(key));
    check(!header.metadata.has(key), "formats.gguf.duplicate", "{}: the metadata key {} stands twice in the header", file, shown(key));
    header.metadata.set(key, reader.value(key));
  }
}

Entry read_entry(Reader& reader, std::string_view file) {
  Entry entry{.name = reader.text("a tensor's name")};
  check(is_utf8(entry.name), "formats.gguf.metadata", "{}: the tensor name {} is not UTF-8", file, shown(entry.name));
  const uint32_t dimensions = reader.number<uint32_t>("a tensor's shape");
  check(dimensions <= kMaxDimensions, "formats.gguf.shape", "{}: tensor {} has {} dimensions; the format has at most {}", file,
        shown(entry.name), dimensions, kMaxDimensions);
  for (uint32_t i = 0; i < dimensions; ++i) {
    const uint64_t extent = reader.number<uint64_t>("a tensor's shape");
    check(extent <= INT64_MAX, "formats.gguf.shape", "{}: tensor {} has an extent of {}", file, shown(entry.name), extent);
    entry.shape.insert(entry.shape.begin(), static_cast<int64_t>(extent));
  }
  const uint32_t type = reader.number<uint32_t>("a tensor's type");
  entry.codec = block_codec_numbered(type);
  check(entry.codec != nullptr, "formats.gguf.type", "{}: tensor {} has type {}, which this version does not know", file,
        shown(entry.name), type);
  entry.begin = reader.number<uint64_t>("a tensor's offset");  // from the beginning of the data; place() makes it the file's
  entry.bytes = tensor_bytes(*entry.codec, entry.shape, file, entry.name);
  return entry;
}

/// Makes offsets those of the file and refuses tensors that lie outside it, unaligned, or in one another.
void place(Header& header, uint64_t header_end, uint64_t size, std::string_view file) {
  const uint64_t mask = header.alignment - 1;
  const uint64_t data = (header_end + mask) & ~mask;  // alignment is at most 2^31, header_end a file's size
  const uint64_t room = size > data ? size - data : 0;
  std::vector<const Entry*> order;
  for (Entry& entry : header.entries) {
    check((entry.begin & mask) == 0, "formats.gguf.offsets", "{}: tensor {} lies at offset {}, which is no multiple of the alignment {}",
          file, shown(entry.name), entry.begin, header.alignment);
    check(entry.begin <= room && entry.bytes <= room - entry.begin, "formats.gguf.offsets",
          "{}: tensor {} has {} bytes at offset {} of the data, but the file holds {} bytes of data; it may be cut short", file,
          shown(entry.name), entry.bytes, entry.begin, room);
    entry.begin += data;
    order.push_back(&entry);
  }
  std::sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) { return a->begin < b->begin; });
  uint64_t end = 0;
  for (const Entry* entry : order) {
    if (entry->bytes == 0) continue;
    check(entry->begin >= end, "formats.gguf.offsets", "{}: tensor {} begins at byte {}, inside another tensor", file,
          shown(entry->name), entry->begin);
    end = entry->begin + entry->bytes;
  }
}

}  // namespace

uint64_t tensor_bytes(const BlockCodec& codec, const std::vector<int64_t>& shape, std::string_view file, std::string_view name) {
  uint64_t elements = 1;
  bool empty = false, overflow = false;
  for (const int64_t extent : shape) {  // sizes of empty tensors are bounded too: strides are computed from them
    empty |= extent == 0;
    overflow |= __builtin_mul_overflow(elements, static_cast<uint64_t>(std::max<int64_t>(extent, 1)), &elements);
  }
  overflow |= elements > static_cast<uint64_t>(INT64_MAX) / 64;
  check(!overflow, "formats.gguf.shape", "{}: the shape [{}] of tensor {} has more elements than any file can hold", file,
        fmt::join(shape, ", "), shown(name));
  const int64_t row = shape.empty() ? 1 : shape.back();
  check(row % codec.length == 0, "formats.gguf.shape", "{}: tensor {} has rows of {} values, but {} packs {} in a block", file,
        shown(name), row, codec.name, codec.length);
  return empty ? 0 : elements / static_cast<uint64_t>(codec.length) * static_cast<uint64_t>(codec.bytes);
}

uint64_t alignment_of(const GgufMetadata& metadata) {
  const GgufValue* value = metadata.find("general.alignment");
  if (value == nullptr) return 32;
  check(value->type == GgufType::u32, "formats.gguf.alignment", "{}: general.alignment has type {}, not u32", metadata.source(),
        to_string(value->type));
  const uint64_t alignment = std::get<uint64_t>(value->value);
  check(std::has_single_bit(alignment), "formats.gguf.alignment", "{}: general.alignment is {}, which is no power of two",
        metadata.source(), alignment);
  return alignment;
}

Header read_header(const uint8_t* bytes, uint64_t size, std::string_view file) {
  static_assert(std::endian::native == std::endian::little, "tensors are mapped as they lie in the file");
  Reader reader(bytes, size, file);
  check(size >= 4, "formats.gguf.size", "{} has {} bytes, too few for a GGUF file", file, size);
  check(reader.number<uint32_t>("the magic") == kMagic, "formats.gguf.magic", "{} is no GGUF file: it does not begin with \"GGUF\"", file);
  Header header;
  header.version = reader.number<uint32_t>("the version");
  check((header.version & 0xffff) != 0, "formats.gguf.big_endian",
        "{} was written for big-endian machines; convert it with gguf-py's gguf_convert_endian", file);
  check(header.version == 2 || header.version == 3, "formats.gguf.version",
        "{} has version {} of GGUF; versions 2 and 3 are read, so export it again with a present-day converter", file, header.version);
  const uint64_t tensors = reader.number<uint64_t>("the number of tensors");
  const uint64_t keys = reader.number<uint64_t>("the number of metadata keys");
  check(keys <= reader.left() / kMinKeyBytes && keys <= kMostKeys, "formats.gguf.size", "{} claims {} metadata keys in {} bytes", file, keys, size);
  check(tensors <= reader.left() / kMinTensorBytes && tensors <= kMostTensors, "formats.gguf.size", "{} claims {} tensors in {} bytes", file, tensors, size);
  header.metadata = GgufMetadata(std::string(file));
  read_metadata(reader, keys, header, file);
  header.alignment = alignment_of(header.metadata);
  std::unordered_set<std::string_view> names;
  header.entries.reserve(tensors);  // so that the names stay where the set looks for them
  for (uint64_t i = 0; i < tensors; ++i) {
    header.entries.push_back(read_entry(reader, file));
    check(names.insert(header.entries.back().name).second, "formats.gguf.duplicate", "{}: two tensors are named {}", file,
          shown(header.entries.back().name));
  }
  place(header, reader.position(), size, file);
  return header;
}

std::filesystem::path file_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!name.ends_with(".gguf")) continue;
    const size_t of = name.rfind("-of-");
    const bool later = of != std::string::npos && of >= 6 && name.substr(of - 6, 6) != "-00001" && name[of - 6] == '-';
    if (!later) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  check(found.size() <= 1, "formats.gguf.several", "{} holds several GGUF files; name one, such as {}", folder.string(),
        found.empty() ? "" : found.front().string());
  return found.empty() ? std::filesystem::path() : found.front();
}

}  // namespace switchyard::gguf
