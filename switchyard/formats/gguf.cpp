#include "switchyard/formats/gguf.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <array>
#include <charconv>
#include <cstring>
#include <optional>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/options.h"
#include "switchyard/formats/gguf_header.h"
#include "switchyard/formats/safetensors_header.h"

namespace switchyard {

namespace fs = std::filesystem;
using safetensors::shown;

struct Gguf::Data {
  struct Place {
    std::shared_ptr<MappedFile> file;
    const BlockCodec* codec = nullptr;
    uint64_t begin = 0;  ///< in the file
  };
  fs::path path;
  GgufMetadata metadata;
  std::vector<TensorInfo> tensors;
  std::vector<Place> places;
  std::unordered_map<std::string, size_t> index;

  /// Adds a file's tensors and returns its metadata.
  GgufMetadata add(const fs::path& file);
  size_t at(std::string_view name) const;
};

GgufMetadata Gguf::Data::add(const fs::path& file_path) {
  auto file = std::make_shared<MappedFile>(file_path);
  gguf::Header header = gguf::read_header(file->data(), file->size(), file_path.string());
  for (gguf::Entry& entry : header.entries) {
    check(index.emplace(entry.name, tensors.size()).second, "formats.gguf.duplicate", "{}: tensor {} is also in another file of the set",
          file_path.string(), shown(entry.name));
    tensors.push_back({entry.name, std::string(entry.codec->name), std::move(entry.shape), entry.bytes});
    places.push_back({file, entry.codec, entry.begin});
  }
  return std::move(header.metadata);
}

size_t Gguf::Data::at(std::string_view name) const {
  const auto found = index.find(std::string(name));
  if (found != index.end()) return found->second;
  std::vector<std::string> names;
  for (const TensorInfo& info : tensors) names.push_back(info.name);
  const std::string near = nearest(name, names);
  fail("formats.gguf.missing", "{} has no tensor {}{}", path.string(), shown(name),
       near.empty() ? "" : "; the nearest name is " + shown(near));
}

namespace {

constexpr std::array<std::pair<std::string_view, at::ScalarType>, 8> kPlain{{
    {"F32", at::kFloat}, {"F16", at::kHalf}, {"BF16", at::kBFloat16}, {"F64", at::kDouble},
    {"I8", at::kChar}, {"I16", at::kShort}, {"I32", at::kInt}, {"I64", at::kLong}}};

std::optional<at::ScalarType> plain_type(const BlockCodec& codec) {
  for (const auto& [name, type] : kPlain)
    if (name == codec.name) return type;
  return std::nullopt;
}

constexpr const char *kNumber = "split.no", *kCount = "split.count", *kTensors = "split.tensors.count";

/// The files of a set from the name of one: NAME-00002-of-00003.gguf.
std::vector<fs::path> set_of(const fs::path& file, int64_t number, int64_t count) {
  const std::string name = file.filename().string(), ending = fmt::format("-{:05}-of-{:05}.gguf", number + 1, count);
  check(name.ends_with(ending), "formats.gguf.split", "{} says that it is file {} of {}, so its name must end in {}", file.string(),
        number + 1, count, ending);
  const std::string stem = name.substr(0, name.size() - ending.size());
  std::vector<fs::path> files;
  for (int64_t i = 0; i < count; ++i) {
    files.push_back(file.parent_path() / fmt::format("{}-{:05}-of-{:05}.gguf", stem, i + 1, count));
    check(fs::exists(files.back()), "formats.gguf.split", "{} is one of {} files, but {} is not there", file.string(), count,
          files.back().string());
  }
  return files;
}

}  // namespace

Gguf::Gguf(const fs::path& path) : data_(std::make_unique<Data>()) {
  constexpr int64_t kMostFiles = 99999;
  data_->path = path;
  data_->metadata = data_->add(path);
  const int64_t count = data_->metadata.integer(kCount, 1);
  if (count == 0 || count == 1) return;
  const int64_t number = data_->metadata.integer(kNumber, 0);
  check(count > 0 && count <= kMostFiles && number >= 0 && number < count, "formats.gguf.split", "{} says that it is file {} of {}",
        path.string(), number + 1, count);
  *data_ = Data();
  data_->path = path;
  const std::vector<fs::path> files = set_of(path, number, count);
  for (size_t i = 0; i < files.size(); ++i) {
    GgufMetadata metadata = data_->add(files[i]);
    check(metadata.integer(kCount, 1) == count && metadata.integer(kNumber, 0) == static_cast<int64_t>(i), "formats.gguf.split",
          "{} is no part of the set of {}: it says that it is file {} of {}", files[i].string(), path.string(),
          metadata.integer(kNumber, 0) + 1, metadata.integer(kCount, 1));
    if (i == 0) data_->metadata = std::move(metadata);
  }
  const int64_t expected = data_->metadata.integer(kTensors, -1);
  check(expected < 0 || expected == static_cast<int64_t>(data_->tensors.size()), "formats.gguf.split",
        "the set of {} holds {} tensors, but its first file says {}", path.string(), data_->tensors.size(), expected);
}

bool is_gguf(const fs::path& path) {
  const MappedFile file(path);
  return file.size() >= 4 && std::memcmp(file.data(), "GGUF", 4) == 0;
}

Gguf::~Gguf() = default;
Gguf::Gguf(Gguf&&) noexcept = default;
Gguf& Gguf::operator=(Gguf&&) noexcept = default;

const GgufMetadata& Gguf::metadata() const { return data_->metadata; }
void Gguf::forget_metadata() { data_->metadata = {}; }
const std::vector<TensorInfo>& Gguf::tensors() const { return data_->tensors; }
bool Gguf::has(std::string_view name) const { return data_->index.contains(std::string(name)); }

at::Tensor Gguf::get(std::string_view name) const {
  const size_t i = data_->at(name);
  const TensorInfo& info = data_->tensors[i];
  const Data::Place& place = data_->places[i];
  const std::optional<at::ScalarType> type = plain_type(*place.codec);
  if (!type) return info.bytes == 0 ? at::empty(info.shape, at::kFloat) : packed(name)->dequantise();
  if (info.bytes == 0) return at::empty(info.shape, *type);
  void* bytes = const_cast<uint8_t*>(place.file->data()) + place.begin;  // the map is private and writable
  if (reinterpret_cast<uintptr_t>(bytes) % at::elementSize(*type) != 0) {
    at::Tensor copy = at::empty(info.shape, *type);
    std::memcpy(copy.mutable_data_ptr(), bytes, info.bytes);
    return copy;
  }
  return at::from_blob(bytes, info.shape, [file = place.file](void*) {}, at::TensorOptions().dtype(*type));
}

std::shared_ptr<const PackedTensor> Gguf::packed(std::string_view name) const {
  const size_t i = data_->at(name);
  const TensorInfo& info = data_->tensors[i];
  const Data::Place& place = data_->places[i];
  if (plain_type(*place.codec) || info.bytes == 0) return nullptr;
  return std::make_shared<BlockTensor>(*place.codec, info.shape, place.file->data() + place.begin, place.file,
                                       BlockTensor::In::file);
}

}  // namespace switchyard
