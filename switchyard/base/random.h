// Counter-based random streams: a draw is a pure function of (seed, key), never of what was drawn
// before, so that recomputation, threads and resume agree by construction (Philox 4x32-10,
// Salmon et al., SC 2011).
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace switchyard {

using PhiloxWords = std::array<uint32_t, 4>;
/// One block of Philox 4x32-10: a bijection of the counter, chosen by the key.
PhiloxWords philox(PhiloxWords counter, uint32_t key0, uint32_t key1);

/// What a draw is for. Two draws with equal keys are equal; change one part and they are independent.
struct RandomKey {
  std::string_view purpose;  ///< "router.noise", "init", "dropout", ...
  int64_t step = 0;          ///< optimiser step
  int64_t micro = 0;         ///< micro-batch within the step
  int64_t layer = 0;
  int64_t pass = 0;          ///< forward pass within the micro-batch (two for consistency losses)
  std::string_view site;     ///< further name within the layer, or empty
};

class Streams {
 public:
  explicit Streams(uint64_t seed) : seed_(seed) {}
  uint64_t seed() const { return seed_; }

  /// Element i depends on (seed, key, i) alone. [shape] on the CPU, uniform in [0, 1).
  at::Tensor uniform(at::IntArrayRef shape, const RandomKey& key, at::ScalarType dtype = at::kFloat) const;
  /// Standard normal (Box-Muller on two uniforms).
  at::Tensor normal(at::IntArrayRef shape, const RandomKey& key, at::ScalarType dtype = at::kFloat) const;
  /// int64 in [0, n), n < 2^32.
  at::Tensor integers(int64_t n, at::IntArrayRef shape, const RandomKey& key) const;
  /// A permutation of 0..n-1, int64 [n].
  at::Tensor permutation(int64_t n, const RandomKey& key) const;
  /// One 64-bit word, for seeding something else.
  uint64_t word(const RandomKey& key) const;

 private:
  uint64_t seed_;
};

/// 64-bit FNV-1a, stable over machines and versions; for names and documents.
uint64_t stable_hash(std::string_view text, uint64_t start = 14695981039346656037ULL);

}  // namespace switchyard
