#include "switchyard/train/run_folder.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>

#include "switchyard/base/error.h"

namespace switchyard {

namespace fs = std::filesystem;

fs::path checkpoint_folder(const fs::path& run, int64_t step) { return run / "checkpoints" / fmt::format("step-{:08}", step); }

std::vector<std::pair<int64_t, fs::path>> checkpoints(const fs::path& run) {
  std::vector<std::pair<int64_t, fs::path>> found;
  std::error_code error;
  for (fs::directory_iterator it(run / "checkpoints", error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    constexpr std::string_view kPrefix = "step-";
    if (!name.starts_with(kPrefix) || !it->is_directory(error)) continue;
    int64_t step = -1;
    const auto [rest, failed] = std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), step);
    if (failed == std::errc() && *rest == '\0' && step >= 0) found.emplace_back(step, it->path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace switchyard
