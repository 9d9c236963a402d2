// gpt-oss: gates and maps of its experts alternate in one tensor, every second layer has a window.
#include <ATen/ops/stack.h>

#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/file_keys.h"
#include "switchyard/models/families/gguf/file_tensors.h"
#include "switchyard/models/families/gguf/hub_config.h"
#include "switchyard/models/families/gguf/hub_tensors.h"

namespace switchyard::gguf {
using Move = Rule::Move;

namespace {

void gpt_oss_config(HubConfig& config) {
  config.put_text("model_type", "gpt_oss");
  config.copy("num_local_experts", "expert_count");
  config.copy("num_experts_per_tok", "expert_used_count");
  config.put("intermediate_size", config.integer("expert_feed_forward_length", config.integer("feed_forward_length", 0)));
  config.copy("sliding_window", "attention.sliding_window");
  config.put_flag("attention_bias", true);
  config.put("swiglu_limit", Node("7.0"));
  Node kinds = Node::list();
  const std::vector<int64_t> slides = config.pattern("attention.sliding_window_pattern");
  for (int64_t i = 0; i < config.layers(); ++i)
    kinds.append(HubConfig::quoted((slides.empty() ? i % 2 == 0 : slides[static_cast<size_t>(i)] != 0) ? "sliding_attention" : "full_attention"));
  config.put("layer_types", kinds);
  // Readers of the container round YaRN's range to whole dimensions, unless it was written here.
  if (Node* scaling = config.node().find("rope_scaling"); scaling != nullptr && scaling->is_map())
    (*scaling)["truncate"] = Node(config.metadata().flag(kYarnTruncate, true) ? "true" : "false");
}

void gpt_oss_keys(FileKeys& keys) {
  put_attention(keys);
  put_experts(keys);
  keys.copy("expert_feed_forward_length", "intermediate_size");
  put_windows(keys, true);
}

/// gpt-oss: gate and up alternate in the columns of one tensor, [E, D, 2 F]; biases likewise, [E, 2 F].
void alternating_from_file(HubTensors& tensors, const std::string& prefix, const std::string& layer) {
  const std::string hub = layer + "mlp.experts.";
  for (const auto& [end, name] : {std::pair{".weight", "gate_up_proj"}, {".bias", "gate_up_proj_bias"}}) {
    const TensorInfo *gate = tensors.theirs(prefix + "ffn_gate_exps" + end), *up = tensors.theirs(prefix + "ffn_up_exps" + end);
    if (gate == nullptr || up == nullptr) continue;
    check(gate->shape == up->shape && gate->shape.size() >= 2, "model.gguf", "{}: {} and {} have other shapes",
          tensors.where(), gate->name, up->name);
    tensors.use(gate->name);
    tensors.use(up->name);
    std::vector<int64_t> shape = gate->shape;
    const int64_t experts = shape[0], width = 2 * shape[1];
    if (shape.size() == 3) shape = {experts, shape[2], width};
    else shape = {experts, width};
    tensors.add({{hub + name, gate->dtype, shape, gate->bytes + up->bytes},
                 [&tensors, gate = gate->name, up = up->name, experts, width] {
                   const at::Tensor both = at::stack({tensors.read(gate), tensors.read(up)}, 2);  // [E, F, 2, ..]
                   return both.dim() == 4 ? both.reshape({experts, width, -1}).transpose(1, 2) : both.reshape({experts, width});
                 },
                 [&tensors, gate = gate->name, up = up->name] {
                   return packed_transposed(packed_interleaved({tensors.packed_in_file(gate), tensors.packed_in_file(up)}));
                 }});
  }
  tensors.add(prefix, hub, {"ffn_down_exps.weight", "down_proj", Move::transposed});
  tensors.add(prefix, hub, {"ffn_down_exps.bias", "down_proj_bias"});
}

/// gpt-oss: gate and up alternate in the columns of one tensor, [E, D, 2 F]; biases likewise, [E, 2 F].
void alternating_to_file(FileTensors& tensors, const std::string& prefix, const std::string& layer) {
  const std::string hub = layer + "mlp.experts.";
  for (const auto& [end, of] : {std::pair{".weight", hub + "gate_up_proj"}, {".bias", hub + "gate_up_proj_bias"}}) {
    const TensorInfo* info = tensors.hub(of);
    if (info == nullptr) continue;
    std::vector<int64_t> shape = info->shape;
    if (shape.size() == 3) std::swap(shape[1], shape[2]);
    check(shape.size() >= 2 && shape[1] % 2 == 0, "convert.gguf.tensor", "{}: {} is no pair of gates and maps", tensors.where(), of);
    shape[1] /= 2;
    for (const int64_t which : {0, 1})
      tensors.add(fmt::format("{}ffn_{}_exps{}", prefix, which == 0 ? "gate" : "up", end), {of}, shape, [which](const std::vector<at::Tensor>& one) {
        const at::Tensor rows = one[0].dim() == 3 ? one[0].transpose(1, 2) : one[0];
        return rows.slice(1, which, std::nullopt, 2);
      }, [which, rows = shape[1]](const std::vector<Packed>& one) { return packed_slice(packed_transposed(one[0]), 1, which, rows, 2); });
  }
  if (tensors.hub(hub + "down_proj")) tensors.add(prefix, hub, {"ffn_down_exps.weight", "down_proj", Move::transposed});
  tensors.add(prefix, hub, {"ffn_down_exps.bias", "down_proj_bias"});
}

}  // namespace

std::vector<Architecture> gpt_oss_architectures() {
  // Its files have a name of its own for the second norm.
  return {{.name = "gpt-oss", .model_types = {"gpt_oss"}, .router = "mlp.router", .rules = {{"post_attention_norm.weight", "post_attention_layernorm.weight"}},
           .llama_cpp = {.windows = true}, .config = gpt_oss_config, .keys = gpt_oss_keys, .from_file = alternating_from_file, .to_file = alternating_to_file}};
}

}  // namespace switchyard::gguf
