#include "switchyard/models/adapters/module_table.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "switchyard/formats/quantised.h"

namespace switchyard {

ModuleTable::ModuleTable(const LoadedModel& model) {
  const Schema& schema = model.decoder->schema();
  if (model.family == nullptr) {
    NameMap map(schema);
    map.rename_all();
    add(map);
  } else {
    // Adapters may be made on another layout than the file's: of a library that fuses experts, or of one that does not.
    const auto fused = [](const std::string& name) { return name.ends_with(".experts.gate_up_proj") || name.ends_with(".experts.down_proj") || name.ends_with(".mlp.gate.weight"); };
    std::vector<HasTensor> layouts;
    if (std::filesystem::is_directory(model.folder)) {
      const std::shared_ptr<const WeightSource> file = open_weights(model.folder);
      layouts.push_back([file](const std::string& name) { return file->has(name); });
      layouts.push_back([file, fused](const std::string& name) { return fused(name) || file->has(name); });
      layouts.push_back([file, fused](const std::string& name) { return !fused(name) && file->has(name); });
    } else {
      layouts = {HasTensor(), HasTensor(fused)};
    }
    for (const HasTensor& has : layouts) {
      NameMap map(schema);
      model.family->names(map, model.decoder->options(), has);
      add(map);
    }
  }
  if (!model.decoder->options().tied_embeddings) return;
  for (const Entry& entry : entries_) {
    if (entry.held.size() != 1 || entry.held[0].ours.spec().role != Role::embedding || find("lm_head.weight")) continue;
    at_.emplace("lm_head.weight", entries_.size());
    entries_.push_back({"lm_head.weight", entry.shape, entry.held, true});
    break;
  }
}

void ModuleTable::add(const NameMap& map) {
  for (NameMap::Correspondence& theirs : map.correspondences()) {
    if (!at_.emplace(theirs.theirs, entries_.size()).second) continue;
    const bool head = theirs.held.size() == 1 && theirs.held[0].ours.spec().role == Role::head;
    entries_.push_back({std::move(theirs.theirs), std::move(theirs.shape), std::move(theirs.held), head});
  }
}

const ModuleTable::Entry* ModuleTable::find(std::string_view tensor) const {
  const auto found = at_.find(tensor);
  return found == at_.end() ? nullptr : &entries_[found->second];
}

std::vector<const ModuleTable::Entry*> ModuleTable::inside(std::string_view module) const {
  std::vector<const Entry*> list;
  for (const Entry& entry : entries_)
    if (entry.name.size() > module.size() + 1 && entry.name.starts_with(module) && entry.name[module.size()] == '.' &&
        entry.name.find('.', module.size() + 1) == std::string::npos)
      list.push_back(&entry);
  return list;
}

std::vector<std::string> ModuleTable::modules() const {
  std::vector<std::string> names;
  for (const Entry& entry : entries_) names.push_back(entry.module());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

at::Tensor gather(const ModuleTable::Entry& entry, const std::function<at::Tensor(const Parameter&)>& value) {
  if (entry.held.size() == 1 && entry.held[0].theirs_view.empty()) return view_of(value(entry.held[0].ours), entry.held[0].ours_view);
  at::Tensor whole;
  for (const NameMap::Held& held : entry.held) {
    const at::Tensor part = view_of(value(held.ours), held.ours_view);
    if (!whole.defined()) whole = at::empty(entry.shape, part.options());
    view_of(whole, held.theirs_view).copy_(part);
  }
  return whole;
}

}  // namespace switchyard
