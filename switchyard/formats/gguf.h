// GGUF: metadata and tensors in one file, or in a set of them, as llama.cpp and its kin use. Reading is lazy over memory maps.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
#pragma once

#include <filesystem>
#include <functional>
#include <map>

#include "switchyard/formats/gguf_metadata.h"
#include "switchyard/formats/weight_source.h"

namespace switchyard {

/// The tensors of one file, or of a split set of which any file is given. Plain tensors are views of a private map (as with
/// Safetensors); the others are packed. Throws formats.gguf.* naming file and tensor or key (formats/gguf_header.h), and
/// formats.gguf.split when the files of a set do not fit together.
class Gguf : public WeightSource {
 public:
  explicit Gguf(const std::filesystem::path& file);
  ~Gguf() override;
  Gguf(Gguf&&) noexcept;
  Gguf& operator=(Gguf&&) noexcept;

  /// Of the file, or of the first of a set.
  const GgufMetadata& metadata() const;
  /// Frees it: a vocabulary is large, and tensors are found without it.
  void forget_metadata();
  const std::vector<TensorInfo>& tensors() const override;
  bool has(std::string_view name) const override;
  at::Tensor get(std::string_view name) const override;  ///< throws formats.gguf.missing with the nearest name
  std::shared_ptr<const PackedTensor> packed(std::string_view name) const override;

 private:
  struct Data;
  std::unique_ptr<Data> data_;
};

/// Whether a file begins as GGUF does; throws file.missing.
bool is_gguf(const std::filesystem::path& file);

/// One tensor to be written: its numbers are asked for when their turn comes, so that a large file needs little memory.
struct GgufTensor {
  std::string name;
  const BlockCodec* codec = nullptr;
  std::vector<int64_t> shape;               ///< slowest axis first
  std::function<at::Tensor()> bytes;        ///< contiguous on the CPU, of exactly the right number of bytes

  /// As it is; throws formats.gguf.write for a type that the format does not know.
  static GgufTensor plain(std::string name, at::Tensor tensor);
  /// Packed when its turn comes (kernels/packed_tensor.h); throws formats.quantise for rows that are no whole number of blocks.
  static GgufTensor quantised(std::string name, const BlockCodec& codec, at::Tensor values, at::Tensor importance = {});
};

/// Writes version 3, atomically. general.alignment in `metadata` is honoured. shard_bytes: when the tensors have more, a set
/// NAME-00001-of-0000N.gguf is written in place of NAME.gguf, the metadata in its first file; 0 = always one file. Returns the
/// files. Throws formats.gguf.write, file.write.
std::vector<std::filesystem::path> write_gguf(const std::filesystem::path& file, const GgufMetadata& metadata,
                                              const std::vector<GgufTensor>& tensors, uint64_t shard_bytes = 0);

}  // namespace switchyard
