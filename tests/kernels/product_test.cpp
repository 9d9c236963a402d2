// The tile product and the dot products of rows and strips, at every level that the processor has, against sums in float64.
#include "switchyard/kernels/cpu/product.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <vector>

#include <fmt/format.h>

#include "switchyard/kernels/cpu/row_dots.h"
#include "switchyard/kernels/cpu/strip_dots.h"
#include "switchyard/kernels/cpu/tiles.h"
#include "switchyard/kernels/dispatch.h"
#include "tests/support.h"

namespace switchyard::kernels {
namespace {

using Half = c10::BFloat16;
using cpu::StripOrder;

template <typename T>
std::vector<T> values(int64_t count, uint64_t seed) {
  const at::Tensor x = testing::randn({count}, seed, at::kFloat);
  std::vector<T> all;
  for (int64_t i = 0; i < count; ++i) all.push_back(cpu::from_float<T>(x.const_data_ptr<float>()[i]));
  return all;
}

/// Calls check(level) with each level in force.
template <typename Check>
void at_levels(const Check& check) {
  for (const CpuLevel level : {CpuLevel::portable, CpuLevel::avx2, CpuLevel::avx512, CpuLevel::avx512bf16}) {
    if (level > detected_cpu_level()) continue;
    const ForcedCpuLevel forced(level);
    check(level);
  }
}

template <typename T>
void check_products() {
  for (const auto& [m, n, k] : std::vector<std::array<int64_t, 3>>{{1, 1, 2}, {7, 16, 256}, {6, 17, 258}, {97, 33, 600}, {64, 300, 514}, {13, 48, 1026}, {2, 5, 0}}) {
    SCOPED_TRACE(fmt::format("[{}, {}] by [{}, {}]", m, k, k, n));
    const int64_t lda = k + 6, ldb = n + 3, ldc = n + 5;
    const std::vector<T> a = values<T>(m * lda, 1), b = values<T>((k + 2) * ldb, 2);
    const std::vector<float> before = values<float>(m * ldc, 3);
    const auto right = [&](int64_t i, int64_t j) {
      return cpu::to_float(b[static_cast<size_t>((i / cpu::kPair<T> * ldb + j) * cpu::kPair<T> + i % cpu::kPair<T>)]);
    };
    at_levels([&](CpuLevel level) {
      if (k == 0 && level >= CpuLevel::avx512) return;  // oneDNN's kernel has no such shape, and nobody asks for it
      for (const bool add : {false, true}) {
        std::vector<float> c = before;
        cpu::product(m, n, k, a.data(), lda, b.data(), ldb, c.data(), ldc, add);
        double worst = 0;
        for (int64_t i = 0; i < m; ++i)
          for (int64_t j = 0; j < ldc; ++j) {
            double sum = add || j >= n ? before[static_cast<size_t>(i * ldc + j)] : 0;
            for (int64_t p = 0; j < n && p < k; ++p) sum += double{cpu::to_float(a[static_cast<size_t>(i * lda + p)])} * right(p, j);
            worst = std::max(worst, std::abs(sum - c[static_cast<size_t>(i * ldc + j)]));
          }
        EXPECT_LT(worst, 2e-6 * static_cast<double>(k + 1)) << name(level) << (add ? ", added" : "");
      }
    });
  }
}

TEST(Product, FloatsAtEveryLevel) { check_products<float>(); }
TEST(Product, HalvesAtEveryLevel) { check_products<Half>(); }

template <typename W, typename X>
void check_rows() {
  for (const auto& [rows, k, n] : std::vector<std::array<int64_t, 3>>{{1, 128, 1}, {5, 256, 2}, {9, 384, 3}, {6, 128, 4}, {7, 640, 5}, {16, 128, 6}, {33, 256, 7}, {200, 1024, 13}}) {
    SCOPED_TRACE(fmt::format("{} rows of {} by {}", rows, k, n));
    const int64_t stride = k + 32, x_stride = k + 16, ld = rows + 1;
    const std::vector<W> w = values<W>(rows * stride, 4);
    const std::vector<X> x = values<X>(n * x_stride, 5);
    at_levels([&](CpuLevel level) {
      std::vector<float> out(static_cast<size_t>(n * ld), 7.0f);
      const bool done = cpu::row_dots(w.data(), stride, rows, k, n, x.data(), x_stride, out.data(), ld);
      EXPECT_EQ(done, level != CpuLevel::portable) << name(level);
      for (int64_t j = 0; done && j < n; ++j) {
        for (int64_t r = 0; r < rows; ++r) {
          double sum = 0;
          for (int64_t i = 0; i < k; ++i)
            sum += double{cpu::to_float(w[static_cast<size_t>(r * stride + i)])} * cpu::to_float(x[static_cast<size_t>(j * x_stride + i)]);
          EXPECT_NEAR(out[static_cast<size_t>(j * ld + r)], sum, 2e-6 * static_cast<double>(k)) << name(level) << ", row " << r << ", column " << j;
        }
        EXPECT_EQ(out[static_cast<size_t>(j * ld + rows)], 7.0f);
      }
    });
  }
}

TEST(RowDots, FloatsByFloats) { check_rows<float, float>(); }
TEST(RowDots, HalvesByFloats) { check_rows<Half, float>(); }
TEST(RowDots, HalvesByHalves) { check_rows<Half, Half>(); }

/// Every number of columns, rows apart and one behind the other, of x in a type that need not be that of the weights.
template <typename W, typename X>
void check_strips() {
  const StripOrder order = std::is_same_v<W, Half> ? StripOrder::halves : StripOrder::floats;
  const ForcedCpuLevel forced(CpuLevel::avx2);
  for (int64_t n = 1; n <= cpu::kStripRows; ++n) {
    const int64_t k = 64 * (1 + n % 5), rows = 1 + n % 17, stride = n % 2 == 0 ? k : k + 8, ld = rows + 2, columns = cpu::strip_columns(n);
    SCOPED_TRACE(fmt::format("{} rows of {} by {}", rows, k, n));
    ASSERT_TRUE(cpu::has_strips(k));
    ASSERT_GE(columns, n);
    const std::vector<W> w = values<W>(rows * stride, 6);
    const std::vector<X> x = values<X>(n * k, 7);
    std::vector<const X*> at;
    for (int64_t j = 0; j < n; ++j) at.push_back(x.data() + j * k);
    const at::Tensor strips = at::full({columns * k}, NAN, at::kFloat);  // libtorch aligns to 64 bytes
    cpu::make_strips(at.data(), n, k, order, strips.mutable_data_ptr<float>());
    std::vector<float> out(static_cast<size_t>(n * ld), 7.0f);
    cpu::strip_dots(w.data(), stride, rows, k, n, strips.const_data_ptr<float>(), out.data(), ld);
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t r = 0; r < rows; ++r) {
        double sum = 0;
        for (int64_t i = 0; i < k; ++i)
          sum += double{cpu::to_float(w[static_cast<size_t>(r * stride + i)])} * cpu::to_float(x[static_cast<size_t>(j * k + i)]);
        EXPECT_NEAR(out[static_cast<size_t>(j * ld + r)], sum, 2e-6 * static_cast<double>(k)) << "row " << r << ", column " << j;
      }
      EXPECT_EQ(out[static_cast<size_t>(j * ld + rows)], 7.0f);
    }
  }
}

class StripDots : public ::testing::Test {
 protected:
  void SetUp() override {
    if (detected_cpu_level() < CpuLevel::avx2) GTEST_SKIP() << "this processor has no AVX2";
    const ForcedCpuLevel forced(CpuLevel::avx2);
    if (!cpu::has_strips(64)) GTEST_SKIP() << "this compiler builds no strips";
  }
};

TEST_F(StripDots, FloatsByFloats) { check_strips<float, float>(); }
TEST_F(StripDots, FloatsByHalves) { check_strips<float, Half>(); }
TEST_F(StripDots, HalvesByHalves) { check_strips<Half, Half>(); }
TEST_F(StripDots, HalvesByFloats) { check_strips<Half, float>(); }
TEST_F(StripDots, NoneAtThePortableLevel) {
  const ForcedCpuLevel forced(CpuLevel::portable);
  EXPECT_FALSE(cpu::has_strips(64));
}

}  // namespace
}  // namespace switchyard::kernels
