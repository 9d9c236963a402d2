#include "switchyard/kernels/dispatch.h"

#include <array>
#include <atomic>
#include <cstdlib>

#include "switchyard/base/error.h"

namespace switchyard::kernels {
namespace {

constexpr std::array<const char*, 4> kNames = {"portable", "avx2", "avx512", "avx512bf16"};
std::atomic<int> forced_level{-1};

CpuLevel detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni")) return CpuLevel::avx512bf16;
  if (avx512) return CpuLevel::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) return CpuLevel::avx2;
#endif
  return CpuLevel::portable;
}

CpuLevel from_environment() {
  const CpuLevel have = detected_cpu_level();
  const char* wanted = std::getenv("SWITCHYARD_CPU_LEVEL");
  if (!wanted || !*wanted) return have;
  for (int i = 0; i < 4; ++i) {
    if (std::string(wanted) != kNames[i]) continue;
    check(i <= static_cast<int>(have), "kernels.cpu_level",
          "SWITCHYARD_CPU_LEVEL asks for {}, but this processor reaches {}; unset it or name a lower level", wanted,
          name(have));
    return static_cast<CpuLevel>(i);
  }
  fail("kernels.cpu_level", "SWITCHYARD_CPU_LEVEL is \"{}\"; it may be portable, avx2, avx512 or avx512bf16", wanted);
}

}  // namespace

const char* name(CpuLevel level) { return kNames[static_cast<int>(level)]; }

CpuLevel detected_cpu_level() {
  static const CpuLevel level = detect();
  return level;
}

CpuLevel cpu_level() {
  const int forced = forced_level.load(std::memory_order_relaxed);
  if (forced >= 0) return static_cast<CpuLevel>(forced);
  static const CpuLevel level = from_environment();
  return level;
}

ForcedCpuLevel::ForcedCpuLevel(CpuLevel level) : previous_(forced_level.load()) {
  check(level <= detected_cpu_level(), "kernels.cpu_level", "level {} is forced, but this processor reaches {}",
        name(level), name(detected_cpu_level()));
  forced_level = static_cast<int>(level);
}

ForcedCpuLevel::~ForcedCpuLevel() { forced_level = previous_; }

}  // namespace switchyard::kernels
