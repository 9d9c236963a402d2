// Temporary folders, and Python for tests that compare with the ecosystem's own libraries.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

namespace switchyard::testing {

/// A folder that is removed when the test ends.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "switchyard-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder could be made");
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::filesystem::path& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// A file that is part of the tests: golden("mixtral/config.json").
inline std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(SWITCHYARD_SOURCE_DIR) / "tests" / "golden" / name;
}

inline void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

struct Finished {
  int status = -1;     ///< exit status
  std::string output;  ///< standard output and error
};

/// Runs a shell command line.
inline Finished run_command(const std::string& command) {
  Finished finished;
  std::FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  if (!pipe) return finished;
  char buffer[4096];
  for (size_t got; (got = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) finished.output.append(buffer, got);
  const int status = ::pclose(pipe);
  finished.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return finished;
}

/// The project's Python when it has these modules ("torch,safetensors"), else empty.
inline std::string python_with(const std::string& modules) {
  static std::map<std::string, std::string> known;
  const auto found = known.find(modules);
  if (found != known.end()) return found->second;
  const char* chosen = std::getenv("SWITCHYARD_PYTHON");
  const std::string python = chosen ? chosen : std::string(SWITCHYARD_SOURCE_DIR) + "/.venv/bin/python";
  const std::string probe = "import importlib.util as u; assert all(u.find_spec(m) for m in \"" + modules + "\".split(\",\"))";
  const bool works = run_command("'" + python + "' -c '" + probe + "'").status == 0;
  return known[modules] = works ? python : "";
}

/// Runs a Python script given as text, with arguments (paths without quotes).
inline Finished run_python(const std::string& python, const std::string& script, const std::string& arguments) {
  TemporaryFolder folder;
  write_text(folder / "script.py", script);
  return run_command("'" + python + "' '" + (folder / "script.py").string() + "' " + arguments);
}

}  // namespace switchyard::testing

/// Skips a test, by name and with the reason, when the Python modules are absent.
#define SWITCHYARD_NEED_PYTHON(variable, modules)                                       \
  const std::string variable = ::switchyard::testing::python_with(modules);             \
  if (variable.empty()) GTEST_SKIP() << "needs Python with the modules " << (modules)
