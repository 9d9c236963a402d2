#include "switchyard/base/memory.h"

#if defined(__linux__)
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace switchyard {
namespace {

constexpr int64_t kUnknown = -1;

/// The number a file holds; kUnknown for none, and for "max".
int64_t number_in(const char* path) {
  int64_t value = kUnknown;
  return std::ifstream(path) >> value ? value : kUnknown;
}

int64_t system_available() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  for (int64_t kilobytes = 0; file >> name >> kilobytes; std::getline(file, unit))
    if (name == "MemAvailable:") return kilobytes * 1024;
  return kUnknown;
}

int64_t left_of(const char* limit_path, const char* usage_path) {
  const int64_t limit = number_in(limit_path), usage = number_in(usage_path);
  return limit < 0 || usage < 0 ? std::numeric_limits<int64_t>::max() : std::max<int64_t>(0, limit - usage);
}

#if defined(__linux__)
/// Segments that nothing writes to are as the file has them; those that relocations change are marked writable there, though they
/// may be read-only by now.
int give_back_segments(dl_phdr_info* object, size_t, void*) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  for (size_t i = 0; i < object->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = object->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
    const uintptr_t begin = (object->dlpi_addr + segment.p_vaddr) / page * page;
    const uintptr_t end = (object->dlpi_addr + segment.p_vaddr + segment.p_memsz + page - 1) / page * page;
    (void)::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
  return 0;
}
#endif

}  // namespace

void give_back_code() {
#if defined(__linux__)
  ::dl_iterate_phdr(give_back_segments, nullptr);
#endif
}

int64_t available_memory() {
  const int64_t available = system_available();
  if (available < 0) return 0;
  return std::min({available, left_of("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
                   left_of("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes")});
}

}  // namespace switchyard
