#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/formats/safetensors.h"
#include "switchyard/formats/safetensors_header.h"

namespace switchyard {

namespace fs = std::filesystem;
using safetensors::shown;

namespace {

using Named = std::pair<std::string, at::Tensor>;

void check_tensors(const NamedTensors& tensors, const fs::path& path) {
  std::unordered_set<std::string> names;
  for (const auto& [name, tensor] : tensors) {
    check(names.insert(name).second, "formats.safetensors.write", "{}: two tensors are named {}", path.string(), shown(name));
    check(name != "__metadata__", "formats.safetensors.write", "{}: a tensor cannot be named __metadata__", path.string());
    check(tensor.defined(), "formats.safetensors.write", "{}: tensor {} is undefined", path.string(), shown(name));
    check(safetensors::dtype_of(tensor.scalar_type()) != nullptr, "formats.safetensors.write",
          "{}: tensor {} has dtype {}, which the format cannot hold", path.string(), shown(name),
          c10::toString(tensor.scalar_type()));
  }
}

std::string quoted(const std::string& text, const fs::path& path) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    fail("formats.safetensors.write", "{}: {} is not UTF-8", path.string(), shown(text));
  }
}

/// What the header says of a tensor.
safetensors::Entry entry_of(const Named& named, const std::vector<TensorInfo>& raw, const fs::path& path) {
  const std::string& name = named.first;  // no binding: clang lets lambdas capture none
  const at::Tensor& tensor = named.second;
  safetensors::Entry entry{.name = name, .dtype = safetensors::dtype_of(tensor.scalar_type()), .shape = tensor.sizes().vec()};
  const auto stood_for = std::find_if(raw.begin(), tensor.scalar_type() == at::kByte ? raw.end() : raw.begin(),
                                      [&](const TensorInfo& info) { return info.name == name; });
  if (tensor.scalar_type() == at::kByte && stood_for != raw.end()) {
    entry.dtype = safetensors::dtype_named(stood_for->dtype);
    entry.shape = stood_for->shape;
    check(entry.dtype != nullptr && safetensors::bytes_of(entry, path.string()) == tensor.nbytes(), "formats.safetensors.write",
          "{}: the {} bytes of tensor {} are no {} [{}]", path.string(), tensor.nbytes(), shown(name), stood_for->dtype,
          fmt::join(stood_for->shape, ", "));
  } else if (entry.dtype->bits == 4) {
    check(!entry.shape.empty(), "formats.safetensors.write", "{}: tensor {} packs two values in a scalar", path.string(), shown(name));
    entry.shape.back() *= 2;
  }
  return entry;
}

/// The header for tensors that lie in `order`, padded so that the data begin at a multiple of 8.
std::string header_text(const std::vector<const Named*>& order, const std::map<std::string, std::string>& metadata,
                        const std::vector<TensorInfo>& raw, const fs::path& path) {
  std::string text = "{\"__metadata__\":{";
  if (!metadata.contains("format")) text += "\"format\":\"pt\"";  // loaders of the ecosystem ask for it
  for (const auto& [key, value] : metadata) {
    if (text.back() != '{') text += ',';
    text += quoted(key, path) + ":" + quoted(value, path);
  }
  text += '}';
  uint64_t offset = 0;
  for (const Named* named : order) {
    const safetensors::Entry entry = entry_of(*named, raw, path);
    const uint64_t end = offset + named->second.nbytes();
    text += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", quoted(named->first, path), entry.dtype->name,
                        fmt::join(entry.shape, ","), offset, end);
    offset = end;
  }
  text += '}';
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

}  // namespace

void write_safetensors(const fs::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata, const std::vector<TensorInfo>& raw) {
  at::NoGradGuard guard;
  check_tensors(tensors, path);
  // Wide elements first, so that each tensor lies aligned.
  std::vector<const Named*> order;
  for (const Named& named : tensors) order.push_back(&named);
  std::stable_sort(order.begin(), order.end(), [](const Named* a, const Named* b) {
    return a->second.element_size() > b->second.element_size();
  });
  const std::string header = header_text(order, metadata, raw, path);
  AtomicFile file(path);
  uint8_t length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<uint8_t>(static_cast<uint64_t>(header.size()) >> (8 * i));
  file.write(length, sizeof length);
  file.write(header);
  for (const Named* named : order) {
    const at::Tensor plain = named->second.cpu().contiguous();
    file.write(plain.const_data_ptr(), plain.nbytes());
  }
  file.commit();
}

void write_safetensors_folder(const fs::path& folder, const NamedTensors& tensors, uint64_t shard_bytes,
                              const std::map<std::string, std::string>& metadata, const std::vector<TensorInfo>& raw) {
  check(shard_bytes > 0, "formats.safetensors.write", "shards of 0 bytes hold nothing");
  check_tensors(tensors, folder);
  std::vector<NamedTensors> shards(1);
  uint64_t filled = 0, total = 0;
  for (const auto& named : tensors) {
    const uint64_t bytes = named.second.nbytes();
    if (filled > 0 && filled + bytes > shard_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().push_back(named);
    filled += bytes;
    total += bytes;
  }
  if (shards.size() == 1) {
    write_safetensors(folder / "model.safetensors", shards[0], metadata, raw);
    return;
  }
  std::string map;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    write_safetensors(folder / name, shards[i], metadata, raw);
    for (const auto& named : shards[i])
      map += fmt::format("{}    {}: \"{}\"", map.empty() ? "" : ",\n", quoted(named.first, folder), name);
  }
  write_file_atomically(folder / "model.safetensors.index.json",
                        fmt::format("{{\n  \"metadata\": {{\"total_size\": {}}},\n  \"weight_map\": {{\n{}\n  }}\n}}\n",
                                    total, map));
}

}  // namespace switchyard
