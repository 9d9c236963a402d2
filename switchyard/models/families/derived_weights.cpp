#include "switchyard/models/families/derived_weights.h"

#include "switchyard/base/error.h"
#include "switchyard/base/options.h"

namespace switchyard {

void DerivedWeights::add(Recipe recipe) {
  const std::string name = recipe.info.name;
  tensors_.push_back(recipe.info);
  check(recipes_.emplace(name, std::move(recipe)).second, "model.gguf", "{}: two tensors stand for {}", where_, name);
}

std::shared_ptr<const PackedTensor> DerivedWeights::packed(std::string_view name) const {
  const Recipe& recipe = at(name);
  return recipe.packed ? recipe.packed() : nullptr;
}

const DerivedWeights::Recipe& DerivedWeights::at(std::string_view name) const {
  const auto found = recipes_.find(name);
  if (found != recipes_.end()) return found->second;
  std::vector<std::string> names;
  for (const TensorInfo& info : tensors_) names.push_back(info.name);
  const std::string near = nearest(name, names);
  fail("formats.gguf.missing", "{} has no tensor that stands for {}{}", where_, name, near.empty() ? "" : "; the nearest name is " + near);
}

}  // namespace switchyard
