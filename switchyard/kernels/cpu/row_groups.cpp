#include "switchyard/kernels/cpu/row_groups.h"

#include "switchyard/kernels/dispatch.h"

namespace switchyard::kernels::cpu {

const GroupPath* group_path(std::string_view format) {
  if (cpu_level() < CpuLevel::avx2) return nullptr;
  for (const GroupPath& path : cpu_level() == CpuLevel::avx512bf16 ? avx512_group_paths() : avx2_group_paths())
    if (path.format == format) return &path;
  return nullptr;
}

}  // namespace switchyard::kernels::cpu
