// TensorBoard event files: records of [length, crc, data, crc] around small protocol-buffer messages. The two formats
// need some forty lines; a protocol-buffer library would clash with the one inside libtorch.
// Formats: TensorFlow's record_writer.h and event.proto.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace switchyard {

/// CRC-32C (Castagnoli).
uint32_t crc32c(std::string_view bytes);

/// Appends scalars to a new events.out.tfevents.* file in `folder`; each call is one durable write to the system.
class EventFile {
 public:
  /// Tells TensorBoard to forget what earlier files of the folder say of steps after `last_step`. Throws file.write.
  explicit EventFile(const std::filesystem::path& folder, int64_t last_step = 0);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;
  void add(int64_t step, const std::vector<std::pair<std::string, double>>& scalars);
  const std::filesystem::path& path() const { return path_; }

 private:
  void record(const std::string& event);
  std::filesystem::path path_;
  std::FILE* file_ = nullptr;
};

}  // namespace switchyard
