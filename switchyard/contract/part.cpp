#include "switchyard/contract/part.h"

#include <algorithm>

namespace switchyard {

Reach larger(const Reach& a, const Reach& b) {
  Reach reach = a.unit >= b.unit ? a : b;
  reach.future = a.future || b.future;
  reach.because = !a.because.empty() && (a.future || b.because.empty() || !b.future) ? a.because : b.because;
  return reach;
}

bool Site::replaced() const {
  return std::any_of(arounds_.begin(), arounds_.end(), [](const AroundPtr& around) { return around->replaces(); });
}

void Site::declare(const Schema& schema) const {
  size_t beside = 0;
  for (const AroundPtr& around : arounds_) {
    if (around->replaces()) around->declare(schema, where_);
    else {
      around->declare(schema.in(beside == 0 ? "around" : "around." + std::to_string(beside)), where_);
      ++beside;
    }
  }
}

Reach Site::reach(const Overrides& overrides, Phase phase) const {
  Reach reach;
  for (const AroundPtr& around : arounds_) reach = larger(reach, around->reach(overrides, phase));
  return reach;
}

std::vector<StateSpec> Site::states() const {
  std::vector<StateSpec> list;
  for (const AroundPtr& around : arounds_)
    for (StateSpec& state : around->states()) list.push_back(std::move(state));
  return list;
}

void Site::each_child(const std::function<void(Part&)>& visit) const {
  for (const AroundPtr& around : arounds_) around->each_child(visit);
}

at::Tensor Site::through(size_t depth, const at::Tensor& x, const Context& context, const Base& base) const {
  if (depth == 0) return base(x, context);
  return arounds_[depth - 1]->call(
      x, [&](const at::Tensor& inner, const Context& at) { return through(depth - 1, inner, at, base); }, context);
}

}  // namespace switchyard
