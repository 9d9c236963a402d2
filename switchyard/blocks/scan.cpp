#include "switchyard/blocks/scan.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>

#include "switchyard/kernels/matrix_scan.h"
#include "switchyard/kernels/selective_scan.h"

namespace switchyard {
namespace {

/// Rows of a block: products inside it grow with its square, those from block to block shrink with it.
constexpr int64_t kBlock = 64;

/// [B, L, H, ...] → [B, H, n, ...] of a block's rows.
at::Tensor heads_first(const at::Tensor& rows, int64_t begin, int64_t length) {
  const at::Tensor block = rows.narrow(1, begin, length).transpose(1, 2);
  return at::isReducedFloatingType(block.scalar_type()) ? block.to(at::kFloat) : block;
}

at::Tensor unit_length(const at::Tensor& x) { return x * at::rsqrt(x.square().sum(-1, /*keepdim=*/true) + kernels::kUnitEps); }

/// [B, G, n, ...] → [B, H, n, ...].
at::Tensor every_head(const at::Tensor& groups, int64_t heads) {
  return groups.size(1) == heads ? groups : groups.repeat_interleave(heads / groups.size(1), 1);
}

/// What rows of a block leave of each other.
struct Decay {
  at::Tensor reached;  ///< [B, H, n, 1]: of the state before the block, at each row
  at::Tensor between;  ///< [B, H, n, n]: of row j at row i, 0 where j is later
  at::Tensor left;     ///< [B, H, n, 1]: of each row behind the block
  at::Tensor whole;    ///< [B, H, 1, 1]: of the state before it, behind it
};

/// Differences of sums are taken in float64: sums over a block may be large where their differences are not.
Decay decay_of(const at::Tensor& g, int64_t begin, int64_t length) {
  const at::Tensor sum = heads_first(g, begin, length).to(at::kDouble).cumsum(-1);  // [B, H, n]
  const auto type = g.scalar_type();
  const at::Tensor later = at::ones({length, length}, sum.options().dtype(at::kBool)).triu(1);
  const at::Tensor last = sum.narrow(-1, length - 1, 1);
  return {sum.to(type).exp().unsqueeze(-1),
          (sum.unsqueeze(-1) - sum.unsqueeze(-2)).to(type).masked_fill(later, -INFINITY).exp(),
          (last - sum).to(type).exp().unsqueeze(-1),
          last.to(type).exp().unsqueeze(-1)};
}

/// Block after block; step(begin, length, state) gives a block's rows [B, H, n, p] and changes the state.
template <typename Step>
Scanned in_blocks(int64_t rows, at::Tensor state, const at::Tensor& nothing, Step&& step) {
  std::vector<at::Tensor> y;
  for (int64_t begin = 0; begin < rows; begin += kBlock)
    y.push_back(step(begin, std::min(kBlock, rows - begin), state).transpose(1, 2));
  return {y.empty() ? nothing : y.size() == 1 ? y[0] : at::cat(y, 1), std::move(state)};
}

Scanned in_one_pass(const kernels::MatrixScan& operands, const at::Tensor& state) {
  at::Tensor behind = state.clone(at::MemoryFormat::Contiguous);
  at::Tensor y = kernels::matrix_scan(operands, behind);
  return {std::move(y), std::move(behind)};
}

}  // namespace

Scanned decayed_scan(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& g, const at::Tensor& state) {
  if (const kernels::MatrixScan operands{q, k, v, g}; kernels::can_scan(operands, state)) return in_one_pass(operands, state);
  const int64_t heads = v.size(2), group = heads / q.size(2);
  return in_blocks(v.size(1), state, v, [&](int64_t begin, int64_t length, at::Tensor& s) {
    const at::Tensor queries = heads_first(q, begin, length), keys = heads_first(k, begin, length), values = heads_first(v, begin, length);
    if (length == 1) {
      const at::Tensor keep = heads_first(g, begin, 1).exp().unsqueeze(-1);  // [B, H, 1, 1]
      s = s * keep + every_head(keys, heads).transpose(-2, -1) * values;
      return at::matmul(every_head(queries, heads), s);
    }
    const Decay decay = decay_of(g, begin, length);
    // Scores are the groups', what is left of them the heads'.
    const at::Tensor scores = at::matmul(queries, keys.transpose(-2, -1)).unsqueeze(2);
    const at::Tensor seen = (scores * decay.between.unflatten(1, {-1, group})).flatten(1, 2);
    at::Tensor y = at::matmul(seen, values) + at::matmul(every_head(queries, heads), s) * decay.reached;
    s = s * decay.whole + at::matmul(every_head(keys, heads).transpose(-2, -1), values * decay.left);
    return y;
  });
}

Scanned delta_scan(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& beta, const at::Tensor& g,
                   const at::Tensor& state) {
  if (const kernels::MatrixScan operands{q, k, v, g, beta}; kernels::can_scan(operands, state)) return in_one_pass(operands, state);
  const int64_t heads = v.size(2);
  const double scale = 1 / std::sqrt(static_cast<double>(q.size(3)));
  return in_blocks(v.size(1), state, v, [&](int64_t begin, int64_t length, at::Tensor& s) {
    const at::Tensor queries = every_head(unit_length(heads_first(q, begin, length)) * scale, heads),
                     keys = every_head(unit_length(heads_first(k, begin, length)), heads), values = heads_first(v, begin, length);
    const at::Tensor rate = heads_first(beta, begin, length).unsqueeze(-1);  // [B, H, n, 1]
    if (length == 1) {
      s = s * heads_first(g, begin, 1).exp().unsqueeze(-1);
      s = s + keys.transpose(-2, -1) * ((values - at::matmul(keys, s)) * rate);
      return at::matmul(queries, s);
    }
    const Decay decay = decay_of(g, begin, length);
    // u_i = β_i (v_i − e^{c_i} S₀ᵀ k_i − Σ_{j<i} e^{c_i − c_j} (k_i·k_j) u_j), whose matrix has ones on its diagonal and zeros above;
    // neither is read.
    const at::Tensor overlap = at::matmul(keys, keys.transpose(-2, -1)) * decay.between * rate;
    const at::Tensor brought = (values - at::matmul(keys, s) * decay.reached) * rate;
    const at::Tensor change = at::linalg_solve_triangular(overlap, brought, /*upper=*/false, /*left=*/true, /*unitriangular=*/true);
    at::Tensor y = at::matmul(at::matmul(queries, keys.transpose(-2, -1)) * decay.between, change) + at::matmul(queries, s) * decay.reached;
    s = s * decay.whole + at::matmul(keys.transpose(-2, -1), change * decay.left);
    return y;
  });
}

Scanned selective_scan(const at::Tensor& u, const at::Tensor& step, const at::Tensor& a, const at::Tensor& in, const at::Tensor& out,
                       const at::Tensor& state) {
  if (kernels::can_scan({u, step, a, in, out, state})) {
    at::Tensor h = state.clone(at::MemoryFormat::Contiguous);
    at::Tensor y = kernels::selective_scan(u, step, a, in, out, h);
    return {std::move(y), std::move(h)};
  }
  at::Tensor h = state;
  std::vector<at::Tensor> y;
  for (int64_t t = 0; t < u.size(1); ++t) {
    const at::Tensor steps = step.select(1, t).unsqueeze(-1);  // [B, C, 1]
    h = (steps * a).exp() * h + steps * u.select(1, t).unsqueeze(-1) * in.select(1, t).unsqueeze(1);
    y.push_back((h * out.select(1, t).unsqueeze(1)).sum(-1));
  }
  return {y.empty() ? u : at::stack(y, 1), std::move(h)};
}

}  // namespace switchyard
