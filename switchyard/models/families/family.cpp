#include "switchyard/models/families/family.h"

namespace switchyard {

std::vector<std::shared_ptr<Family>> families() {
  std::vector<std::shared_ptr<Family>> list;
  for (const Method* method : Registry::instance().of(Family::kInterface))
    list.push_back(Registry::instance().make<Family>(method->card.slug, Node::map()));
  return list;
}

std::shared_ptr<Family> family_of(const std::string& model_type) {
  for (const auto& family : families())
    if (family->model_type() == model_type) return family;
  return nullptr;
}

}  // namespace switchyard
