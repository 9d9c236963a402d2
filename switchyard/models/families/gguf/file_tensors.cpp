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
  return shape.size() < 2 || name.ends_with("_norm.weight") || name.ends_with(".bias") || name.find(".ffn_gate_inp") != std::string::npos;
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
    case Move::transposed:
      std::swap(shape[1], shape[2]);
      return add(name, {of}, shape, [](const std::vector<at::Tensor>& one) { return one[0].transpose(1, 2); },
                 [](const std::vector<Packed>& one) { return packed_transposed(one[0]); });
    default:
      return add(name, {of}, std::move(shape), [](const std::vector<at::Tensor>& one) { return one[0]; },
                 [](const std::vector<Packed>& one) { return one[0]; });
  }
}

void add_fused(FileTensors& tensors, const std::string& prefix, const std::string& hub) {
  const TensorInfo* info = tensors.hub(hub + "gate_up_proj");
  if (info == nullptr || info->shape.size() != 3 || tensors.used(info->name)) return;
  const std::vector<int64_t> shape{info->shape[0], info->shape[1] / 2, info->shape[2]};
  for (const int64_t which : {0, 1})
    tensors.add(fmt::format("{}ffn_{}_exps.weight", prefix, which == 0 ? "gate" : "up"), {info->name}, shape,
                [which, rows = shape[1]](const std::vector<at::Tensor>& one) { return one[0].narrow(1, which * rows, rows); },
                [which, rows = shape[1]](const std::vector<Packed>& one) { return packed_slice(one[0], 1, which * rows, rows, 1); });
  tensors.add(prefix, hub, {"ffn_down_exps.weight", "down_proj"});
}

}  // namespace switchyard::gguf
