// Files written so that nothing half-written is ever left under its final name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

/// Whole file as bytes; throws file.missing, file.read, file.too_large (over `limit` bytes). A pipe that has a name in a folder is
/// refused: whoever wrote the folder could make its reader wait for ever. One without (/dev/stdin, a shell's <(...)) is read.
std::string read_file(const std::filesystem::path& path, uint64_t limit = uint64_t{1} << 32);
/// The same of what a user gives as input, which may be any pipe.
std::string read_file_or_pipe(const std::filesystem::path& path, uint64_t limit = uint64_t{1} << 32);

/// A file written under a temporary name beside its final one, made durable (fsync) and renamed by
/// commit(). Destroyed without commit, it leaves nothing. Throws file.write with the system's reason
/// (disk full, permission).
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path final_path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();
 private:
  std::filesystem::path final_, temporary_;
  int descriptor_ = -1;
};

void write_file_atomically(const std::filesystem::path& path, std::string_view text);

/// A folder filled under a temporary name and renamed whole: `fill(temporary)`, then rename.
/// An existing folder of the final name is replaced; if filling throws, nothing changes.
void write_folder_atomically(const std::filesystem::path& path,
                             const std::function<void(const std::filesystem::path&)>& fill);

/// A private mapping of a whole file, to be read. Size is checked at open.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);  ///< throws file.missing, file.map
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  const uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }
 private:
  std::filesystem::path path_;
  uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
};

/// An advisory lock on a folder (run.lock inside it), held until destroyed;
/// throws file.locked naming the process that holds it. The kernel frees it when a process dies.
class FolderLock {
 public:
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
 private:
  int descriptor_ = -1;
};

}  // namespace switchyard
