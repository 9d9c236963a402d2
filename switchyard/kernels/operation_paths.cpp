#include "switchyard/kernels/cpu/blocks.h"
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
  // Packed weights: bf16 rows as int8 where there is a way through the blocks; many float32 rows meet what the blocks stand for.
  const bool blocks = cpu::block_path(*block_codec_named("Q4_K")) != nullptr;
  const std::string ints = cpu_level() == CpuLevel::avx512bf16 ? "int8 products, avx512vnni" : "int8 products, avx2";
  const std::string floats = std::string("unpack, ") + cpu::product_path(false);
  paths.push_back({"grouped_linear_packed", "float32", blocks ? "few rows: " + ints + "; many: " + floats : floats});
  paths.push_back({"grouped_linear_packed", "bfloat16", blocks ? ints : std::string("unpack, ") + cpu::product_path(true)});
  for (const char* operation : {"top_k", "top_k_grouped", "sort_by_slot", "admit", "gather_rows", "combine_rows"}) paths.push_back({operation, "float32", "one pass"});
  for (const char* dtype : {"float32", "bfloat16"}) paths.push_back({"attend_held", dtype, std::string("one pass, ") + name(cpu_level())});
  const bool ours = cpu::product_is_fma(false);
  for (const char* dtype : {"float32", "bfloat16"}) paths.push_back({"attend_prompt", dtype, ours ? name(cpu_level()) : "libtorch"});
  paths.push_back({"adamw_step", "float32", name(cpu_level())});
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
