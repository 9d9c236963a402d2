#include "switchyard/contract/context.h"

#include "switchyard/contract/adaptation.h"

namespace switchyard {

Context Context::at(std::string_view site) const {
  Context copy = *this;
  copy.place.site = site;
  return copy;
}

Context Context::at_layer(int64_t layer, std::string_view site) const {
  Context copy = at(site);
  copy.place.layer = layer;
  return copy;
}

Context Context::with(const Facts& other) const {
  return Context{.facts = other, .random = random, .phase = phase, .step = step, .micro = micro, .place = place,
                 .overrides = overrides, .records = records, .routed = routed, .state = state, .overlay = overlay,
                 .adaptation = adaptation, .recompute = recompute};
}

RandomKey Context::key(std::string_view purpose) const {
  return {.purpose = purpose, .step = step, .micro = micro, .layer = place.layer, .pass = place.pass, .site = place.site};
}

std::shared_ptr<const PackedWeight> Context::packed(const Parameter& parameter) const {
  if (!parameter.packed() || (overlay && overlay->contains(parameter.name()))) return nullptr;
  if (adaptation && adaptation->value(parameter)) return nullptr;
  return parameter.packed();
}

const at::Tensor& Context::operator[](const Parameter& parameter) const {
  if (overlay)
    if (auto found = overlay->find(parameter.name()); found != overlay->end()) return found->second;
  if (adaptation)
    if (const at::Tensor* value = adaptation->value(parameter)) return *value;
  return parameter.tensor();
}

const Overrides& Context::none() {
  static const Overrides empty;
  return empty;
}

}  // namespace switchyard
