// Which instruction level the CPU kernels run at, and which path each operation takes.
// The level is detected once; SWITCHYARD_CPU_LEVEL={portable,avx2,avx512,avx512bf16} lowers it,
// so that every path can be tested on one machine.
#pragma once

#include <string>
#include <vector>

namespace switchyard::kernels {

enum class CpuLevel { portable, avx2, avx512, avx512bf16 };

const char* name(CpuLevel level);

/// What this processor can run.
CpuLevel detected_cpu_level();

/// The level in force: detected, lowered by the environment or by a ForcedCpuLevel.
/// Throws kernels.cpu_level when the environment names an unknown level or one the processor lacks.
CpuLevel cpu_level();

/// Lowers the level while it lives (tests, benches). Not for use from several threads at once.
class ForcedCpuLevel {
 public:
  explicit ForcedCpuLevel(CpuLevel level);
  ~ForcedCpuLevel();
  ForcedCpuLevel(const ForcedCpuLevel&) = delete;
  ForcedCpuLevel& operator=(const ForcedCpuLevel&) = delete;

 private:
  int previous_;
};

/// One row of `switchyard info`: {"grouped_linear", "bf16", "avx512bf16"}.
struct OperationPath {
  std::string operation, dtype, path;
};
std::vector<OperationPath> operation_paths();

}  // namespace switchyard::kernels
