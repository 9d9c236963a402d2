// Reading rows of weights as several streams: a core gets a third to a half more from memory than by one. Internal to kernels/.
#pragma once

#include <cstdint>

namespace switchyard::kernels::cpu {

/// How far apart `streams` rows of `bytes` each are read at once, in rows, so that each is the beginning of a stream of so many; what is left of `rows`
/// then is less. Never a multiple of 4 KB where that can be helped: such rows displace one another in the first-level cache. 0: too few rows.
constexpr int64_t rows_apart(int64_t rows, int64_t streams, int64_t bytes) {
  const int64_t apart = rows / streams;
  return apart > 1 && apart * bytes % 4096 == 0 && bytes % 4096 != 0 ? apart - 1 : apart;
}

}  // namespace switchyard::kernels::cpu
