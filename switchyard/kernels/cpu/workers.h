// Threads that help with tasks. Who calls waits for nobody that has not begun: a thread that wakes late, or whose core is busy, finds
// nothing left to do, where libgomp's would hold up all others at the end of every operation. Internal to kernels/.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace switchyard::kernels::cpu {

/// Calls body(data) in this thread and in up to threads - 1 others at once, each at most once, and returns when all that began have ended.
/// The body takes pieces of work until none is left, so it does not matter how many come. Throws what a body threw. While other threads
/// call it, or from within a body, it is called in this thread alone. Within a body libtorch has one thread.
void call_together(int64_t threads, void (*body)(void*), void* data);

template <typename Body>
void call_together(int64_t threads, Body&& body) {
  using Plain = std::remove_reference_t<Body>;
  call_together(threads, [](void* data) { (*static_cast<Plain*>(data))(); }, const_cast<void*>(static_cast<const void*>(std::addressof(body))));
}

}  // namespace switchyard::kernels::cpu
