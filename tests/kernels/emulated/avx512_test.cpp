// AVX-512's own ways, lane by lane on whatever processor this is: the numbers of the codecs and of plain loops.
#include <ATen/ATen.h>

#include <cmath>
#include <cstring>

#include "switchyard/kernels/cpu/tiles.h"
#include "tests/kernels/emulated/ways.h"
#include "tests/support.h"

namespace switchyard::kernels::cpu {

const GroupPath* emulated_group_path(std::string_view format) {
  for (const GroupPath& path : emulated_group_paths())
    if (path.format == format) return &path;
  return nullptr;
}

namespace {

using Half = c10::BFloat16;

std::vector<float> normal(int64_t count, uint64_t seed) {
  const at::Tensor x = testing::randn({count}, seed, at::kFloat);
  return {x.const_data_ptr<float>(), x.const_data_ptr<float>() + count};
}
std::vector<Half> halves(const std::vector<float>& floats) {
  std::vector<Half> all;
  for (const float x : floats) all.push_back(from_float<Half>(x));
  return all;
}

TEST(Avx512Emulated, BlocksAsTheCodecsHaveThem) {
  if (emulated_block_paths().empty()) GTEST_SKIP() << "this compiler builds no way for AVX-512";
  for (const NamedBlockPath& named : emulated_block_paths()) {
    SCOPED_TRACE(std::string(named.format));
    const BlockCodec& codec = *block_codec_named(named.format);
    const int64_t rows = 5, k = 512, blocks = k / codec.length;
    const std::vector<float> w = normal(rows * k, 1);
    std::vector<uint8_t> packed(static_cast<size_t>(rows * blocks * codec.bytes));
    codec.quantise(w.data(), nullptr, packed.data(), rows * blocks);
    std::vector<float> wanted(w.size()), got(w.size());
    std::vector<Half> half(w.size());
    codec.dequantise(packed.data(), wanted.data(), rows * blocks);
    named.path.decode(packed.data(), rows * blocks, got.data());
    named.path.decode_bf16(packed.data(), rows * blocks, half.data());
    for (size_t i = 0; i < w.size(); ++i) {
      ASSERT_EQ(wanted[i], got[i]) << i;
      ASSERT_EQ(Half(wanted[i]), half[i]) << i;
    }
    for (int64_t n = 1; n <= 8; ++n) {
      const std::vector<float> x = normal(n * k, 2);
      std::vector<float> out(static_cast<size_t>(n * rows));
      named.path.dots(packed.data(), rows, blocks, n, x.data(), out.data(), rows);
      for (int64_t j = 0; j < n; ++j)
        for (int64_t r = 0; r < rows; ++r) {
          double sum = 0, size = 0;
          for (int64_t i = 0; i < k; ++i) {
            const double term = static_cast<double>(wanted[static_cast<size_t>(r * k + i)]) * x[static_cast<size_t>(j * k + i)];
            sum += term;
            size += std::fabs(term);
          }
          ASSERT_NEAR(out[static_cast<size_t>(j * rows + r)], sum, 1e-6 * size) << n << " columns, at " << j << ", " << r;
        }
    }
  }
}

template <typename W, typename X>
void check_rows(const RowDotsOf<W, X>& way, const std::vector<W>& w, const std::vector<X>& x, int64_t k, int64_t stride) {
  ASSERT_EQ(k % way.step, 0);
  const int64_t rows = 7, most = 9, ld = rows + 2;
  for (int64_t n = 1; n <= most; ++n) {
    std::vector<float> out(static_cast<size_t>(n * ld), 7.0f);
    way.dots(w.data(), stride, rows, k, n, x.data(), stride, out.data(), ld);
    for (int64_t j = 0; j < n; ++j)
      for (int64_t r = 0; r < ld; ++r) {
        const float got = out[static_cast<size_t>(j * ld + r)];
        if (r >= rows) {
          ASSERT_EQ(got, 7.0f);
          continue;
        }
        double sum = 0, size = 0;
        for (int64_t i = 0; i < k; ++i) {
          const double term = static_cast<double>(w[static_cast<size_t>(r * stride + i)]) * static_cast<double>(x[static_cast<size_t>(j * stride + i)]);
          sum += term;
          size += std::fabs(term);
        }
        ASSERT_NEAR(got, sum, 1e-6 * size) << n << " columns, at " << j << ", " << r;
      }
  }
}

TEST(Avx512Emulated, RowsMeetColumns) {
  if (!emulated_row_dots()) GTEST_SKIP() << "this compiler builds no way for AVX-512";
  const int64_t k = 256, stride = k + 8;
  const std::vector<float> w = normal(7 * stride, 3), x = normal(9 * stride, 4);
  check_rows(emulated_row_dots()->floats, w, x, k, stride);
  check_rows(emulated_row_dots()->halves_by_floats, halves(w), x, k, stride);
  check_rows(emulated_row_dots()->halves, halves(w), halves(x), k, stride);
}

TEST(Avx512Emulated, MovesGiveTheSameBits) {
  const VectorMoves* moves = emulated_vector_moves();
  if (!moves) GTEST_SKIP() << "this compiler builds no way for AVX-512";
  for (const auto& [n, width] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {2, 40}, {16, 16}, {32, 48}, {33, 17}, {47, 64}, {64, 130}}) {
    SCOPED_TRACE(fmt::format("{} rows of {}", n, width));
    const int64_t ld = width + 3, to = n + 2;
    const std::vector<float> x = normal(n * ld, 5), other = normal(n * ld, 6);
    const std::vector<Half> half = halves(x), other_half = halves(other);
    const auto at = [&](int64_t row, int64_t column) { return static_cast<size_t>(row * ld + column); };
    std::vector<Half> made(static_cast<size_t>(n * ld), Half(7.0f));
    moves->narrow(x.data(), n * width, made.data());
    for (int64_t i = 0; i < n * ld; ++i) ASSERT_EQ(made[static_cast<size_t>(i)], i < n * width ? half[static_cast<size_t>(i)] : Half(7.0f));
    moves->narrow_scaled(x.data(), n * width, 0.3f, made.data());
    for (int64_t i = 0; i < n * width; ++i) ASSERT_EQ(made[static_cast<size_t>(i)], from_float<Half>(x[static_cast<size_t>(i)] * 0.3f));
    for (const bool floats : {true, false}) {
      std::vector<uint32_t> pairs(static_cast<size_t>(n * ld), 7);
      if (floats) moves->interleave(x.data(), other.data(), n * width, pairs.data());
      else moves->interleave_halves(half.data(), other_half.data(), n * width, pairs.data());
      for (size_t i = 0; i < pairs.size(); ++i)
        ASSERT_EQ(pairs[i], static_cast<int64_t>(i) < n * width ? half[i].x | static_cast<uint32_t>(other_half[i].x) << 16 : 7u);
    }
    std::vector<int64_t> index;
    for (int64_t j = 0; j < n; ++j) index.push_back((7 * j + 3) % n);
    std::vector<float> turned(static_cast<size_t>(width * to), 7.0f);
    const auto* words = reinterpret_cast<const uint32_t*>(x.data());
    moves->transpose(words, ld, index.data(), n, width, reinterpret_cast<uint32_t*>(turned.data()), to);
    for (int64_t i = 0; i < width; ++i)
      for (int64_t j = 0; j < to; ++j) ASSERT_EQ(turned[static_cast<size_t>(i * to + j)], j < n ? x[at(index[static_cast<size_t>(j)], i)] : 7.0f);
    for (const bool floats : {true, false}) {
      std::vector<Half> turned_halves(static_cast<size_t>(width * to), Half(7.0f));
      if (floats) moves->transpose_narrowed(x.data(), ld, n, width, turned_halves.data(), to);
      else moves->transpose_halves(half.data(), ld, n, width, turned_halves.data(), to);
      for (int64_t i = 0; i < width; ++i)
        for (int64_t j = 0; j < to; ++j) ASSERT_EQ(turned_halves[static_cast<size_t>(i * to + j)], j < n ? half[at(j, i)] : Half(7.0f));
    }
  }
}

}  // namespace
}  // namespace switchyard::kernels::cpu
