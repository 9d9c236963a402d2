#include "switchyard/base/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <system_error>
#include <utility>

#include "switchyard/base/error.h"

namespace switchyard {

namespace fs = std::filesystem;

namespace {

std::string reason(int error) { return std::generic_category().message(error); }

/// Closes a descriptor when it goes.
struct Descriptor {
  int value = -1;
  explicit Descriptor(int opened) : value(opened) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

[[noreturn]] void fail_write(const fs::path& path, int error) {
  const char* way_out = error == ENOSPC || error == EDQUOT ? "; free some space and run again" : "";
  fail("file.write", "{} was not written: {}{}", path.string(), reason(error), way_out);
}

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

/// Makes a file's bytes or a folder's entries durable.
void sync_path(const fs::path& path, const fs::path& blamed) {
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  // Some file systems cannot sync a folder and say so; nothing is lost that they could have kept.
  if (file.value < 0 || (::fsync(file.value) != 0 && errno != EINVAL)) fail_write(blamed, errno);
}

std::string temporary_prefix(const fs::path& final_path) {
  char host[256] = "host";
  ::gethostname(host, sizeof host - 1);
  return fmt::format(".{}.tmp-{}-", final_path.filename().string(), host);
}

/// Temporaries of the same final name whose writer was killed on this machine.
void remove_leftovers(const fs::path& final_path) {
  std::string prefix = temporary_prefix(final_path);
  std::error_code error;
  for (fs::directory_iterator it(folder_of(final_path), error), end; !error && it != end; it.increment(error)) {
    std::string name = it->path().filename().string();
    if (name.compare(0, prefix.size(), prefix) != 0) continue;
    int writer = 0;
    auto [rest, failed] = std::from_chars(name.data() + prefix.size(), name.data() + name.size(), writer);
    if (failed != std::errc() || writer <= 0 || *rest != '-') continue;
    std::error_code ignored;
    if (::kill(writer, 0) != 0 && errno == ESRCH) fs::remove_all(it->path(), ignored);
  }
}

fs::path temporary_name(const fs::path& final_path) {
  static std::atomic<uint64_t> counter{0};
  return folder_of(final_path) /
         fmt::format("{}{}-{}", temporary_prefix(final_path), ::getpid(), counter.fetch_add(1));
}

/// "runs/a/" names the folder "runs/a".
fs::path without_slash(const fs::path& path) { return path.has_filename() ? path : path.parent_path(); }

}  // namespace

namespace {

std::string read_all(const Descriptor& file, const fs::path& path, uint64_t limit) {
  struct stat status {};
  if (::fstat(file.value, &status) != 0) fail("file.read", "{} cannot be read: {}", path.string(), reason(errno));
  if (S_ISDIR(status.st_mode)) fail("file.read", "{} is a folder, where a file was expected", path.string());

  // A regular file is read in one piece with one byte to spare, which finds its end; a pipe in growing pieces.
  constexpr size_t kChunk = size_t{1} << 16;
  std::string bytes;
  size_t used = 0, piece = kChunk;
  if (S_ISREG(status.st_mode)) {
    const uint64_t size = static_cast<uint64_t>(status.st_size);
    check(size <= limit, "file.too_large", "{} has {} bytes; at most {} are read", path.string(), size, limit);
    piece = static_cast<size_t>(size) + 1;
  }
  for (;;) {
    if (used == bytes.size()) bytes.resize(used + std::max(piece, used / 2));
    piece = kChunk;
    const ssize_t got = ::read(file.value, bytes.data() + used, bytes.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("file.read", "{} cannot be read: {}", path.string(), reason(errno));
    used += static_cast<size_t>(got);
    check(used <= limit, "file.too_large", "{} has more than the {} bytes that are read", path.string(), limit);
    if (got == 0) {
      bytes.resize(used);
      return bytes;
    }
  }
}

int opened(const fs::path& path, int flags) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | flags);
  if (file < 0 && errno == ENOENT) fail("file.missing", "{} does not exist", path.string());
  if (file < 0) fail("file.read", "{} cannot be read: {}", path.string(), reason(errno));
  return file;
}

}  // namespace

std::string read_file(const fs::path& path, uint64_t limit) {
  const Descriptor file(opened(path, O_NONBLOCK));  // opening a pipe must not wait for a writer
  struct stat status {};
  struct statfs system {};
  const bool pipe = ::fstat(file.value, &status) == 0 && S_ISFIFO(status.st_mode);
  check(!pipe || (::fstatfs(file.value, &system) == 0 && system.f_type == PIPEFS_MAGIC), "file.read",
        "{} is a pipe, where a file was expected", path.string());
  ::fcntl(file.value, F_SETFL, O_RDONLY);
  return read_all(file, path, limit);
}

std::string read_file_or_pipe(const fs::path& path, uint64_t limit) { return read_all(Descriptor(opened(path, 0)), path, limit); }

AtomicFile::AtomicFile(fs::path final_path) : final_(std::move(final_path)) {
  check(final_.has_filename(), "file.write", "'{}' names no file", final_.string());
  std::error_code ignored;
  const fs::file_status there = fs::status(final_, ignored);
  if (fs::exists(there) && !fs::is_regular_file(there) && !fs::is_directory(there)) {
    // A pipe or a device (/dev/stdout, /dev/null) is written to, never replaced.
    descriptor_ = ::open(final_.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor_ < 0) fail_write(final_, errno);
    return;
  }
  if (fs::is_regular_file(there)) final_ = fs::canonical(final_);  // behind a link, the file is replaced, and not the link
  remove_leftovers(final_);
  temporary_ = temporary_name(final_);
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail_write(final_, errno);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  check(descriptor_ >= 0, "file.write", "{} is written after it was committed", final_.string());
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    ssize_t done = ::write(descriptor_, at, bytes);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail_write(final_, errno);
    at += done;
    bytes -= static_cast<size_t>(done);
  }
}

void AtomicFile::commit() {
  check(descriptor_ >= 0, "file.write", "{} is committed twice", final_.string());
  if (temporary_.empty()) {
    if (::close(std::exchange(descriptor_, -1)) != 0) fail_write(final_, errno);
    return;
  }
  if (::fsync(descriptor_) != 0) fail_write(final_, errno);
  if (::rename(temporary_.c_str(), final_.c_str()) != 0) fail_write(final_, errno);
  ::close(descriptor_);
  descriptor_ = -1;
  sync_path(folder_of(final_), final_);
}

void write_file_atomically(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void write_folder_atomically(const fs::path& path, const std::function<void(const fs::path&)>& fill) {
  const fs::path final_path = without_slash(path);
  remove_leftovers(final_path);
  const fs::path temporary = temporary_name(final_path);
  struct Cleanup {
    const fs::path& folder;
    ~Cleanup() {
      std::error_code ignored;
      fs::remove_all(folder, ignored);
    }
  } cleanup{temporary};

  if (::mkdir(temporary.c_str(), 0777) != 0) fail_write(final_path, errno);
  fill(temporary);
  try {
    for (const auto& entry : fs::recursive_directory_iterator(temporary))
      if (entry.is_regular_file() || entry.is_directory()) sync_path(entry.path(), final_path);
  } catch (const fs::filesystem_error& error) {
    fail_write(final_path, error.code().value());
  }
  sync_path(temporary, final_path);

  // An existing folder changes places with the new one and is then removed under the temporary name.
  int renamed = ::rename(temporary.c_str(), final_path.c_str());
  if (renamed != 0 && (errno == ENOTEMPTY || errno == EEXIST)) {
    renamed = ::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, final_path.c_str(), RENAME_EXCHANGE);
    if (renamed != 0 && (errno == EINVAL || errno == ENOSYS)) {
      const fs::path old = temporary_name(final_path);
      Cleanup remove_old{old};
      renamed = ::rename(final_path.c_str(), old.c_str());
      if (renamed == 0) renamed = ::rename(temporary.c_str(), final_path.c_str());
    }
  }
  if (renamed != 0) fail_write(final_path, errno);
  sync_path(folder_of(final_path), final_path);
}

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) fail("file.missing", "{} does not exist", path.string());
    fail("file.map", "{} cannot be opened: {}", path.string(), reason(errno));
  }
  check(S_ISREG(status.st_mode), "file.map", "{} is no regular file", path.string());
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.value < 0 || ::fstat(file.value, &status) != 0)
    fail("file.map", "{} cannot be opened: {}", path.string(), reason(errno));
  size_ = static_cast<uint64_t>(status.st_size);
  if (size_ == 0) return;
  // Private and writable: a stray write copies a page instead of killing the process.
  void* mapped = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file.value, 0);
  if (mapped == MAP_FAILED)
    fail("file.map", "{} ({} bytes) cannot be mapped: {}", path.string(), size_, reason(errno));
  data_ = static_cast<uint8_t*>(mapped);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(data_, size_);
}

FolderLock::FolderLock(const fs::path& folder) {
  const fs::path name = folder / "run.lock";
  Descriptor file{::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)};
  if (file.value < 0) {
    if (errno == ENOENT) fail("file.missing", "the folder {} does not exist", folder.string());
    fail("file.write", "{} cannot be locked: {}", folder.string(), reason(errno));
  }
  if (::flock(file.value, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) fail("file.write", "{} cannot be locked: {}", folder.string(), reason(errno));
    char text[32] = {};
    ssize_t got = ::pread(file.value, text, sizeof text - 1, 0);
    std::string owner(text, got > 0 ? static_cast<size_t>(got) : 0);
    while (!owner.empty() && owner.back() == '\n') owner.pop_back();
    fail("file.locked", "{} is in use by process {}; wait for it to end, or choose another folder", folder.string(),
         owner.empty() ? "(unknown)" : owner);
  }
  std::string mine = fmt::format("{}\n", ::getpid());
  if (::ftruncate(file.value, 0) != 0 || ::pwrite(file.value, mine.data(), mine.size(), 0) < 0)
    fail("file.write", "{} cannot be locked: {}", folder.string(), reason(errno));
  descriptor_ = std::exchange(file.value, -1);
}

FolderLock::~FolderLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace switchyard
