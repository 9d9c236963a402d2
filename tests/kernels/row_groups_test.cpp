// Groups of packed rows against int8 columns, bit for bit what row_groups.h and int_columns.h say: integers summed exactly, and the
// float operations of each row in their order, computed here one by one.
#include "switchyard/kernels/cpu/row_groups.h"

#include <ATen/ATen.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>

#include "switchyard/kernels/codecs/half.h"
#include "switchyard/kernels/cpu/blocks.h"
#include "switchyard/kernels/cpu/turned_blocks.h"
#include "switchyard/kernels/dispatch.h"
#include "tests/kernels/emulated/ways.h"
#include "tests/support.h"

namespace switchyard::kernels::cpu {
namespace {

/// One row's values as unsigned integers, and for each `run` of them what they stand for: unit (scale u - zero scale), and where that has a
/// float of its own unit scale u - least offset.
struct PlainRow {
  int64_t run = 32;
  int zero = 0;
  bool apart = false;
  std::vector<int> u, scale, offset;
  std::vector<float> unit, least;

  double value(int64_t i) const {
    const auto at = static_cast<size_t>(i / run);
    const double subtracted = apart ? static_cast<double>(least[at]) * offset[at] : 0.0;
    return static_cast<double>(unit[at]) * scale[at] * (u[static_cast<size_t>(i)] - zero) - subtracted;
  }
};

void add_short(PlainRow& row, float unit, int zero) {
  row.zero = zero;
  row.unit.push_back(unit);
  row.scale.push_back(1);
}

PlainRow plain_row(std::string_view format, const uint8_t* block, int64_t k) {
  PlainRow row;
  const auto half = [](const uint8_t* p) { return codecs::load_half(p); };
  if (format == "Q8_0") {
    for (int64_t b = 0; b < k / 32; ++b, block += 34) {
      add_short(row, half(block), 128);
      for (int i = 0; i < 32; ++i) row.u.push_back(static_cast<int8_t>(block[2 + i]) + 128);
    }
  } else if (format == "Q4_0") {
    for (int64_t b = 0; b < k / 32; ++b, block += 18) {
      add_short(row, half(block), 8);
      for (int i = 0; i < 32; ++i) row.u.push_back(block[2 + i % 16] >> (i < 16 ? 0 : 4) & 15);
    }
  } else if (format == "MXFP4") {
    constexpr std::array<int, 16> kTwice{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    for (int64_t b = 0; b < k / 32; ++b, block += 17) {
      add_short(row, std::ldexp(1.0f, block[0] - 128), 12);
      for (int i = 0; i < 32; ++i) row.u.push_back(kTwice[block[1 + i % 16] >> (i < 16 ? 0 : 4) & 15] + 12);
    }
  } else if (format == "Q6_K") {
    row.run = 16;
    for (int64_t b = 0; b < k / 256; ++b, block += 210) {
      for (int s = 0; s < 16; ++s) {
        add_short(row, half(block + 208), 32);
        row.scale.back() = static_cast<int8_t>(block[192 + s]);
      }
      for (int i = 0; i < 256; ++i) {
        const int part = i / 128, quarter = i % 128 / 32, l = i % 32;
        const int low = block[64 * part + 32 * (quarter % 2) + l] >> (quarter < 2 ? 0 : 4) & 15;
        row.u.push_back(low | (block[128 + 32 * part + l] >> (2 * quarter) & 3) << 4);
      }
    }
  } else {
    const bool five = format == "Q5_K";
    row.apart = true;
    for (int64_t b = 0; b < k / 256; ++b, block += five ? 176 : 144) {
      const uint8_t* s = block + 4;
      for (int i = 0; i < 8; ++i) {
        const int scale = i < 4 ? s[i] & 63 : (s[i + 4] & 15) | s[i - 4] >> 6 << 4;
        const int offset = i < 4 ? s[i + 4] & 63 : s[i + 4] >> 4 | s[i] >> 6 << 4;
        row.scale.push_back(scale);
        row.offset.push_back(offset);
        row.unit.push_back(half(block));
        row.least.push_back(half(block + 2));
      }
      const uint8_t* nibbles = block + (five ? 48 : 16);
      for (int i = 0; i < 256; ++i) {
        const int nibble = nibbles[i / 64 * 32 + i % 32] >> (i % 64 < 32 ? 0 : 4) & 15;
        row.u.push_back(nibble | (five ? (block[16 + i % 32] >> (i / 32) & 1) << 4 : 0));
      }
    }
  }
  return row;
}

/// Integers are summed for 32 values, or for 64 where both runs have the same floats; two runs make a part, whose floats are multiplied and
/// added before what they share multiplies them: x's scale, or Q6_K's unit.
float plain_dot(const PlainRow& row, int64_t k, const int8_t* q, const float* scale) {
  const auto sum = [&](int64_t from, int64_t count, bool offsets) {
    int whole = 0;
    for (int64_t j = from; j < from + count; ++j) {
      const auto run = static_cast<size_t>(j / row.run);
      whole += offsets ? row.offset[run] * q[j] : row.scale[run] * (row.u[static_cast<size_t>(j)] - row.zero) * q[j];
    }
    return static_cast<float>(whole);
  };
  float total = 0;
  for (int64_t part = 0; part < k / 64; ++part) {
    // Q6_K: 32 by 32 in the order 0, 2, 1, 3.
    const int64_t first = row.run == 16 ? part / 2 * 128 + part % 2 * 32 : 64 * part, second = first + (row.run == 16 ? 64 : 32);
    const auto run = static_cast<size_t>(first / row.run), next = static_cast<size_t>(second / row.run);
    float sums;
    if (row.apart) sums = std::fma(-sum(first, 64, true), row.least[run], sum(first, 64, false) * row.unit[run]);
    else if (row.run == 16) sums = std::fma(sum(second, 32, false), scale[second / 64], sum(first, 32, false) * scale[first / 64]);
    else sums = std::fma(sum(second, 32, false), row.unit[next], sum(first, 32, false) * row.unit[run]);
    total = std::fma(sums, row.run == 16 ? row.unit[run] : scale[part], total);
  }
  return total;
}

struct IntValues {
  std::vector<int8_t> q;
  std::vector<float> scale;
  std::vector<int16_t> sum;
  IntColumns columns() const { return {q.data(), scale.data(), sum.data()}; }
};

/// Any bytes, the first column at the ends of the range: from -128 on as digits have them, or from -127.
IntValues any_columns(int64_t n, int64_t k, int least = -128) {
  const at::Tensor bytes = Streams(5).integers(256, {n * k}, {.purpose = "q"}).to(at::kByte);
  IntValues x;
  for (int64_t i = 0; i < n * k; ++i) x.q.push_back(i < k ? static_cast<int8_t>(i / 32 % 2 ? 127 : least) : std::max(static_cast<int8_t>(bytes.const_data_ptr<uint8_t>()[i]), static_cast<int8_t>(least)));
  for (int64_t i = 0; i < n * k / 64; ++i) x.scale.push_back(0.01f * static_cast<float>(1 + i % 7));
  for (int64_t i = 0; i < n * k / 64; ++i)
    for (const int64_t length : {16, 32})
      for (int64_t s = 0; s < 64 / length; ++s) {
        const auto from = x.q.begin() + 64 * i + length * s;
        x.sum.push_back(static_cast<int16_t>(std::accumulate(from, from + length, 0)));
      }
  return x;
}

/// Rows of any bytes, the first of them all ones, but for the halves that scale them.
std::vector<uint8_t> any_blocks(const BlockCodec& codec, int64_t blocks, int64_t row_blocks) {
  const at::Tensor bytes = Streams(3).integers(256, {blocks * codec.bytes}, {.purpose = "bytes"}).to(at::kByte);
  std::vector<uint8_t> packed(bytes.const_data_ptr<uint8_t>(), bytes.const_data_ptr<uint8_t>() + bytes.numel());
  std::fill_n(packed.begin(), row_blocks * codec.bytes, uint8_t{255});
  for (int64_t b = 0; b < blocks; ++b) {
    uint8_t* block = packed.data() + b * codec.bytes;
    const auto scale = [&](int64_t at, float value) { codecs::store_half(block + at, value); };
    if (codec.name == "MXFP4") block[0] = static_cast<uint8_t>(b % 5 == 4 ? b % 3 : 120 + b % 9);  // subnormal scales among them
    else if (codec.name == "Q6_K") scale(208, 0.001f * static_cast<float>(1 + b % 5));
    else scale(0, 0.01f * static_cast<float>(b % 5 - 2));
    if (codec.name == "Q4_K" || codec.name == "Q5_K") scale(2, 0.02f * static_cast<float>(b % 3));
  }
  return packed;
}

constexpr const char* kFormats[] = {"Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K", "MXFP4"};

/// A level's ways: in force while it lives where the processor has that level; the widest is emulated elsewhere.
class Ways {
 public:
  explicit Ways(CpuLevel level) : emulated_(level == CpuLevel::avx512bf16 && level > detected_cpu_level()) {
    if (!emulated_ && level <= detected_cpu_level()) forced_.emplace(level);
  }
  bool none() const { return !emulated_ && !forced_; }
  const GroupPath* groups(std::string_view format) const { return emulated_ ? emulated_group_path(format) : group_path(format); }
  const BlockPath* blocks(const BlockCodec& codec) const {
    if (!emulated_) return block_path(codec);
    for (const NamedBlockPath& named : emulated_block_paths())
      if (named.format == codec.name) return &named.path;
    return nullptr;
  }

 private:
  bool emulated_;
  std::optional<ForcedCpuLevel> forced_;
};
constexpr CpuLevel kLevels[] = {CpuLevel::avx2, CpuLevel::avx512, CpuLevel::avx512bf16};

TEST(RowGroups, BitsAreThoseOfTheFormulaAtEveryLevel) {
  if (detected_cpu_level() < CpuLevel::avx2) GTEST_SKIP() << "this processor has no fast path";
  for (const CpuLevel level : kLevels) {
    const Ways ways(level);
    if (ways.none()) continue;
    for (const char* name : kFormats)
      for (const int64_t k : {64, 192, 256, 320, 640, 768}) {
        const BlockCodec& codec = *block_codec_named(name);
        if (ways.groups(name) == nullptr || k % ways.blocks(codec)->group_step != 0) continue;  // Q8_0 has groups at the widest level alone
        SCOPED_TRACE(std::string(name) + " at " + kernels::name(level) + ", " + std::to_string(k) + " wide");
        const int64_t rows = 48, blocks = k / codec.length, most = 67;
        const std::vector<uint8_t> packed = any_blocks(codec, rows * blocks, blocks);
        std::vector<uint8_t> turned(packed.size()), laid(packed.size());
        const GroupPath& path = *ways.groups(name);
        path.turn(packed.data(), rows, blocks, turned.data());
        for (int64_t r = 0; r < rows; ++r)
          path.lay(turned.data() + r / 16 * 16 * blocks * codec.bytes, r % 16, blocks, laid.data() + r * blocks * codec.bytes);
        EXPECT_EQ(laid, packed);
        const IntValues x = any_columns(most, k);
        std::vector<float> wanted;
        std::vector<PlainRow> plain;
        for (int64_t r = 0; r < rows; ++r) plain.push_back(plain_row(name, packed.data() + r * blocks * codec.bytes, k));
        for (int64_t j = 0; j < most; ++j)
          for (int64_t r = 0; r < rows; ++r)
            wanted.push_back(plain_dot(plain[static_cast<size_t>(r)], k, x.q.data() + j * k, x.scale.data() + j * (k / 64)));
        for (const int64_t n : {1, 2, 3, 4, 5, 6, 7, 19, 67})
          for (const bool lying : {true, false}) {
            std::vector<float> got(static_cast<size_t>(n * rows));
            (lying ? path.dots : path.turned_dots)((lying ? packed : turned).data(), rows, blocks, n, x.columns(), got.data(), rows);
            for (size_t i = 0; i < got.size(); ++i)
              ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(wanted[i])) << n << " columns, " << (lying ? "lying" : "turned") << ", at " << i << ": " << got[i] << " for " << wanted[i];
          }
      }
  }
}

TEST(RowGroups, AnyNumberOfRows) {
  if (detected_cpu_level() < CpuLevel::avx2) GTEST_SKIP() << "this processor has no fast path";
  for (const CpuLevel level : kLevels) {
    const Ways ways(level);
    if (ways.none()) continue;
    for (const char* name : kFormats)
      for (const int64_t k : {64, 256, 320}) {
        const BlockCodec& codec = *block_codec_named(name);
        const BlockPath& path = *ways.blocks(codec);
        if (k % path.int_step != 0) continue;
        SCOPED_TRACE(std::string(name) + " at " + kernels::name(level) + ", " + std::to_string(k) + " wide");
        const int64_t most = 70, blocks = k / codec.length;
        const std::vector<uint8_t> packed = any_blocks(codec, most * blocks, blocks);
        for (const int64_t n : {1, 3, 9}) {
          const IntValues x = any_columns(n, k, path.digits ? -128 : -127);
          for (const int64_t rows : {1, 2, 15, 16, 17, 31, 33, 70}) {
            const int64_t ld = rows + 3;
            std::vector<float> got(static_cast<size_t>(n * ld), 7.0f);
            path.int_dots(packed.data(), rows, blocks, n, x.columns(), got.data(), ld);
            for (int64_t j = 0; j < n; ++j)
              for (int64_t r = 0; r < ld; ++r) {
                const float value = got[static_cast<size_t>(j * ld + r)];
                if (r >= rows) {
                  ASSERT_EQ(value, 7.0f) << "behind the rows";
                  continue;
                }
                const PlainRow row = plain_row(name, packed.data() + r * blocks * codec.bytes, k);
                double wanted = 0, size = 0;
                for (int64_t i = 0; i < k; ++i) {
                  const double term = row.value(i) * x.q[static_cast<size_t>(j * k + i)] * static_cast<double>(x.scale[static_cast<size_t>((j * k + i) / 64)]);
                  wanted += term;
                  size += std::fabs(term);
                }
                ASSERT_NEAR(value, wanted, 1e-5 * size) << rows << " rows, " << n << " columns, at " << j << ", " << r;
              }
          }
        }
      }
  }
}

/// 64 values to int8 as int_columns.h says; digits: three of them.
void plain_quantise(const float* x, bool digits, int8_t (*q)[64], float* scale, int (*sum)[kColumnSums]) {
  const float most = digits ? 127 * 65536 : 127;
  float top = 0;
  bool all = true;
  for (int i = 0; i < 64; ++i)
    if (std::isfinite(x[i])) top = std::max(top, std::fabs(x[i]));
    else all = false;
  const float unit = all ? top / most : std::numeric_limits<float>::quiet_NaN(), to_q = top < 1e-30f ? 0 : most / top;
  const int count = digits ? 3 : 1;
  for (int i = 0; i < 64; ++i) {
    int rest = std::isfinite(x[i]) ? static_cast<int>(std::nearbyint(x[i] * to_q)) : 0;
    for (int d = count - 1; d >= 0; --d) {
      const int low = d == 0 ? std::min(rest, 127) : static_cast<int8_t>(rest & 255);
      q[d][i] = static_cast<int8_t>(low);
      rest = (rest - low) >> 8;
    }
  }
  for (int d = 0; d < count; ++d) {
    scale[d] = digits ? unit * (d == 0 ? 65536.0f : d == 1 ? 256.0f : 1.0f) : unit;
    for (int s = 0; s < 4; ++s) sum[d][s] = std::accumulate(q[d] + 16 * s, q[d] + 16 * (s + 1), 0);
    for (int s = 0; s < 2; ++s) sum[d][4 + s] = sum[d][2 * s] + sum[d][2 * s + 1];
  }
}

TEST(RowGroups, ColumnsAreQuantisedToTheBit) {
  if (detected_cpu_level() < CpuLevel::avx2) GTEST_SKIP() << "this processor has no fast path";
  const int64_t n = 3, k = 64 * 12, parts = n * k / 64;
  at::Tensor x = switchyard::testing::randn({parts, 64}, 2, at::kFloat);
  for (int64_t i = 0; i < parts; ++i) x[i] *= std::ldexp(1.0, static_cast<int>(i * 7 % 60) - 40);
  x[1].zero_();
  x[2].fill_(-3.0f);
  x[3][5] = std::nanf("");
  x[4][63] = -std::numeric_limits<float>::infinity();
  x[5].fill_(std::numeric_limits<float>::max());
  x[6] = at::arange(64).to(at::kFloat) * 2 - 63.5;  // ties
  x[7].fill_(1e-42f);
  x[8].fill_(std::nanf(""));
  const float* values = x.const_data_ptr<float>();
  const auto equal = [](float a, float b) { return std::isnan(a) ? std::isnan(b) : std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b); };
  for (const bool digits : {false, true}) {
    const int64_t count = digits ? kDigits : 1;
    IntValues got{std::vector<int8_t>(static_cast<size_t>(count * n * k)), std::vector<float>(static_cast<size_t>(count * n * k / 64)), std::vector<int16_t>(static_cast<size_t>(count * n * k / 64 * kColumnSums))};
    (digits ? quantise_digits : quantise_columns<float>)(values, n, k, got.q.data(), got.scale.data(), got.sum.data());
    for (int64_t p = 0; p < parts; ++p) {
      int8_t q[3][64];
      float scale[3];
      int sum[3][kColumnSums];
      plain_quantise(values + 64 * p, digits, q, scale, sum);
      for (int64_t d = 0; d < count; ++d) {
        const int64_t at = (p * 64 / k * count + d) * k + p * 64 % k;  // of a row its digits, one behind the other
        ASSERT_EQ(std::memcmp(got.q.data() + at, q[d], 64), 0) << p;
        ASSERT_TRUE(equal(got.scale[static_cast<size_t>(at / 64)], scale[d])) << p;
        for (int s = 0; s < kColumnSums; ++s) ASSERT_EQ(got.sum[static_cast<size_t>(at / 64 * kColumnSums + s)], sum[d][s]) << p;
      }
    }
  }
}

TEST(RowGroups, Bfloat16ColumnsAreThoseOfTheSameFloats) {
  if (detected_cpu_level() < CpuLevel::avx2) GTEST_SKIP() << "this processor has no fast path";
  const int64_t n = 3, k = 64 * 5;
  const at::Tensor half = switchyard::testing::randn({n, k}, 3, at::kFloat).to(at::kBFloat16), x = half.to(at::kFloat);
  const auto quantised = [&](const auto* values) {
    IntValues got{std::vector<int8_t>(static_cast<size_t>(n * k)), std::vector<float>(static_cast<size_t>(n * k / 64)), std::vector<int16_t>(static_cast<size_t>(n * k / 64 * kColumnSums))};
    quantise_columns(values, n, k, got.q.data(), got.scale.data(), got.sum.data());
    return got;
  };
  const IntValues got = quantised(half.const_data_ptr<at::BFloat16>()), wanted = quantised(x.const_data_ptr<float>());
  EXPECT_EQ(got.q, wanted.q);
  EXPECT_EQ(got.scale, wanted.scale);
  EXPECT_EQ(got.sum, wanted.sum);
}

}  // namespace
}  // namespace switchyard::kernels::cpu
