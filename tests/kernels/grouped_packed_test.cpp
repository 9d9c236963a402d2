// Products with packed weights against the plain product with what the blocks stand for, at every instruction level.
#include "switchyard/kernels/grouped_packed.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "switchyard/kernels/dispatch.h"
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

}  // namespace
}  // namespace switchyard::kernels
