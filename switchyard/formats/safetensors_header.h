// The header of a safetensors file: read from hostile bytes, checked whole before any tensor is touched.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <c10/core/ScalarType.h>

namespace switchyard::safetensors {

/// One dtype that the format knows.
struct Dtype {
  std::string_view name;                 ///< "F32", as the file spells it
  int bits;                              ///< of one element
  std::optional<at::ScalarType> torch;   ///< what libtorch calls it; none for F6
};

/// Null when the format knows no such dtype.
const Dtype* dtype_named(std::string_view name);
/// Null when the format cannot hold it.
const Dtype* dtype_of(at::ScalarType type);

struct Entry {
  std::string name;
  const Dtype* dtype = nullptr;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;           ///< bytes within the data
};

struct Header {
  std::vector<Entry> entries;            ///< in the order of the header
  std::map<std::string, std::string> metadata;
  uint64_t data = 0;                     ///< where the data begin in the file
};

/// Reads and checks the header of a file of `size` bytes. Throws formats.safetensors.size, .header, .duplicate, .dtype,
/// .shape, .offsets, naming `file` and the tensor. Never allocates more than a small multiple of the header's own size.
Header read_header(const uint8_t* bytes, uint64_t size, std::string_view file);

/// Bytes of a tensor by its shape and dtype. Throws formats.safetensors.shape, naming `file` and the tensor, for more than any file
/// holds and for a last byte that is only begun.
uint64_t bytes_of(const Entry& entry, std::string_view file);

/// A name as messages show it: quoted, escaped, shortened.
std::string shown(std::string_view name);

}  // namespace switchyard::safetensors
