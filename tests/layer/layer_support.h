// A MoE layer from YAML with everything around it, and the plain loop that it must equal.
#pragma once

#include "switchyard/base/registry.h"
#include "switchyard/layer/layer_losses.h"
#include "switchyard/layer/moe_layer.h"
#include "tests/support.h"

namespace switchyard::testing {

struct Layer {
  explicit Layer(const std::string& yaml, int64_t in = 6, int64_t out = 6, const std::string& site = "moe")
      : layer(read_options<MoeOptions>(parse_yaml(yaml, "test")), in, out) {
    layer.declare(schema.in(site));
    initialise(schema, Streams(3), at::kDouble);
    at::NoGradGuard guard;
    for (const Parameter& p : schema.all())
      if (!p.spec().buffer) p.tensor().copy_(randn(p.spec().shape, stable_hash(p.name())) * 0.5);
  }
  std::vector<at::Tensor> leaves() const {
    std::vector<at::Tensor> list;
    for (const Parameter& p : schema.all())
      if (!p.spec().buffer) list.push_back(p.tensor());
    return list;
  }
  at::Tensor operator[](const std::string& name) const { return schema.find(name).tensor(); }
  at::Tensor operator()(const at::Tensor& x, const Context& c) const { return layer.forward(x, c); }

  Schema schema;
  MoeLayer layer;
};

/// Facts that some router may ask for.
inline void set_facts(Pass& pass, int64_t tasks = 2) {
  const int64_t rows = pass.facts.segments.rows();
  const at::Tensor index = at::arange(rows, at::kLong);
  pass.facts.set_row("token_id", (index * 7 + 3).remainder(11));
  for (const char* name : {"domain", "task"}) pass.facts.set_row(name, index.remainder(tasks));
}

/// Every expert's output for every row, [T, E, out], one expert's tensors and one row at a time.
inline at::Tensor one_by_one(const ExpertBank& bank, const at::Tensor& x, const Context& c) {
  std::vector<at::Tensor> by_row;
  for (int64_t t = 0; t < x.size(0); ++t) {
    std::vector<at::Tensor> outputs;
    for (size_t s = 0; s < bank.stacks().size(); ++s)
      for (int64_t e = 0; e < bank.stacks()[s].count; ++e) {
        Params one;
        for (const auto& [name, stack] : bank.params(s, c).values) one.values.emplace_back(name, stack.select(0, e));
        outputs.push_back(bank.stacks()[s].kind->apply(one, x.slice(0, t, t + 1), c).squeeze(0));
      }
    by_row.push_back(at::stack(outputs));
  }
  return by_row.empty() ? at::zeros({0, bank.experts(), bank.out()}, x.options()) : at::stack(by_row);
}

inline std::vector<double> numbers(const at::Tensor& t) {
  const at::Tensor host = t.detach().to(at::kDouble).contiguous();
  return {host.const_data_ptr<double>(), host.const_data_ptr<double>() + host.numel()};
}

/// The combine policy, pair by pair.
inline std::vector<double> plain_weights(const Selection& s, const CombineOptions& policy, Phase phase) {
  const std::vector<double> raw = numbers(s.weight), unit = numbers(s.unit);
  const std::vector<double> kept = s.kept.defined() ? numbers(s.kept) : std::vector<double>(raw.size(), 1);
  std::vector<double> weight;
  for (size_t p = 0; p < raw.size(); ++p) {
    double sum = 0;
    for (size_t q = 0; q < raw.size(); ++q)
      if (unit[q] == unit[p] && (policy.renormalise == Renormalise::before_drop || kept[q] > 0)) sum += raw[q];
    const double w = policy.renormalise == Renormalise::never ? raw[p] : raw[p] / std::max(sum, 1e-9);
    weight.push_back(kept[p] > 0 ? w * policy.scale * (phase == Phase::train ? 1 : policy.evaluation_scale) : 0);
  }
  return weight;
}

/// [units, E]: the weights after the combine policy.
inline at::Tensor what_multiplies(const Routed& routed) {
  Selection s = *routed.selection();
  (s.has_pairs() ? s.weight : s.dense_weight) = routed.weight;
  return dense_weights(s);
}

/// What a selection run as rows must give, by loops over pairs and list entries.
inline at::Tensor plain_rows(const ExpertBank& bank, const at::Tensor& x, const Selection& s, const CombineOptions& policy, const Context& c) {
  const at::Tensor all = one_by_one(bank, x, c);
  const std::vector<double> weight = plain_weights(s, policy, c.phase);
  at::Tensor y = at::zeros({s.outputs > 0 ? s.outputs : x.size(0), bank.out()}, x.options());
  const auto pair = [&](int64_t p) { return all[s.unit[p].item<int64_t>()][s.expert[p].item<int64_t>()] * weight[p]; };
  if (s.outputs > 0) {
    for (int64_t i = 0; i < s.out.size(0); ++i)
      y[s.out[i].item<int64_t>()] += pair(s.source[i].item<int64_t>()) * s.out_weight[i].item<double>();
    return y;
  }
  std::vector<bool> served(x.size(0), false);
  for (int64_t p = 0; p < s.pairs(); ++p) {
    if (s.kept.defined() && !s.kept[p].item<bool>()) continue;
    y[s.unit[p].item<int64_t>()] += pair(p);
    served[s.unit[p].item<int64_t>()] = true;
  }
  if (policy.overflow == Overflow::zero) return y;
  Selection all_kept = s;
  all_kept.kept = at::Tensor();
  const std::vector<double> would = plain_weights(all_kept, policy, c.phase);
  for (int64_t t = 0; t < x.size(0); ++t) {
    if (served[t]) continue;
    double factor = policy.overflow == Overflow::identity ? 1 : 0;
    if (policy.overflow == Overflow::scaled_identity)
      for (int64_t p = 0; p < s.pairs(); ++p)
        if (s.unit[p].item<int64_t>() == t) factor += would[p];
    y[t] += x[t] * factor;
  }
  return y;
}

/// One merged expert a unit, its tensors summed entry by entry (for kinds whose effective weights are their tensors).
inline at::Tensor plain_merged(const ExpertBank& bank, const at::Tensor& x, const Selection& s, const at::Tensor& dense, const Context& c) {
  at::Tensor y = at::zeros({x.size(0), bank.out()}, x.options());
  for (int64_t t = 0; t < x.size(0); ++t) {
    const int64_t unit = s.unit_of_row.defined() ? s.unit_of_row[t].item<int64_t>() : t;
    Params merged;
    for (const auto& [name, stack] : bank.params(0, c).values) {
      at::Tensor sum = at::zeros_like(stack[0]);
      for (int64_t e = 0; e < bank.experts(); ++e) sum = sum + stack[e] * dense[unit][e];
      merged.values.emplace_back(name, sum);
    }
    y[t] = bank.stacks()[0].kind->apply(merged, x.slice(0, t, t + 1), c).squeeze(0);
  }
  return y;
}

/// Slots mixed from the rows of each group and mixed back.
inline at::Tensor plain_blend(const ExpertBank& bank, const at::Tensor& x, const TokenBlend& b, const Context& c) {
  at::Tensor y = at::zeros({x.size(0), bank.out()}, x.options());
  for (int64_t g = 0; g < b.members.size(0); ++g)
    for (int64_t s = 0; s < b.slot_expert.size(0); ++s) {
      at::Tensor slot = at::zeros({1, x.size(1)}, x.options());
      for (int64_t t = 0; t < b.members.size(1); ++t)
        if (const int64_t row = b.members[g][t].item<int64_t>(); row >= 0) slot = slot + x[row] * b.dispatch[g][t][s];
      const at::Tensor out = one_by_one(bank, slot, c)[0][b.slot_expert[s].item<int64_t>()];
      for (int64_t t = 0; t < b.members.size(1); ++t)
        if (const int64_t row = b.members[g][t].item<int64_t>(); row >= 0) y[row] += out * b.combine[g][t][s];
    }
  return y;
}

}  // namespace switchyard::testing
