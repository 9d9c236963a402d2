#include "switchyard/models/families/gguf/file_tensors.h"

#include <ATen/ops/reshape.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <utility>

#include "switchyard/base/error.h"
#include "switchyard/models/families/hub_keys.h"

namespace switchyard::gguf {

using Move = Rule::Move;

namespace {

bool needs_float(const std::string& name, const std::vector<int64_t>& shape) {
  return shape.size() < 2 || name.ends_with("_norm.weight") || !name.ends_with(".weight") || name.find(".ffn_gate_inp") != std::string::npos ||
         name.find(".ssm_conv1d") != std::string::npos || name == "token_types.weight";
}

}  // namespace

void FileTensors::add(const std::string& name, const std::vector<std::string>& parts, std::vector<int64_t> shape, Make make, MakePacked pack) {
  std::string type;
  bool all_packed = true;
  for (const std::string& part : parts) {
    used_.insert(part);
    const TensorInfo& info = infos_.at(part);
    const auto packed = hub_->packed(part);
    all_packed = all_packed && packed != nullptr;
    // Packed weights without a type of the container's become the numbers that they stand for.
    std::string here = packed == nullptr ? info.dtype : packed->layout() == "mxfp4" && shape.back() % 32 == 0 ? "MXFP4" : "F32";
    type = type.empty() || type == here ? here : "F32";
  }
  int64_t values = 1;
  for (const int64_t extent : shape) values *= extent;
  const bool narrow = type == "BF16" || type == "F16";
  if (narrow && needs_float(name, shape)) {
    narrowed_[type].push_back(name);
    type = "F32";
  }
  const BlockCodec* codec = block_codec_named(type);
  check(codec != nullptr, "convert.gguf.tensor", "{}: {} has type {}, which the container does not know", where(), parts.front(), type);
  const uint64_t bytes = static_cast<uint64_t>(values / codec->length * codec->bytes);
  add({{name, type, std::move(shape), bytes}, [hub = hub_, parts, make = std::move(make), as_float = type == "F32"] {
         std::vector<at::Tensor> tensors;
         for (const std::string& part : parts) tensors.push_back(hub->get(part));
         const at::Tensor made = make(tensors);
         return (as_float ? made.to(at::kFloat) : made).contiguous();
       },
       !all_packed || !pack ? std::function<Packed()>() : [hub = hub_, parts, pack = std::move(pack)] {
         std::vector<Packed> tensors;
         for (const std::string& part : parts) tensors.push_back(hub->packed(part));
         return packed_for_products(pack(tensors));
       }});
}

void FileTensors::add_changed(const std::string& name, const std::string& of, std::vector<int64_t> shape, Rule::Value value) {
  const TensorInfo& info = infos_.at(of);
  const at::Tensor was = hub_->get(of), is = changed(was.to(at::kFloat), value);
  const at::Tensor wanted = was.to(at::kFloat).contiguous(), back = restored(is, value).to(was.scalar_type()).to(at::kFloat).contiguous();
  const auto *bits = reinterpret_cast<const uint32_t*>(wanted.const_data_ptr<float>()), *again = reinterpret_cast<const uint32_t*>(back.const_data_ptr<float>());
  std::vector<uint64_t> pairs;
  for (int64_t i = 0; i < wanted.numel(); ++i)
    if (bits[i] != again[i]) pairs.insert(pairs.end(), {static_cast<uint64_t>(i), bits[i]});
  if (!pairs.empty()) restored_[name] = std::move(pairs);
  used_.insert(of);
  if (info.dtype == "BF16" || info.dtype == "F16") narrowed_[info.dtype].push_back(name);
  add({{name, "F32", shape, static_cast<uint64_t>(wanted.numel()) * 4}, [kept = is.reshape(shape).contiguous()] { return kept; }});
}

void FileTensors::add_halves(const std::string& of, const std::string& first, const std::string& second, bool transposed) {
  const TensorInfo* info = hub(of);
  if (info == nullptr || used(of)) return;
  std::vector<int64_t> shape = info->shape;
  check(shape.size() >= 2, "convert.gguf.tensor", "{}: {} is no pair of maps", where(), of);
  if (transposed) std::swap(shape[shape.size() - 2], shape[shape.size() - 1]);
  const auto axis = static_cast<int64_t>(shape.size()) - 2;
  int64_t& rows = shape[static_cast<size_t>(axis)];
  check(rows % 2 == 0, "convert.gguf.tensor", "{}: {} has {} rows, which are no two halves", where(), of, rows);
  rows /= 2;
  for (const int64_t which : {0, 1})
    add(which == 0 ? first : second, {of}, shape,
        [=, rows = rows](const std::vector<at::Tensor>& one) { return (transposed ? one[0].transpose(-2, -1) : one[0]).narrow(axis, which * rows, rows); },
        [=, rows = rows](const std::vector<Packed>& one) { return packed_slice(transposed ? packed_transposed(one[0]) : one[0], axis, which * rows, rows, 1); });
}

void FileTensors::add(const std::string& prefix, const std::string& hub_prefix, const Rule& rule) {
  if (rule.theirs.find("{e}") != std::string::npos) return;  // as files had it once
  const std::string name = prefix + rule.theirs, of = hub_prefix + rule.hub;
  if (rule.move == Move::expert) {
    std::vector<std::string> parts;
    for (int64_t e = 0; hub(numbered(of, "{e}", e)) != nullptr; ++e) parts.push_back(numbered(of, "{e}", e));
    if (parts.empty()) return;
    std::vector<int64_t> shape = hub(parts.front())->shape;
    shape.insert(shape.begin(), static_cast<int64_t>(parts.size()));
    return add(name, parts, std::move(shape), [](const std::vector<at::Tensor>& each) { return at::stack(each); }, packed_stack);
  }
  const TensorInfo* info = hub(of);
  if (info == nullptr || has(name) || used(of)) return;
  std::vector<int64_t> shape = info->shape;
  if (rule.move == Move::convolution && shape.size() == 3) shape.erase(shape.begin() + 1);
  if (rule.move == Move::column) shape.push_back(1);
  if (rule.move == Move::groups) {
    const int64_t groups = integer_at(config_, "mamba_n_groups");
    check(shape.size() == 1 && groups > 0 && shape[0] % groups == 0, "convert.gguf.tensor", "{}: {} is no vector of {} equal groups", where(), of, groups);
    shape = {groups, shape[0] / groups};
  }
  if (rule.value != Rule::Value::same) return add_changed(name, of, std::move(shape), rule.value);
  switch (rule.move) {
    case Move::rows_of_queries:
    case Move::rows_of_keys: {
      int64_t heads = integer_at(config_, "num_attention_heads");
      if (const Node* own = find_at(config_, "num_key_value_heads"); rule.move == Move::rows_of_keys && own != nullptr && own->is_scalar())
        heads = std::max<int64_t>(1, integer_at(config_, "num_key_value_heads"));
      check(!shape.empty() && shape[0] % (2 * heads) == 0, "convert.gguf.tensor", "{}: the rows of {} are no pairs in {} heads", where(), of, heads);
      return add(name, {of}, shape, [heads](const std::vector<at::Tensor>& one) {
        const int64_t half = one[0].size(0) / heads / 2;
        return one[0].reshape({heads, 2, half, -1}).transpose(1, 2).reshape(one[0].sizes());
      }, [heads](const std::vector<Packed>& one) { return packed_pairs(one[0], heads); });
    }
    case Move::convolution:
    case Move::column:
    case Move::groups:
      return add(name, {of}, shape, [shape](const std::vector<at::Tensor>& one) { return one[0].reshape(shape); });
    case Move::transposed:
      check(shape.size() >= 2, "convert.gguf.tensor", "{}: {} has one axis", where(), of);
      std::iter_swap(shape.end() - 1, shape.end() - 2);
      return add(name, {of}, shape, [](const std::vector<at::Tensor>& one) { return one[0].transpose(-1, -2); },
                 [](const std::vector<Packed>& one) { return packed_transposed(one[0]); });
    default:
      return add(name, {of}, std::move(shape), [](const std::vector<at::Tensor>& one) { return one[0]; },
                 [](const std::vector<Packed>& one) { return one[0]; });
  }
}

void add_fused(FileTensors& tensors, const std::string& prefix, const std::string& hub) {
  tensors.add_halves(hub + "gate_up_proj", prefix + "ffn_gate_exps.weight", prefix + "ffn_up_exps.weight");
  tensors.add(prefix, hub, {"ffn_down_exps.weight", "down_proj"});
}

}  // namespace switchyard::gguf
