#include "switchyard/kernels/cpu/blocks.h"

#include "switchyard/kernels/dispatch.h"

namespace switchyard::kernels::cpu {

const BlockPath* block_path(const BlockCodec& codec) {
  if (cpu_level() < CpuLevel::avx2) return nullptr;
  for (const NamedBlockPath& known : cpu_level() == CpuLevel::avx512bf16 ? avx512_block_paths() : avx2_block_paths())
    if (known.format == codec.name) return &known.path;
  return nullptr;
}

}  // namespace switchyard::kernels::cpu
