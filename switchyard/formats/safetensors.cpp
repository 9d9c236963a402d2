#include "switchyard/formats/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <unordered_map>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/json.h"
#include "switchyard/base/options.h"
#include "switchyard/formats/safetensors_header.h"

namespace switchyard {

namespace fs = std::filesystem;
using safetensors::shown;

struct Safetensors::Data {
  struct Place {
    std::shared_ptr<MappedFile> file;
    const safetensors::Dtype* dtype = nullptr;
    uint64_t begin = 0;  ///< in the file
  };
  fs::path path;
  std::vector<TensorInfo> tensors;
  std::vector<Place> places;
  std::unordered_map<std::string, size_t> index;
  std::map<std::string, std::string> metadata;

  void add(const fs::path& path);
};

void Safetensors::Data::add(const fs::path& file_path) {
  auto file = std::make_shared<MappedFile>(file_path);
  safetensors::Header header = safetensors::read_header(file->data(), file->size(), file_path.string());
  for (safetensors::Entry& entry : header.entries) {
    check(index.emplace(entry.name, tensors.size()).second, "formats.safetensors.duplicate",
          "{}: tensor {} is also in another file of the folder", file_path.string(), shown(entry.name));
    tensors.push_back({entry.name, std::string(entry.dtype->name), std::move(entry.shape), entry.end - entry.begin});
    places.push_back({file, entry.dtype, header.data + entry.begin});
  }
  metadata.merge(header.metadata);
}

namespace {

/// The files that an index names, in the order of their names, and which tensors each must hold.
std::map<std::string, std::vector<std::string>> read_index(const fs::path& path) {
  constexpr uint64_t kLargestIndex = uint64_t{1} << 28;
  const std::string text = read_file(path, kLargestIndex);
  constexpr int kLevels = 8;  // an index has two
  const auto shallow = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    check(depth <= kLevels, "formats.safetensors.index", "{} nests deeper than an index does", path.string());
    return true;
  };
  nlohmann::json index;
  try {
    index = nlohmann::json::parse(text, shallow);
  } catch (const nlohmann::json::exception& error) {
    fail("formats.safetensors.index", "{} is not valid JSON: {}", path.string(), json_fault(error));
  }
  check(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object(), "formats.safetensors.index",
        "{} has no 'weight_map' from tensor names to files", path.string());
  std::map<std::string, std::vector<std::string>> files;
  for (const auto& [name, file] : index["weight_map"].items()) {
    check(file.is_string(), "formats.safetensors.index", "{}: the file of tensor {} is no text", path.string(), shown(name));
    const std::string& where = file.get_ref<const std::string&>();
    // A file beside the index, nothing else: an index must not reach into other folders.
    const bool plain = !where.empty() && where != "." && where != ".." && where.find_first_of("/\\") == std::string::npos &&
                       where.find('\0') == std::string::npos;
    check(plain, "formats.safetensors.index", "{}: tensor {} is said to lie in {}, which is no file name in this folder",
          path.string(), shown(name), shown(where));
    files[where].push_back(name);
  }
  return files;
}

}  // namespace

Safetensors::Safetensors(const fs::path& path) : data_(std::make_unique<Data>()) {
  data_->path = path;
  if (!fs::is_directory(path)) {
    data_->add(path);
    return;
  }
  if (fs::exists(path / "model.safetensors")) {
    data_->add(path / "model.safetensors");
    return;
  }
  const fs::path index = path / "model.safetensors.index.json";
  check(fs::exists(index), "formats.safetensors.folder", "{} holds neither model.safetensors nor model.safetensors.index.json",
        path.string());
  for (const auto& [file, names] : read_index(index)) {
    check(fs::exists(path / file), "formats.safetensors.index", "{} names the file {}, which is not in the folder",
          index.string(), file);
    const size_t before = data_->tensors.size();
    data_->add(path / file);
    for (const std::string& name : names) {
      const auto found = data_->index.find(name);
      check(found != data_->index.end() && found->second >= before, "formats.safetensors.index",
            "{} says that tensor {} lies in {}, but it does not", index.string(), shown(name), file);
    }
  }
}

Safetensors::~Safetensors() = default;
Safetensors::Safetensors(Safetensors&&) noexcept = default;
Safetensors& Safetensors::operator=(Safetensors&&) noexcept = default;

const std::vector<TensorInfo>& Safetensors::tensors() const { return data_->tensors; }

bool Safetensors::has(std::string_view name) const { return data_->index.contains(std::string(name)); }

const std::map<std::string, std::string>& Safetensors::metadata() const { return data_->metadata; }

std::shared_ptr<const PackedTensor> Safetensors::packed(std::string_view) const { return nullptr; }

at::Tensor Safetensors::get(std::string_view name) const {
  const auto found = data_->index.find(std::string(name));
  if (found == data_->index.end()) {
    std::vector<std::string> names;
    for (const TensorInfo& info : data_->tensors) names.push_back(info.name);
    const std::string near = nearest(name, names);
    fail("formats.safetensors.missing", "{} has no tensor {}{}", data_->path.string(), shown(name),
         near.empty() ? "" : "; the nearest name is " + shown(near));
  }
  const TensorInfo& info = data_->tensors[found->second];
  const Data::Place& place = data_->places[found->second];
  // Codes of 6 bits, and pairs of 4 that run from one row into the next, are bytes to libtorch.
  const bool pairs = place.dtype->bits == 4 && !info.shape.empty() && info.shape.back() % 2 == 0;
  const bool raw = place.dtype->bits < 8 && !pairs;
  const at::ScalarType type = raw ? at::kByte : *place.dtype->torch;
  std::vector<int64_t> shape = info.shape;
  if (raw) shape = {static_cast<int64_t>(info.bytes)};
  if (pairs) shape.back() /= 2;
  const at::TensorOptions options = at::TensorOptions().dtype(type);
  if (info.bytes == 0) return at::empty(shape, options);
  void* bytes = const_cast<uint8_t*>(place.file->data()) + place.begin;  // the map is private and writable
  if (reinterpret_cast<uintptr_t>(bytes) % at::elementSize(type) != 0) {
    at::Tensor copy = at::empty(shape, options);
    std::memcpy(copy.data_ptr(), bytes, info.bytes);
    return copy;
  }
  return at::from_blob(bytes, shape, [file = place.file](void*) {}, options);
}

}  // namespace switchyard
