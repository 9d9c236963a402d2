#include "switchyard/models/families/gguf_view.h"

#include <ATen/ops/stack.h>
#include <ATen/ops/reshape.h>
#include <ATen/ops/tensor.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "switchyard/base/error.h"
#include "switchyard/kernels/packed_views.h"
#include "switchyard/models/families/composition.h"
#include "switchyard/models/families/derived_weights.h"
#include "switchyard/models/families/family.h"
#include "switchyard/models/families/gguf_hub.h"
#include "switchyard/models/families/gguf_names.h"
#include "switchyard/models/families/hub_keys.h"
#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

using gguf::Architecture;
using gguf::Rule;
using Move = Rule::Move;

// ---- metadata

/// Writes the keys of an architecture from those of a config in its family's own words.
class Keys {
 public:
  Keys(GgufMetadata& metadata, const Node& config, std::string architecture)
      : metadata_(metadata), config_(config), prefix_(std::move(architecture) + ".") {}

  void count(const std::string& key, int64_t value) {
    check(value >= 0 && value <= UINT32_MAX, "convert.gguf.option", "{}{} would be {}", prefix_, key, value);
    metadata_.set(prefix_ + key, GgufValue::u32(static_cast<uint32_t>(value)));
  }
  void number(const std::string& key, double value) { metadata_.set(prefix_ + key, GgufValue::f32(static_cast<float>(value))); }
  void flag(const std::string& key, bool value) { metadata_.set(prefix_ + key, GgufValue::flag(value)); }
  void flags(const std::string& key, std::vector<uint64_t> values) { metadata_.set(prefix_ + key, GgufValue::flags(std::move(values))); }
  void text(const std::string& key, const std::string& value) { metadata_.set(prefix_ + key, GgufValue::text(value)); }
  /// From a key of the config; nothing when it is absent or null.
  void copy(const std::string& key, const std::string& hub) {
    if (present(hub)) count(key, integer_at(config_, hub));
  }
  void copy_number(const std::string& key, const std::string& hub) {
    if (present(hub)) number(key, number_at(config_, hub));
  }

  bool present(const std::string& hub) const {
    const Node* node = find_at(config_, hub);
    return node != nullptr && !node->is_null();
  }
  int64_t integer(const std::string& hub, int64_t otherwise) const { return present(hub) ? integer_at(config_, hub) : otherwise; }
  GgufMetadata& metadata() const { return metadata_; }
  const Node& config() const { return config_; }

 private:
  GgufMetadata& metadata_;
  const Node& config_;
  std::string prefix_;
};

int64_t head_width(const Node& config) {
  const Node* own = find_at(config, "head_dim");
  const int64_t given = own != nullptr && own->is_scalar() ? integer_at(config, "head_dim") : 0;
  return given > 0 ? given : integer_at(config, "hidden_size") / std::max<int64_t>(1, integer_at(config, "num_attention_heads"));
}

void put_rotary(Keys& keys) {
  const Node& config = keys.config();
  keys.copy_number("rope.freq_base", "rope_theta");
  if (!keys.present("rope_scaling.rope_type")) return;
  const std::string kind = text_at(config, "rope_scaling.rope_type");
  if (kind == "llama3")  // a tensor, which comes with the others
    keys.metadata().set(gguf::kLlama3, GgufValue::floats({number_at(config, "rope_scaling.low_freq_factor"), number_at(config, "rope_scaling.high_freq_factor"),
                                                          number_at(config, "rope_scaling.original_max_position_embeddings")}));
  if (kind != "linear" && kind != "yarn") return;  // what remains is found to be missing
  keys.text("rope.scaling.type", kind);
  keys.copy_number("rope.scaling.factor", "rope_scaling.factor");
  if (kind == "linear") return;
  keys.copy("rope.scaling.original_context_length", "rope_scaling.original_max_position_embeddings");
  keys.copy_number("rope.scaling.yarn_beta_fast", "rope_scaling.beta_fast");
  keys.copy_number("rope.scaling.yarn_beta_slow", "rope_scaling.beta_slow");
  if (keys.present("rope_scaling.mscale_all_dim")) keys.number("rope.scaling.yarn_log_multiplier", 0.1 * number_at(config, "rope_scaling.mscale_all_dim"));
  if (keys.present("rope_scaling.truncate") && !flag_at(config, "rope_scaling.truncate"))
    keys.metadata().set(gguf::kYarnTruncate, GgufValue::flag(false));
}

void put_latent(Keys& keys) {
  const Node& config = keys.config();
  const int64_t rank = integer_at(config, "kv_lora_rank"), turning = integer_at(config, "qk_rope_head_dim"), plain = integer_at(config, "qk_nope_head_dim");
  keys.count("attention.head_count_kv", 1);  // all heads share the compressed key
  if (keys.integer("q_lora_rank", 0) > 0) keys.copy("attention.q_lora_rank", "q_lora_rank");
  keys.count("attention.kv_lora_rank", rank);
  keys.count("attention.key_length", rank + turning);
  keys.count("attention.value_length", rank);
  keys.count("attention.key_length_mla", plain + turning);
  keys.copy("attention.value_length_mla", "v_head_dim");
  keys.count("rope.dimension_count", turning);
}

void put_deepseek(Keys& keys) {
  const Node& config = keys.config();
  put_latent(keys);
  keys.copy("leading_dense_block_count", "first_k_dense_replace");
  keys.copy("expert_feed_forward_length", "moe_intermediate_size");
  keys.copy("expert_count", "n_routed_experts");
  keys.copy("expert_used_count", "num_experts_per_tok");
  keys.count("expert_shared_count", keys.integer("n_shared_experts", 0));
  keys.copy_number("expert_weights_scale", "routed_scaling_factor");
  keys.flag("expert_weights_norm", keys.present("norm_topk_prob") && flag_at(config, "norm_topk_prob"));
  keys.copy("expert_group_count", "n_group");
  keys.copy("expert_group_used_count", "topk_group");
  keys.count("expert_gating_func", text_at(config, "scoring_func") == "sigmoid" ? 2 : 1);
}

/// Experts by a softmax: how many, and the width where it is not the dense network's.
void put_experts(Keys& keys) {
  for (const char* hub : {"num_local_experts", "num_experts"}) keys.copy("expert_count", hub);
  keys.copy("expert_used_count", "num_experts_per_tok");
  keys.copy("expert_feed_forward_length", "moe_intermediate_size");
  keys.copy("expert_shared_feed_forward_length", "shared_expert_intermediate_size");
  if (keys.present("norm_topk_prob")) keys.flag("expert_weights_norm", flag_at(keys.config(), "norm_topk_prob"));
  if (keys.present("clip_qkv")) keys.copy_number("attention.clamp_kqv", "clip_qkv");
}

/// The window and, where not every layer has it, which do.
void put_windows(Keys& keys, const Node& composition, int64_t layers) {
  std::vector<uint64_t> slides;
  int64_t window = 0;
  for (int64_t i = 0; i < layers; ++i) {
    const int64_t here = integer_at(composition, fmt::format("layers.{}.attention.window", i));
    slides.push_back(here > 0);
    window = std::max(window, here);
  }
  if (window == 0) return;
  keys.count("attention.sliding_window", window);
  bool alternate = text_at(keys.config(), "model_type") == "gpt_oss";  // as its files have it without a word
  for (size_t i = 0; i < slides.size(); ++i) alternate = alternate && slides[i] == (i % 2 == 0);
  if (!alternate && std::find(slides.begin(), slides.end(), 0u) != slides.end()) keys.flags("attention.sliding_window_pattern", std::move(slides));
}

/// What llama.cpp's code of an architecture does whatever the metadata says.
void note_differences(const Keys& keys, const std::string& architecture, const Node& composition, std::vector<std::string>& notices) {
  const Node& config = keys.config();
  const bool windowed = first_layer(composition, [](const Node& layer) { return find_at(layer, "attention.window") && integer_at(layer, "attention.window") > 0; }) >= 0;
  if (windowed && architecture != "gpt-oss")
    notices.push_back(fmt::format("llama.cpp lets every layer of '{}' see all positions, whatever the window", architecture));
  if (keys.present("norm_topk_prob") && architecture != "deepseek2" && flag_at(config, "norm_topk_prob") != (architecture == "qwen3moe"))
    notices.push_back(fmt::format("llama.cpp {} the weights of experts of '{}', whatever norm_topk_prob says",
                                  architecture == "qwen3moe" ? "always renormalises" : "never renormalises", architecture));
  if (architecture != "deepseek2" && first_layer(composition, has_mixture) >= 0 && first_layer(composition, [](const Node& layer) { return !has_mixture(layer); }) >= 0)
    notices.push_back(fmt::format("llama.cpp wants experts in every layer of '{}'", architecture));
  if (keys.present("rope_scaling.beta_fast") && (number_at(config, "rope_scaling.beta_fast") != 32 || number_at(config, "rope_scaling.beta_slow") != 1))
    notices.push_back("llama.cpp takes YaRN's beta_fast and beta_slow as 32 and 1, whatever they are");
  if (text_at(config, "model_type") == "deepseek_v2" && keys.integer("n_group", 1) > 1)
    notices.push_back("llama.cpp chooses groups of experts by the sum of their two best, as DeepSeek-V3 does, where DeepSeek-V2 takes the best one");
  if (keys.metadata().has(gguf::kYarnTruncate)) notices.push_back("llama.cpp rounds YaRN's range to whole dimensions (truncate: false has no key)");
}

GgufMetadata metadata_of(const Node& config, const Node& composition, const std::string& architecture, std::vector<std::string>& notices) {
  GgufMetadata metadata(config.mark().source);
  metadata.set("general.architecture", GgufValue::text(architecture));
  metadata.set("general.type", GgufValue::text("model"));
  Keys keys(metadata, config, architecture);
  const int64_t layers = layers_of(composition);
  keys.copy("block_count", "num_hidden_layers");
  keys.copy("context_length", "max_position_embeddings");
  keys.copy("embedding_length", "hidden_size");
  keys.copy("feed_forward_length", "intermediate_size");
  keys.copy("attention.head_count", "num_attention_heads");
  keys.copy("vocab_size", "vocab_size");
  keys.copy_number("attention.layer_norm_rms_epsilon", "rms_norm_eps");
  put_rotary(keys);
  if (architecture == "deepseek2") {
    put_deepseek(keys);
  } else {
    const int64_t heads = integer_at(config, "num_attention_heads"), width = head_width(config), own = keys.integer("num_key_value_heads", 0);
    keys.count("attention.head_count_kv", own > 0 ? own : heads);
    keys.count("rope.dimension_count", width);
    if (width * heads != integer_at(config, "hidden_size") || find_at(config, "head_dim") != nullptr) {
      keys.count("attention.key_length", width);
      keys.count("attention.value_length", width);
    }
    put_experts(keys);
    if (architecture == "gpt-oss") keys.copy("expert_feed_forward_length", "intermediate_size");
    put_windows(keys, composition, layers);
  }
  note_differences(keys, architecture, composition, notices);
  return metadata;
}

/// Divisors of frequencies that stand for Llama 3's scaling.
at::Tensor frequency_divisors(const Node& config) {
  const double theta = number_at(config, "rope_theta"), factor = number_at(config, "rope_scaling.factor"), low = number_at(config, "rope_scaling.low_freq_factor"),
               high = number_at(config, "rope_scaling.high_freq_factor"), original = number_at(config, "rope_scaling.original_max_position_embeddings");
  const int64_t width = head_width(config);
  std::vector<float> divisors;
  for (int64_t j = 0; j < width / 2; ++j) {
    const double length = 2 * M_PI * std::pow(theta, 2.0 * static_cast<double>(j) / static_cast<double>(width));
    const double share = std::clamp((original / length - low) / (high - low), 0.0, 1.0);
    divisors.push_back(static_cast<float>(1 / ((1 - share) / factor + share)));
  }
  return at::tensor(divisors);
}

// ---- tensors

bool needs_float(const std::string& name, const std::vector<int64_t>& shape) {
  return shape.size() < 2 || name.ends_with("_norm.weight") || name.ends_with(".bias") || name.find(".ffn_gate_inp") != std::string::npos;
}

class GgufTensors : public DerivedWeights {
 public:
  using Make = std::function<at::Tensor(const std::vector<at::Tensor>& parts)>;
  /// The same of parts that are all packed; null where that is no choice of their rows.
  using MakePacked = std::function<Packed(const std::vector<Packed>& parts)>;

  GgufTensors(std::shared_ptr<const WeightSource> hub, const Node& config)
      : DerivedWeights(config.mark().source), hub_(std::move(hub)), config_(config) {
    for (const TensorInfo& info : hub_->tensors()) infos_.emplace(info.name, info);
  }

  const TensorInfo* hub(const std::string& name) const {
    const auto found = infos_.find(name);
    return found == infos_.end() ? nullptr : &found->second;
  }
  bool used(const std::string& name) const { return used_.contains(name); }
  const std::map<std::string, std::vector<std::string>>& narrowed() const { return narrowed_; }

  using DerivedWeights::add;
  void add(const std::string& prefix, const std::string& hub_prefix, const Rule& rule);
  /// A tensor made of some of the hub's, all of one type.
  void add(const std::string& name, const std::vector<std::string>& parts, std::vector<int64_t> shape, Make make, MakePacked pack = {});

 private:
  std::shared_ptr<const WeightSource> hub_;
  const Node& config_;
  std::map<std::string, TensorInfo> infos_;
  std::set<std::string> used_;
  std::map<std::string, std::vector<std::string>> narrowed_;  ///< type → tensors that had it
};

void GgufTensors::add(const std::string& name, const std::vector<std::string>& parts, std::vector<int64_t> shape, Make make, MakePacked pack) {
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

void GgufTensors::add(const std::string& prefix, const std::string& hub_prefix, const Rule& rule) {
  if (rule.theirs.find("{e}") != std::string::npos) return;  // as files had it once
  const std::string name = prefix + rule.theirs, of = hub_prefix + rule.hub;
  if (rule.move == Move::expert) {
    std::vector<std::string> parts;
    for (int64_t e = 0; hub(gguf::numbered(of, "{e}", e)) != nullptr; ++e) parts.push_back(gguf::numbered(of, "{e}", e));
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

/// gpt-oss: gate and up alternate in the columns of one tensor, [E, D, 2 F]; biases likewise, [E, 2 F].
void add_alternating(GgufTensors& tensors, const std::string& prefix, const std::string& hub) {
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

/// Experts as library 5 has them: [E, 2 F, D] with gates before maps, and [E, D, F].
void add_fused(GgufTensors& tensors, const std::string& prefix, const std::string& hub) {
  const TensorInfo* info = tensors.hub(hub + "gate_up_proj");
  if (info == nullptr || info->shape.size() != 3) return;
  const std::vector<int64_t> shape{info->shape[0], info->shape[1] / 2, info->shape[2]};
  for (const int64_t which : {0, 1})
    tensors.add(fmt::format("{}ffn_{}_exps.weight", prefix, which == 0 ? "gate" : "up"), {info->name}, shape,
                [which, rows = shape[1]](const std::vector<at::Tensor>& one) { return one[0].narrow(1, which * rows, rows); },
                [which, rows = shape[1]](const std::vector<Packed>& one) { return packed_slice(one[0], 1, which * rows, rows, 1); });
  tensors.add(prefix, hub, {"ffn_down_exps.weight", "down_proj"});
}

/// Multi-head latent attention: the hub's [H (nope + v), kv] become [H, kv, nope] and [H, v, kv].
void add_key_value_maps(GgufTensors& tensors, const std::string& prefix, const std::string& hub, const Node& config) {
  const std::string of = hub + "self_attn.kv_b_proj.weight";
  const TensorInfo* info = tensors.hub(of);
  if (info == nullptr || info->shape.size() != 2) return;
  const int64_t heads = integer_at(config, "num_attention_heads"), plain = integer_at(config, "qk_nope_head_dim"), value = integer_at(config, "v_head_dim");
  const int64_t rank = info->shape[1];
  check(info->shape[0] == heads * (plain + value), "convert.gguf.tensor", "{}: {} has {} rows, not {} heads of {}", tensors.where(), of,
        info->shape[0], heads, plain + value);
  const auto apart = [heads, rank](const at::Tensor& both) { return both.reshape({heads, -1, rank}); };
  tensors.add(prefix + "attn_k_b.weight", {of}, {heads, rank, plain},
              [=](const std::vector<at::Tensor>& one) { return apart(one[0]).narrow(1, 0, plain).transpose(1, 2); });
  tensors.add(prefix + "attn_v_b.weight", {of}, {heads, value, rank},
              [=](const std::vector<at::Tensor>& one) { return apart(one[0]).narrow(1, plain, value); });
}

std::shared_ptr<GgufTensors> tensors_of(const Node& config, const Architecture& architecture, std::shared_ptr<const WeightSource> hub, int64_t layers) {
  auto tensors = std::make_shared<GgufTensors>(std::move(hub), config);
  const std::vector<Rule> rules = gguf::layer_rules(architecture);
  const bool tied = flag_at(config, "tie_word_embeddings");
  for (const Rule& rule : gguf::outer_rules())
    if (!(tied && rule.theirs == "output.weight")) tensors->add("", "", rule);
  for (int64_t i = 0; i < layers; ++i) {
    const std::string prefix = fmt::format("blk.{}.", i), of = fmt::format("model.layers.{}.", i);
    add_key_value_maps(*tensors, prefix, of, config);
    if (architecture.alternating) add_alternating(*tensors, prefix, of + "mlp.experts.");
    else for (const std::string& experts : std::set<std::string>{architecture.experts.substr(0, architecture.experts.find("{e}")), "mlp.experts."})
      add_fused(*tensors, prefix, of + experts);
    for (const Rule& rule : rules)
      if (!(rule.hub == "self_attn.kv_b_proj.weight")) tensors->add(prefix, of, rule);
  }
  if (find_at(config, "rope_scaling.low_freq_factor") != nullptr) {
    const at::Tensor divisors = frequency_divisors(config);
    tensors->add({{"rope_freqs.weight", "F32", divisors.sizes().vec(), divisors.nbytes()}, [divisors] { return divisors; }});
  }
  return tensors;
}

uint32_t file_type(const WeightSource& weights) {
  uint32_t type = 0;
  for (const TensorInfo& info : weights.tensors()) {
    if (info.dtype == "MXFP4") return 38;
    if (info.name == "token_embd.weight") type = info.dtype == "BF16" ? 32 : info.dtype == "F16" ? 1 : 0;
  }
  return type;
}

}  // namespace

GgufView gguf_view(const Node& config, std::shared_ptr<const WeightSource> weights) {
  const Node* named = config.is_map() ? config.find("model_type") : nullptr;
  const std::string type = named && named->is_scalar() ? named->scalar() : "";
  const Architecture* architecture = gguf::architecture_of(type);
  const std::shared_ptr<Family> family = family_of(type);
  std::vector<std::string> known;
  for (const Architecture& each : gguf::architectures()) known.insert(known.end(), each.model_types.begin(), each.model_types.end());
  check(architecture != nullptr && family != nullptr, "convert.gguf.family", "{}: model_type '{}' has no architecture of the container here; these have: {}",
        config.where(), type, fmt::join(known, ", "));

  const Decoder decoder(family->read(config));
  const Node wanted = composition(decoder);
  Node spoken = family->write(wanted, type);  // one spelling of its many
  spoken.set_mark(config.mark());
  if (const Node* width = config.find("intermediate_size"); width != nullptr && width->is_scalar()) spoken["intermediate_size"] = *width;  // though no layer be dense

  GgufView view;
  view.metadata = metadata_of(spoken, wanted, architecture->name, view.notices);
  const std::shared_ptr<GgufTensors> tensors = tensors_of(spoken, *architecture, weights, layers_of(wanted));
  for (const auto& [dtype, names] : tensors->narrowed()) view.metadata.set(gguf::kStoredAs + dtype, GgufValue::texts(names));
  view.metadata.set("general.file_type", GgufValue::u32(file_type(*tensors)));
  view.metadata.set("general.quantization_version", GgufValue::u32(2));

  NameMap map(decoder.schema());
  family->names(map, decoder.options(), [&](const std::string& name) { return weights->has(name); });
  for (const NameMap::Correspondence& each : map.correspondences()) {
    check(weights->has(each.theirs), "model.missing_tensor", "{} has no tensor {}", config.mark().source, each.theirs);
    check(tensors->used(each.theirs), "convert.gguf.tensor", "{}: {} has no name in files of architecture '{}'", config.mark().source, each.theirs,
          architecture->name);
  }
  // What reads back otherwise cannot be said by the container's keys.
  const Node back = composition(Decoder([&] {
    const HubView hub = hub_view(view.metadata, tensors);
    return family_of(text_at(hub.config, "model_type"))->read(hub.config);
  }()));
  if (const std::vector<Difference> found = differences(wanted, back); !found.empty()) {
    std::vector<std::string> parts;
    for (const Difference& each : found)
      if (parts.size() < 5) parts.push_back(fmt::format("{} is {}, there {}", each.path, each.here, each.there));
    fail("convert.gguf.option", "{}: metadata of architecture '{}' cannot say this model: {}{}", config.mark().source, architecture->name,
         fmt::join(parts, "; "), found.size() > parts.size() ? fmt::format(" ({} more)", found.size() - parts.size()) : "");
  }
  view.weights = tensors;
  return view;
}

}  // namespace switchyard
