#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_set>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/formats/gguf.h"
#include "switchyard/formats/gguf_header.h"
#include "switchyard/formats/safetensors_header.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {

namespace fs = std::filesystem;
using safetensors::shown;

namespace {

constexpr std::array<std::pair<at::ScalarType, std::string_view>, 8> kTypes{{
    {at::kFloat, "F32"}, {at::kHalf, "F16"}, {at::kBFloat16, "BF16"}, {at::kDouble, "F64"},
    {at::kChar, "I8"}, {at::kShort, "I16"}, {at::kInt, "I32"}, {at::kLong, "I64"}}};

/// The header's bytes, appended field by field.
class Writer {
 public:
  explicit Writer(std::string place) : place_(std::move(place)) {}
  const std::string& bytes() const { return bytes_; }

  template <typename T>
  void number(T value) { bytes_.append(reinterpret_cast<const char*>(&value), sizeof value); }

  void text(std::string_view value) {
    number<uint64_t>(value.size());
    bytes_ += value;
  }

  void value(const std::string& key, const GgufValue& value) {
    number(static_cast<uint32_t>(value.type));
    std::visit([&](const auto& held) { put(key, value.type, held); }, value.value);
  }

 private:
  [[noreturn]] void refuse(const std::string& key, GgufType type) {
    fail("formats.gguf.write", "{}: the value of metadata {} does not fit its type {}", place_, shown(key), to_string(type));
  }

  template <typename T, typename Held>
  void fitting(const std::string& key, GgufType type, Held value) {
    if (!std::in_range<T>(value)) refuse(key, type);
    number(static_cast<T>(value));
  }

  void put(const std::string& key, GgufType type, uint64_t value) {
    switch (type) {
      case GgufType::u8: return fitting<uint8_t>(key, type, value);
      case GgufType::u16: return fitting<uint16_t>(key, type, value);
      case GgufType::u32: return fitting<uint32_t>(key, type, value);
      case GgufType::u64: return number(value);
      case GgufType::boolean:
        if (value > 1) refuse(key, type);
        return number(static_cast<uint8_t>(value));
      default: refuse(key, type);
    }
  }
  void put(const std::string& key, GgufType type, int64_t value) {
    switch (type) {
      case GgufType::i8: return fitting<int8_t>(key, type, value);
      case GgufType::i16: return fitting<int16_t>(key, type, value);
      case GgufType::i32: return fitting<int32_t>(key, type, value);
      case GgufType::i64: return number(value);
      default: refuse(key, type);
    }
  }
  void put(const std::string& key, GgufType type, double value) {
    if (type == GgufType::f64) return number(value);
    if (type != GgufType::f32) refuse(key, type);
    number(static_cast<float>(value));
  }
  void put(const std::string& key, GgufType type, const std::string& value) {
    if (type != GgufType::text) refuse(key, type);
    text(value);
  }
  void put(const std::string& key, GgufType type, const GgufArray& value) {
    if (type != GgufType::array) refuse(key, type);
    number(static_cast<uint32_t>(value.element));
    number<uint64_t>(value.size());
    std::visit([&](const auto& items) { for (const auto& item : items) put(key, value.element, item); }, value.items);
  }

  std::string place_, bytes_;
};

uint64_t padded(uint64_t bytes, uint64_t alignment) { return (bytes + alignment - 1) & ~(alignment - 1); }

void check_tensors(const std::vector<GgufTensor>& tensors, const std::string& place) {
  std::unordered_set<std::string_view> names;
  for (const GgufTensor& tensor : tensors) {
    check(names.insert(tensor.name).second, "formats.gguf.write", "{}: two tensors are named {}", place, shown(tensor.name));
    check(tensor.name.size() < 64 && utf8_repair(tensor.name) == tensor.name, "formats.gguf.write",
          "{}: {} is no name of at most 63 bytes of UTF-8, as readers of the format need it", place, shown(tensor.name));
    check(tensor.codec != nullptr && tensor.bytes, "formats.gguf.write", "{}: tensor {} has no type or no data", place, shown(tensor.name));
    check(tensor.shape.size() <= 4, "formats.gguf.write", "{}: tensor {} has {} dimensions; the format has at most 4", place,
          shown(tensor.name), tensor.shape.size());
  }
}

void write_one(const fs::path& path, const GgufMetadata& metadata, std::span<const GgufTensor> tensors) {
  const std::string place = path.string();
  const uint64_t alignment = gguf::alignment_of(metadata);
  Writer header(place);
  header.number<uint32_t>(0x46554747);  // "GGUF"
  header.number<uint32_t>(3);
  header.number<uint64_t>(tensors.size());
  header.number<uint64_t>(metadata.entries().size());
  for (const auto& [key, value] : metadata.entries()) {
    check(utf8_repair(key) == key, "formats.gguf.write", "{}: the metadata key {} is not UTF-8", place, shown(key));
    header.text(key);
    header.value(key, value);
  }
  uint64_t offset = 0;
  std::vector<uint64_t> sizes;
  for (const GgufTensor& tensor : tensors) {
    header.text(tensor.name);
    header.number(static_cast<uint32_t>(tensor.shape.size()));
    for (size_t i = tensor.shape.size(); i-- > 0;) header.number(static_cast<uint64_t>(tensor.shape[i]));
    header.number(tensor.codec->number);
    header.number(offset);
    sizes.push_back(gguf::tensor_bytes(*tensor.codec, tensor.shape, place, tensor.name));
    offset += padded(sizes.back(), alignment);
  }
  AtomicFile file(path);
  const auto pad = [&](uint64_t bytes) { file.write(std::string(padded(bytes, alignment) - bytes, '\0')); };
  file.write(header.bytes());
  pad(header.bytes().size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor data = tensors[i].bytes();
    check(data.defined() && data.is_cpu() && data.is_contiguous() && data.nbytes() == sizes[i], "formats.gguf.write",
          "{}: tensor {} has {} bytes where its type {} and shape need {}", place, shown(tensors[i].name),
          data.defined() ? data.nbytes() : 0, tensors[i].codec->name, sizes[i]);
    file.write(data.const_data_ptr(), sizes[i]);
    pad(sizes[i]);
  }
  file.commit();
}

}  // namespace

GgufTensor GgufTensor::plain(std::string name, at::Tensor tensor) {
  check(tensor.defined(), "formats.gguf.write", "tensor {} is undefined", shown(name));
  for (const auto& [type, spelled] : kTypes)
    if (type == tensor.scalar_type())
      return {.name = std::move(name), .codec = block_codec_named(spelled), .shape = tensor.sizes().vec(),
              .bytes = [tensor] { at::NoGradGuard guard; return tensor.detach().cpu().contiguous(); }};
  fail("formats.gguf.write", "tensor {} has dtype {}, which the format cannot hold", shown(name), c10::toString(tensor.scalar_type()));
}

GgufTensor GgufTensor::quantised(std::string name, const BlockCodec& codec, at::Tensor values, at::Tensor importance) {
  check(values.defined() && values.dim() > 0 && values.size(-1) % codec.length == 0, "formats.quantise",
        "tensor {} cannot be packed as {}: its rows are no whole number of {} values", shown(name), codec.name, codec.length);
  return {.name = std::move(name), .codec = &codec, .shape = values.sizes().vec(),
          .bytes = [&codec, values, importance] { return quantise_blocks(codec, values, importance); }};
}

std::vector<fs::path> write_gguf(const fs::path& file, const GgufMetadata& metadata, const std::vector<GgufTensor>& tensors,
                                 uint64_t shard_bytes) {
  check_tensors(tensors, file.string());
  std::vector<size_t> firsts{0};  // of each file
  uint64_t filled = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const uint64_t bytes = gguf::tensor_bytes(*tensors[i].codec, tensors[i].shape, file.string(), tensors[i].name);
    if (shard_bytes > 0 && filled > 0 && filled + bytes > shard_bytes) {
      firsts.push_back(i);
      filled = 0;
    }
    filled += bytes;
  }
  GgufMetadata whole = metadata;
  for (const char* key : {"split.no", "split.count", "split.tensors.count"}) whole.erase(key);
  if (firsts.size() == 1) {
    write_one(file, whole, tensors);
    return {file};
  }
  check(firsts.size() <= 65535, "formats.gguf.write", "{} would become {} files; make them larger than {} bytes", file.string(),
        firsts.size(), shard_bytes);
  firsts.push_back(tensors.size());
  std::vector<fs::path> files;
  const size_t count = firsts.size() - 1;
  for (size_t i = 0; i < count; ++i) {
    GgufMetadata here;
    if (i == 0) here = whole;
    else if (const GgufValue* alignment = whole.find("general.alignment")) here.set("general.alignment", *alignment);
    here.set("split.no", GgufValue::u16(static_cast<uint16_t>(i)));
    here.set("split.count", GgufValue::u16(static_cast<uint16_t>(count)));
    here.set("split.tensors.count", GgufValue::i32(static_cast<int32_t>(tensors.size())));
    files.push_back(file.parent_path() / fmt::format("{}-{:05}-of-{:05}.gguf", file.stem().string(), i + 1, count));
    write_one(files.back(), here, std::span(tensors).subspan(firsts[i], firsts[i + 1] - firsts[i]));
  }
  return files;
}

}  // namespace switchyard
