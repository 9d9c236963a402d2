// Memory of large tensors, kept for the next ones.
#pragma once

namespace switchyard {

/// From here on tensors of 1 MB or more on the CPU lie in a range of addresses of their own, and what they free stays with the
/// process. In the heap a small piece settles where a large tensor was, and the next large one then goes to new memory, which the
/// system clears first. Best fit, the lowest address among equals; neighbours that are free become one. Huge pages are asked for
/// where GLIBC_TUNABLES asks for them in the heap. Not to be called by two threads at once. False, and nothing changes, without
/// Linux, where addresses are limited, and with the address sanitizer, which watches blocks itself.
bool keep_large_blocks();

}  // namespace switchyard
