// Which launchers run for a tensor, and where: the seam between the fronts and the CUDA kernels. A build without them has none,
// and plain ATen computes on its devices.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>

#include "switchyard/kernels/cuda/launchers.h"

namespace switchyard::kernels::cuda {

/// Whether the kernels are in this build: nvcc was found, and libtorch is a CUDA build.
bool built();

/// The launchers for tensors on x's device, or null.
const Launchers* launchers_for(const at::Tensor& x);

/// The kernels take these numbers there.
bool takes(const at::Tensor& x, std::initializer_list<at::ScalarType> types);
Number number_of(at::ScalarType type);

/// One call of launchers: x's device is the current one while it lives, and kernels run in the order of its current stream.
/// x's device must have launchers.
class Call {
 public:
  explicit Call(const at::Tensor& x);
  const Launchers* operator->() const { return launchers_; }
  Stream stream() const { return stream_; }

 private:
  c10::DeviceGuard guard_;
  const Launchers* launchers_;
  Stream stream_;
};

/// Launchers for tensors on the CPU while it lives (tests: the kernels compiled for the host). Not for several threads at once.
class ForcedLaunchers {
 public:
  explicit ForcedLaunchers(const Launchers& launchers);
  ~ForcedLaunchers();
  ForcedLaunchers(const ForcedLaunchers&) = delete;
  ForcedLaunchers& operator=(const ForcedLaunchers&) = delete;

 private:
  const Launchers* previous_;
};

template <typename T> T* data(const at::Tensor& t) { return t.defined() ? t.mutable_data_ptr<T>() : nullptr; }
template <typename T> const T* values(const at::Tensor& t) { return t.defined() ? t.const_data_ptr<T>() : nullptr; }
inline void* raw(const at::Tensor& t) { return t.defined() ? t.mutable_data_ptr() : nullptr; }
inline const void* bytes(const at::Tensor& t) { return t.defined() ? t.const_data_ptr() : nullptr; }

}  // namespace switchyard::kernels::cuda
