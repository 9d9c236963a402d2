// The tensors of a model by the names under which adapters know them: those of its family's published files, in every layout in
// which the family is published (experts one by one or fused), or our own.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/models/checkpoint.h"

namespace switchyard {

class ModuleTable {
 public:
  struct Entry {
    std::string name;             ///< "model.layers.0.self_attn.q_proj.weight"
    std::vector<int64_t> shape;   ///< of the whole tensor, theirs
    std::vector<NameMap::Held> held;
    bool head = false;            ///< the output head; with tied embeddings its weight is the embedding's
    std::string module() const { return name.substr(0, name.rfind('.')); }
  };

  explicit ModuleTable(const LoadedModel& model);

  const Entry* find(std::string_view tensor) const;
  /// Tensors directly inside a module, in the order of the table: "...experts" → gate_up_proj, down_proj.
  std::vector<const Entry*> inside(std::string_view module) const;
  const std::vector<Entry>& entries() const { return entries_; }
  /// All names of modules, for messages.
  std::vector<std::string> modules() const;

 private:
  void add(const NameMap& map);
  std::vector<Entry> entries_;
  std::map<std::string, size_t, std::less<>> at_;
};

/// The whole tensor in their layout, gathered from ours; `value` gives the tensor of a parameter.
at::Tensor gather(const ModuleTable::Entry& entry, const std::function<at::Tensor(const Parameter&)>& value);

}  // namespace switchyard
