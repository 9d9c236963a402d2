#include "switchyard/base/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "tests/files.h"
#include "tests/support.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

int64_t entries(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

/// A file system with room for `bytes`; empty() when this process may not mount one.
class SmallDisk {
 public:
  explicit SmallDisk(size_t bytes) {
    mounted_ = ::mount("tmpfs", folder_.path().c_str(), "tmpfs", 0, ("size=" + std::to_string(bytes)).c_str()) == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(folder_.path().c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }
  const fs::path& path() const { return folder_.path(); }

 private:
  TemporaryFolder folder_;
  bool mounted_ = false;
};

TEST(Files, WhatWasWrittenIsRead) {
  const TemporaryFolder folder;
  for (const size_t size : {size_t{0}, size_t{1}, size_t{65535}, size_t{65536}, size_t{3000000}}) {
    std::string text(size, 'x');
    for (size_t i = 0; i < size; i += 977) text[i] = static_cast<char>(i);
    write_file_atomically(folder / "file", text);
    EXPECT_EQ(read_file(folder / "file"), text);
  }
  EXPECT_EQ(entries(folder.path()), 1);
}

TEST(Files, ReadingRefusesByName) {
  const TemporaryFolder folder;
  const Error missing = expect_error([&] { (void)read_file(folder / "absent"); });
  EXPECT_EQ(missing.code(), "file.missing");
  EXPECT_THAT(missing.message(), HasSubstr("absent"));
  EXPECT_EQ(expect_error([&] { (void)read_file(folder.path()); }).code(), "file.read");
  write_file_atomically(folder / "ten", "0123456789");
  EXPECT_EQ(read_file(folder / "ten", 10), "0123456789");
  EXPECT_EQ(expect_error([&] { (void)read_file(folder / "ten", 9); }).code(), "file.too_large");
  EXPECT_EQ(expect_error([&] { (void)read_file("/dev/zero", 100000); }).code(), "file.too_large");
  EXPECT_EQ(read_file("/dev/null"), "");
  EXPECT_EQ(expect_error([&] { (void)read_file(folder / "ten" / "below"); }).code(), "file.read");
}

TEST(Files, ReadsPipesThatAreGivenAsInput) {
  const TemporaryFolder folder;
  const fs::path pipe = folder / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(expect_error([&] { (void)read_file(pipe); }).code(), "file.read");  // at once: nobody writes
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  EXPECT_EQ(::write(ends[1], "abc", 3), 3);
  ::close(ends[1]);
  EXPECT_EQ(read_file("/dev/fd/" + std::to_string(ends[0])), "abc");
  ::close(ends[0]);
  const std::string text(200000, 'p');
  std::thread writer([&] { std::ofstream(pipe) << text; });
  EXPECT_EQ(read_file_or_pipe(pipe), text);
  writer.join();
}

TEST(Files, AnUncommittedFileLeavesNothing) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "file", "old");
  {
    AtomicFile file(folder / "file");
    file.write("new");
    EXPECT_EQ(read_file(folder / "file"), "old");
  }
  EXPECT_EQ(read_file(folder / "file"), "old");
  EXPECT_EQ(entries(folder.path()), 1);
  AtomicFile file(folder / "file");
  file.write("new");
  file.commit();
  EXPECT_EQ(read_file(folder / "file"), "new");
  EXPECT_EQ(expect_error([&] { file.write("more"); }).code(), "file.write");
  EXPECT_EQ(expect_error([&] { file.commit(); }).code(), "file.write");
}

TEST(Files, WritingRefusesByName) {
  const TemporaryFolder folder;
  const Error error = expect_error([&] { write_file_atomically(folder.path() / "no/such/file", "x"); });
  EXPECT_EQ(error.code(), "file.write");
  EXPECT_THAT(error.message(), HasSubstr("no/such/file was not written: No such file or directory"));
  EXPECT_EQ(expect_error([&] { write_file_atomically("", "x"); }).code(), "file.write");
  fs::create_directory(folder / "taken");
  EXPECT_EQ(expect_error([&] { write_file_atomically(folder / "taken", "x"); }).code(), "file.write");
  EXPECT_EQ(entries(folder.path()), 1);
}

TEST(Files, DevicesPipesAndLinksAreWrittenThrough) {
  const TemporaryFolder folder;
  const fs::path pipe = folder / "pipe", link = folder / "link", device = folder / "device";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::string got;
  std::thread reader([&] { got = read_file_or_pipe(pipe); });
  write_file_atomically(pipe, "through");
  reader.join();
  EXPECT_EQ(got, "through");
  EXPECT_TRUE(fs::is_fifo(pipe));
  write_file_atomically(folder / "file", "old");
  fs::create_symlink("file", link);
  write_file_atomically(link, "new");
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_EQ(read_file(folder / "file"), "new");
  fs::create_symlink("/dev/full", device);
  EXPECT_THAT(expect_error([&] { write_file_atomically(device, "x"); }).message(), HasSubstr("No space left"));
  EXPECT_TRUE(fs::is_character_file(device));
}

TEST(Files, AWriterThatWasKilledLeavesTheOldFileAndIsCleanedUp) {
  const TemporaryFolder folder;
  const fs::path path = folder / "file";
  write_file_atomically(path, "old");
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile file(path);
    file.write("half of the new o");
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(entries(folder.path()), 2);  // the dead writer's temporary
  write_file_atomically(path, "new");
  EXPECT_EQ(read_file(path), "new");
  EXPECT_EQ(entries(folder.path()), 1);
}

TEST(Files, ALivingWritersTemporaryIsLeftAlone) {
  const TemporaryFolder folder;
  AtomicFile first(folder / "file");
  first.write("first");
  write_file_atomically(folder / "file", "second");
  first.commit();
  EXPECT_EQ(read_file(folder / "file"), "first");
}

TEST(Files, AFullDiskKeepsTheOldFile) {
  const SmallDisk disk(1 << 20);
  if (!disk.mounted()) GTEST_SKIP() << "needs the right to mount a small tmpfs";
  write_file_atomically(disk.path() / "file", "old");
  const Error error = expect_error([&] { write_file_atomically(disk.path() / "file", std::string(4 << 20, 'x')); });
  EXPECT_EQ(error.code(), "file.write");
  EXPECT_THAT(error.message(), HasSubstr("No space left on device; free some space and run again"));
  EXPECT_EQ(read_file(disk.path() / "file"), "old");
  EXPECT_EQ(entries(disk.path()), 1);

  write_folder_atomically(disk.path() / "run", [](const fs::path& at) { write_file_atomically(at / "a", "1"); });
  EXPECT_EQ(expect_error([&] {
              write_folder_atomically(disk.path() / "run", [](const fs::path& at) {
                write_file_atomically(at / "a", "2");
                write_file_atomically(at / "b", std::string(4 << 20, 'x'));
              });
            }).code(),
            "file.write");
  EXPECT_EQ(read_file(disk.path() / "run/a"), "1");
  EXPECT_EQ(entries(disk.path()), 2);
}

TEST(Files, FoldersAppearWholeOrNotAtAll) {
  const TemporaryFolder folder;
  const fs::path run = folder.path() / "run";
  write_folder_atomically(run, [&](const fs::path& at) {
    EXPECT_FALSE(fs::exists(run));
    write_file_atomically(at / "a", "1");
    fs::create_directory(at / "sub");
    write_file_atomically(at / "sub/b", "2");
  });
  EXPECT_EQ(read_file(run / "sub/b"), "2");
  // A new folder replaces the old one whole.
  write_folder_atomically(run / "", [&](const fs::path& at) {
    EXPECT_TRUE(fs::exists(run / "a"));
    write_file_atomically(at / "c", "3");
  });
  EXPECT_FALSE(fs::exists(run / "a"));
  EXPECT_EQ(read_file(run / "c"), "3");
  // Filling that fails changes nothing.
  EXPECT_THROW(write_folder_atomically(run, [](const fs::path&) { throw std::runtime_error("filling"); }),
               std::runtime_error);
  EXPECT_EQ(read_file(run / "c"), "3");
  EXPECT_EQ(entries(folder.path()), 1);
  write_file_atomically(folder / "file", "x");
  EXPECT_EQ(expect_error([&] { write_folder_atomically(folder / "file", [](const fs::path&) {}); }).code(),
            "file.write");
  EXPECT_EQ(read_file(folder / "file"), "x");
}

TEST(Files, MappingsReadTheFileAndNeverWriteIt) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "file", "0123456789");
  {
    const MappedFile map(folder / "file");
    EXPECT_EQ(map.size(), 10u);
    EXPECT_EQ(std::string(map.data(), map.data() + 10), "0123456789");
    const_cast<uint8_t*>(map.data())[0] = 'X';  // private: the file stays as it is
  }
  EXPECT_EQ(read_file(folder / "file"), "0123456789");
  write_file_atomically(folder / "empty", "");
  EXPECT_EQ(MappedFile(folder / "empty").size(), 0u);
  EXPECT_EQ(expect_error([&] { MappedFile map(folder / "absent"); }).code(), "file.missing");
  EXPECT_EQ(expect_error([&] { MappedFile map(folder.path()); }).code(), "file.map");
  EXPECT_EQ(expect_error([&] { MappedFile map("/dev/zero"); }).code(), "file.map");
}

TEST(Files, AFolderIsLockedOnceAndFreedByDeath) {
  const TemporaryFolder folder;
  {
    const FolderLock lock(folder.path());
    const Error error = expect_error([&] { FolderLock second(folder.path()); });
    EXPECT_EQ(error.code(), "file.locked");
    EXPECT_THAT(error.message(), HasSubstr("in use by process " + std::to_string(::getpid())));
  }
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const FolderLock lock(folder.path());
    (void)!::write(ready[1], "x", 1);
    for (;;) ::pause();
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_THAT(expect_error([&] { FolderLock second(folder.path()); }).message(),
              HasSubstr("process " + std::to_string(child)));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  const FolderLock again(folder.path());
  EXPECT_EQ(expect_error([&] { FolderLock absent(folder.path() / "absent"); }).code(), "file.missing");
  ::close(ready[0]);
  ::close(ready[1]);
}

}  // namespace
}  // namespace switchyard
