// Products with packed weights against the plain product with what the blocks stand for, at every instruction level.
#include "switchyard/kernels/grouped_packed.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <array>
#include <cmath>
#include <limits>
#include <thread>

#include "switchyard/kernels/cpu/blocks.h"
#include "switchyard/kernels/cpu/turned_blocks.h"
#include "switchyard/kernels/dispatch.h"
#include "switchyard/kernels/grouped_ffn.h"
#include "switchyard/kernels/packed_views.h"
#include "switchyard/kernels/packed_weight.h"
#include "switchyard/kernels/reference/reference.h"
#include "tests/support.h"

namespace switchyard::kernels {
namespace {

using switchyard::testing::expect_error;
using switchyard::testing::expect_gradients;
using switchyard::testing::randn;

std::shared_ptr<const BlockTensor> pack(const char* name, std::vector<int64_t> shape, uint64_t seed) {
  const BlockCodec& codec = *block_codec_named(name);
  auto bytes = std::make_shared<at::Tensor>(quantise_blocks(codec, randn(shape, seed, at::kFloat)).contiguous());
  return std::make_shared<BlockTensor>(codec, shape, bytes->const_data_ptr<uint8_t>(), bytes);
}

at::Tensor expected(const at::Tensor& x, const PackedTensor& weight, const at::Tensor& offset, const at::Tensor& bias) {
  const at::Tensor w = weight.dequantise(at::kDouble).view({offset.size(0) - 1, -1, x.size(1)});
  at::Tensor y = at::zeros({x.size(0), w.size(1)}, at::kDouble);
  for (int64_t e = 0; e + 1 < offset.size(0); ++e) {
    const int64_t first = offset[e].item<int64_t>(), rows = offset[e + 1].item<int64_t>() - first;
    at::Tensor part = x.narrow(0, first, rows).to(at::kDouble).matmul(w[e].t());
    if (bias.defined()) part = part + bias[e].to(at::kDouble);
    y.narrow(0, first, rows).copy_(part);
  }
  return y;
}

void expect_close(const at::Tensor& got, const at::Tensor& wanted, double tolerance) {
  ASSERT_EQ(got.sizes(), wanted.sizes());
  if (wanted.numel() == 0) return;
  EXPECT_LT((got.to(at::kDouble) - wanted).abs().max().item<double>(), tolerance * std::max(wanted.abs().max().item<double>(), 1e-3));
}

TEST(GroupedPacked, EveryFormatEqualsTheProductWithItsFloats) {
  // Few rows, many rows, both, none; heights that no slab divides.
  const std::vector<std::vector<int64_t>> offsets{{0, 0, 0, 0}, {0, 1, 1, 4}, {0, 5, 5, 70}, {0, 0, 130, 131}};
  for (CpuLevel level : {CpuLevel::portable, CpuLevel::avx2, CpuLevel::avx512, CpuLevel::avx512bf16}) {
    if (level > detected_cpu_level()) continue;
    const ForcedCpuLevel forced(level);
    for (const char* name : {"F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q4_K", "Q5_K", "Q6_K", "MXFP4"}) {
      SCOPED_TRACE(name);
      const auto weight = pack(name, {3, 70, 256}, 4);
      const at::Tensor bias = randn({3, 70}, 5, at::kFloat);
      for (const auto& rows : offsets) {
        const at::Tensor offset = at::tensor(rows, at::kLong), x = randn({rows.back(), 256}, 6, at::kFloat);
        expect_close(grouped_linear_packed(x, weight, offset, bias), expected(x, *weight, offset, bias), 1e-5);
        const at::Tensor half = x.to(at::kBFloat16);
        expect_close(grouped_linear_packed(half, weight, offset), expected(half, *weight, offset, {}), 2e-2);
      }
    }
  }
}

TEST(GroupedPacked, AMatrixIsOneExpertAndOtherTypesTakeThePlainWay) {
  const auto weight = pack("Q4_K", {33, 256}, 1);
  const at::Tensor offset = at::tensor({0, 9}, at::kLong), x = randn({9, 256}, 2, at::kFloat);
  expect_close(grouped_linear_packed(x, weight, offset), expected(x, *weight, offset, {}), 1e-5);
  expect_close(grouped_linear_packed(x.to(at::kDouble), weight, offset), expected(x, *weight, offset, {}), 1e-12);
}

TEST(GroupedPacked, Gradients) {
  const auto weight = pack("Q8_0", {2, 3, 32}, 1);
  const at::Tensor offset = at::tensor({0, 2, 3}, at::kLong);
  std::vector<at::Tensor> leaves{randn({3, 32}, 2).requires_grad_(), randn({2, 3}, 3).requires_grad_()};
  expect_gradients([&] { return grouped_linear_packed(leaves[0], weight, offset, leaves[1]); }, leaves, 1e-6);
  const at::Tensor x = randn({3, 32}, 2, at::kFloat).requires_grad_();
  grouped_linear_packed(x, weight, offset).sum().backward();
  const at::Tensor w = weight->dequantise();
  expect_close(x.grad(), at::stack({w[0].sum(0), w[0].sum(0), w[1].sum(0)}).to(at::kDouble), 1e-5);
}

TEST(GroupedPacked, TheThreadCountChangesNothing) {
  const auto weight = pack("Q4_K", {4, 200, 512}, 1);
  for (const std::vector<int64_t>& rows : {std::vector<int64_t>{0, 3, 3, 6, 10}, std::vector<int64_t>{0, 90, 90, 100, 300}}) {
    const at::Tensor offset = at::tensor(rows, at::kLong), x = randn({rows.back(), 512}, 2, at::kFloat);
    const at::Tensor many = grouped_linear_packed(x, weight, offset);
    const int threads = at::get_num_threads();
    at::set_num_threads(1);
    const at::Tensor one = grouped_linear_packed(x, weight, offset);
    at::set_num_threads(threads);
    EXPECT_TRUE(one.equal(many));
  }
}

TEST(GroupedPacked, BadOperandsAreRefused) {
  const auto weight = pack("Q8_0", {2, 3, 32}, 1);
  const at::Tensor offset = at::tensor({0, 2, 3}, at::kLong), x = randn({3, 32}, 2, at::kFloat);
  EXPECT_EQ(expect_error([&] { grouped_linear_packed(x.narrow(1, 0, 31), weight, offset); }).code(), "kernels.shape");
  EXPECT_EQ(expect_error([&] { grouped_linear_packed(x, weight, offset, at::zeros({3, 2})); }).code(), "kernels.shape");
  EXPECT_EQ(expect_error([&] { grouped_linear_packed(x.to(at::kLong), weight, offset); }).code(), "kernels.dtype");
  EXPECT_EQ(expect_error([&] { grouped_linear_packed(x, weight, at::tensor({0, 3, 2}, at::kLong)); }).code(), "kernels.offset");
}

constexpr const char* kFormats[] = {"Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K", "MXFP4"};

TEST(GroupedPacked, FastDecodersGiveTheCodecsBits) {
  for (const char* name : kFormats) {
    SCOPED_TRACE(name);
    const BlockCodec& codec = *block_codec_named(name);
    const cpu::BlockPath* path = cpu::block_path(codec);
    if (path == nullptr) GTEST_SKIP() << "this processor has no fast path";
    // Any bytes are a block: denormal, infinite and missing scales among them.
    const int64_t blocks = 400, count = blocks * codec.length;
    const at::Tensor bytes = Streams(3).integers(256, {blocks * codec.bytes}, {.purpose = "bytes"}).to(at::kByte);
    std::vector<float> wanted(count), got(count);
    std::vector<c10::BFloat16> half(count);
    codec.dequantise(bytes.const_data_ptr<uint8_t>(), wanted.data(), blocks);
    path->decode(bytes.const_data_ptr<uint8_t>(), blocks, got.data());
    path->decode_bf16(bytes.const_data_ptr<uint8_t>(), blocks, half.data());
    for (int64_t i = 0; i < count; ++i) {
      if (std::isnan(wanted[i])) {
        ASSERT_TRUE(std::isnan(got[i]) && std::isnan(static_cast<float>(half[i]))) << i;
        continue;
      }
      ASSERT_EQ(wanted[i], got[i]) << i;
      ASSERT_EQ(c10::BFloat16(wanted[i]), half[i]) << i;
    }
  }
}

/// Products of int8 columns against the same sums in float64: exact but for the order of the sums.
void expect_int_dots(const BlockTensor& weight, int64_t n) {
  const int64_t rows = weight.shape()[0], k = weight.shape()[1];
  const at::Tensor x = randn({n, k}, 2, at::kFloat);
  at::Tensor q = at::zeros({n, k}, at::kChar), scale = at::zeros({n, k / 64}), sum = at::zeros({n, k / 64, cpu::kColumnSums}, at::kShort), got = at::zeros({n, rows});
  cpu::quantise_columns(x.const_data_ptr<float>(), n, k, q.mutable_data_ptr<int8_t>(), scale.mutable_data_ptr<float>(), sum.mutable_data_ptr<int16_t>());
  cpu::block_path(weight.codec())->int_dots(weight.row(0), rows, k / weight.codec().length, n,
                                            {q.const_data_ptr<int8_t>(), scale.const_data_ptr<float>(), sum.const_data_ptr<int16_t>()},
                                            got.mutable_data_ptr<float>(), rows);
  const at::Tensor taken = (q.view({n, k / 64, 64}).to(at::kDouble) * scale.unsqueeze(2)).view({n, k});
  expect_close(got.t(), weight.dequantise(at::kDouble).matmul(taken.t()), 1e-5);
  EXPECT_LE((taken - x).abs().max().item<double>(), 0.51 * scale.max().item<double>());  // half a step of int8
}

TEST(GroupedPacked, DotProductsOfOneToEightColumns) {
  constexpr int64_t kSome = 21;  // several streams of rows, and rows that are left
  for (const char* name : kFormats) {
    SCOPED_TRACE(name);
    const auto weight = pack(name, {kSome, 512}, 1);
    const cpu::BlockPath* path = cpu::block_path(weight->codec());
    if (path == nullptr) GTEST_SKIP() << "this processor has no fast path";
    for (int64_t n = 1; n <= 8; ++n) {
      const at::Tensor x = randn({n, 512}, 2, at::kFloat);
      at::Tensor got = at::zeros({n, kSome}, at::kFloat);
      path->dots(weight->row(0), kSome, 512 / weight->codec().length, n, x.const_data_ptr<float>(), got.mutable_data_ptr<float>(), kSome);
      expect_close(got.t(), weight->dequantise(at::kDouble).matmul(x.to(at::kDouble).t()), 1e-5);
      expect_int_dots(*weight, n);
    }
  }
}

TEST(GroupedPacked, SixteenRowsAtATimeWithAnyNumberOfColumns) {
  for (const char* name : kFormats) {
    SCOPED_TRACE(name);
    const auto weight = pack(name, {53, 768}, 1);
    if (cpu::block_path(weight->codec()) == nullptr) GTEST_SKIP() << "this processor has no fast path";
    for (const int64_t n : {1, 2, 3, 4, 5, 6, 7, 8, 19, 64, 67, 130}) expect_int_dots(*weight, n);
  }
}

/// int8 columns and what a weight's rows give with them, as they lie or through `turned`.
struct IntProduct {
  at::Tensor q, scale, sum;
  int64_t n;
  IntProduct(int64_t n, int64_t k) : q(at::zeros({n, k}, at::kChar)), scale(at::zeros({n, k / 64})), sum(at::zeros({n, k / 64, cpu::kColumnSums}, at::kShort)), n(n) {
    const at::Tensor x = randn({n, k}, 2, at::kFloat);
    cpu::quantise_columns(x.const_data_ptr<float>(), n, k, q.mutable_data_ptr<int8_t>(), scale.mutable_data_ptr<float>(), sum.mutable_data_ptr<int16_t>());
  }
  cpu::IntColumns columns() const { return {q.const_data_ptr<int8_t>(), scale.const_data_ptr<float>(), sum.const_data_ptr<int16_t>()}; }
  at::Tensor lying(const BlockTensor& weight, int64_t first, int64_t rows) const {
    at::Tensor out = at::zeros({n, rows});
    cpu::block_path(weight.codec())->int_dots(weight.row(first), rows, weight.row_values() / weight.codec().length, n, columns(),
                                              out.mutable_data_ptr<float>(), rows);
    return out;
  }
  at::Tensor through(cpu::TurnedBlocks& turned, int64_t first, int64_t rows) const {
    at::Tensor out = at::zeros({n, rows});
    turned.dots(first, rows, n, columns(), out.mutable_data_ptr<float>(), rows);
    return out;
  }
};

TEST(GroupedPacked, DigitsAreTheirColumnToTwentyFourBits) {
  if (cpu::block_path(*block_codec_named("Q4_K")) == nullptr) GTEST_SKIP() << "this processor has no fast path";
  const int64_t n = 3, k = 256;
  at::Tensor x = randn({n, k}, 2, at::kFloat);
  x[0][5] = 1e6f;
  x[1].narrow(0, 64, 64).zero_();
  x[2][200] = -1e-30f;
  at::Tensor q = at::zeros({n, cpu::kDigits, k}, at::kChar), scale = at::zeros({n, cpu::kDigits, k / 64}), sum = at::zeros({n, cpu::kDigits, k / 64, cpu::kColumnSums}, at::kShort);
  cpu::quantise_digits(x.const_data_ptr<float>(), n, k, q.mutable_data_ptr<int8_t>(), scale.mutable_data_ptr<float>(), sum.mutable_data_ptr<int16_t>());
  const at::Tensor parts = q.view({n, cpu::kDigits, k / 64, 64}).to(at::kDouble) * scale.to(at::kDouble).unsqueeze(3);
  const at::Tensor off = (parts.sum(1) - x.view({n, k / 64, 64}).to(at::kDouble)).abs(), largest = x.view({n, k / 64, 64}).abs().amax(2, true).to(at::kDouble);
  EXPECT_LE((off / largest.clamp_min(1e-38)).max().item<double>(), 2e-7);
  const auto sums_of = [&](int64_t length) { return q.view({n, cpu::kDigits, k / 64, 64 / length, length}).to(at::kLong).sum(4); };
  EXPECT_TRUE(at::equal(at::cat({sums_of(16), sums_of(32)}, 3), sum.to(at::kLong)));
}

TEST(GroupedPacked, Float32RowsAreRoundedWhereThatIsWanted) {
  const at::NoGradGuard guard;
  for (CpuLevel level : {CpuLevel::portable, CpuLevel::avx2, CpuLevel::avx512, CpuLevel::avx512bf16}) {
    if (level > detected_cpu_level()) continue;
    const ForcedCpuLevel forced(level);
    for (const char* name : {"Q8_0", "Q4_0", "Q4_K", "Q6_K", "MXFP4"})
      for (const int64_t rows : {1, 3, 70}) {
        SCOPED_TRACE(fmt::format("{} {}, {} rows", switchyard::kernels::name(level), name, rows));
        const auto weight = pack(name, {1, 96, 512}, 4);
        const at::Tensor offset = at::tensor(std::vector<int64_t>{0, rows}), x = randn({rows, 512}, 5, at::kFloat);
        at::Tensor whole = (x * 40).round().clamp(-127, 127);  // what int8 holds: the largest of each 64 is 127
        whole.view({-1, 64}).select(1, 7).fill_(127);
        const at::Tensor exact = grouped_linear_packed(x, weight, offset), exact_whole = grouped_linear_packed(whole, weight, offset);
        weight->round_rows();
        const at::Tensor rounded = grouped_linear_packed(x, weight, offset), rounded_whole = grouped_linear_packed(whole, weight, offset);
        expect_close(rounded, exact.to(at::kDouble), 2e-2);
        expect_close(rounded_whole, exact_whole.to(at::kDouble), 1e-5);
        const cpu::BlockPath* path = cpu::block_path(weight->codec());
        EXPECT_EQ(at::equal(rounded, exact), !(path && 512 % path->int_step == 0));
      }
  }
}

TEST(GroupedPacked, ValuesThatAreNoNumbersAreNotHidden) {
  const at::Tensor offset = at::tensor({0, 1}, at::kLong);
  for (const char* name : kFormats)
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
      for (const float value : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
        at::Tensor x = randn({1, 256}, 2, at::kFloat);
        x[0][100] = value;
        EXPECT_FALSE(at::isfinite(grouped_linear_packed(x.to(type), pack(name, {32, 256}, 1), offset)).any().item<bool>()) << name;
      }
}

TEST(GroupedPacked, TurnedRowsGiveTheSameBits) {
  for (const char* name : kFormats) {
    SCOPED_TRACE(name);
    const auto weight = pack(name, {2, 48, 768}, 1);
    const cpu::BlockPath* path = cpu::block_path(weight->codec());
    if (path == nullptr) GTEST_SKIP() << "this processor has no fast path";
    if (!path->always_groups) {
      EXPECT_EQ(cpu::TurnedBlocks::always(*weight), nullptr) << "row by row is as fast for few columns";
      continue;
    }
    for (const int64_t n : {1, 2, 3, 4, 7, 8, 67}) {
      const IntProduct product(n, 768);
      const auto turned = cpu::TurnedBlocks::always(*weight);
      ASSERT_TRUE(turned);
      EXPECT_TRUE(product.through(*turned, 80, 16).equal(product.lying(*weight, 80, 16)));
      EXPECT_EQ(turned->turned_groups(), 0) << "what is read once stays as it lies";
      const int reads = n <= 8 ? 2 : 12;
      for (int time = 1; time < reads; ++time) EXPECT_TRUE(product.through(*turned, 16, 64).equal(product.lying(*weight, 16, 64))) << time;
      EXPECT_EQ(turned->turned_groups(), 0) << "not worth it yet";
      for (int time = 0; time < 2; ++time) EXPECT_TRUE(product.through(*turned, 16, 64).equal(product.lying(*weight, 16, 64))) << time;
      const bool many_lose = cpu::group_path(weight->codec().name)->many_lose;
      EXPECT_EQ(turned->turned_groups(), n <= 8 || many_lose ? 4 : 0);
      EXPECT_TRUE(product.through(*turned, 0, 96).equal(product.lying(*weight, 0, 96))) << "some have turned";
    }
  }
  EXPECT_EQ(cpu::TurnedBlocks::always(*pack("Q4_K", {2, 40, 256}, 1)), nullptr) << "no whole groups";
  EXPECT_EQ(cpu::TurnedBlocks::beside(*pack("Q4_K", {32, 256}, 1)), nullptr) << "small ones stay in the caches";
}

TEST(GroupedPacked, ManyThreadsTurnOneWeight) {
  const auto weight = pack("Q4_K", {512, 256}, 1);
  if (cpu::block_path(weight->codec()) == nullptr) GTEST_SKIP() << "this processor has no fast path";
  const IntProduct product(1, 256);
  const at::Tensor wanted = product.lying(*weight, 0, 512);
  for (int round = 0; round < 20; ++round) {
    const auto turned = cpu::TurnedBlocks::always(*weight);
    std::vector<std::thread> threads;
    std::array<bool, 4> same{};
    for (bool& one : same)
      threads.emplace_back([&] {
        one = true;
        for (int time = 0; time < 4; ++time) one = one && product.through(*turned, 0, 512).equal(wanted);
      });
    for (std::thread& thread : threads) thread.join();
    for (const bool one : same) EXPECT_TRUE(one);
    EXPECT_EQ(turned->turned_groups(), 32);
  }
}

TEST(GroupedPacked, CopiesForProductsTurnAtOnceAndCanBeLaidAgain) {
  for (const char* name : {"Q4_0", "Q4_K", "Q5_K", "MXFP4"}) {
    SCOPED_TRACE(name);
    const auto lying = pack(name, {2, 512, 2048}, 1);  // more than a megabyte
    std::vector<Packed> entries;
    for (int64_t e : {1, 0})
      entries.push_back(std::make_shared<BlockTensor>(lying->codec(), std::vector<int64_t>{512, 2048}, lying->row(512 * e), lying));
    const auto copy = std::dynamic_pointer_cast<const BlockTensor>(packed_for_products(packed_stack(entries)));
    ASSERT_TRUE(copy);
    EXPECT_EQ(copy->lies(), cpu::block_path(lying->codec()) == nullptr);
    EXPECT_TRUE(copy->dequantise().equal(lying->dequantise().flip(0)));
    EXPECT_TRUE(packed_stack({copy})->dequantise().equal(copy->dequantise().unsqueeze(0)));
    const auto flipped = std::make_shared<BlockTensor>(lying->codec(), std::vector<int64_t>{2, 512, 2048}, lying->row(0), lying);
    for (CpuLevel level : {CpuLevel::portable, CpuLevel::avx2, CpuLevel::avx512bf16}) {
      if (level > detected_cpu_level()) continue;
      const ForcedCpuLevel forced(level);
      for (const int64_t rows : {3, 20}) {
        const at::Tensor offset = at::tensor(std::vector<int64_t>{0, rows, 2 * rows}, at::kLong), x = randn({2 * rows, 2048}, 6, at::kFloat);
        const at::Tensor swapped = at::cat({x.narrow(0, rows, rows), x.narrow(0, 0, rows)});
        for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
          for (const bool gradients : {false, true}) {
            const at::Tensor y = grouped_linear_packed(x.to(type).clone().requires_grad_(gradients), copy, offset).detach();
            const at::Tensor z = grouped_linear_packed(swapped.to(type).clone().requires_grad_(gradients), flipped, offset).detach();
            EXPECT_TRUE(y.equal(at::cat({z.narrow(0, rows, rows), z.narrow(0, 0, rows)})));
          }
      }
    }
  }
}

TEST(GroupedPacked, FeedForwardWithPackedStacks) {
  const int64_t E = 4, D = 256, F = 512;
  const std::vector<std::vector<int64_t>> offsets{{0, 0, 0, 0, 0}, {0, 1, 1, 4, 5}, {0, 12, 12, 40, 43}};
  for (CpuLevel level : {CpuLevel::portable, CpuLevel::avx2, CpuLevel::avx512, CpuLevel::avx512bf16}) {
    if (level > detected_cpu_level()) continue;
    const ForcedCpuLevel forced(level);
    for (const char* name : {"Q4_K", "Q8_0", "MXFP4"}) {
      SCOPED_TRACE(name);
      const auto up = pack(name, {E, F, D}, 1), gate = pack("Q6_K", {E, F, D}, 2), down = pack(name, {E, D, F}, 3);
      const at::Tensor plain_up = up->dequantise() * 0.05, bias = randn({E, D}, 4, at::kFloat);
      for (const bool mixed : {false, true}) {  // one of the maps not packed
        FeedForwardWeights weights{.gate = {}, .down_bias = bias, .packed_gate = gate, .packed_down = down};
        FeedForwardWeights wide{.up = up->dequantise(at::kDouble), .gate = gate->dequantise(at::kDouble), .down = down->dequantise(at::kDouble),
                                .down_bias = bias.to(at::kDouble)};
        if (mixed) weights.up = plain_up, wide.up = plain_up.to(at::kDouble);
        else weights.packed_up = up;
        for (const auto& rows : offsets) {
          const at::Tensor offset = at::tensor(rows, at::kLong), x = randn({7, D}, 5, at::kFloat) * 0.1;
          const at::Tensor row = Streams(6).integers(7, {rows.back()}, {.purpose = "row"}), weight = randn({rows.back()}, 7, at::kFloat);
          for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
            const at::Tensor in = x.to(type);
            const at::Tensor wanted = reference::grouped_ffn(in.to(at::kDouble), offset, row, weight.to(at::kDouble), wide, {});
            // bf16: eight bits of x, h and y, and int8 where few rows meet packed weights.
            const double tolerance = type == at::kFloat ? 2e-5 : 4e-2;
            {
              const at::NoGradGuard guard;
              expect_close(grouped_ffn(in, offset, row, weight, weights), wanted, tolerance);
            }
            const at::Tensor leaf = in.detach().clone().requires_grad_();
            expect_close(grouped_ffn(leaf, offset, row, weight, weights).detach(), wanted, tolerance);
          }
        }
      }
    }
  }
}

TEST(GroupedPacked, AParameterMultipliesAsItLiesAndUnpacksWhenRead) {
  const auto matrix = pack("Q4_K", {6, 256}, 1);
  const Parameter parameter(ParamSpec{.name = "w", .shape = {6, 256}});
  parameter.bind(std::make_shared<PackedParameter>(matrix, at::kFloat));
  ASSERT_TRUE(parameter.bound() && parameter.packed());
  const at::Tensor x = randn({2, 3, 256}, 2, at::kFloat), bias = randn({6}, 3, at::kFloat), w = matrix->dequantise();
  expect_close(parameter.packed()->linear(x, bias), (x.matmul(w.t()) + bias).to(at::kDouble), 1e-5);
  EXPECT_TRUE(parameter.packed()->rows(at::tensor({5, 0, 5}, at::kLong)).equal(w.index_select(0, at::tensor({5, 0, 5}, at::kLong))));
  EXPECT_EQ(expect_error([&] { parameter.packed()->rows(at::tensor({6}, at::kLong)); }).code(), "kernels.row_range");
  EXPECT_EQ(expect_error([&] { parameter.packed()->linear(x.narrow(2, 0, 32), {}); }).code(), "kernels.shape");
  EXPECT_TRUE(parameter.tensor().detach().equal(w));
  EXPECT_EQ(parameter.packed(), nullptr);
  const Parameter other(ParamSpec{.name = "v", .shape = {256, 6}});
  EXPECT_EQ(expect_error([&] { other.bind(std::make_shared<PackedParameter>(matrix, at::kFloat)); }).code(), "parameters.shape");
}

TEST(GroupedPacked, EntriesAreStackedWithoutACopyWhereTheyLieTogether) {
  const auto stack = pack("Q8_0", {3, 4, 32}, 1);
  std::vector<Packed> entries;
  for (int64_t e = 0; e < 3; ++e)
    entries.push_back(std::make_shared<BlockTensor>(stack->codec(), std::vector<int64_t>{4, 32}, stack->row(4 * e), stack));
  const auto together = std::dynamic_pointer_cast<const BlockTensor>(packed_stack(entries));
  ASSERT_TRUE(together);
  EXPECT_EQ(together->row(0), stack->row(0));
  EXPECT_TRUE(together->dequantise().equal(stack->dequantise()));
  std::swap(entries[0], entries[2]);
  const auto apart = packed_for_products(packed_stack(entries));
  ASSERT_TRUE(std::dynamic_pointer_cast<const BlockTensor>(apart));
  EXPECT_TRUE(apart->dequantise().equal(stack->dequantise().flip(0)));
  entries[1] = pack("Q4_0", {4, 32}, 1);
  const auto mixed = packed_for_products(packed_stack(entries));
  ASSERT_TRUE(mixed);
  EXPECT_TRUE(mixed->dequantise(1, 1)[0].equal(entries[1]->dequantise()));
  entries[1] = pack("Q4_0", {5, 32}, 1);
  EXPECT_EQ(packed_stack(entries), nullptr);
  entries[1] = nullptr;
  EXPECT_EQ(packed_stack(entries), nullptr);
  EXPECT_EQ(packed_stack({}), nullptr);
}

TEST(GroupedPacked, ViewsAreThoseOfThePlainTensor) {
  const Packed stack = pack("Q8_0", {3, 8, 32}, 1), matrix = pack("Q4_0", {24, 64}, 2);
  const at::Tensor s = stack->dequantise(), m = matrix->dequantise();
  const auto expect_view = [](const Packed& view, const at::Tensor& plain) {
    ASSERT_TRUE(view);
    EXPECT_EQ(view->shape(), plain.sizes().vec());
    EXPECT_TRUE(view->dequantise().equal(plain));
    EXPECT_TRUE(view->dequantise(1, plain.size(0) - 1).equal(plain.narrow(0, 1, plain.size(0) - 1)));
    EXPECT_LT(view->bytes(), plain.nbytes());
    if (const auto ready = packed_for_products(view)) {
      EXPECT_TRUE(std::dynamic_pointer_cast<const BlockTensor>(ready)) << "blocks stay blocks";
      EXPECT_TRUE(ready->dequantise().equal(plain));
    }
  };
  expect_view(packed_slice(stack, 1, 1, 3, 2), s.slice(1, 1, 6, 2));
  expect_view(packed_slice(packed_slice(stack, 1, 1, 6, 1), 1, 2, 2, 3), s.slice(1, 3, 7, 3));
  expect_view(packed_slice(stack, 0, 1, 2, 1), s.slice(0, 1, 3));
  expect_view(packed_select(stack, 0, 2), s.select(0, 2));
  expect_view(packed_select(packed_slice(stack, 1, 1, 3, 2), 0, 1), s.select(0, 1).slice(0, 1, 6, 2));
  expect_view(packed_slice(matrix, 0, 5, 4, 4), m.slice(0, 5, 18, 4));
  expect_view(packed_transposed(stack), s.transpose(1, 2));
  expect_view(packed_transposed(matrix), m.t());
  expect_view(packed_slice(packed_transposed(stack), 2, 0, 4, 2), s.transpose(1, 2).slice(2, 0, 8, 2));
  expect_view(packed_transposed(packed_select(packed_transposed(stack), 0, 1)), s.select(0, 1));
  EXPECT_EQ(packed_transposed(packed_transposed(stack)), stack);
  EXPECT_EQ(packed_for_products(packed_transposed(stack)), nullptr) << "columns cannot be had one by one";
  EXPECT_EQ(packed_slice(stack, 2, 0, 16, 1), nullptr) << "a part of a row";
  EXPECT_EQ(packed_select(stack, 1, 0), nullptr);
  EXPECT_EQ(expect_error([&] { packed_slice(stack, 1, 4, 3, 2); }).code(), "formats.packed_range");
  const at::Tensor pairs = m.view({3, 4, 2, 64}).transpose(1, 2).reshape({24, 64});
  expect_view(packed_halves(matrix, 3), pairs);
  expect_view(packed_pairs(packed_halves(matrix, 3), 3), m);
  expect_view(packed_slice(packed_halves(matrix, 3), 0, 3, 9, 2), pairs.slice(0, 3, 20, 2));
  EXPECT_EQ(packed_halves(matrix, 5), nullptr);
  const Packed other = pack("Q8_0", {3, 8, 32}, 4);
  const Packed turns = packed_interleaved({stack, other});
  expect_view(turns, at::stack({s, other->dequantise()}, 2).reshape({3, 16, 32}));
  EXPECT_EQ(packed_slice(turns, 1, 0, 8, 2), stack);
  EXPECT_EQ(packed_slice(packed_transposed(packed_transposed(turns)), 1, 1, 8, 2), other);
  expect_view(packed_slice(turns, 1, 1, 5, 3), at::stack({s, other->dequantise()}, 2).reshape({3, 16, 32}).slice(1, 1, 14, 3));
  EXPECT_EQ(packed_interleaved({stack, matrix}), nullptr);
  const Packed joined = packed_joined({stack, other});
  const at::Tensor both = at::cat({s, other->dequantise()}, 1);
  expect_view(joined, both);
  EXPECT_EQ(packed_slice(joined, 1, 0, 8, 1), stack);
  EXPECT_EQ(packed_slice(packed_transposed(packed_transposed(joined)), 1, 8, 8, 1), other);
  expect_view(packed_slice(joined, 1, 5, 6, 1), both.slice(1, 5, 11));
  expect_view(packed_slice(joined, 1, 1, 5, 3), both.slice(1, 1, 14, 3));
  expect_view(packed_joined({matrix, matrix}), at::cat({m, m}, 0));
  EXPECT_EQ(packed_joined({stack, matrix}), nullptr);
}

}  // namespace
}  // namespace switchyard::kernels
