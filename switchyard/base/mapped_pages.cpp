#include "switchyard/base/mapped_pages.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstring>
#include <fstream>
#include <map>
#include <string_view>

namespace switchyard {
namespace {

size_t page_size() {
  static const auto size = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  return size;
}

std::atomic<size_t> maps_made = 0;

/// Whether the process may make so many more maps. The system limits their number; half of it is left to everybody else.
bool reserve_maps(size_t count) {
  static const size_t most = [] {
    size_t limit = 65530;
    std::ifstream("/proc/sys/vm/max_map_count") >> limit;
    return limit / 2;
  }();
  if (maps_made.fetch_add(count) + count <= most) return true;
  maps_made -= count;
  return false;
}

/// A file opened again by its name.
class Reopened {
 public:
  explicit Reopened(const std::string& path) : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~Reopened() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Reopened(const Reopened&) = delete;
  Reopened& operator=(const Reopened&) = delete;
  /// Whether the bytes from `offset` on begin and end as those in memory do: another file may have taken the name, or other memory
  /// the place of a map. Read, not mapped: a page that is touched brings its neighbours.
  bool holds(const void* memory, size_t bytes, uint64_t offset) const {
    const auto* expected = static_cast<const char*>(memory);
    const size_t some = std::min<size_t>(bytes, 64);
    for (const size_t at : {size_t{0}, bytes - some}) {
      char found[64];
      if (::pread(descriptor_, found, some, static_cast<off_t>(offset + at)) != static_cast<ssize_t>(some)) return false;
      if (std::memcmp(found, expected + at, some) != 0) return false;
    }
    return true;
  }
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

template <typename T>
std::string_view take_hex(std::string_view text, T& value) {
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  return error == std::errc() ? text.substr(static_cast<size_t>(rest - text.data())) : std::string_view();
}

}  // namespace

FileMaps::FileMaps() {
  // A line is "begin-end perms offset device inode path".
  std::ifstream lines("/proc/self/maps");
  for (std::string line; std::getline(lines, line);) {
    const size_t path = line.find('/');
    if (path == std::string::npos) continue;
    Map map{.path = line.substr(path)};
    std::string_view rest = take_hex(line, map.begin);
    if (!rest.starts_with('-')) continue;
    rest = take_hex(rest.substr(1), map.end);
    if (rest.size() < 6 || rest[4] != 'p') continue;
    take_hex(rest.substr(6), map.offset);
    maps_.push_back(std::move(map));
  }
  std::sort(maps_.begin(), maps_.end(), [](const Map& a, const Map& b) { return a.begin < b.begin; });
}

const FileMaps::Map* FileMaps::find(const void* begin, size_t bytes) const {
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const auto after = std::upper_bound(maps_.begin(), maps_.end(), address, [](uintptr_t a, const Map& map) { return a < map.begin; });
  if (after == maps_.begin()) return nullptr;
  const Map& map = *std::prev(after);
  return address + bytes <= map.end ? &map : nullptr;
}

std::shared_ptr<uint8_t> FileMaps::stack(const std::vector<const void*>& pieces, size_t bytes) const {
  const size_t page = page_size();
  if (pieces.empty() || bytes == 0 || bytes % page != 0) return nullptr;
  const size_t within = reinterpret_cast<uintptr_t>(pieces.front()) % page, tail = within > 0 ? page : 0;
  std::map<std::string, std::unique_ptr<Reopened>> files;
  std::vector<std::pair<int, off_t>> places;
  for (const void* piece : pieces) {
    const Map* map = find(piece, bytes);
    if (map == nullptr || map->offset != 0 || reinterpret_cast<uintptr_t>(piece) % page != within) return nullptr;
    std::unique_ptr<Reopened>& file = files[map->path];
    if (!file) file = std::make_unique<Reopened>(map->path);
    const uint64_t offset = reinterpret_cast<uintptr_t>(piece) - map->begin;
    if (!file->holds(piece, bytes, offset)) return nullptr;
    places.emplace_back(file->descriptor(), static_cast<off_t>(offset - within));
  }
  if (!reserve_maps(pieces.size())) return nullptr;
  const size_t whole = bytes * pieces.size() + tail;
  void* space = ::mmap(nullptr, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (space == MAP_FAILED) return nullptr;
  auto* begin = static_cast<uint8_t*>(space);
  std::shared_ptr<uint8_t> owner(begin + within, [begin, whole, count = pieces.size()](uint8_t*) {
    ::munmap(begin, whole);
    maps_made -= count;
  });
  for (size_t i = 0; i < places.size(); ++i) {
    const size_t length = bytes + (i + 1 == places.size() ? tail : 0);
    void* mapped = ::mmap(begin + i * bytes, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, places[i].first, places[i].second);
    if (mapped == MAP_FAILED) return nullptr;
  }
  // The last bytes of each piece stand where the next one's first page has its file's bytes before it.
  for (size_t i = 1; i < pieces.size() && within > 0; ++i)
    std::memcpy(begin + i * bytes, static_cast<const uint8_t*>(pieces[i - 1]) + bytes - within, within);
  return owner;
}

void FileMaps::give_back(const void* begin, size_t bytes) const {
  if (find(begin, bytes) != nullptr) give_back_file_pages(begin, bytes);
}

void give_back_file_pages(const void* begin, size_t bytes) {
  const uintptr_t page = page_size(), first = (reinterpret_cast<uintptr_t>(begin) + page - 1) / page * page,
                  last = (reinterpret_cast<uintptr_t>(begin) + bytes) / page * page;
  if (last > first) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

}  // namespace switchyard
