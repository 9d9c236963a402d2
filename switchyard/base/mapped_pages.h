// Pages of files that are mapped already, by the addresses where they lie: to be shown a second time elsewhere, or to be given back.
// Where the system has no such means (/proc, madvise), nothing is found, and callers copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace switchyard {

/// The private file maps of this process at the time of construction. What is asked about should lie in maps that are still there;
/// memory that took the place of one since is noticed by `stack`.
class FileMaps {
 public:
  FileMaps();

  /// Pieces of maps, each `bytes` long, shown behind each other without a gap. Whole pages are the file's own, unread until they are
  /// touched; where two pieces meet within a page, that page is a copy made of both. The memory lives as long as the pointer, whatever
  /// becomes of the first maps, and what was written to those is not seen. Null when a piece lies in no file's map, when pieces do not
  /// begin at the same place of a page or are no whole number of pages, or when the system has no more maps to give.
  std::shared_ptr<uint8_t> stack(const std::vector<const void*>& pieces, size_t bytes) const;

  /// Gives back whole pages between begin and begin + bytes, if they are a file's: they are read again when they are needed. What
  /// was written to them is lost.
  void give_back(const void* begin, size_t bytes) const;

 private:
  struct Map { uintptr_t begin = 0, end = 0; uint64_t offset = 0; std::string path; };
  const Map* find(const void* begin, size_t bytes) const;
  std::vector<Map> maps_;  ///< by address
};

/// The same for memory that is known to lie in a file's private map, to which nothing was written.
void give_back_file_pages(const void* begin, size_t bytes);

}  // namespace switchyard
