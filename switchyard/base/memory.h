// How much memory there is.
#pragma once

#include <cstdint>

namespace switchyard {

/// Bytes that this process could still take without making the system swap or kill: what the system calls available, and what the
/// control group it runs in leaves. 0 where neither can be read.
int64_t available_memory();

/// Lets go of the code and constants of the program and its libraries that were read so far, mostly by initialisers that never run
/// again (50 MB with libtorch). The system has them still: what is needed comes back without a read. Nothing where there is no Linux.
void give_back_code();

}  // namespace switchyard
