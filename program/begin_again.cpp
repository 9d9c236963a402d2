// Settings that libgomp and glibc read once, before main; so the program begins again with them. What is set already is obeyed.
// - Threads that wait for each other give their cores away soon: libgomp spins for milliseconds, so that one busy neighbour on
//   one core slows a computation tenfold.
// - Where gradients are made the heap lies in huge pages, for which address translation costs a fraction. Not so for a prompt: virtual machines
//   have rarely kept the memory of a huge page that is free, and its first use then takes milliseconds.
// It begins again before libtorch's initialisers run, which take a quarter of a second; neither they nor those of the C library
// have run here, so nothing but system calls is used.
#include <alloca.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
namespace {

constexpr char kSpin[] = "GOMP_SPINCOUNT=0", kTunables[] = "GLIBC_TUNABLES=", kHuge[] = "glibc.malloc.hugetlb=1";

bool is(const char* variable, const char* name) { return std::strncmp(variable, name, std::strlen(name)) == 0; }

bool makes_gradients(const char* verb) {
  return verb != nullptr && (std::strcmp(verb, "train") == 0 || std::strcmp(verb, "resume") == 0 || std::strcmp(verb, "bench") == 0);
}

void begin_again(int arguments, char** argv, char** environment) {
  size_t count = 0, tunables = 0;
  bool spin = false, huge = arguments < 2 || !makes_gradients(argv[1]);  // set already, or not wanted
  for (; environment[count] != nullptr; ++count) {
    const char* variable = environment[count];
    spin = spin || is(variable, "OMP_WAIT_POLICY=") || is(variable, "GOMP_SPINCOUNT=");
    if (!is(variable, kTunables)) continue;
    tunables = count + 1;
    huge = huge || std::strstr(variable, "glibc.malloc.hugetlb") != nullptr;
  }
  if (spin && huge) return;
  auto** changed = static_cast<char**>(alloca((count + 3) * sizeof(char*)));
  std::memcpy(changed, environment, count * sizeof(char*));
  if (!spin) changed[count++] = const_cast<char*>(kSpin);
  if (!huge) {
    const char* before = tunables > 0 ? environment[tunables - 1] : kTunables;
    const size_t length = std::strlen(before);
    auto* setting = static_cast<char*>(alloca(length + 1 + sizeof(kHuge)));
    std::memcpy(setting, before, length);
    if (length > sizeof(kTunables) - 1) setting[length] = ':';
    std::memcpy(setting + length + (length > sizeof(kTunables) - 1 ? 1 : 0), kHuge, sizeof(kHuge));
    changed[tunables > 0 ? tunables - 1 : count++] = setting;
  }
  changed[count] = nullptr;
  ::execve("/proc/self/exe", argv, changed);  // returns where there is no /proc: then we go on as we are
}

[[gnu::section(".preinit_array"), gnu::used]] void (*const kBeginAgain)(int, char**, char**) = begin_again;

}  // namespace
#endif
