#include "switchyard/models/adapters/adapter_set.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/matmul.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "switchyard/base/error.h"
#include "switchyard/base/options.h"
#include "switchyard/base/progress.h"
#include "switchyard/models/adapters/adapter_pass.h"

namespace switchyard {

namespace {

using Entry = ModuleTable::Entry;
using Values = std::map<std::string, at::Tensor>;

std::string key_in(const Entry& entry, const Parameter& ours) {
  return AdapterPass::key_of(ours, entry.head && ours.spec().role == Role::embedding);
}

/// Families whose fused experts are stored [E, in, out]; asked only where shapes do not tell.
bool keeps_in_out(const LoadedModel& model) {
  if (model.family == nullptr) return false;
  const std::vector<std::string> types = model.family->model_types();
  return std::any_of(types.begin(), types.end(), [](const std::string& type) { return type == "gpt_oss" || type == "llama4" || type == "llama4_text"; });
}

/// Whether the published tensor of a map lies [in, out], as GPT-2's do; ours never do.
bool lies_in_out(const Entry& entry) {
  const View& view = entry.held.front().theirs_view;
  return entry.shape.size() == 2 && std::any_of(view.begin(), view.end(), [](const ViewStep& step) { return step.kind == ViewStep::Kind::transpose; });
}

}  // namespace

struct AdapterSet::Data {
  struct Adapter {
    std::string name;
    peft::Kind kind = peft::Kind::lora;
    peft::ModuleMatcher matcher;
    std::vector<std::pair<std::string, PlacedDelta>> deltas;  ///< by key
    Values saved;                                             ///< trained copies of whole tensors, by key
    std::vector<std::string> biasless;                        ///< modules whose lora_B.bias has no base bias to go into
  };

  explicit Data(const LoadedModel& loaded) : model(loaded) {
    for (const Parameter& parameter : model.decoder->schema().all()) parameters.emplace(parameter.name(), parameter);
  }

  const Adapter& adapter(const std::string& name) const;
  /// Made when the first adapter comes: a model without any needs none.
  const ModuleTable& table() {
    if (!modules) modules.emplace(model);
    return *modules;
  }
  at::Tensor base_of(const Entry& entry, const Parameter& ours) const;
  void put(const Entry& entry, const at::Tensor& value, Values& into) const;

  LoadedModel model;
  std::optional<ModuleTable> modules;
  std::map<std::string, Parameter> parameters;
  std::vector<Adapter> adapters;
  Values base;  ///< stands for the bound tensors in every pass
  std::vector<std::pair<Parameter, at::Tensor>> originals;
};

const AdapterSet::Data::Adapter& AdapterSet::Data::adapter(const std::string& name) const {
  std::vector<std::string> names;
  for (const Adapter& each : adapters) {
    if (each.name == name) return each;
    names.push_back(each.name);
  }
  fail("adapters.unknown", "there is no adapter '{}'; loaded are: {}", name, fmt::join(names, ", "));
}

at::Tensor AdapterSet::Data::base_of(const Entry& entry, const Parameter& ours) const {
  const auto found = base.find(key_in(entry, ours));
  return found == base.end() ? ours.tensor().detach() : found->second;
}

/// A whole tensor in their layout, set into ours.
void AdapterSet::Data::put(const Entry& entry, const at::Tensor& value, Values& into) const {
  at::NoGradGuard guard;
  for (const NameMap::Held& held : entry.held) {
    at::Tensor& ours = into[key_in(entry, held.ours)];
    const at::Tensor part = view_of(value, held.theirs_view);
    const at::Tensor before = base_of(entry, held.ours);
    if (held.ours_view.empty()) {
      ours = part.to(before.scalar_type()).contiguous();
      continue;
    }
    if (!ours.defined() || ours.is_alias_of(before)) ours = before.clone();
    view_of(ours, held.ours_view).copy_(part);
  }
}

AdapterSet::AdapterSet(const LoadedModel& model) : data_(std::make_shared<Data>(model)) {}
AdapterSet::~AdapterSet() = default;

std::vector<std::string> AdapterSet::names() const {
  std::vector<std::string> names;
  for (const Data::Adapter& adapter : data_->adapters) names.push_back(adapter.name);
  return names;
}

bool AdapterSet::has(const std::string& name) const {
  return std::any_of(data_->adapters.begin(), data_->adapters.end(), [&](const Data::Adapter& each) { return each.name == name; });
}

namespace {

/// One adapter on its way from file to model.
class Loader {
 public:
  Loader(const LoadedModel& model, const ModuleTable& table, const peft::AdapterFile& file, const peft::ModuleMatcher& matcher)
      : model_(model), table_(table), file_(file), matcher_(matcher) {}

  /// The tensor that a module of the file acts on, and the name by which patterns know it; null when the config does not mean it.
  struct Target { const Entry* entry = nullptr; std::string name; };
  Target target_of(const std::string& module) const {
    std::string plain = module;
    size_t depth = 0;
    constexpr std::string_view kNested = ".base_layer";
    for (; plain.ends_with(kNested); ++depth) plain.resize(plain.size() - kNested.size());
    if (const Entry* entry = table_.find(plain + ".weight"); entry && depth == 0) {
      if (matcher_.targets_parameter(entry->name)) return {entry, entry->name};
      const bool meant = !file_.config.targets_given || matcher_.targets(plain, entry->head);
      return {meant ? entry : nullptr, plain};
    }
    const std::vector<const Entry*> inside = table_.inside(plain);
    if (inside.empty()) unknown(plain);
    // Of several adapted parameters of one module the last is the outermost.
    std::vector<const Entry*> targets;
    for (const Entry* entry : inside)
      if (matcher_.targets_parameter(entry->name)) targets.push_back(entry);
    if (depth >= targets.size()) return {nullptr, plain};
    const Entry* entry = targets[targets.size() - 1 - depth];
    return {entry, entry->name};
  }

  [[noreturn]] void unknown(const std::string& name) const {
    const std::string near = nearest(name, table_.modules());
    fail("adapters.module", "{}: the model has no {}{}; the adapter was made for another base", file_.where, name,
         near.empty() ? "" : " (the nearest is " + near + ")");
  }

  std::shared_ptr<ModuleDelta> delta_of(const Target& target, const peft::ModuleTensors& tensors, size_t adapter) const {
    const Entry& entry = *target.entry;
    const Parameter& ours = entry.held.front().ours;
    const at::ScalarType base = ours.packed() ? at::kFloat : ours.tensor().scalar_type();
    const auto computed = [&](const at::Tensor& tensor) { return tensor.defined() ? tensor.to(base == at::kDouble ? at::kDouble : at::kFloat) : tensor; };
    auto delta = std::make_shared<ModuleDelta>();
    delta->adapter = adapter;
    delta->module = target.name;
    delta->embedding = tensors.embedding;
    delta->shape = entry.shape;
    delta->in_out = !tensors.embedding && lies_in_out(entry);
    if (tensors.scale.defined()) {
      const bool inner = matcher_.is_feedforward(target.name);
      check(entry.shape.size() == 2 && tensors.scale.size(inner ? 0 : 1) == 1 &&
                tensors.scale.size(inner ? 1 : 0) == entry.shape[inner != delta->in_out ? 1 : 0],
            "adapters.shape", "{}: {}.ia3_l is [{}], but the base's weight is [{}]{}", file_.where, target.name,
            fmt::join(tensors.scale.sizes().vec(), ", "), fmt::join(entry.shape, ", "), inner ? ", and it scales the input" : "");
      delta->kind = ModuleDelta::Kind::ia3;
      delta->scale = computed(tensors.scale);
      return delta;
    }
    delta->kind = file_.config.dora ? ModuleDelta::Kind::dora : ModuleDelta::Kind::lora;
    delta->a = computed(tensors.a);
    delta->b = computed(tensors.b);
    delta->b_bias = computed(tensors.b_bias);
    delta->magnitude = computed(tensors.magnitude);
    const int64_t rank = matcher_.rank(target.name);
    delta->scaling = matcher_.scale(target.name, rank);
    const int64_t experts = entry.shape.size() == 3 ? entry.shape[0] : 1;
    check(tensors.a.size(0) == rank * experts, "adapters.rank", "{}: {} has rank {}, but the config says {}{}", file_.where, target.name,
          tensors.a.size(0), rank, experts > 1 ? fmt::format(" for each of {} experts", experts) : "");
    const int64_t in = tensors.embedding ? tensors.b.size(0) : tensors.a.size(1), out = tensors.embedding ? tensors.a.size(1) : tensors.b.size(0);
    const size_t last = entry.shape.size();
    const bool straight = !delta->in_out && last >= 2 && last <= 3 && entry.shape[last - 2] == out && entry.shape[last - 1] == in;
    const bool crossed = (last == 3 || delta->in_out) && entry.shape[last - 2] == in && entry.shape[last - 1] == out;
    check(straight || crossed, "adapters.shape", "{}: {} maps {} to {}, but the base's tensor is [{}]", file_.where, target.name, in, out,
          fmt::join(entry.shape, ", "));
    if (tensors.embedding) {  // a table's rows are what goes in: its b is [V, r], its a [r, D]
      const at::Tensor b = delta->a.t();
      delta->a = delta->b.t();
      delta->b = b.contiguous();
    } else if (last == 3) {
      check(delta->kind == ModuleDelta::Kind::lora && !delta->b_bias.defined(), "adapters.layout",
            "{}: {} is a stack of experts, which takes plain LoRA only", file_.where, target.name);
      delta->in_out = crossed && (!straight || keeps_in_out(model_));
      delta->a = delta->a.reshape({experts, rank, in});
      delta->b = delta->b.reshape({out, rank, experts}).permute({2, 0, 1}).contiguous();
    }
    return delta;
  }

 private:
  const LoadedModel& model_;
  const ModuleTable& table_;
  const peft::AdapterFile& file_;
  const peft::ModuleMatcher& matcher_;
};

/// What PiSSA (the largest singular directions) or OLoRA (the first of a QR) left in the base when they began.
at::Tensor residual(const at::Tensor& weight, const std::string& init, int64_t rank, double scaling) {
  const at::Tensor wide = weight.to(at::kFloat);
  rank = std::min({rank, wide.size(0), wide.size(1)});
  if (init == "olora") {
    const auto [q, r] = at::linalg_qr(wide);
    return wide - at::matmul(q.narrow(1, 0, rank), r.narrow(0, 0, rank)) * scaling;
  }
  const auto [u, s, v] = at::linalg_svd(wide, false);
  return wide - at::matmul(u.narrow(1, 0, rank) * s.narrow(0, 0, rank), v.narrow(0, 0, rank));
}

}  // namespace

void AdapterSet::load(const std::string& name, const peft::AdapterFile& file) {
  Data& data = *data_;
  check(!has(name), "adapters.name", "there is an adapter '{}' already; give this one another name", name);
  check(!merged(), "adapters.merged", "adapters are merged into the model; unmerge before loading '{}'", name);
  check(file.config.kind != peft::Kind::xlora, "adapters.kind", "{}: an X-LoRA chooses among adapters itself and is not one of several", file.where);
  at::NoGradGuard guard;
  Data::Adapter adapter{.name = name, .kind = file.config.kind, .matcher = peft::ModuleMatcher(file.config), .deltas = {}, .saved = {}, .biasless = {}};
  const Loader loader(data.model, data.table(), file, adapter.matcher);
  Values base = data.base;
  std::vector<std::string> passed_over;
  for (const auto& [module, tensors] : file.modules) {
    const Loader::Target target = loader.target_of(module);
    if (target.entry == nullptr) {
      passed_over.push_back(module);
      continue;
    }
    const Entry& entry = *target.entry;
    const std::shared_ptr<ModuleDelta> delta = loader.delta_of(target, tensors, data.adapters.size());
    for (const NameMap::Held& held : entry.held)
      adapter.deltas.emplace_back(key_in(entry, held.ours), PlacedDelta{delta, held.ours_view, held.theirs_view});
    const bool on_bias = delta->b_bias.defined() || (delta->scale.defined() && !adapter.matcher.is_feedforward(target.name));
    const Entry* bias = on_bias ? data.table().find(entry.module() + ".bias") : nullptr;
    delta->into_bias = bias != nullptr;
    if (bias)
      for (const NameMap::Held& held : bias->held)
        adapter.deltas.emplace_back(key_in(*bias, held.ours), PlacedDelta{delta, held.ours_view, held.theirs_view, /*bias=*/true});
    else if (delta->b_bias.defined()) adapter.biasless.push_back(target.name);
    const bool took_from_base = file.config.init == "pissa" || file.config.init == "olora";
    if (took_from_base && !delta->embedding && entry.shape.size() == 2) {
      const at::Tensor whole = gather(entry, [&](const Parameter& ours) { return data.base_of(entry, ours); });
      const at::Tensor left = residual(delta->in_out ? whole.t() : whole, file.config.init, delta->a.size(-2), delta->scaling);
      data.put(entry, delta->in_out ? left.t() : left, base);
    }
  }
  for (const peft::AdapterFile::Whole& whole : file.wholes) {
    const Entry* entry = data.table().find(whole.name);
    if (entry == nullptr) loader.unknown(whole.name);
    check(whole.value.sizes() == at::IntArrayRef(entry->shape), "adapters.shape", "{}: {} is [{}], but the base has [{}]; was its vocabulary resized?",
          file.where, whole.name, fmt::join(whole.value.sizes().vec(), ", "), fmt::join(entry->shape, ", "));
    const bool copy = !whole.base && adapter.matcher.saves(entry->module());
    if (copy) {
      data.put(*entry, whole.value, adapter.saved);
      continue;
    }
    const at::Tensor before = gather(*entry, [&](const Parameter& ours) { return data.base_of(*entry, ours); });
    if (whole.value.to(before.scalar_type()).equal(before)) continue;  // peft writes targeted embeddings along, changed or not
    data.put(*entry, whole.value, base);
    for (const NameMap::Held& held : entry->held)
      if (held.ours.spec().role == Role::embedding && data.model.decoder->options().tied_embeddings)
        base[AdapterPass::key_of(held.ours, !entry->head)] = base[key_in(*entry, held.ours)];
  }
  for (const peft::AdapterFile::Tokens& tokens : file.tokens) {
    const Entry* entry = data.table().find(tokens.module + ".weight");
    if (entry == nullptr) loader.unknown(tokens.module);
    check(entry->shape.size() == 2 && tokens.rows.size(1) == entry->shape[1], "adapters.shape", "{}: rows of {} are {} wide, but the base has [{}]",
          file.where, tokens.module, tokens.rows.size(1), fmt::join(entry->shape, ", "));
    at::Tensor table = gather(*entry, [&](const Parameter& ours) { return data.base_of(*entry, ours); }).clone();
    for (size_t i = 0; i < tokens.ids.size(); ++i) {
      check(tokens.ids[i] < entry->shape[0], "adapters.shape", "{}: token {} is trained, but {} has {} rows; was the vocabulary resized?", file.where,
            tokens.ids[i], tokens.module, entry->shape[0]);
      table[tokens.ids[i]].copy_(tokens.rows[static_cast<int64_t>(i)]);
    }
    data.put(*entry, table, adapter.saved);
    // What is tied to the table follows it, unless it has rows of its own.
    for (const NameMap::Held& held : entry->held)
      if (held.ours.spec().role == Role::embedding && !entry->head && data.model.decoder->options().tied_embeddings)
        adapter.saved.emplace(AdapterPass::key_of(held.ours, true), adapter.saved[key_in(*entry, held.ours)]);
  }
  if (!passed_over.empty())
    log_warning(fmt::format("{}: {} modules that its config does not target are passed over, the first is {}", file.where,
                            passed_over.size(), passed_over.front()));
  check(!adapter.deltas.empty() || !adapter.saved.empty(), "adapters.module", "{}: nothing in it is meant by its own config", file.where);
  data.base = std::move(base);
  data.adapters.push_back(std::move(adapter));
}

namespace {

void add_use(AdapterPass& pass, const std::string& key, const PlacedDelta& placed, double weight) {
  pass.sites[key].uses.push_back({.placed = placed, .factors = placed.bias ? std::nullopt : factors_of(placed),
                                  .scaling = placed.delta->scaling * weight, .proportion = {}});
}

}  // namespace

std::shared_ptr<const Adaptation> AdapterSet::use(const std::vector<ActiveAdapter>& active) const {
  const Data& data = *data_;
  check(!merged() || active.empty(), "adapters.merged", "adapters are merged into the model already; unmerge before using them beside it");
  if (merged() || (active.empty() && data.base.empty())) return nullptr;
  auto pass = std::make_shared<AdapterPass>();
  for (const auto& [key, value] : data.base) pass->sites[key].replaced = value;
  std::map<std::string, std::string> saved_by;
  std::optional<peft::Kind> kind;
  for (const ActiveAdapter& each : active) {
    const Data::Adapter& adapter = data.adapter(each.name);
    check(std::count_if(active.begin(), active.end(), [&](const ActiveAdapter& other) { return other.name == each.name; }) == 1,
          "adapters.name", "'{}' is asked for twice in one pass", each.name);
    check(!kind || *kind == adapter.kind, "adapters.kinds", "'{}' is {}, but another adapter of the same pass is {}; they do not go together",
          each.name, to_string(adapter.kind), kind ? to_string(*kind) : "");
    kind = adapter.kind;
    check(adapter.kind == peft::Kind::lora || each.weight == 1, "adapters.weight", "'{}' is (IA)^3, which has no weight; {} was asked for",
          each.name, each.weight);
    for (const auto& [key, placed] : adapter.deltas) add_use(*pass, key, placed, each.weight);
    for (const auto& [key, value] : adapter.saved) {
      const auto [place, fresh] = saved_by.emplace(key, each.name);
      check(fresh, "adapters.saved_twice", "'{}' and '{}' both bring their own {}; use one at a time", place->second, each.name, key);
      pass->sites[key].replaced = value;
    }
  }
  return pass;
}

std::vector<std::string> AdapterSet::weighed_maps() const {
  std::vector<std::string> maps;
  for (const Entry& entry : data_->table().entries()) {
    if (entry.shape.size() != 2 || !entry.name.ends_with(".weight")) continue;
    const Role role = entry.held.front().ours.spec().role;
    if (role == Role::norm || role == Role::bias || role == Role::buffer) continue;
    const std::string module = entry.module();
    if (std::any_of(data_->adapters.begin(), data_->adapters.end(), [&](const Data::Adapter& a) { return a.matcher.targets(module, entry.head); }))
      maps.push_back(module);
  }
  return maps;
}

std::shared_ptr<const Adaptation> AdapterSet::use_scalings(double weight) const {
  const Data& data = *data_;
  std::map<std::string, int64_t> place;
  for (const std::string& module : weighed_maps()) place.emplace(module, static_cast<int64_t>(place.size()));
  auto pass = std::make_shared<AdapterPass>();
  pass->by_rows = weight;
  for (const auto& [key, value] : data.base) pass->sites[key].replaced = value;
  for (const Data::Adapter& adapter : data.adapters)
    for (const auto& [key, placed] : adapter.deltas) {
      if (placed.bias) continue;
      auto weighed = std::make_shared<ModuleDelta>(*placed.delta);
      const auto found = place.find(weighed->module);
      check(found != place.end(), "adapters.by_rows", "{} is no linear map or embedding, so it cannot be weighed row by row", weighed->module);
      weighed->map = found->second;
      add_use(*pass, key, PlacedDelta{weighed, placed.ours_view, placed.theirs_view}, 1);
    }
  return pass;
}

namespace {

/// Whether table and head of tied embeddings were given the same tensor: then it can be merged.
bool is_one_of_two(const AdapterPass& pass, std::string_view key) {
  constexpr std::string_view kHead = "#head";
  const std::string table(key.substr(0, key.size() - (key.ends_with(kHead) ? kHead.size() : 0)));
  const auto first = pass.sites.find(table), second = pass.sites.find(table + std::string(kHead));
  return first != pass.sites.end() && second != pass.sites.end() && first->second.uses.empty() && second->second.uses.empty() &&
         first->second.replaced.equal(second->second.replaced);
}

}  // namespace

void AdapterSet::merge(const std::vector<ActiveAdapter>& active) {
  Data& data = *data_;
  check(!merged(), "adapters.merged", "adapters are merged already; unmerge first");
  for (const ActiveAdapter& each : active) {
    const std::vector<std::string>& biasless = data.adapter(each.name).biasless;
    check(biasless.empty(), "adapters.merge_bias", "'{}' adds a bias to {}, which has none in the base, so it cannot be merged", each.name,
          biasless.empty() ? "" : biasless.front());
  }
  const std::shared_ptr<const Adaptation> adaptation = use(active);
  if (adaptation == nullptr) return;
  const auto& pass = dynamic_cast<const AdapterPass&>(*adaptation);
  const bool tied = data.model.decoder->options().tied_embeddings;
  std::vector<std::pair<Parameter, at::Tensor>> values;
  for (const auto& [key, site] : pass.sites) {
    const auto found = data.parameters.find(key);
    const bool table = found != data.parameters.end() && found->second.spec().role == Role::embedding;
    if (tied && is_one_of_two(pass, key)) {
      if (table) values.emplace_back(found->second, site.replaced);
      continue;
    }
    check(found != data.parameters.end() && !(tied && table), "adapters.merge_tied",
          "the adapter acts on {} alone, but the model's embedding and output head are one tensor, so it cannot be merged",
          found == data.parameters.end() ? "the output head" : "the embedding");
    const at::Tensor value = *pass.value(found->second);
    check(at::isfinite(value).all().item<bool>(), "adapters.not_finite", "merging gives values of {} that are not finite", key);
    values.emplace_back(found->second, value);
  }
  for (auto& [parameter, value] : values) {
    data.originals.emplace_back(parameter, parameter.tensor());
    parameter.bind(value.detach());
  }
}

void AdapterSet::unmerge() {
  for (auto& [parameter, original] : data_->originals) parameter.bind(original);
  data_->originals.clear();
}

bool AdapterSet::merged() const { return !data_->originals.empty(); }

}  // namespace switchyard
