#include "switchyard/infer/named_outputs.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "switchyard/base/error.h"
#include "switchyard/base/progress.h"
#include "switchyard/infer/adapted_model.h"
#include "switchyard/models/decoder.h"
#include "switchyard/routing/admission/capacity.h"

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
  // A token's only choice keeps what its router gave it, as published recordings have it.
  const at::Tensor given = selection->per_unit == 1 ? selection->weight.detach().to(at::kFloat).contiguous() : at::zeros_like(weight);
  const at::Tensor kept = selection->kept.defined() ? selection->kept.contiguous() : at::Tensor();
  const int64_t pairs = selection->pairs();
  std::vector<std::vector<std::pair<float, int64_t>>> chosen(static_cast<size_t>(selection->units));
  for (int64_t p = 0; p < pairs; ++p) {
    const bool stays = !kept.defined() || kept.const_data_ptr<bool>()[p];
    chosen[static_cast<size_t>(unit.const_data_ptr<int64_t>()[p])].emplace_back(
        (stays ? weight : given).const_data_ptr<float>()[p], stays ? expert.const_data_ptr<int64_t>()[p] : -1);
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

/// One side of the model: its padded rows, what it leaves behind, and what its names begin with ("", "encoder.", "decoder.").
struct Side {
  Packing packing;
  int64_t batch = 0, length = 0;
  std::string prefix, site_prefix;
  std::vector<at::Tensor> hidden;
  Records records;

  int64_t places() const { return batch * length; }
  Wanted wanted(const NamedOutputsOptions& options) {
    return {.hidden = options.hidden ? &hidden : nullptr, .records = options.routing ? &records : nullptr};
  }
  /// [rows, ...] → [B, S, ...].
  at::Tensor padded(const at::Tensor& rows) const {
    std::vector<int64_t> shape = rows.sizes().vec();
    shape[0] = length;
    shape.insert(shape.begin(), batch);
    return spread(rows, packing, places()).view(shape);
  }
  at::Tensor packed(const at::Tensor& ids) const { return ids.to(at::kLong).reshape({-1}).index_select(0, packing.place); }
};

void add_routing(const Side& side, NamedTensors& out) {
  const Packing& packing = side.packing;
  std::map<int64_t, int> in_layer;
  for (const Record& record : side.records.all()) ++in_layer[record.place.layer];
  for (const Record& record : side.records.all()) {
    std::string name = std::to_string(record.place.layer);
    const std::string prefix = side.site_prefix + "layers." + name + ".";
    if (in_layer[record.place.layer] > 1)
      name += "." + short_name(record.place.site.starts_with(prefix) ? record.place.site.substr(prefix.size()) : record.place.site);
    name = side.prefix + name;
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
                         spread(gates[g].logits.detach().to(at::kFloat), packing, side.places()));
    add_choices(record, name, packing, side.places(), out);
  }
}

void add_side(const Side& side, const NamedOutputsOptions& options, NamedTensors& out) {
  for (size_t i = 0; i < side.hidden.size(); ++i)
    out.emplace_back("hidden_states." + side.prefix + std::to_string(i), side.padded(side.hidden[i].to(at::kFloat)));
  if (options.routing) add_routing(side, out);
}

/// [..., S] with a batch axis before where it lacks one.
at::Tensor batched(const at::Tensor& tensor, int64_t dims) {
  return tensor.defined() && tensor.dim() == dims - 1 ? tensor.unsqueeze(0) : tensor;
}

/// Token ids with their mask, packed.
Side side_of(const LanguageModel& model, const at::Tensor& ids, const at::Tensor& mask, const std::string& ids_name, const std::string& mask_name) {
  check_integers(ids, ids_name.c_str());
  if (mask.defined()) {
    check_integers(mask, mask_name.c_str());
    check(mask.sizes() == ids.sizes(), "infer.mask", "{} is [{}, {}], but {} is [{}, {}]", mask_name, mask.size(0), mask.size(1), ids_name,
          ids.size(0), ids.size(1));
  }
  Side side{.packing = pack(ids, mask), .batch = ids.size(0), .length = ids.size(1), .prefix = {}, .site_prefix = {}, .hidden = {}, .records = {}};
  const Segments& segments = side.packing.segments;
  for (int64_t s = 0; s < segments.count(); ++s)
    check(segments.length(s) <= model.context(), "infer.context", "row {} of {} has {} tokens, but the model's context is {}", s, ids_name,
          segments.length(s), model.context());
  return side;
}

/// Facts of a side: what the caller gives a row of the batch, and how long the batch's rows are with their padding.
Facts facts_of(const Side& side, const NamedOutputsOptions& options) {
  Facts facts(side.packing.segments);
  for (const auto& [name, value] : options.facts) {
    check(value.dim() == 1 && value.size(0) == side.batch, "infer.input", "{} must have one entry for each of {} rows", name, side.batch);
    facts.set_segment(name, value);
  }
  if (side.packing.segments.rows() != side.places()) facts.set_segment(kPaddedLength, at::full({side.batch}, side.length, at::kLong));
  return facts;
}

NamedTensors image_outputs(const LanguageModel& model, const at::Tensor& images, const NamedOutputsOptions& options) {
  check(images.dim() == 4, "infer.input", "pixel_values has {} dimensions, not [batch, channels, height, width]", images.dim());
  check(images.is_floating_point(), "infer.input", "pixel_values holds {}, not floats", c10::toString(images.scalar_type()));
  const int64_t rows = model.image_rows(), batch = images.size(0);
  check(rows > 0, "infer.input", "this model reads tokens, not images: give it input_ids");
  Side side{.packing = pack(at::zeros({batch, rows}, at::kLong), {}), .batch = batch, .length = rows, .prefix = {}, .site_prefix = {}, .hidden = {}, .records = {}};
  const Facts facts = facts_of(side, options);
  NamedTensors out;
  out.emplace_back("logits", model.logits(images, facts, Phase::evaluate, nullptr, LanguageModel::Rows::first, side.wanted(options)));
  add_side(side, options, out);
  return out;
}

NamedTensors encoder_decoder_outputs(const LanguageModel& model, const NamedInputs& inputs, const NamedOutputsOptions& options) {
  check(inputs.decoder_input_ids.defined(), "infer.input", "the model has an encoder: give its decoder tokens too, decoder_input_ids [B, T]");
  check(!options.scalings, "adapters.kind", "only an X-LoRA has scalings");
  Side read = side_of(model, inputs.input_ids, inputs.attention_mask, "input_ids", "attention_mask");
  Side written = side_of(model, inputs.decoder_input_ids, inputs.decoder_attention_mask, "decoder_input_ids", "decoder_attention_mask");
  check(read.batch == written.batch, "infer.input", "input_ids has {} rows, but decoder_input_ids has {}", read.batch, written.batch);
  read.prefix = read.site_prefix = "encoder.";
  written.prefix = "decoder.";
  const Memory memory = model.encode(read.packed(inputs.input_ids), facts_of(read, options), read.wanted(options));
  Facts facts = facts_of(written, options);
  set_memory(facts, memory);
  const at::Tensor logits = model.logits(written.packed(inputs.decoder_input_ids), facts, Phase::evaluate, nullptr, LanguageModel::Rows::all,
                                         written.wanted(options));
  NamedTensors out;
  out.emplace_back("logits", written.padded(logits));
  add_side(read, options, out);
  add_side(written, options, out);
  return out;
}

}  // namespace

NamedInputs named_inputs(const WeightSource& file) {
  const auto find = [&](const char* name) { return file.has(name) ? file.get(name) : at::Tensor(); };
  return {.input_ids = find("input_ids"), .attention_mask = find("attention_mask"), .token_type_ids = find("token_type_ids"),
          .decoder_input_ids = find("decoder_input_ids"), .decoder_attention_mask = find("decoder_attention_mask"), .pixel_values = find("pixel_values")};
}

NamedTensors named_outputs(const LanguageModel& model, const NamedInputs& given, const NamedOutputsOptions& options) {
  NamedInputs inputs = given;
  for (at::Tensor* rows : {&inputs.input_ids, &inputs.attention_mask, &inputs.token_type_ids, &inputs.decoder_input_ids, &inputs.decoder_attention_mask})
    *rows = batched(*rows, 2);
  if (inputs.pixel_values.defined()) return image_outputs(model, batched(inputs.pixel_values, 4), options);
  check(model.image_rows() == 0, "infer.input", "this model reads images: give it pixel_values [B, C, H, W]");
  check(inputs.input_ids.defined(), "infer.input", "there are no input_ids");
  if (model.start_id()) return encoder_decoder_outputs(model, inputs, options);

  Side side = side_of(model, inputs.input_ids, inputs.attention_mask, "input_ids", "attention_mask");
  const at::Tensor rows = side.packed(inputs.input_ids);
  Facts facts = facts_of(side, options);
  if (inputs.token_type_ids.defined()) {
    check_integers(inputs.token_type_ids, "token_type_ids");
    check(inputs.token_type_ids.sizes() == inputs.input_ids.sizes(), "infer.input", "token_type_ids is not as large as input_ids");
    facts.set_row(kTokenType, side.packed(inputs.token_type_ids));
  }
  const bool classes = model.names_classes();
  const at::Tensor logits = model.logits(rows, facts, Phase::evaluate, nullptr,
                                         classes ? LanguageModel::Rows::first : LanguageModel::Rows::all, side.wanted(options));
  NamedTensors out;
  out.emplace_back("logits", classes ? logits : side.padded(logits));
  if (options.scalings) {
    const auto* xlora = dynamic_cast<const AdaptedModel*>(&model);
    check(xlora != nullptr, "adapters.kind", "only an X-LoRA has scalings");
    out.emplace_back("scalings", side.padded(xlora->scalings(rows, facts, Phase::evaluate, nullptr).to(at::kFloat)));
  }
  add_side(side, options, out);
  return out;
}

NamedTensors named_outputs(const LanguageModel& model, const at::Tensor& ids, const at::Tensor& mask, const NamedOutputsOptions& options) {
  NamedInputs inputs;
  inputs.input_ids = ids;
  inputs.attention_mask = mask;
  return named_outputs(model, inputs, options);
}

}  // namespace switchyard
