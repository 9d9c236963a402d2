#include "switchyard/kernels/dispatch.h"

namespace switchyard::kernels {

// Every operation runs its plain ATen form; one that gains a fast path says so here, by type.
std::vector<OperationPath> operation_paths() {
  std::vector<OperationPath> paths;
  for (const char* operation : {"grouped_linear", "grouped_ffn"})
    for (const char* dtype : {"float32", "float64", "bfloat16"}) paths.push_back({operation, dtype, "reference"});
  for (const char* operation : {"top_k", "sort_by_slot", "gather_rows", "combine_rows", "adamw_step"})
    paths.push_back({operation, "float32", "reference"});
  return paths;
}

}  // namespace switchyard::kernels
