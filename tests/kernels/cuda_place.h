// Where tests of the CUDA kernels run: on the host, in every order of threads, or on the first CUDA device, where there is one.
#pragma once

#include <gtest/gtest.h>

#include <ATen/core/Tensor.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include <optional>

#include "switchyard/kernels/cuda/backend.h"
#include "tests/kernels/cuda_emulated.h"

namespace switchyard::testing {

enum class Place { host, device };
inline std::string name_of(const ::testing::TestParamInfo<Place>& info) { return info.param == Place::host ? "Host" : "Device"; }

class CudaTest : public ::testing::TestWithParam<Place> {
 protected:
  void SetUp() override {
    if (GetParam() == Place::host) {
      forced_.emplace(emulated_launchers());
    } else if (!kernels::cuda::built()) {
      GTEST_SKIP() << "this build has no CUDA kernels linked in (nvcc and a CUDA build of libtorch are needed)";
    } else if (!at::detail::getCUDAHooks().hasCUDA()) {
      GTEST_SKIP() << "no CUDA device is here";
    }
  }

  /// t where the kernels read it.
  at::Tensor there(const at::Tensor& t) const { return t.defined() && GetParam() == Place::device ? t.to(at::kCUDA) : t; }

  /// Calls f once for each order in which the host runs threads.
  template <typename F>
  void in_every_order(const F& f) {
    f();
    if (GetParam() == Place::device) return;
    for (const Order order : {Order::descending, Order::shuffled}) {
      emulated_order() = order;
      f();
    }
    emulated_order() = Order::ascending;
  }

 private:
  std::optional<kernels::cuda::ForcedLaunchers> forced_;
};

#define SWITCHYARD_CUDA_SUITE(suite) \
  INSTANTIATE_TEST_SUITE_P(Kernels, suite, ::testing::Values(switchyard::testing::Place::host, switchyard::testing::Place::device), switchyard::testing::name_of)

}  // namespace switchyard::testing
