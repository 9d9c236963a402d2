#include "switchyard/base/autocast.h"

#include <ATen/autocast_mode.h>

namespace switchyard {

Autocast Autocast::now(c10::DeviceType device) {
  return {.enabled = at::autocast::is_autocast_enabled(device),
          .type = at::autocast::get_autocast_dtype(device),
          .cached = at::autocast::is_autocast_cache_enabled()};
}

void Autocast::set() const {
  at::autocast::set_autocast_enabled(at::kCPU, enabled);
  at::autocast::set_autocast_dtype(at::kCPU, type);
  at::autocast::set_autocast_cache_enabled(cached);
}

AutocastScope::AutocastScope(const Autocast& wanted) : before_(Autocast::now()) { wanted.set(); }

AutocastScope::~AutocastScope() { before_.set(); }

}  // namespace switchyard
