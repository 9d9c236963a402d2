#include "switchyard/models/families/family.h"

#include <algorithm>

namespace switchyard {

std::vector<std::shared_ptr<Family>> families() {
  std::vector<std::shared_ptr<Family>> list;
  for (const Method* method : Registry::instance().of(Family::kInterface))
    list.push_back(Registry::instance().make<Family>(method->card.slug, Node::map()));
  return list;
}

std::shared_ptr<Family> family_of(const std::string& model_type) {
  for (const auto& family : families())
    for (const std::string& known : family->model_types())
      if (known == model_type) return family;
  return nullptr;
}

std::vector<std::string> known_model_types() {
  std::vector<std::string> names;
  for (const auto& family : families())
    for (const std::string& name : family->model_types()) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace switchyard
