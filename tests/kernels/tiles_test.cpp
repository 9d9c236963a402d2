// Moves of tiles: equal bits at every instruction level, whatever the edges are.
#include "switchyard/kernels/cpu/tiles.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "switchyard/kernels/cpu/stack.h"
#include "switchyard/kernels/dispatch.h"
#include "tests/support.h"

namespace switchyard::kernels {
namespace {

using Half = c10::BFloat16;
using Bits = std::vector<uint16_t>;

Bits bits(const std::vector<Half>& values) {
  Bits all;
  for (const Half value : values) all.push_back(value.x);
  return all;
}

/// Everything that one level makes of the same matrix [n, width] with stride ld.
std::vector<Bits> moves(const std::vector<float>& floats, const std::vector<Half>& halves, int64_t n, int64_t width, int64_t ld) {
  const int64_t depth = (n + 1) / 2 * 2, even = width / 2 * 2, columns = (n + 15) / 16 * 16;
  std::vector<int64_t> index;
  for (int64_t i = 0; i < n; ++i) index.push_back((7 * i + 3) % n);
  std::vector<Bits> all;
  const auto keep = [&](int64_t count, const auto& make) {
    std::vector<Half> made(static_cast<size_t>(count), Half(7.0f));
    make(made.data());
    all.push_back(bits(made));
  };
  keep(n * width + 5, [&](Half* to) { cpu::narrow(floats.data(), n * width, to); });
  keep(depth * (width + 3), [&](Half* to) { cpu::pack_rows(floats.data(), ld, nullptr, n, depth, width, to, width + 3); });
  keep(depth * width, [&](Half* to) { cpu::pack_rows(halves.data(), ld, index.data(), n, depth, width, to); });
  keep(width * (n + 4), [&](Half* to) { cpu::transpose(halves.data(), ld, n, width, to, n + 4); });
  keep(width * (n + 4), [&](Half* to) { cpu::store_transposed(floats.data(), n, ld, width, to, n + 4); });
  for (const bool tile : {false, true}) {  // floats, a half word at a time
    std::vector<float> turned(static_cast<size_t>(width * (n + 4)), 7.0f);
    if (tile) cpu::store_transposed(floats.data(), n, ld, width, turned.data(), n + 4);
    else cpu::transpose(floats.data(), ld, n, width, turned.data(), n + 4);
    const auto* words = reinterpret_cast<const uint16_t*>(turned.data());
    all.emplace_back(words, words + 2 * turned.size());
  }
  keep(even * columns, [&](Half* to) { cpu::pack_columns(halves.data(), even, index.data(), n, columns, to); });
  return all;
}

TEST(Tiles, EveryLevelMovesTheSameBits) {
  for (const auto& [n, width] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {1, 40}, {2, 16}, {15, 31}, {16, 16}, {32, 48}, {33, 17}, {47, 64}, {70, 34}, {64, 130}}) {
    SCOPED_TRACE(fmt::format("{} rows of {}", n, width));
    const int64_t ld = width + 6;
    const at::Tensor x = testing::randn({n, ld}, 3, at::kFloat);
    std::vector<float> floats(x.const_data_ptr<float>(), x.const_data_ptr<float>() + x.numel());
    floats[0] = -0.0f;
    floats[static_cast<size_t>(n * ld / 2)] = std::numeric_limits<float>::infinity();
    floats[static_cast<size_t>(n * ld / 3)] = 1.00390625f;  // between two halves: to the even one
    std::vector<Half> halves;
    for (const float value : floats) halves.push_back(cpu::from_float<Half>(value));
    std::vector<Bits> wanted;
    for (const CpuLevel level : {CpuLevel::portable, CpuLevel::avx2, CpuLevel::avx512, CpuLevel::avx512bf16}) {
      if (level > detected_cpu_level()) continue;
      const ForcedCpuLevel forced(level);
      const std::vector<Bits> got = moves(floats, halves, n, width, ld);
      if (wanted.empty()) wanted = got;
      for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], wanted[i]) << "move " << i << " at " << name(level);
    }
  }
  // A number that is none stays one.
  for (const CpuLevel level : {CpuLevel::portable, detected_cpu_level()}) {
    const ForcedCpuLevel forced(level);
    const float nan = std::nanf("");
    Half half(0.0f);
    cpu::narrow(&nan, 1, &half);
    EXPECT_TRUE(std::isnan(static_cast<float>(half)));
  }
}

}  // namespace
}  // namespace switchyard::kernels
