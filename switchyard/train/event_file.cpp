#include "switchyard/train/event_file.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>

#include "switchyard/base/error.h"

namespace switchyard {
namespace {

static_assert(std::endian::native == std::endian::little, "records are little-endian");

constexpr std::array<uint32_t, 256> kTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ (c & 1 ? 0x82f63b78u : 0u);
    table[i] = c;
  }
  return table;
}();

template <typename T>
void put_fixed(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

// Wire types of protocol buffers: 0 = varint, 1 = eight bytes, 2 = length and bytes, 5 = four bytes.
void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}
void put_key(std::string& out, int field, int wire) { put_varint(out, static_cast<uint64_t>(field) << 3 | wire); }
void put_bytes(std::string& out, int field, std::string_view bytes) {
  put_key(out, field, 2);
  put_varint(out, bytes.size());
  out.append(bytes);
}

/// Event {wall_time = 1, step = 2}.
std::string event_head(int64_t step) {
  std::string event;
  put_key(event, 1, 1);
  put_fixed(event, std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count());
  put_key(event, 2, 0);
  put_varint(event, static_cast<uint64_t>(step));
  return event;
}

uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return std::rotr(crc, 15) + 0xa282ead8u;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t c = ~0u;
  for (unsigned char byte : bytes) c = kTable[(c ^ byte) & 0xff] ^ (c >> 8);
  return ~c;
}

EventFile::EventFile(const std::filesystem::path& folder, int64_t last_step) {
  char host[256] = "host";
  ::gethostname(host, sizeof host - 1);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto base = fmt::format("events.out.tfevents.{:010}.{}.{}",
                                std::chrono::duration_cast<std::chrono::seconds>(now).count(), host, ::getpid());
  for (int n = 0; file_ == nullptr; ++n) {
    path_ = folder / fmt::format("{}.{}", base, n);
    file_ = std::fopen(path_.c_str(), "wbxe");
    if (file_ == nullptr && errno != EEXIST)
      fail("file.write", "{} cannot be opened: {}", path_.string(), std::generic_category().message(errno));
  }
  std::string version = event_head(0);
  put_bytes(version, 3, "brain.Event:2");
  record(version);
  std::string session;  // SessionLog {status = 1: START}
  put_key(session, 1, 0);
  put_varint(session, 1);
  std::string start = event_head(last_step + 1);
  put_bytes(start, 7, session);
  record(start);
}

EventFile::~EventFile() {
  if (file_) std::fclose(file_);
}

void EventFile::add(int64_t step, const std::vector<std::pair<std::string, double>>& scalars) {
  std::string summary;  // Summary {value = 1 {tag = 1, simple_value = 2}}
  for (const auto& [tag, number] : scalars) {
    std::string value;
    put_bytes(value, 1, tag);
    put_key(value, 2, 5);
    put_fixed(value, static_cast<float>(number));
    put_bytes(summary, 1, value);
  }
  std::string event = event_head(step);
  put_bytes(event, 5, summary);
  record(event);
}

void EventFile::record(const std::string& event) {
  std::string bytes;
  put_fixed(bytes, static_cast<uint64_t>(event.size()));
  put_fixed(bytes, masked_crc(bytes));
  bytes += event;
  put_fixed(bytes, masked_crc(event));
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size() || std::fflush(file_) != 0)
    fail("file.write", "{} was not written: {}", path_.string(), std::generic_category().message(errno));
}

}  // namespace switchyard
