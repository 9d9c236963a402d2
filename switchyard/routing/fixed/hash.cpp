#include "switchyard/routing/fixed/hash.h"

#include <ATen/ops/empty.h>

#include "switchyard/base/random.h"

namespace switchyard {

at::Tensor hash_ids(const at::Tensor& ids, uint64_t key, int64_t buckets) {
  const at::Tensor table = ids.cpu().to(at::kLong).contiguous();
  const int64_t rows = table.size(0), width = table.dim() > 1 ? table.size(1) : 1;
  at::Tensor bucket = at::empty({rows}, table.options());
  const int64_t* id = table.const_data_ptr<int64_t>();
  int64_t* out = bucket.mutable_data_ptr<int64_t>();
  for (int64_t r = 0; r < rows; ++r) {
    PhiloxWords state{};
    for (int64_t c = 0; c < width; ++c) {
      const auto value = static_cast<uint64_t>(id[r * width + c]);
      state[0] ^= static_cast<uint32_t>(value);
      state[1] ^= static_cast<uint32_t>(value >> 32);
      state = philox(state, static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32));
    }
    const uint64_t word = (uint64_t{state[1]} << 32) | state[0];
    out[r] = static_cast<int64_t>(word % static_cast<uint64_t>(buckets));
  }
  return bucket.to(ids.device());
}

}  // namespace switchyard
