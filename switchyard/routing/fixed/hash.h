// Hashing of ids to buckets for routers without a gate: a pure function of key and id, equal on every
// machine, so that a table needs no place in a checkpoint.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace switchyard {

/// ids: [n] or [n, m] int64 (a row is one key). Returns [n] int64 in [0, buckets), uniform over keys.
at::Tensor hash_ids(const at::Tensor& ids, uint64_t key, int64_t buckets);

}  // namespace switchyard
