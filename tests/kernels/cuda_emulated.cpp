#include "tests/kernels/cuda_emulator.h"

#include "switchyard/kernels/cuda/activation.cu"
#include "switchyard/kernels/cuda/admit.cu"
#include "switchyard/kernels/cuda/few_rows.cu"
#include "switchyard/kernels/cuda/optimiser.cu"
#include "switchyard/kernels/cuda/product.cu"
#include "switchyard/kernels/cuda/rows.cu"
#include "switchyard/kernels/cuda/sort.cu"
#include "switchyard/kernels/cuda/topk.cu"

namespace switchyard::testing {

Order& emulated_order() {
  static Order order = Order::ascending;
  return order;
}

int& emulated_capability() {
  static int capability = 80;
  return capability;
}

const kernels::cuda::Launchers& emulated_launchers() {
  static const kernels::cuda::Launchers table = [] {
    using namespace kernels::cuda;
    Launchers t{};
    t.capability = [](int) { return emulated_capability(); };
    for (void (*fill)(Launchers&) : {emulate_activation, emulate_admit, emulate_few_rows, emulate_optimiser, emulate_product, emulate_rows,
                                     emulate_sort, emulate_top_k})
      fill(t);
    return t;
  }();
  return table;
}

}  // namespace switchyard::testing
