// A fuzz target: bytes that a parser must take or refuse with an Error, whatever they are. One small file each; the same file
// is a libFuzzer program (CMake preset `fuzz`) and a part of the tests, where a short deterministic run goes over it
// (short_fuzz_test.cpp).
#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "switchyard/base/error.h"

namespace switchyard::fuzz {

struct Target {
  std::string name;
  std::vector<std::string> seeds;  ///< files and folders below tests/golden, by their beginnings
  void (*run)(std::string_view bytes);
};

inline std::vector<Target>& targets() {
  static std::vector<Target> all;
  return all;
}

struct Registration {
  Registration(std::string name, std::vector<std::string> seeds, void (*run)(std::string_view)) {
    targets().push_back({std::move(name), std::move(seeds), run});
  }
};

/// Runs one input; an Error is a good answer, everything else that is thrown is not.
inline void run_one(void (*run)(std::string_view), std::string_view bytes) {
  try {
    run(bytes);
  } catch (const Error&) {
  }
}

/// Files with these names and bytes in a folder of this process, which is named for the first; the folder.
inline std::filesystem::path as_files(std::initializer_list<std::pair<std::string, std::string_view>> files) {
  static const std::filesystem::path root = [] {
    const std::filesystem::path memory = "/dev/shm";
    std::string folder = ((std::filesystem::is_directory(memory) ? memory : std::filesystem::temp_directory_path()) / "switchyard-fuzz-XXXXXX").string();
    if (::mkdtemp(folder.data()) == nullptr) throw std::runtime_error("no temporary folder could be made");
    return std::filesystem::path(folder);
  }();
  static const struct Cleaner {
    ~Cleaner() {
      std::error_code ignored;
      std::filesystem::remove_all(root, ignored);
    }
  } cleaner;
  const std::filesystem::path folder = root / ("for-" + files.begin()->first);
  std::filesystem::create_directories(folder);
  for (const auto& [name, bytes] : files)
    std::ofstream(folder / name, std::ios::binary | std::ios::trunc).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return folder;
}
inline std::filesystem::path as_file(const std::string& name, std::string_view bytes) { return as_files({{name, bytes}}); }

}  // namespace switchyard::fuzz

#ifdef SWITCHYARD_LIBFUZZER
#define SWITCHYARD_FUZZ_TARGET(name, ...)                                                              \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {                            \
    switchyard::fuzz::run_one(name, {reinterpret_cast<const char*>(data), size});                      \
    return 0;                                                                                          \
  }
#else
#define SWITCHYARD_FUZZ_TARGET(name, ...) \
  static const switchyard::fuzz::Registration name##_registration(#name, __VA_ARGS__, name);
#endif
