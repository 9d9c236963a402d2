#include "switchyard/kernels/cpu/product.h"
#include "switchyard/kernels/cuda/backend.h"
#include "switchyard/kernels/dispatch.h"

namespace switchyard::kernels {

std::vector<OperationPath> operation_paths() {
  std::vector<OperationPath> paths;
  // Products: the micro-kernel, or vectors of the level in force; float64 is computed in the plain form.
  for (const char* operation : {"grouped_linear", "grouped_ffn"}) {
    paths.push_back({operation, "float32", cpu::product_path(false)});
    paths.push_back({operation, "bfloat16", cpu::product_path(true)});
    paths.push_back({operation, "float64", "reference"});
  }
  for (const char* type : {"float32", "bfloat16"})
    paths.push_back({"grouped_linear_packed", type, std::string("unpack, ") + cpu::product_path(type[0] == 'b')});
  for (const char* operation : {"top_k", "sort_by_slot", "gather_rows", "combine_rows"}) paths.push_back({operation, "float32", "one pass"});
  paths.push_back({"adamw_step", "float32", name(cpu_level())});
  for (const char* operation : {"top_k_grouped", "admit"}) paths.push_back({operation, "float32", "reference"});
  if (cuda::built()) {
    for (const char* operation : {"grouped_linear", "grouped_ffn"}) {
      paths.push_back({operation, "float32", "CUDA: fused multiply-adds"});
      paths.push_back({operation, "bfloat16", "CUDA: tensor cores, from sm_90 on libtorch's grouped product"});
    }
    for (const char* operation : {"top_k", "top_k_grouped", "sort_by_slot", "admit", "gather_rows", "combine_rows", "adamw_step"})
      paths.push_back({operation, "float32", "CUDA: one pass"});
  }
  return paths;
}

}  // namespace switchyard::kernels
