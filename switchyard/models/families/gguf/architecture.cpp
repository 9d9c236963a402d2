#include "switchyard/models/families/gguf/architecture.h"

#include <ATen/ops/add.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/sub.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "switchyard/models/families/hub_keys.h"

namespace switchyard::gguf {

using Move = Rule::Move;

const std::vector<Architecture>& architectures() {
  static const std::vector<Architecture> all = [] {
    std::vector<Architecture> list;
    for (const auto& part : {llama_architectures(), qwen_architectures(), deepseek_architectures(), gpt_oss_architectures(), granite_architectures(),
                             hybrid_architectures(), llama4_architectures(), arctic_architectures(), t5_architectures(), sigmoid_architectures(),
                             ernie_architectures(), hunyuan_architectures(), phimoe_architectures(), dbrx_architectures(), gpt2_architectures(),
                             bert_architectures(), grok_architectures()})
      list.insert(list.end(), part.begin(), part.end());
    return list;
  }();
  return all;
}

namespace {

bool stands_for(const Architecture& architecture, std::string_view model_type) {
  return std::find(architecture.model_types.begin(), architecture.model_types.end(), model_type) != architecture.model_types.end();
}

}  // namespace

const Architecture* architecture_named(std::string_view name, std::string_view model_type) {
  const Architecture* first = nullptr;
  for (const Architecture& each : architectures()) {
    if (each.name != name) continue;
    if (first == nullptr) first = &each;
    if (stands_for(each, model_type)) return &each;
  }
  return first;
}

const Architecture* architecture_of(std::string_view model_type) {
  for (const Architecture& each : architectures())
    if (stands_for(each, model_type)) return &each;
  return nullptr;
}

const Architecture* architecture_for(const Node& config) {
  for (const Architecture& each : architectures())
    if (stands_for(each, text_at(config, "model_type")) && (each.takes == nullptr || each.takes(config))) return &each;
  return nullptr;
}

std::vector<Layers> stacks_of(const Architecture& words) {
  return words.stacks.empty() ? std::vector<Layers>{{"blk.{i}.", words.prefix + words.layer}} : words.stacks;
}

std::vector<Rule> layer_rules(const Architecture& words) {
  const Move queries = words.permuted ? Move::rows_of_queries : Move::same, keys = words.permuted ? Move::rows_of_keys : Move::same;
  std::vector<Rule> rules = words.rules;
  for (const auto& [part, dense, expert] : {std::tuple{"gate", "gate_proj", words.gate}, {"up", "up_proj", words.up}, {"down", "down_proj", words.down}}) {
    rules.push_back({fmt::format("ffn_{}_exps.weight", part), fmt::format("{}{}.weight", words.experts, expert), Move::expert});
    rules.push_back({fmt::format("ffn_{}.{{e}}.weight", part), fmt::format("{}{}.weight", words.experts, expert)});  // early files
  }
  for (const std::string end : {".weight", ".bias"})
    for (const auto& [theirs, hub] : {std::pair{"attn_norm", "input_layernorm"}, {"ffn_norm", "post_attention_layernorm"}})
      rules.push_back({theirs + end, hub + end});
  const std::vector<Rule> common{
      {"post_attention_norm.weight", "post_attention_layernorm.weight"},
      {"attn_q_norm.weight", "self_attn.q_norm.weight"},
      {"attn_k_norm.weight", "self_attn.k_norm.weight"},
      {"attn_sinks.weight", "self_attn.sinks"},
      {"attn_q_a.weight", "self_attn.q_a_proj.weight"},
      {"attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight"},
      {"attn_q_b.weight", "self_attn.q_b_proj.weight"},
      {"attn_kv_a_mqa.weight", "self_attn.kv_a_proj_with_mqa.weight"},
      {"attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight"},
      {"attn_kv_b.weight", "self_attn.kv_b_proj.weight"},
      {"exp_probs_b.bias", words.router + ".e_score_correction_bias"},
      {"ffn_gate_inp_shexp.weight", "mlp.shared_expert_gate.weight", Move::row},
  };
  rules.insert(rules.end(), common.begin(), common.end());
  for (const std::string end : {".weight", ".bias"}) {
    rules.push_back({"attn_q" + end, "self_attn.q_proj" + end, queries});
    rules.push_back({"attn_k" + end, "self_attn.k_proj" + end, keys});
    rules.push_back({"attn_v" + end, "self_attn.v_proj" + end});
    rules.push_back({"attn_output" + end, "self_attn.o_proj" + end});
    rules.push_back({"ffn_gate_inp" + end, words.router + end});
    for (const auto& [part, hub] : {std::pair{"gate", "gate_proj"}, {"up", "up_proj"}, {"down", "down_proj"}})
      rules.push_back({fmt::format("ffn_{}{}", part, end), fmt::format("mlp.{}{}", hub, end)});
  }
  for (const auto& [part, hub] : {std::pair{"gate", "gate_proj"}, {"up", "up_proj"}, {"down", "down_proj"}})
    rules.push_back({fmt::format("ffn_{}_shexp.weight", part), fmt::format("{}{}.weight", words.shared, hub)});
  rules.push_back({"ffn_gate_inp.weight", "mlp.gate.weight"});  // as library 5 has every router in memory
  return rules;
}

std::vector<Rule> outer_rules(const Architecture& words) {
  std::vector<Rule> rules = words.outer;
  for (const auto& [theirs, hub] : {std::pair{"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}})
    for (const std::string end : {".weight", ".bias"}) rules.push_back({theirs + end, words.prefix + hub + end});
  return rules;
}

at::Tensor changed(const at::Tensor& hub, Rule::Value value) {
  return value == Rule::Value::decay ? hub.exp().neg() : value == Rule::Value::above_one ? hub + 1 : hub;
}

at::Tensor restored(const at::Tensor& file, Rule::Value value) {
  if (value != Rule::Value::decay) return value == Rule::Value::above_one ? file - 1 : file;
  // One by one: libraries of vectors round otherwise where an array begins elsewhere.
  const at::Tensor numbers = file.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true).contiguous();
  float* number = numbers.mutable_data_ptr<float>();
  for (int64_t i = 0; i < numbers.numel(); ++i) number[i] = static_cast<float>(std::log(-static_cast<double>(number[i])));
  return numbers;
}

std::string numbered(std::string text, std::string_view what, int64_t number) {
  const size_t at = text.find(what);
  return at == std::string::npos ? text : text.replace(at, what.size(), std::to_string(number));
}

}  // namespace switchyard::gguf
