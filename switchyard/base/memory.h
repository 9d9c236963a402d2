// How much memory there is.
#pragma once

#include <cstdint>

namespace switchyard {

/// Bytes that this process could still take without making the system swap or kill: what the system calls available, and what the
/// control group it runs in leaves. 0 where neither can be read.
int64_t available_memory();

}  // namespace switchyard
