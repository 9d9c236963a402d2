#include "switchyard/base/random.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <vector>

#include "switchyard/base/error.h"

namespace switchyard {

PhiloxWords philox(PhiloxWords counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(a)};
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return counter;
}

uint64_t stable_hash(std::string_view text, uint64_t start) {
  uint64_t hash = start;
  for (unsigned char byte : text) hash = (hash ^ byte) * 1099511628211ULL;
  return hash;
}

namespace {

/// Spreads every bit over the word (the finaliser of SplitMix64).
uint64_t scramble(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

uint64_t hash_key(const RandomKey& key) {
  uint64_t hash = stable_hash(key.purpose);
  for (int64_t part : {key.step, key.micro, key.layer, key.pass})
    hash = scramble(hash + 0x9E3779B97F4A7C15ULL + scramble(static_cast<uint64_t>(part)));
  return scramble(stable_hash(key.site, hash));
}

/// The 128-bit blocks of one key: block b is philox(counter = (b, key hash), seed).
struct Blocks {
  uint64_t seed, stream;
  PhiloxWords operator()(int64_t block) const {
    const uint64_t b = static_cast<uint64_t>(block);
    return philox({static_cast<uint32_t>(b), static_cast<uint32_t>(b >> 32), static_cast<uint32_t>(stream),
                   static_cast<uint32_t>(stream >> 32)},
                  static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  }
};

uint64_t join(uint32_t low, uint32_t high) { return uint64_t{high} << 32 | low; }
double unit53(uint64_t word) { return static_cast<double>(word >> 11) * 0x1p-53; }

/// Fills out[0..n) by blocks of `per_block` elements: one(words, lane) is element block*per_block + lane.
template <typename T, typename One>
void fill(T* out, int64_t n, int64_t per_block, const Blocks& blocks, One&& one) {
  const int64_t count = (n + per_block - 1) / per_block;
  at::parallel_for(0, count, 2048, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const PhiloxWords words = blocks(b);
      const int64_t first = b * per_block, last = std::min(n, first + per_block);
      for (int64_t i = first; i < last; ++i) out[i] = one(words, static_cast<int>(i - first));
    }
  });
}

/// Bits of a type's mantissa, the hidden one included: a uniform with more would round up to 1.
template <typename T> constexpr int kBits = 24;
template <> constexpr int kBits<at::Half> = 11;
template <> constexpr int kBits<at::BFloat16> = 8;

}  // namespace

at::Tensor Streams::uniform(at::IntArrayRef shape, const RandomKey& key, at::ScalarType dtype) const {
  at::Tensor out = at::empty(shape, dtype);
  const Blocks blocks{seed_, hash_key(key)};
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, dtype, "uniform", [&] {
    scalar_t* data = out.data_ptr<scalar_t>();
    if constexpr (std::is_same_v<scalar_t, double>) {
      fill(data, out.numel(), 2, blocks,
           [](const PhiloxWords& w, int lane) { return unit53(join(w[2 * lane], w[2 * lane + 1])); });
    } else {
      fill(data, out.numel(), 4, blocks, [](const PhiloxWords& w, int lane) {
        constexpr int bits = kBits<scalar_t>;
        return static_cast<scalar_t>(static_cast<float>(w[lane] >> (32 - bits)) / static_cast<float>(1 << bits));
      });
    }
  });
  return out;
}

at::Tensor Streams::normal(at::IntArrayRef shape, const RandomKey& key, at::ScalarType dtype) const {
  at::Tensor out = at::empty(shape, dtype);
  // Box-Muller: two uniforms give the cosine and the sine element; 1 - u keeps the logarithm finite.
  auto pair = [](uint64_t first, uint64_t second, bool sine) {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - unit53(first)));
    const double angle = 2.0 * std::numbers::pi * unit53(second);
    return radius * (sine ? std::sin(angle) : std::cos(angle));
  };
  const Blocks blocks{seed_, hash_key(key)};
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, dtype, "normal", [&] {
    fill(out.data_ptr<scalar_t>(), out.numel(), 2, blocks, [&](const PhiloxWords& w, int lane) {
      return static_cast<scalar_t>(pair(join(w[0], w[1]), join(w[2], w[3]), lane == 1));
    });
  });
  return out;
}

at::Tensor Streams::integers(int64_t n, at::IntArrayRef shape, const RandomKey& key) const {
  check(n > 0 && n < int64_t{1} << 32, "random.range", "integers below {} were asked for; 1 to 2^32 - 1 can be drawn", n);
  at::Tensor out = at::empty(shape, at::kLong);
  fill(out.data_ptr<int64_t>(), out.numel(), 2, Blocks{seed_, hash_key(key)}, [n](const PhiloxWords& w, int lane) {
    // The high word of a 64x32-bit product: the bias is below 2^-32.
    const uint64_t low = w[2 * lane], high = w[2 * lane + 1], count = static_cast<uint64_t>(n);
    return static_cast<int64_t>((high * count + (low * count >> 32)) >> 32);
  });
  return out;
}

at::Tensor Streams::permutation(int64_t n, const RandomKey& key) const {
  check(n >= 0, "random.range", "a permutation of {} things was asked for", n);
  std::vector<uint64_t> words(static_cast<size_t>(n));
  fill(words.data(), n, 2, Blocks{seed_, hash_key(key)},
       [](const PhiloxWords& w, int lane) { return join(w[2 * lane], w[2 * lane + 1]); });
  at::Tensor out = at::empty({n}, at::kLong);
  int64_t* index = out.data_ptr<int64_t>();
  std::iota(index, index + n, int64_t{0});
  std::sort(index, index + n, [&](int64_t a, int64_t b) {
    return words[a] != words[b] ? words[a] < words[b] : a < b;
  });
  return out;
}

uint64_t Streams::word(const RandomKey& key) const {
  const PhiloxWords words = Blocks{seed_, hash_key(key)}(0);
  return join(words[0], words[1]);
}

}  // namespace switchyard
