// The table of launchers, filled by the sources beside this one.
#include "switchyard/kernels/cuda/device.h"

namespace switchyard::kernels::cuda {

void fill_activation(Launchers&);
void fill_admit(Launchers&);
void fill_few_rows(Launchers&);
void fill_optimiser(Launchers&);
void fill_product(Launchers&);
void fill_rows(Launchers&);
void fill_sort(Launchers&);
void fill_top_k(Launchers&);

namespace {

int capability(int device) {
  int major = 0, minor = 0;
  if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess)
    return 0;
  return major * 10 + minor;
}

}  // namespace

const Launchers& device_launchers() {
  static const Launchers table = [] {
    Launchers t{};
    t.capability = capability;
    for (void (*fill)(Launchers&) :
         {fill_activation, fill_admit, fill_few_rows, fill_optimiser, fill_product, fill_rows, fill_sort, fill_top_k})
      fill(t);
    return t;
  }();
  return table;
}

}  // namespace switchyard::kernels::cuda
