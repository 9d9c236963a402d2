#include "switchyard/formats/safetensors_header.h"

#include <algorithm>
#include <array>
#include <bit>
#include <unordered_set>

#include "switchyard/base/error.h"
#include "switchyard/base/json.h"

namespace switchyard::safetensors {
namespace {

constexpr uint64_t kMaxDimensions = 64;
constexpr uint64_t kMaxHeader = 100'000'000;  ///< what the format's own library reads at most
constexpr int kMaxDepth = 64;

const std::array<Dtype, 22> kDtypes{{
    {"BOOL", 8, at::kBool},
    {"U8", 8, at::kByte},
    {"I8", 8, at::kChar},
    {"F8_E4M3", 8, at::kFloat8_e4m3fn},
    {"F8_E5M2", 8, at::kFloat8_e5m2},
    {"F8_E8M0", 8, at::kFloat8_e8m0fnu},
    {"F8_E4M3FNUZ", 8, at::kFloat8_e4m3fnuz},
    {"F8_E5M2FNUZ", 8, at::kFloat8_e5m2fnuz},
    {"I16", 16, at::kShort},
    {"U16", 16, at::kUInt16},
    {"F16", 16, at::kHalf},
    {"BF16", 16, at::kBFloat16},
    {"I32", 32, at::kInt},
    {"U32", 32, at::kUInt32},
    {"F32", 32, at::kFloat},
    {"I64", 64, at::kLong},
    {"U64", 64, at::kUInt64},
    {"F64", 64, at::kDouble},
    {"C64", 64, at::kComplexFloat},
    {"F4", 4, at::kFloat4_e2m1fn_x2},
    {"F6_E2M3", 6, std::nullopt},
    {"F6_E3M2", 6, std::nullopt},
}};

/// Follows the header's JSON token by token, so that a hostile one is refused at its first odd token: no tree is built.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(Header& header, std::string_view file) : header_(header), file_(file) {}

  bool start_object(std::size_t) override {
    if (skipping_) return deeper();
    if (at_ == At::start) return go(At::names);
    if (at_ == At::tensor_value) {
      header_.entries.push_back({.name = name_});
      seen_ = {};
      return go(At::fields);
    }
    if (at_ == At::metadata) return go(At::metadata_keys);
    return odd("an object");
  }
  bool end_object() override {
    if (skipping_) return shallower();
    if (at_ == At::names) return go(At::end);
    if (at_ == At::metadata_keys) return go(At::names);
    if (at_ != At::fields) return odd("the end of an object");
    for (size_t i = 0; i < seen_.size(); ++i)
      check(seen_[i], "formats.safetensors.header", "{}: tensor {} has no '{}'", file_, shown(name_), kFields[i]);
    return go(At::names);
  }
  bool key(string_t& key) override {
    if (skipping_) return true;
    if (at_ == At::names) {
      const bool fresh = names_.insert(key).second;
      check(fresh, "formats.safetensors.duplicate", "{}: the name {} stands twice in the header", file_, shown(key));
      name_ = key;
      return go(key == "__metadata__" ? At::metadata : At::tensor_value);
    }
    if (at_ == At::metadata_keys) {
      name_ = key;
      return go(At::metadata_value);
    }
    if (at_ != At::fields) return odd("a key");
    const auto field = std::find(kFields.begin(), kFields.end(), key);
    if (field == kFields.end()) return skipping_ = true;  // later versions of the format may say more
    const size_t index = static_cast<size_t>(field - kFields.begin());
    check(!seen_[index], "formats.safetensors.duplicate", "{}: tensor {} has '{}' twice", file_, shown(name_), key);
    seen_[index] = true;
    return go(std::array{At::dtype, At::shape, At::offsets}[index]);
  }
  bool start_array(std::size_t) override {
    if (skipping_) return deeper();
    if (at_ == At::shape) return go(At::extents);
    if (at_ == At::offsets) {
      ends_.clear();
      return go(At::offset_values);
    }
    return odd("a list");
  }
  bool end_array() override {
    if (skipping_) return shallower();
    if (at_ == At::extents) return go(At::fields);
    if (at_ != At::offset_values) return odd("the end of a list");
    check(ends_.size() == 2, "formats.safetensors.header", "{}: data_offsets of tensor {} has {} numbers, not 2", file_,
          shown(name_), ends_.size());
    Entry& entry = header_.entries.back();
    entry.begin = ends_[0];
    entry.end = ends_[1];
    return go(At::fields);
  }
  bool string(string_t& value) override {
    if (skipping_) return skipped();
    if (at_ == At::metadata_value) {
      const bool fresh = header_.metadata.emplace(name_, value).second;
      check(fresh, "formats.safetensors.duplicate", "{}: the metadata name {} twice", file_, shown(name_));
      return go(At::metadata_keys);
    }
    if (at_ != At::dtype) return odd("text");
    const Dtype* dtype = dtype_named(value);
    check(dtype, "formats.safetensors.dtype", "{}: tensor {} has dtype {}, which this version does not know", file_,
          shown(name_), shown(value));
    header_.entries.back().dtype = dtype;
    return go(At::fields);
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (skipping_) return skipped();
    if (at_ == At::extents) {
      std::vector<int64_t>& shape = header_.entries.back().shape;
      check(value <= INT64_MAX && shape.size() < kMaxDimensions, "formats.safetensors.shape",
            "{}: the shape of tensor {} is out of bounds (extent {}, dimension {})", file_, shown(name_), value, shape.size());
      shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (at_ == At::offset_values) {
      check(ends_.size() < 2, "formats.safetensors.header", "{}: data_offsets of tensor {} has more than 2 numbers", file_,
            shown(name_));
      ends_.push_back(value);
      return true;
    }
    return odd("a number");
  }
  bool number_integer(number_integer_t) override { return skipping_ ? skipped() : odd("a negative number"); }
  bool number_float(number_float_t, const string_t&) override {
    return skipping_ ? skipped() : odd("a fraction or a number beyond 64 bits");
  }
  bool null() override { return skipping_ ? skipped() : odd("null"); }
  bool boolean(bool) override { return skipping_ ? skipped() : odd("a truth value"); }
  bool binary(binary_t&) override { return odd("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    fail("formats.safetensors.header", "{}: the header is not valid JSON at byte {}: {}", file_, position, json_fault(error));
  }

 private:
  enum class At {
    start, names, metadata, metadata_keys, metadata_value, tensor_value, fields, dtype, shape, extents, offsets, offset_values, end
  };
  static constexpr std::array<std::string_view, 3> kFields{"dtype", "shape", "data_offsets"};

  bool go(At at) {
    at_ = at;
    return true;
  }
  bool odd(std::string_view found) {
    static constexpr std::array<std::string_view, 13> expected{
        "an object", "a tensor's name", "an object of texts", "a key", "a text", "an object with dtype, shape and data_offsets",
        "a key", "a text", "a list of sizes", "a size", "a list of two offsets", "an offset", "nothing"};
    fail("formats.safetensors.header", "{}: the header has {} where {} was expected{}", file_, found,
         expected[static_cast<size_t>(at_)], name_.empty() ? "" : " (at " + shown(name_) + ")");
  }
  bool deeper() {
    check(++depth_ <= kMaxDepth, "formats.safetensors.header", "{}: the header nests deeper than {} levels", file_, kMaxDepth);
    return true;
  }
  bool shallower() {
    --depth_;
    return skipped();
  }
  bool skipped() {
    if (depth_ == 0) skipping_ = false;
    return true;
  }

  Header& header_;
  std::string_view file_;
  At at_ = At::start;
  std::string name_;
  std::unordered_set<std::string> names_;
  std::array<bool, 3> seen_{};
  std::vector<uint64_t> ends_;
  bool skipping_ = false;
  int depth_ = 0;
};

void check_entries(const Header& header, uint64_t room, std::string_view file) {
  std::vector<const Entry*> order;
  for (const Entry& entry : header.entries) {
    check(entry.begin <= entry.end && entry.end <= room, "formats.safetensors.offsets",
          "{}: tensor {} lies at bytes {} to {}, but the file holds {} bytes of data; it may be cut short", file,
          shown(entry.name), entry.begin, entry.end, room);
    const uint64_t bytes = bytes_of(entry, file);
    check(entry.end - entry.begin == bytes, "formats.safetensors.shape",
          "{}: tensor {} has {} bytes, but its shape and dtype {} need {}", file, shown(entry.name), entry.end - entry.begin,
          entry.dtype->name, bytes);
    order.push_back(&entry);
  }
  std::sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  uint64_t end = 0;
  for (const Entry* entry : order) {
    check(entry->begin >= end, "formats.safetensors.offsets", "{}: tensor {} begins at byte {}, inside another tensor", file,
          shown(entry->name), entry->begin);
    check(entry->begin == end, "formats.safetensors.offsets", "{}: bytes {} to {} before tensor {} belong to no tensor", file,
          end, entry->begin, shown(entry->name));
    end = entry->end;
  }
  check(end == room, "formats.safetensors.offsets", "{}: the tensors end at byte {} of the data, but the file holds {}", file,
        end, room);
}

}  // namespace

const Dtype* dtype_named(std::string_view name) {
  for (const Dtype& dtype : kDtypes)
    if (dtype.name == name) return &dtype;
  return nullptr;
}

const Dtype* dtype_of(at::ScalarType type) {
  for (const Dtype& dtype : kDtypes)
    if (dtype.torch == type) return &dtype;
  return nullptr;
}

uint64_t bytes_of(const Entry& entry, std::string_view file) {
  // Sizes of empty tensors are bounded too: libtorch computes strides from them.
  uint64_t elements = 1;
  bool empty = false, overflow = false;
  for (int64_t extent : entry.shape) {
    empty |= extent == 0;
    overflow |= __builtin_mul_overflow(elements, static_cast<uint64_t>(std::max<int64_t>(extent, 1)), &elements);
  }
  overflow |= elements > static_cast<uint64_t>(INT64_MAX) / 64;
  check(!overflow, "formats.safetensors.shape", "{}: the shape of tensor {} has more elements than any file can hold", file,
        shown(entry.name));
  const uint64_t bits = (empty ? 0 : elements) * static_cast<uint64_t>(entry.dtype->bits);
  check(bits % 8 == 0, "formats.safetensors.shape", "{}: tensor {} of dtype {} does not end at a whole byte", file,
        shown(entry.name), entry.dtype->name);
  return bits / 8;
}

std::string shown(std::string_view name) {
  const bool cut = name.size() > 100;
  return nlohmann::json(std::string(name.substr(0, 100)) + (cut ? "..." : ""))
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Header read_header(const uint8_t* bytes, uint64_t size, std::string_view file) {
  static_assert(std::endian::native == std::endian::little, "tensors are mapped as they lie in the file");
  check(size >= 8, "formats.safetensors.size", "{} has {} bytes, too few for a safetensors file", file, size);
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | bytes[i];
  check(length <= size - 8, "formats.safetensors.size",
        "{}: the header claims {} bytes, but the file has {} in all; it is cut short or no safetensors file", file, length, size);
  check(length <= kMaxHeader, "formats.safetensors.size", "{}: the header has {} bytes; at most {} are read", file, length, kMaxHeader);
  const char* text = reinterpret_cast<const char*>(bytes) + 8;
  check(length > 0 && text[0] == '{', "formats.safetensors.header", "{}: the header does not begin with '{{'", file);
  Header header;
  header.data = 8 + length;
  HeaderReader reader(header, file);
  nlohmann::json::sax_parse(text, text + length, &reader);
  check_entries(header, size - header.data, file);
  return header;
}

}  // namespace switchyard::safetensors
