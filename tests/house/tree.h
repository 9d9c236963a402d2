// The project's own files, for tests of its structure.
#pragma once

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "switchyard/base/files.h"

namespace switchyard::testing {

inline std::filesystem::path root() { return SWITCHYARD_SOURCE_DIR; }

/// Files below `folder` with one of these endings (all when empty), sorted; builds, runs and caches left out.
inline std::vector<std::filesystem::path> files_below(const std::filesystem::path& folder,
                                                      const std::set<std::string>& endings = {}) {
  namespace fs = std::filesystem;
  std::vector<fs::path> found;
  if (!fs::exists(folder)) return found;
  for (auto it = fs::recursive_directory_iterator(folder); it != fs::recursive_directory_iterator(); ++it) {
    const std::string name = it->path().filename().string();
    if (it->is_directory()) {
      const bool ours = name == ".ci" || !(name.starts_with(".") || name.starts_with("build") || name == "runs" ||
                                           name == "__pycache__");
      if (!ours) it.disable_recursion_pending();
    } else if (it->is_regular_file() && (endings.empty() || endings.contains(it->path().extension().string()))) {
      found.push_back(it->path());
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

/// "switchyard/base/node.cpp"
inline std::string name_of(const std::filesystem::path& path) {
  return std::filesystem::relative(path, root()).string();
}

}  // namespace switchyard::testing
