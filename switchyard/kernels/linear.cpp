#include "switchyard/kernels/linear.h"

#include <ATen/ops/linear.h>
#include <ATen/ops/tensor.h>

#include "switchyard/kernels/autograd.h"
#include "switchyard/kernels/cpu/grouped_linear.h"
#include "switchyard/kernels/dispatch.h"
#include "switchyard/kernels/grouped_linear.h"

namespace switchyard::kernels {

namespace {

/// Rows that are few for a map to so many outputs.
int64_t few_for(int64_t outputs) { return cpu_level() < CpuLevel::avx512 && outputs >= 256 ? 64 : 16; }

/// Few rows meet weights as they lie: libtorch's product packs the weights first, which takes longer than reading them. With gradients or
/// without: a block that is computed again for its gradients has the same bits.
bool few_rows(const at::Tensor& x, const at::Tensor& weight) {
  const int64_t rows = x.size(-1) > 0 ? x.numel() / x.size(-1) : 0;
  return rows > 0 && rows <= few_for(weight.size(0));
}

/// Processors on which MKL copies both sides of a product before it multiplies them.
bool mkl_copies() {
#if defined(__x86_64__)
  static const bool amd = __builtin_cpu_is("amd");
  return amd && cpu_level() < CpuLevel::avx512;
#else
  return false;
#endif
}

/// Many rows, of which the grouped product copies some weights at a time, and nothing else.
bool many_rows(const at::Tensor& x) { return x.scalar_type() == at::kFloat && x.numel() >= cpu::kManyRows * x.size(-1) && mkl_copies(); }

/// Operands that the grouped product takes as they are.
bool takes(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const at::ScalarType type = x.scalar_type();
  return cpu_level() >= CpuLevel::avx2 && x.is_cpu() && weight.is_cpu() && (type == at::kFloat || type == at::kBFloat16) &&
         weight.scalar_type() == type && detail::product_type(x) == type && weight.is_contiguous() && (!bias.defined() || bias.scalar_type() == type);
}

bool slow_products(const at::Tensor& x) {
  return cpu_level() < CpuLevel::avx512 && x.is_cpu() && detail::product_type(x) == at::kBFloat16;
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const bool alike = x.dim() > 0 && weight.dim() == 2 && x.size(-1) == weight.size(1) && (!bias.defined() || bias.dim() == 1);
  if (!alike || !(slow_products(x) || (takes(x, weight, bias) && (few_rows(x, weight) || many_rows(x))))) return at::linear(x, weight, bias);
  const at::Tensor rows = x.reshape({-1, x.size(-1)}), offset = at::tensor({int64_t{0}, rows.size(0)}, at::kLong);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = weight.size(0);
  return grouped_linear(rows, weight.unsqueeze(0), offset, bias.defined() ? bias.unsqueeze(0) : bias).view(shape);
}

FastProducts::FastProducts(const at::Tensor& x) {
  if (!slow_products(x)) return;
  type_ = detail::product_type(x);
  no_autocast_.emplace(detail::autocast_keys());
}

at::Tensor FastProducts::operator()(const at::Tensor& operand) const { return type_ && operand.defined() ? operand.to(at::kFloat) : operand; }
at::Tensor FastProducts::result(const at::Tensor& y) const { return type_ ? y.to(*type_) : y; }

}  // namespace switchyard::kernels
