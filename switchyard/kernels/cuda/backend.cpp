#include "switchyard/kernels/cuda/backend.h"

#include <algorithm>

#include "switchyard/base/error.h"

#if defined(SWITCHYARD_CUDA)
#include <c10/cuda/CUDAStream.h>
#endif

namespace switchyard::kernels::cuda {
namespace {

const Launchers* forced = nullptr;

}  // namespace

#if defined(SWITCHYARD_CUDA)
const Launchers& device_launchers();  // launchers.cu

bool built() { return true; }
static const Launchers* device_table() { return &device_launchers(); }
static Stream current_stream(c10::Device device) { return c10::cuda::getCurrentCUDAStream(device.index()).stream(); }
#else
bool built() { return false; }
static const Launchers* device_table() { return nullptr; }
static Stream current_stream(c10::Device) { return nullptr; }
#endif

const Launchers* launchers_for(const at::Tensor& x) {
  if (x.is_cuda()) return device_table();
  return x.device().is_cpu() ? forced : nullptr;
}

bool takes(const at::Tensor& x, std::initializer_list<at::ScalarType> types) {
  return launchers_for(x) && std::find(types.begin(), types.end(), x.scalar_type()) != types.end();
}

Number number_of(at::ScalarType type) {
  if (type == at::kFloat) return Number::float32;
  if (type == at::kDouble) return Number::float64;
  TORCH_INTERNAL_ASSERT(type == at::kBFloat16);
  return Number::bfloat16;
}

Call::Call(const at::Tensor& x)
    : guard_(x.device()), launchers_(launchers_for(x)), stream_(x.is_cuda() ? current_stream(x.device()) : nullptr) {}

ForcedLaunchers::ForcedLaunchers(const Launchers& launchers) : previous_(forced) { forced = &launchers; }
ForcedLaunchers::~ForcedLaunchers() { forced = previous_; }

void refuse_launch(const char* kernel, const char* reason) {
  fail("kernels.cuda_launch", "the CUDA kernel {} could not be queued: {}", kernel, reason);
}

}  // namespace switchyard::kernels::cuda
