// The header of a GGUF file: read from hostile bytes, checked whole before any tensor is touched.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/formats/gguf_metadata.h"
#include "switchyard/kernels/codecs/block_codec.h"

namespace switchyard::gguf {

struct Entry {
  std::string name;
  const BlockCodec* codec = nullptr;
  std::vector<int64_t> shape;          ///< slowest axis first, as libtorch has it (the file has the reverse)
  uint64_t begin = 0, bytes = 0;       ///< within the file
};

struct Header {
  uint32_t version = 3;
  uint64_t alignment = 32;
  GgufMetadata metadata;
  std::vector<Entry> entries;          ///< in the order of the header
};

/// Reads and checks the header of a file of `size` bytes, version 2 or 3. Throws formats.gguf.size, .magic, .version,
/// .big_endian, .metadata, .duplicate, .alignment, .type, .shape, .offsets, naming `file` and the key or tensor. Never
/// allocates more than a small multiple of the header's own size.
Header read_header(const uint8_t* bytes, uint64_t size, std::string_view file);

/// Bytes of a tensor; throws formats.gguf.shape when a row is no whole number of blocks or the size overflows.
uint64_t tensor_bytes(const BlockCodec& codec, const std::vector<int64_t>& shape, std::string_view file, std::string_view name);

/// general.alignment, or its default; throws formats.gguf.alignment.
uint64_t alignment_of(const GgufMetadata& metadata);

/// The one GGUF file of a folder, or the first of its one set; empty when it holds none. Throws formats.gguf.several.
std::filesystem::path file_in(const std::filesystem::path& folder);

}  // namespace switchyard::gguf
