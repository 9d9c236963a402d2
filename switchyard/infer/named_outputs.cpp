#include "switchyard/infer/named_outputs.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "switchyard/base/error.h"
#include "switchyard/base/progress.h"
#include "switchyard/infer/adapted_model.h"

namespace switchyard {
namespace {

/// Where packed rows stand in the padded batch.
struct Packing {
  Segments segments;
  at::Tensor place;  ///< [rows] int64: b · S + s
};

void check_integers(const at::Tensor& tensor, const char* name) {
  check(tensor.dim() == 2, "infer.input", "{} has {} dimensions, not [batch, sequence]", name, tensor.dim());
  check(at::isIntegralType(tensor.scalar_type(), /*includeBool=*/true), "infer.input", "{} holds {}, not integers", name,
        c10::toString(tensor.scalar_type()));
}

Packing pack(const at::Tensor& ids, const at::Tensor& mask) {
  const int64_t batch = ids.size(0), length = ids.size(1);
  const at::Tensor plain = mask.defined() ? mask.to(at::kLong).contiguous() : at::full({batch, length}, 1, at::kLong);
  const int64_t* value = plain.const_data_ptr<int64_t>();
  Packing packing;
  std::vector<int64_t> place;
  for (int64_t b = 0; b < batch; ++b) {
    int64_t first = -1, last = -1;
    for (int64_t s = 0; s < length; ++s) {
      const int64_t here = value[b * length + s];
      check(here == 0 || here == 1, "infer.mask", "attention_mask[{}, {}] is {}; it is 0 or 1", b, s, here);
      if (here == 0) continue;
      check(last < 0 || last == s - 1, "infer.mask",
            "row {} of attention_mask has a hole before position {}; padding stands on the left or on the right", b, s);
      if (first < 0) first = s;
      last = s;
      place.push_back(b * length + s);
    }
    packing.segments.begin.push_back(static_cast<int64_t>(place.size()));
  }
  packing.place = at::tensor(place, at::kLong);
  return packing;
}

/// [rows, ...] → [B·S, ...], `fill` at padding.
at::Tensor spread(const at::Tensor& rows, const Packing& packing, int64_t places, double fill = 0) {
  std::vector<int64_t> shape = rows.sizes().vec();
  shape[0] = places;
  return at::full(shape, fill, rows.options()).index_copy_(0, packing.place, rows);
}

/// Pairs as tables [units, k] by falling weight.
void add_choices(const Record& record, const std::string& name, const Packing& packing, int64_t places, NamedTensors& out) {
  const Selection* selection = record.selection();
  if (selection == nullptr || !selection->has_pairs() || selection->outputs > 0) return;
  const at::Tensor unit = selection->unit.contiguous(), expert = selection->expert.to(at::kLong).contiguous();
  const at::Tensor raw = record.routed.weight.defined() ? record.routed.weight : selection->weight;
  const at::Tensor weight = raw.detach().to(at::kFloat).contiguous();
  const at::Tensor kept = selection->kept.defined() ? selection->kept.contiguous() : at::Tensor();
  const int64_t pairs = selection->pairs();
  std::vector<std::vector<std::pair<float, int64_t>>> chosen(static_cast<size_t>(selection->units));
  for (int64_t p = 0; p < pairs; ++p) {
    const bool stays = !kept.defined() || kept.const_data_ptr<bool>()[p];
    chosen[static_cast<size_t>(unit.const_data_ptr<int64_t>()[p])].emplace_back(
        stays ? weight.const_data_ptr<float>()[p] : 0.0f, stays ? expert.const_data_ptr<int64_t>()[p] : -1);
  }
  size_t k = static_cast<size_t>(selection->per_unit);
  for (const auto& row : chosen) k = std::max(k, row.size());
  const auto width = static_cast<int64_t>(k);
  const at::Tensor ids = at::full({selection->units, width}, -1, at::kLong);
  const at::Tensor weights = at::zeros({selection->units, width}, at::kFloat);
  for (size_t u = 0; u < chosen.size(); ++u) {
    std::stable_sort(chosen[u].begin(), chosen[u].end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    for (size_t j = 0; j < chosen[u].size(); ++j) {
      ids.mutable_data_ptr<int64_t>()[u * k + j] = chosen[u][j].second;
      weights.mutable_data_ptr<float>()[u * k + j] = chosen[u][j].first;
    }
  }
  out.emplace_back("topk_ids." + name, spread(ids, packing, places, -1));
  out.emplace_back("topk_weights." + name, spread(weights, packing, places));
}

/// Where a layer decides twice: its attention and its feed-forward have the names of recordings.
std::string short_name(const std::string& site) { return site == "attention" ? "attn" : site == "feed_forward" ? "mlp" : site; }

void add_routing(const Records& records, const Packing& packing, int64_t places, NamedTensors& out) {
  std::map<int64_t, int> in_layer;
  for (const Record& record : records.all()) ++in_layer[record.place.layer];
  for (const Record& record : records.all()) {
    std::string name = std::to_string(record.place.layer);
    const std::string prefix = "layers." + name + ".";
    if (in_layer[record.place.layer] > 1)
      name += "." + short_name(record.place.site.starts_with(prefix) ? record.place.site.substr(prefix.size()) : record.place.site);
    const Selection* selection = record.selection();
    const int64_t rows = packing.segments.rows();
    if (selection != nullptr && selection->units != rows) {
      log_warning(fmt::format("{} decides for {} units of {} tokens; its routing is left out", record.place.site,
                              selection->units, rows));
      continue;
    }
    const std::vector<Gate>& gates = record.gates();
    for (size_t g = 0; g < gates.size(); ++g)
      if (gates[g].logits.defined() && gates[g].logits.size(0) == rows)
        out.emplace_back("router_logits." + name + (g == 0 ? "" : "." + std::to_string(g)),
                         spread(gates[g].logits.detach().to(at::kFloat), packing, places));
    add_choices(record, name, packing, places, out);
  }
}

}  // namespace

NamedTensors named_outputs(const LanguageModel& model, const at::Tensor& ids, const at::Tensor& mask,
                           const NamedOutputsOptions& options) {
  check_integers(ids, "input_ids");
  if (mask.defined()) {
    check_integers(mask, "attention_mask");
    check(mask.sizes() == ids.sizes(), "infer.mask", "attention_mask is [{}, {}], but input_ids is [{}, {}]", mask.size(0),
          mask.size(1), ids.size(0), ids.size(1));
  }
  const int64_t batch = ids.size(0), length = ids.size(1), places = batch * length;
  const Packing packing = pack(ids, mask);
  for (int64_t s = 0; s < packing.segments.count(); ++s)
    check(packing.segments.length(s) <= model.context(), "infer.context",
          "row {} of input_ids has {} tokens, but the model's context is {}", s, packing.segments.length(s), model.context());

  const at::Tensor rows = ids.to(at::kLong).reshape({-1}).index_select(0, packing.place);
  std::vector<at::Tensor> hidden;
  Records records;
  const Wanted wanted{.hidden = options.hidden ? &hidden : nullptr, .records = options.routing ? &records : nullptr};
  Facts facts(packing.segments);
  for (const auto& [name, value] : options.facts) {
    check(value.dim() == 1 && value.size(0) == batch, "infer.input", "{} must have one entry for each of {} rows", name, batch);
    facts.set_segment(name, value);
  }
  const at::Tensor logits = model.logits(rows, facts, Phase::evaluate, nullptr, LanguageModel::Rows::all, wanted);

  NamedTensors out;
  out.emplace_back("logits", spread(logits, packing, places).view({batch, length, logits.size(1)}));
  for (size_t i = 0; i < hidden.size(); ++i)
    out.emplace_back("hidden_states." + std::to_string(i),
                     spread(hidden[i].to(at::kFloat), packing, places).view({batch, length, hidden[i].size(1)}));
  if (options.scalings) {
    const auto* xlora = dynamic_cast<const AdaptedModel*>(&model);
    check(xlora != nullptr, "adapters.kind", "only an X-LoRA has scalings");
    const at::Tensor scalings = xlora->scalings(rows, facts, Phase::evaluate, nullptr);
    out.emplace_back("scalings", spread(scalings.to(at::kFloat), packing, places).view({batch, length, scalings.size(1), scalings.size(2)}));
  }
  if (options.routing) add_routing(records, packing, places, out);
  return out;
}

}  // namespace switchyard
