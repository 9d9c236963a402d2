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

std::shared_ptr<Family> family_of(const Node& config) {
  const Node *type = config.find("model_type"), *listed = config.find("architectures");
  const std::shared_ptr<Family> by_type = type && type->is_scalar() ? family_of(type->scalar()) : nullptr;
  if (type && !by_type) return nullptr;
  if (listed == nullptr || !listed->is_list() || listed->items().empty() || !listed->items()[0].is_scalar()) return by_type;
  const auto knows = [&](const Family& family) {
    const std::vector<std::string> names = family.architectures();
    return std::find(names.begin(), names.end(), listed->items()[0].scalar()) != names.end();
  };
  if (by_type && knows(*by_type)) return by_type;
  for (const auto& family : families())
    if (knows(*family)) return family;
  return by_type;
}

std::vector<std::string> known_model_types() {
  std::vector<std::string> names;
  for (const auto& family : families())
    for (const std::string& name : family->model_types()) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace switchyard
