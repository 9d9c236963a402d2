#include "switchyard/models/families/gguf_hub.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "switchyard/base/error.h"
#include "switchyard/kernels/packed_views.h"
#include "switchyard/models/families/derived_weights.h"
#include "switchyard/models/families/gguf_names.h"

namespace switchyard {
namespace {

using gguf::Architecture;
using gguf::Rule;
using gguf::numbered;
using Move = Rule::Move;

// ---- tensors

class HubTensors : public DerivedWeights {
 public:
  HubTensors(const GgufMetadata& metadata, std::shared_ptr<const WeightSource> file, int64_t heads, int64_t key_heads)
      : DerivedWeights(metadata.source()), file_(std::move(file)), heads_(heads), key_heads_(key_heads) {
    for (const TensorInfo& info : file_->tensors()) theirs_.emplace(info.name, info);
    for (const auto& [type, spelled] : {std::pair{at::kBFloat16, "BF16"}, {at::kHalf, "F16"}}) {
      const std::string key = std::string(gguf::kStoredAs) + spelled;
      if (!metadata.has(key)) continue;
      for (const std::string& name : metadata.texts(key)) {
        const auto found = theirs_.find(name);
        if (found == theirs_.end() || found->second.dtype != "F32") continue;  // packed since
        found->second.dtype = spelled;
        found->second.bytes /= 2;
        narrowed_[name] = type;
      }
    }
  }

  const TensorInfo* theirs(const std::string& name) const {
    const auto found = theirs_.find(name);
    return found == theirs_.end() ? nullptr : &found->second;
  }
  /// A tensor of the file, in the type that it had before it was put there.
  at::Tensor read(const std::string& name) const {
    const auto narrowed = narrowed_.find(name);
    return narrowed == narrowed_.end() ? file_->get(name) : file_->get(name).to(narrowed->second);
  }
  Packed packed_in_file(const std::string& name) const { return file_->packed(name); }
  /// Marks one of the file's tensors as accounted for.
  void use(const std::string& name) { used_.insert(name); }

  using DerivedWeights::add;
  /// Adds what `rule` makes of its tensor; nothing when the file has none.
  void add(const std::string& prefix, const std::string& hub_prefix, const Rule& rule);
  /// Ends the list: what no rule used keeps its name.
  void finish() {
    for (const TensorInfo& info : file_->tensors())
      if (!used_.contains(info.name)) add({info, [this, name = info.name] { return file_->get(name); }});
  }

 private:
  void add_experts(const TensorInfo& info, const std::string& hub);

  std::shared_ptr<const WeightSource> file_;
  int64_t heads_, key_heads_;
  std::map<std::string, TensorInfo> theirs_;
  std::map<std::string, at::ScalarType> narrowed_;
  std::set<std::string> used_;
};

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
  if (info == nullptr) return;
  use(info->name);
  const std::string hub = hub_prefix + rule.hub;
  if (rule.move == Move::expert) return add_experts(*info, hub);
  Recipe recipe{.info = *info};
  recipe.info.name = hub;
  const auto read = [this, name = info->name] { return this->read(name); };
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
    case Move::transposed:
      check(info->shape.size() == 3, "model.gguf", "{}: {} is no stack of experts", where(), info->name);
      recipe.info.shape = {info->shape[0], info->shape[2], info->shape[1]};
      recipe.get = [read] { return read().transpose(1, 2); };
      recipe.packed = [this, name = info->name] { return packed_transposed(file_->packed(name)); };
      break;
    default:
      recipe.get = read;
      recipe.packed = [this, name = info->name] { return file_->packed(name); };
  }
  add(std::move(recipe));
}

/// gpt-oss: gate and up alternate in the columns of one tensor, [E, D, 2 F]; biases likewise, [E, 2 F].
void add_alternating(HubTensors& tensors, const std::string& prefix, const std::string& hub) {
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

/// Multi-head latent attention: [H, kv, nope] and [H, v, kv] become the hub's [H (nope + v), kv].
void add_key_value_map(HubTensors& tensors, const std::string& prefix, const std::string& hub) {
  const TensorInfo *keys = tensors.theirs(prefix + "attn_k_b.weight"), *values = tensors.theirs(prefix + "attn_v_b.weight");
  if (keys == nullptr || values == nullptr) return;
  check(keys->shape.size() == 3 && values->shape.size() == 3 && keys->shape[0] == values->shape[0] && keys->shape[1] == values->shape[2],
        "model.gguf", "{}: {} and {} do not fit together", tensors.where(), keys->name, values->name);
  tensors.use(keys->name);
  tensors.use(values->name);
  const int64_t rows = keys->shape[0] * (keys->shape[2] + values->shape[1]), rank = keys->shape[1];
  tensors.add({{hub + "self_attn.kv_b_proj.weight", keys->dtype, {rows, rank}, keys->bytes + values->bytes},
               [&tensors, keys = keys->name, values = values->name, rows, rank] {
                 const at::Tensor k = tensors.read(keys).transpose(1, 2), v = tensors.read(values);
                 at::Tensor both = at::empty({k.size(0), k.size(1) + v.size(1), rank}, k.options());
                 both.narrow(1, 0, k.size(1)).copy_(k);
                 both.narrow(1, k.size(1), v.size(1)).copy_(v);
                 return both.view({rows, rank});
               }});
}

// ---- config

/// The shortest decimal that is this float32 again, as it stood in the config: 1e-05, and 1.0 where the number is whole.
Node decimal(double value) {
  std::string text = fmt::format("{}", static_cast<float>(value));
  if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
  return Node(std::move(text));
}

/// Writes keys of a config.json from keys of the metadata, which all begin with the architecture.
class Config {
 public:
  Config(const GgufMetadata& metadata, const WeightSource& file, const std::string& architecture)
      : file_(file), metadata_(metadata), prefix_(architecture + ".") {
    node_ = Node::map();
    node_.set_mark({metadata_.source(), 0});
  }
  bool has(const std::string& key) const { return metadata_.has(prefix_ + key); }
  int64_t integer(const std::string& key) const {
    const GgufValue* value = metadata_.find(prefix_ + key);
    if (value == nullptr || value->type != GgufType::array) return metadata_.integer(prefix_ + key);
    // One number a layer; models whose layers differ are not among those read here.
    const std::vector<int64_t> each = metadata_.integers(prefix_ + key);
    check(!each.empty() && std::all_of(each.begin(), each.end(), [&](int64_t n) { return n == each[0]; }), "model.gguf",
          "{}: {}{} differs between layers, which is not read for this architecture", metadata_.source(), prefix_, key);
    return each[0];
  }
  int64_t integer(const std::string& key, int64_t otherwise) const { return has(key) ? integer(key) : otherwise; }
  double number(const std::string& key, double otherwise) const { return metadata_.number(prefix_ + key, otherwise); }
  bool flag(const std::string& key, bool otherwise) const { return metadata_.flag(prefix_ + key, otherwise); }
  std::string text(const std::string& key) const { return metadata_.text(prefix_ + key, ""); }
  int64_t layers() const { return integer("block_count") - integer("nextn_predict_layers", 0); }
  /// One truth value a layer, or nothing.
  std::vector<int64_t> pattern(const std::string& key) const {
    if (!has(key)) return {};
    const std::vector<int64_t> each = metadata_.flags(prefix_ + key);
    check(static_cast<int64_t>(each.size()) >= layers(), "model.gguf", "{}: {}{} lists {} layers of {}", metadata_.source(), prefix_, key,
          each.size(), layers());
    return each;
  }

  void put(const std::string& key, Node value) { node_[key] = std::move(value); }
  void put(const std::string& key, int64_t value) { put(key, Node(std::to_string(value))); }
  void put_text(const std::string& key, const std::string& value) { put(key, quoted(value)); }
  void put_flag(const std::string& key, bool value) { put(key, Node(value ? "true" : "false")); }
  void put_number(const std::string& key, double value) { put(key, decimal(value)); }
  void copy(const std::string& key, const std::string& theirs) { put(key, integer(theirs)); }

  static Node quoted(const std::string& value) {
    Node node(value);
    node.set_quoted(true);
    return node;
  }
  const WeightSource& file() const { return file_; }
  const GgufMetadata& metadata() const { return metadata_; }
  Node& node() { return node_; }

 private:
  const WeightSource& file_;
  const GgufMetadata& metadata_;
  std::string prefix_;
  Node node_;
};

/// rope_scaling in the older key style; null when positions are not scaled.
Node scaling_of(const Config& config) {
  const std::string type = config.text("rope.scaling.type");
  if (type.empty() || type == "none") return {};
  Node node = Node::map();
  node["rope_type"] = Config::quoted(type);
  node["factor"] = decimal(config.number("rope.scaling.factor", 1));
  if (config.has("rope.scaling.original_context_length"))
    node["original_max_position_embeddings"] = Node(std::to_string(config.integer("rope.scaling.original_context_length")));
  if (type != "yarn") return node;
  node["beta_fast"] = decimal(config.number("rope.scaling.yarn_beta_fast", 32));
  node["beta_slow"] = decimal(config.number("rope.scaling.yarn_beta_slow", 1));
  if (config.has("rope.scaling.yarn_log_multiplier")) {  // a tenth of the hub's number; both of its keys have it in published files
    const double tenth = std::stod(decimal(config.number("rope.scaling.yarn_log_multiplier", 0)).scalar());
    const Node scale(fmt::format("{:#.7g}", 10 * tenth));
    node["mscale"] = scale;
    node["mscale_all_dim"] = scale;
  }
  return node;
}

/// Llama 3's scaling from the divisors of frequencies that the container holds in place of its four numbers. Between the two
/// wavelengths of the scheme, 1 / divisor rises linearly with the frequency; that line gives the numbers back, low being 1.
Node scaling_from(const Config& config, const at::Tensor& divisors) {
  const std::string& source = config.metadata().source();
  const int64_t count = divisors.numel();
  const double theta = config.number("rope.freq_base", 10000);
  const at::Tensor plain = divisors.to(at::kDouble).contiguous();
  const double* divisor = plain.const_data_ptr<double>();
  const double factor = count == 0 ? 1 : *std::max_element(divisor, divisor + count);
  const auto turns = [&](int64_t j) { return std::pow(theta, -static_cast<double>(j) / static_cast<double>(count)) / (2 * M_PI); };  // a position
  double n = 0, x = 0, y = 0, xx = 0, xy = 0;
  for (int64_t j = 0; j < count; ++j) {
    if (!(divisor[j] > 1.0001 && divisor[j] < factor * 0.9999)) continue;
    const double share = (1 / divisor[j] - 1 / factor) / (1 - 1 / factor);
    n += 1, x += turns(j), y += share, xx += turns(j) * turns(j), xy += turns(j) * share;
  }
  double low = 1, high = 4, original = 8192;  // as published, where the line cannot be seen
  if (const double spread = n * xx - x * x; n >= 2 && spread > 0) {
    const double slope = (n * xy - x * y) / spread, offset = (y - slope * x) / n;
    high = std::round(1000 * (1 - 1 / offset)) / 1000;
    original = std::round(-slope / offset);
  }
  if (config.metadata().has(gguf::kLlama3)) {
    const std::vector<double> said = config.metadata().numbers(gguf::kLlama3);
    check(said.size() == 3 && said[0] > 0 && said[1] > said[0] && said[2] > 0, "model.gguf", "{}: {} are no low and high factor and length", source, gguf::kLlama3);
    low = said[0], high = said[1], original = said[2];
  }
  for (int64_t j = 0; j < count; ++j) {
    const double share = std::clamp((original * turns(j) - low) / (high - low), 0.0, 1.0), wanted = 1 / ((1 - share) / factor + share);
    check(std::fabs(wanted / divisor[j] - 1) < 1e-4, "model.gguf", "{}: rope_freqs.weight scales positions as no known scheme does", source);
  }
  if (factor <= 1) return {};
  Node node = Node::map();
  node["rope_type"] = Config::quoted("llama3");
  node["factor"] = decimal(factor);
  node["low_freq_factor"] = decimal(low);
  node["high_freq_factor"] = decimal(high);
  node["original_max_position_embeddings"] = Node(fmt::format("{:.0f}", original));
  return node;
}

void put_common(Config& config) {
  const GgufMetadata& metadata = config.metadata();
  const int64_t heads = config.integer("attention.head_count"), width = config.integer("embedding_length");
  const TensorInfo* embedding = nullptr;
  for (const TensorInfo& info : config.file().tensors())
    if (info.name == "token_embd.weight") embedding = &info;
  check(embedding != nullptr && embedding->shape.size() == 2, "model.gguf", "{} has no token_embd.weight", metadata.source());
  config.put("vocab_size", embedding->shape[0]);
  config.put("hidden_size", width);
  config.put("num_hidden_layers", config.layers());
  config.put("num_attention_heads", heads);
  config.put("num_key_value_heads", config.integer("attention.head_count_kv", heads));
  config.put("max_position_embeddings", config.integer("context_length", 2048));
  config.put("intermediate_size", config.integer("feed_forward_length", 0));
  config.put_number("rms_norm_eps", config.number("attention.layer_norm_rms_epsilon", 1e-5));
  config.put_number("rope_theta", config.number("rope.freq_base", 10000));
  if (config.has("attention.key_length")) config.copy("head_dim", "attention.key_length");
  const bool divisors = config.file().has("rope_freqs.weight");
  config.put("rope_scaling", divisors ? scaling_from(config, config.file().get("rope_freqs.weight")) : scaling_of(config));
  config.put_text("hidden_act", "silu");
  config.put_text("torch_dtype", embedding->dtype == "BF16" ? "bfloat16" : embedding->dtype == "F16" ? "float16" : "float32");
  config.put_flag("tie_word_embeddings", !config.file().has("output.weight"));
  if (metadata.has("tokenizer.ggml.bos_token_id")) config.put("bos_token_id", metadata.integer("tokenizer.ggml.bos_token_id"));
  if (metadata.has("tokenizer.ggml.padding_token_id")) config.put("pad_token_id", metadata.integer("tokenizer.ggml.padding_token_id"));
  Node ends = Node::list();
  for (const char* key : {"eos_token_id", "eot_token_id", "eom_token_id"})
    if (const std::string name = std::string("tokenizer.ggml.") + key; metadata.has(name)) ends.append(Node(std::to_string(metadata.integer(name))));
  if (!ends.items().empty()) config.put("eos_token_id", ends.items().size() == 1 ? ends.items()[0] : ends);
}

void put_latent_attention(Config& config) {
  const int64_t rope = config.integer("rope.dimension_count");
  const bool own = config.has("attention.key_length_mla");  // newer files give the compressed sizes under the plain keys
  config.put("num_key_value_heads", config.integer("attention.head_count"));
  if (config.has("attention.q_lora_rank")) config.copy("q_lora_rank", "attention.q_lora_rank");
  else config.put("q_lora_rank", Node());
  config.copy("kv_lora_rank", "attention.kv_lora_rank");
  config.put("qk_rope_head_dim", rope);
  config.put("qk_nope_head_dim", config.integer(own ? "attention.key_length_mla" : "attention.key_length") - rope);
  config.copy("v_head_dim", own ? "attention.value_length_mla" : "attention.value_length");
  std::erase_if(config.node().entries(), [](const auto& entry) { return entry.first == "head_dim"; });
}

void put_deepseek(Config& config) {
  const bool sigmoid = config.integer("expert_gating_func", 1) == 2;
  const int64_t groups = config.integer("expert_group_count", 1);
  put_latent_attention(config);
  config.put_text("model_type", sigmoid ? "deepseek_v3" : "deepseek_v2");
  config.copy("n_routed_experts", "expert_count");
  config.copy("num_experts_per_tok", "expert_used_count");
  config.put("n_shared_experts", config.integer("expert_shared_count", 0));
  config.copy("moe_intermediate_size", "expert_feed_forward_length");
  config.put("first_k_dense_replace", config.integer("leading_dense_block_count", 0));
  config.put("moe_layer_freq", 1);
  config.put_number("routed_scaling_factor", config.number("expert_weights_scale", 1));
  config.put_flag("norm_topk_prob", config.flag("expert_weights_norm", false));
  config.put("n_group", groups);
  config.put("topk_group", config.integer("expert_group_used_count", 1));
  config.put_text("scoring_func", sigmoid ? "sigmoid" : "softmax");
  config.put_text("topk_method", sigmoid ? "noaux_tc" : groups > 1 ? "group_limited_greedy" : "greedy");
  config.put_flag("attention_bias", false);
}

void put_gpt_oss(Config& config) {
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
    kinds.append(Config::quoted((slides.empty() ? i % 2 == 0 : slides[static_cast<size_t>(i)] != 0) ? "sliding_attention" : "full_attention"));
  config.put("layer_types", kinds);
  // Readers of the container round YaRN's range to whole dimensions, unless it was written here.
  if (Node* scaling = config.node().find("rope_scaling"); scaling != nullptr && scaling->is_map())
    (*scaling)["truncate"] = Node(config.metadata().flag(gguf::kYarnTruncate, true) ? "true" : "false");
}

/// Experts by a softmax, as Qwen and OLMoE have them.
void put_softmax_experts(Config& config, const char* type, bool renormalised) {
  config.put_text("model_type", type);
  config.copy("num_experts", "expert_count");
  config.copy("num_experts_per_tok", "expert_used_count");
  config.put_flag("norm_topk_prob", config.flag("expert_weights_norm", renormalised));
  if (!config.has("expert_feed_forward_length")) return;
  config.copy("moe_intermediate_size", "expert_feed_forward_length");
  config.put("decoder_sparse_step", 1);
}

/// Layers without a mixture among those with one, which the hub lists; the container tells by its tensors alone.
void put_dense_layers(Config& config) {
  Node dense = Node::list();
  for (int64_t i = 0; i < config.layers(); ++i)
    if (!config.file().has(fmt::format("blk.{}.ffn_gate_inp.weight", i))) dense.append(Node(std::to_string(i)));
  config.put("mlp_only_layers", dense);
}

/// Windows that not all layers have, where the hub lists them.
void put_windows(Config& config) {
  if (!config.has("attention.sliding_window")) return;
  config.copy("sliding_window", "attention.sliding_window");
  config.put_flag("use_sliding_window", true);
  const std::vector<int64_t> slides = config.pattern("attention.sliding_window_pattern");
  Node kinds = Node::list();
  for (int64_t i = 0; i < config.layers(); ++i)
    kinds.append(Config::quoted(slides.empty() || slides[static_cast<size_t>(i)] != 0 ? "sliding_attention" : "full_attention"));
  config.put("layer_types", kinds);
}

using Put = void (*)(Config&);

/// What a config of each architecture says beyond the common keys.
Put put_of(const std::string& architecture) {
  static const std::map<std::string, Put> all{
      {"llama", [](Config& config) {
         const bool mixture = config.integer("expert_count", 0) > 0, windowed = config.has("attention.sliding_window");
         config.put_text("model_type", mixture ? "mixtral" : windowed ? "mistral" : "llama");
         if (windowed) config.copy("sliding_window", "attention.sliding_window");
         else if (mixture) config.put("sliding_window", Node());
         if (mixture) {
           config.copy("num_local_experts", "expert_count");
           config.copy("num_experts_per_tok", "expert_used_count");
         } else if (!windowed) {
           config.put_flag("attention_bias", config.file().has("blk.0.attn_q.bias"));
           config.put_flag("mlp_bias", config.file().has("blk.0.ffn_up.bias"));
         }
       }},
      {"olmoe", [](Config& config) {
         put_softmax_experts(config, "olmoe", false);
         config.put_flag("attention_bias", config.file().has("blk.0.attn_q.bias"));
         if (config.has("attention.clamp_kqv")) config.put_number("clip_qkv", config.number("attention.clamp_kqv", 0));
       }},
      {"qwen2moe", [](Config& config) {
         put_softmax_experts(config, "qwen2_moe", false);
         config.copy("shared_expert_intermediate_size", "expert_shared_feed_forward_length");
         put_dense_layers(config);
       }},
      {"qwen3moe", [](Config& config) {
         put_softmax_experts(config, "qwen3_moe", true);
         config.put_flag("attention_bias", config.file().has("blk.0.attn_q.bias"));
         put_dense_layers(config);
       }},
      {"deepseek2", put_deepseek},
      {"gpt-oss", put_gpt_oss},
      {"qwen2", [](Config& config) {
         config.put_text("model_type", "qwen2");
         put_windows(config);
       }},
      {"qwen3", [](Config& config) {
         config.put_text("model_type", "qwen3");
         config.put_flag("attention_bias", config.file().has("blk.0.attn_q.bias"));
         put_windows(config);
       }},
  };
  return all.at(architecture);
}

}  // namespace

std::vector<std::string> gguf_architectures() {
  std::vector<std::string> names;
  for (const Architecture& architecture : gguf::architectures()) names.push_back(architecture.name);
  return names;
}

HubView hub_view(std::shared_ptr<const Gguf> file) {
  const GgufMetadata& metadata = file->metadata();
  return hub_view(metadata, std::move(file));
}

HubView hub_view(const GgufMetadata& metadata, std::shared_ptr<const WeightSource> file) {
  const std::string& name = metadata.text("general.architecture");
  const Architecture* found = gguf::architecture_named(name);
  check(found != nullptr, "model.gguf", "{}: architecture '{}' is not read from GGUF; these are: {}", metadata.source(), name,
        fmt::join(gguf_architectures(), ", "));
  Config config(metadata, *file, name);
  const int64_t layers = config.integer("block_count"), read = layers - config.integer("nextn_predict_layers", 0);
  check(layers >= 0 && layers <= 1 << 16 && read >= 0, "model.gguf", "{} says that it has {} layers, {} of them to be read",
        metadata.source(), layers, read);
  put_common(config);
  put_of(name)(config);

  auto tensors = std::make_unique<HubTensors>(metadata, file, config.integer("attention.head_count"), config.integer("attention.head_count_kv", config.integer("attention.head_count")));
  for (const Rule& rule : gguf::outer_rules()) tensors->add("", "", rule);
  tensors->use("rope_freqs.weight");  // it is in the config
  const std::vector<Rule> rules = gguf::layer_rules(*found);
  for (int64_t i = 0; i < read; ++i) {
    const std::string prefix = fmt::format("blk.{}.", i), hub = fmt::format("model.layers.{}.", i);
    if (found->alternating) add_alternating(*tensors, prefix, hub + "mlp.experts.");
    for (const Rule& rule : rules) tensors->add(prefix, hub, rule);
    add_key_value_map(*tensors, prefix, hub);
  }
  for (const TensorInfo& info : file->tensors())  // extra prediction layers, which nothing here runs
    for (int64_t i = read; i < layers; ++i)
      if (info.name.starts_with(fmt::format("blk.{}.", i))) tensors->use(info.name);
  tensors->finish();
  return {std::move(config.node()), std::move(tensors)};
}

}  // namespace switchyard
