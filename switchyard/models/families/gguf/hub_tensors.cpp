#include "switchyard/models/families/gguf/hub_tensors.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/reshape.h>

#include <algorithm>
#include <cstring>

#include "switchyard/base/error.h"
#include "switchyard/models/families/hub_keys.h"

namespace switchyard::gguf {

using Move = Rule::Move;

HubTensors::HubTensors(const GgufMetadata& metadata, std::shared_ptr<const WeightSource> file, Node config)
    : DerivedWeights(metadata.source()), file_(std::move(file)), config_(std::move(config)) {
  for (const auto& [key, heads] : {std::pair{"num_attention_heads", &heads_}, {"num_key_value_heads", &key_heads_}})
    if (const Node* node = config_.find(key); node != nullptr && node->is_scalar()) *heads = integer_at(config_, key);
  for (const TensorInfo& info : file_->tensors()) theirs_.emplace(info.name, info);
  for (const auto& [type, spelled] : {std::pair{at::kBFloat16, "BF16"}, {at::kHalf, "F16"}}) {
    const std::string key = std::string(kStoredAs) + spelled;
    if (!metadata.has(key)) continue;
    for (const std::string& name : metadata.texts(key)) {
      const auto found = theirs_.find(name);
      if (found == theirs_.end() || found->second.dtype != "F32") continue;  // packed since
      found->second.dtype = spelled;
      found->second.bytes /= 2;
      narrowed_[name] = type;
    }
  }
  for (const auto& [key, value] : metadata.entries()) {
    if (!key.starts_with(kRestored)) continue;
    const std::string name = key.substr(std::strlen(kRestored));
    const std::vector<int64_t> pairs = metadata.integers(key);
    const TensorInfo* info = theirs(name);
    if (info == nullptr) continue;
    int64_t count = 1;
    for (const int64_t extent : info->shape) count *= extent;
    for (size_t i = 0; i < pairs.size(); i += 2)
      check(i + 1 < pairs.size() && pairs[i] >= 0 && pairs[i] < count, "model.gguf", "{}: {} does not name numbers of {}", metadata.source(), key, name);
    restored_[name].assign(pairs.begin(), pairs.end());
  }
}

at::Tensor HubTensors::read_restored(const std::string& name, Rule::Value value) const {
  at::Tensor numbers = restored(file_->get(name).to(at::kFloat), value).contiguous();
  if (const auto found = restored_.find(name); found != restored_.end()) {
    float* to = numbers.mutable_data_ptr<float>();
    for (size_t i = 0; i + 1 < found->second.size(); i += 2) {
      const auto bits = static_cast<uint32_t>(found->second[i + 1]);
      std::memcpy(to + found->second[i], &bits, sizeof(bits));
    }
  }
  const auto narrowed = narrowed_.find(name);
  return narrowed == narrowed_.end() ? numbers : numbers.to(narrowed->second);
}

void HubTensors::add_joined(const std::string& first, const std::string& second, const std::string& hub, bool transposed) {
  const TensorInfo *one = theirs(first), *two = theirs(second);
  if (one == nullptr || two == nullptr) return;
  check(one->shape == two->shape && one->shape.size() >= 2, "model.gguf", "{}: {} and {} have other shapes", where(), first, second);
  use(first);
  use(second);
  std::vector<int64_t> shape = one->shape;
  shape[shape.size() - 2] *= 2;
  if (transposed) std::swap(shape[shape.size() - 2], shape[shape.size() - 1]);
  add({{hub, one->dtype, std::move(shape), one->bytes + two->bytes},
       [this, first, second, transposed] {
         const at::Tensor both = at::cat({read(first), read(second)}, -2);
         return transposed ? both.transpose(-2, -1) : both;
       },
       [this, first, second, transposed] {
         const Packed both = packed_joined({file_->packed(first), file_->packed(second)});
         return transposed ? packed_transposed(both) : both;
       }});
}

void HubTensors::finish() {
  for (const TensorInfo& info : file_->tensors())
    if (!used_.contains(info.name)) add({info, [this, name = info.name] { return file_->get(name); }});
}

void HubTensors::add_experts(const TensorInfo& info, const std::string& hub) {
  check(info.shape.size() == 3 && info.shape[0] > 0, "model.gguf", "{}: {} is no stack of experts", where(), info.name);
  const std::vector<int64_t> one(info.shape.begin() + 1, info.shape.end());
  for (int64_t e = 0; e < info.shape[0]; ++e) {
    Recipe recipe{.info = {numbered(hub, "{e}", e), info.dtype, one, info.bytes / static_cast<uint64_t>(info.shape[0])}};
    recipe.get = [this, name = info.name, e] {
      const auto packed = file_->packed(name);
      return packed ? packed->dequantise(e, 1).select(0, 0) : read(name).select(0, e);
    };
    recipe.packed = [this, name = info.name, one, e]() -> std::shared_ptr<const PackedTensor> {
      const auto stack = std::dynamic_pointer_cast<const BlockTensor>(file_->packed(name));
      return stack ? std::make_shared<BlockTensor>(stack->codec(), one, stack->row(e * one[0]), stack,
                                                  stack->in_file() ? BlockTensor::In::file : BlockTensor::In::memory) : nullptr;
    };
    add(std::move(recipe));
  }
}

void HubTensors::add(const std::string& prefix, const std::string& hub_prefix, const Rule& rule) {
  if (rule.theirs.find("{e}") != std::string::npos) {
    for (int64_t e = 0; theirs(prefix + numbered(rule.theirs, "{e}", e)); ++e)
      add(prefix, hub_prefix, {numbered(rule.theirs, "{e}", e), numbered(rule.hub, "{e}", e), rule.move});
    return;
  }
  const TensorInfo* info = theirs(prefix + rule.theirs);
  if (info == nullptr || used_.contains(info->name)) return;
  use(info->name);
  const std::string hub = hub_prefix + rule.hub;
  if (rule.move == Move::expert) return add_experts(*info, hub);
  Recipe recipe{.info = *info};
  recipe.info.name = hub;
  const auto read = [this, name = info->name, value = rule.value] { return value == Rule::Value::same ? this->read(name) : read_restored(name, value); };
  switch (rule.move) {
    case Move::rows_of_queries:
    case Move::rows_of_keys: {
      const int64_t heads = rule.move == Move::rows_of_queries ? heads_ : key_heads_;
      check(!info->shape.empty() && heads > 0 && info->shape[0] % (2 * heads) == 0, "model.gguf", "{}: the rows of {} are no pairs in {} heads",
            where(), info->name, heads);
      // Stored row 2 j + s of a head is row s d / 2 + j of the hub's.
      recipe.get = [read, heads] {
        const at::Tensor stored = read();
        const int64_t half = stored.size(0) / heads / 2;
        return stored.reshape({heads, half, 2, -1}).transpose(1, 2).reshape(stored.sizes());
      };
      recipe.packed = [this, name = info->name, heads] { return packed_halves(file_->packed(name), heads); };
      break;
    }
    case Move::row:
      recipe.info.shape = {1, info->shape.empty() ? 1 : info->shape.back()};
      recipe.get = [read] { return read().reshape({1, -1}); };
      break;
    case Move::convolution:
      check(info->shape.size() == 2, "model.gguf", "{}: {} is no table of kernels", where(), info->name);
      recipe.info.shape.insert(recipe.info.shape.begin() + 1, 1);
      recipe.get = [read] { return read().unsqueeze(1); };
      break;
    case Move::column:
    case Move::groups:
      recipe.info.shape = {1};
      for (const int64_t extent : info->shape) recipe.info.shape[0] *= extent;
      recipe.get = [read] { return read().reshape({-1}); };
      break;
    case Move::transposed:
      check(info->shape.size() >= 2, "model.gguf", "{}: {} has one axis", where(), info->name);
      std::iter_swap(recipe.info.shape.end() - 1, recipe.info.shape.end() - 2);
      recipe.get = [read] { return read().transpose(-1, -2); };
      recipe.packed = [this, name = info->name] { return packed_transposed(file_->packed(name)); };
      break;
    default:
      recipe.get = read;
      if (rule.value == Rule::Value::same) recipe.packed = [this, name = info->name] { return file_->packed(name); };
  }
  add(std::move(recipe));
}

}  // namespace switchyard::gguf
