#include "switchyard/contract/state.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace switchyard {

at::Tensor ContiguousState::append(std::string_view name, int64_t sequence, const at::Tensor& rows) {
  Rows& held = rows_[{sequence, std::string(name)}];
  const int64_t needed = held.used + rows.size(0);
  if (!held.buffer.defined() || held.buffer.size(0) < needed) {
    std::vector<int64_t> shape = rows.sizes().vec();
    shape[0] = std::max<int64_t>({needed, held.used * 2, 64});
    at::Tensor grown = at::empty(shape, rows.options());
    if (held.used > 0) grown.narrow(0, 0, held.used).copy_(held.buffer.narrow(0, 0, held.used));
    held.buffer = std::move(grown);
  }
  held.buffer.narrow(0, held.used, rows.size(0)).copy_(rows);
  held.used = needed;
  return held.buffer.narrow(0, 0, needed);
}

int64_t ContiguousState::length(std::string_view name, int64_t sequence) const {
  const auto found = rows_.find({sequence, std::string(name)});
  return found == rows_.end() ? 0 : found->second.used;
}

at::Tensor ContiguousState::get(std::string_view name, int64_t sequence) const {
  const auto found = fixed_.find({sequence, std::string(name)});
  return found == fixed_.end() ? at::Tensor() : found->second;
}

void ContiguousState::put(std::string_view name, int64_t sequence, at::Tensor value) {
  fixed_[{sequence, std::string(name)}] = std::move(value);
}

void ContiguousState::forget(int64_t sequence) {
  std::erase_if(rows_, [&](const auto& entry) { return entry.first.first == sequence; });
  std::erase_if(fixed_, [&](const auto& entry) { return entry.first.first == sequence; });
}

}  // namespace switchyard
