// Who gets in when places are limited. Internal to kernels/.
#pragma once

#include <cstdint>

namespace switchyard::kernels::cpu {

struct Claims {
  const int64_t* bin;      ///< [pairs]: in [0, bins), or -1
  const float* priority;   ///< [pairs], or null: by position
  const bool* exempt;      ///< [pairs], or null: nobody
  const int64_t* capacity; ///< [bins]
  int64_t pairs, bins;
};

/// kept: [pairs]. One pass over the pairs where position decides; else those of a bin that holds fewer than ask are cut where it is full.
/// Returns the first pair whose bin does not exist or, where places are given by it, whose priority is not a number; or -1.
int64_t admit(const Claims& claims, bool* kept);

}  // namespace switchyard::kernels::cpu
