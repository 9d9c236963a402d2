#include "switchyard/infer/adapted_model.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/ranges.h>

#include <cmath>

#include "switchyard/base/error.h"
#include "switchyard/kernels/linear.h"

namespace switchyard {
namespace {

/// The same store under other names, for the pass that only looks.
class Beside : public StateStore {
 public:
  explicit Beside(StateStore& store) : store_(store) {}
  at::Tensor append(std::string_view name, int64_t sequence, const at::Tensor& rows) override { return store_.append(own(name), sequence, rows); }
  int64_t length(std::string_view name, int64_t sequence) const override { return store_.length(own(name), sequence); }
  at::Tensor get(std::string_view name, int64_t sequence) const override { return store_.get(own(name), sequence); }
  void put(std::string_view name, int64_t sequence, at::Tensor value) override { store_.put(own(name), sequence, std::move(value)); }
  void forget(int64_t sequence) override { store_.forget(sequence); }

 private:
  static std::string own(std::string_view name) { return "scaling pass: " + std::string(name); }
  StateStore& store_;
};

}  // namespace

AdaptedModel::AdaptedModel(LoadedModel model) : network_(model), adapters_(network_.loaded()) {}

void AdaptedModel::use(const std::vector<ActiveAdapter>& active) {
  check(!xlora_, "adapters.kind", "an X-LoRA weighs its adapters itself; none can be chosen");
  active_ = adapters_.use(active);
}

void AdaptedModel::load_xlora(const peft::AdapterFile& file) {
  check(adapters_.names().empty() && !xlora_, "adapters.kind", "{}: an X-LoRA cannot stand beside other adapters", file.where);
  check(file.config.kind == peft::Kind::xlora, "adapters.kind", "{} is no X-LoRA", file.where);
  for (const auto& [name, expert] : file.experts) {
    check(expert.tokens.empty(), "adapters.by_rows", "{}: '{}' brings trained rows of embeddings, which cannot be weighed row by row", file.where, name);
    peft::AdapterFile plain = expert;
    plain.wholes.clear();  // peft writes the frozen base along
    adapters_.load(name, plain);
  }
  XLora xlora{.settings = file.config.xlora, .layers = file.classifier, .maps = static_cast<int64_t>(adapters_.weighed_maps().size()),
              .adapters = static_cast<int64_t>(file.experts.size()), .adaptation = {}};
  const int64_t width = network_.decoder().options().width, out = xlora.adapters * (xlora.settings.layerwise ? xlora.maps : 1);
  check(xlora.settings.hidden_size == width, "adapters.shape", "{}: hidden_size is {}, but the base has {}", file.where,
        xlora.settings.hidden_size, width);
  check(xlora.layers.back().first.size(0) == out, "adapters.shape", "{}: the classifier gives {} values a token, but {} adapters{} need {}",
        file.where, xlora.layers.back().first.size(0), xlora.adapters,
        xlora.settings.layerwise ? fmt::format(" on {} maps", xlora.maps) : "", out);
  check(!xlora.settings.top_k || *xlora.settings.top_k <= xlora.adapters, "formats.peft.config", "{}: top_k_lora is {} of {} adapters",
        file.where, xlora.settings.top_k.value_or(0), xlora.adapters);
  xlora.adaptation = adapters_.use_scalings(xlora.settings.global_weight);
  xlora_ = std::move(xlora);
}

at::Tensor AdaptedModel::XLora::chosen(const at::Tensor& scalings) const {
  at::Tensor weights = scalings;
  if (settings.top_k) {
    const at::Tensor best = std::get<1>(weights.topk(*settings.top_k, -1));
    weights = weights * at::zeros_like(weights).scatter_(-1, best, 1);
  }
  if (settings.softmax_topk) {
    const at::Tensor nothing = weights == 0;
    weights = weights.masked_fill(nothing, -INFINITY).softmax(-1).masked_fill(nothing, 0);
  }
  return weights;
}

at::Tensor AdaptedModel::scalings(const at::Tensor& ids, const Facts& facts, Phase phase, StateStore* state) const {
  check(xlora_.has_value(), "adapters.kind", "only an X-LoRA has scalings");
  at::NoGradGuard guard;
  const XLora& xlora = *xlora_;
  const int64_t rows = ids.size(0);
  std::optional<Beside> beside;
  if (state) beside.emplace(*state);
  Facts looking = facts;
  const at::Tensor constant = at::full({rows, xlora.maps, xlora.adapters}, xlora.settings.pass_value, at::kFloat);
  looking.set_row(kScalings, xlora.chosen(constant));
  // With a pass value of 0 the adapters add nothing but the bias that lora_B may have, and peft leaves that in.
  at::Tensor x = network_.hidden(ids, looking, phase, beside ? &*beside : nullptr, xlora.adaptation.get());
  for (size_t i = 0; i < xlora.layers.size(); ++i) {
    const auto& [weight, bias] = xlora.layers[i];
    x = kernels::linear(x.to(weight.scalar_type()), weight, bias);
    if (i + 1 < xlora.layers.size()) x = x.relu();
  }
  x = xlora.settings.layerwise ? x.view({rows, xlora.maps, xlora.adapters})
                               : x.view({rows, 1, xlora.adapters}).expand({rows, xlora.maps, xlora.adapters});
  return xlora.settings.softmax ? (x / xlora.settings.temperature).softmax(-1) : x;
}

Memory AdaptedModel::encode(const at::Tensor& ids, const Facts& facts, const Wanted& wanted) const {
  check(!xlora_, "adapters.kind", "an X-LoRA beside a model with an encoder is not supported");
  check(!facts.has(kAdapterFact), "adapters.by_rows", "a model with an encoder takes one set of adapters for all sequences");
  return network_.encode(ids, facts, active_.get(), wanted);
}

at::Tensor AdaptedModel::logits(const at::Tensor& ids, const Facts& facts, Phase phase, StateStore* state, Rows rows,
                                const Wanted& wanted) const {
  at::NoGradGuard guard;
  if (xlora_) {
    Facts weighed = facts;
    weighed.set_row(kScalings, xlora_->chosen(scalings(ids, facts, phase, state)));
    const Adaptation* adaptation = xlora_->adaptation.get();
    return network_.finish(network_.hidden(ids, weighed, phase, state, adaptation, wanted), weighed, phase, rows, adaptation, wanted);
  }
  if (facts.has(kAdapterFact)) return grouped(ids, facts, phase, state, rows, wanted);
  return network_.finish(network_.hidden(ids, facts, phase, state, active_.get(), wanted), facts, phase, rows, active_.get(), wanted);
}

std::shared_ptr<const Adaptation> AdaptedModel::alone(int64_t adapter, const std::vector<std::string>& names) const {
  const std::lock_guard lock(mutex_);
  if (alone_.size() != names.size() + 1) {  // an adapter came, and may have brought biases for all
    alone_.clear();
    alone_.push_back(adapters_.use({}));
    for (const std::string& name : names) alone_.push_back(adapters_.use({{.name = name}}));
  }
  return alone_[static_cast<size_t>(adapter + 1)];
}

at::Tensor AdaptedModel::grouped(const at::Tensor& ids, const Facts& facts, Phase phase, StateStore* state, Rows rows,
                                 const Wanted& wanted) const {
  const at::Tensor asked = facts.segment(kAdapterFact, "a model with adapters").to(at::kLong).cpu().contiguous();
  const std::vector<std::string> names = adapters_.names();
  std::map<int64_t, std::vector<int64_t>> groups;  // segments by adapter
  for (int64_t s = 0; s < facts.segments.count(); ++s) {
    const int64_t adapter = asked.const_data_ptr<int64_t>()[s];
    check(adapter >= -1 && adapter < static_cast<int64_t>(names.size()), "adapters.unknown",
          "sequence {} asks for adapter {}; {} are loaded ({}), and -1 is none", s, adapter, names.size(), fmt::join(names, ", "));
    groups[adapter].push_back(s);
  }
  if (groups.size() == 1) {
    const std::shared_ptr<const Adaptation> adaptation = alone(groups.begin()->first, names);
    const at::Tensor hidden = network_.hidden(ids, facts, phase, state, adaptation.get(), wanted);
    return network_.finish(hidden, facts, phase, rows, adaptation.get(), wanted);
  }
  check(wanted.hidden == nullptr && wanted.records == nullptr && wanted.pieces == nullptr, "adapters.by_rows",
        "hidden states, routing and pieces of logits are given for one adapter a pass, not for {}", groups.size());
  at::Tensor logits;
  const bool ends = rows != Rows::all;
  for (const auto& [adapter, segments] : groups) {
    std::vector<int64_t> taken, at_place;  // rows, and where their logits go
    for (const int64_t s : segments) {
      const auto begin = facts.segments.begin[static_cast<size_t>(s)], end = facts.segments.begin[static_cast<size_t>(s) + 1];
      for (int64_t row = begin; row < end; ++row) taken.push_back(row);
      if (ends) {
        check(end > begin, "infer.rows", "segment {} has no row whose logits could be given", s);
        at_place.push_back(s);
      }
    }
    const at::Tensor index = at::tensor(taken, at::kLong);
    const Facts group = facts.take(index);
    const std::shared_ptr<const Adaptation> adaptation = alone(adapter, names);
    at::Tensor hidden = network_.hidden(ids.index_select(0, index), group, phase, state, adaptation.get());
    Facts shown = group;
    if (ends) {
      std::vector<int64_t> kept;
      for (const int64_t s : segments)
        kept.push_back(rows == Rows::first ? group.segments.begin[static_cast<size_t>(s)] : group.segments.begin[static_cast<size_t>(s) + 1] - 1);
      const at::Tensor chosen = at::tensor(kept, at::kLong);
      hidden = hidden.index_select(0, chosen);
      shown = group.take(chosen);
    }
    const at::Tensor part = network_.head(hidden, shown, phase, adaptation.get());
    if (!logits.defined()) logits = at::empty({ends ? facts.segments.count() : ids.size(0), part.size(1)}, part.options());
    logits.index_copy_(0, ends ? at::tensor(at_place, at::kLong) : index, part);
  }
  return logits;
}

}  // namespace switchyard
