#include "switchyard/kernels/matrix_scan.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <cstring>

#include "switchyard/kernels/cpu/exp.h"
#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/product.h"
#include "switchyard/kernels/cpu/tiles.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels {
namespace {

/// Rows of a block: products inside it grow with its square, those from block to block shrink with it.
constexpr int64_t kRows = 64;
/// Blocks have a multiple of these, so that few sizes of products are met; rows behind the last have no effect.
constexpr int64_t kStep = 16;
/// Fewer rows go one by one.
constexpr int64_t kFew = 8;
/// Heads of a group that one task takes: they share the products of queries and keys.
constexpr int64_t kHeads = 4;

/// One operand of one sequence and head: row t is at `at + t * stride`.
template <typename T>
struct Rows {
  const T* at;
  int64_t stride;
};

template <typename T>
Rows<T> rows_of(const at::Tensor& t, int64_t b, int64_t head) {
  return {t.const_data_ptr<T>() + b * t.stride(0) + head * t.stride(2), t.stride(1)};
}

/// x to unit length times scale; unit false: x as it is.
template <typename T>
inline void load(const T* x, int64_t n, bool unit, float scale, float* out) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    out[i] = cpu::to_float(x[i]);
    sum += out[i] * out[i];
  }
  if (!unit) return;
  scale /= std::sqrt(sum + static_cast<float>(kUnitEps));
  for (int64_t i = 0; i < n; ++i) out[i] *= scale;
}

/// A group's queries and keys, and one head's values, decays and rates.
template <typename T>
struct Group {
  Rows<T> q, k;
  int64_t n;
  bool unit;

  float query_scale() const { return unit ? 1 / std::sqrt(static_cast<float>(n)) : 1; }
};
template <typename T>
struct Head {
  Rows<T> v;
  Rows<float> g, beta;  ///< beta.at null: none
  float *y, *state;     ///< row t of y is at y + t * y_stride; state [n, p]
  int64_t y_stride, p;
};

/// One row: S ← e^g S + k uᵀ, y = Sᵀ q.
template <typename T>
void one_row(const Group<T>& group, const Head<T>& head, int64_t t, float* scratch) {
  const int64_t n = group.n, p = head.p;
  float *q = scratch, *k = q + n, *u = k + n;
  cpu::at_level([&] {
    load(group.q.at + t * group.q.stride, n, group.unit, group.query_scale(), q);
    load(group.k.at + t * group.k.stride, n, group.unit, 1, k);
    const T* v = head.v.at + t * head.v.stride;
    const float keep = std::exp(head.g.at[t * head.g.stride]);
    float* y = head.y + t * head.y_stride;
    for (int64_t j = 0; j < p; ++j) u[j] = y[j] = 0;
    if (head.beta.at != nullptr) {
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < p; ++j) u[j] += k[i] * head.state[i * p + j];
      const float rate = head.beta.at[t * head.beta.stride];
      for (int64_t j = 0; j < p; ++j) u[j] = rate * (cpu::to_float(v[j]) - keep * u[j]);
    } else {
      for (int64_t j = 0; j < p; ++j) u[j] = cpu::to_float(v[j]);
    }
    for (int64_t i = 0; i < n; ++i) {
      float* s = head.state + i * p;
#pragma GCC ivdep
      for (int64_t j = 0; j < p; ++j) {
        s[j] = keep * s[j] + k[i] * u[j];
        y[j] += q[i] * s[j];
      }
    }
  });
}

/// Scratch of a block: of its group, then of a head.
struct Block {
  float *q, *k, *k_transposed;      ///< [rows, n], [rows, n], [n, rows]
  float *query_key, *key_key;       ///< [rows, rows]: of each row with each
  float *between;                   ///< [rows, rows]: the decay from the column's row to the row's, 0 above the diagonal
  float *seen, *scaled, *u, *part;  ///< [rows, rows], [rows, n] or [n, rows], [rows, p], [rows, p]
  double* sum;                      ///< [rows]: of g up to each row

  static size_t bytes(int64_t n, int64_t p) {
    return 4 * cpu::bytes_of<float>(kRows * n) + 4 * cpu::bytes_of<float>(kRows * kRows) + 2 * cpu::bytes_of<float>(kRows * p) + cpu::bytes_of<double>(kRows);
  }
  Block(cpu::Scratch<cpu::For::task>& scratch, int64_t n, int64_t p) {
    for (float** piece : {&q, &k, &k_transposed, &scaled}) *piece = scratch.take<float>(kRows * n);
    for (float** piece : {&query_key, &key_key, &between, &seen}) *piece = scratch.take<float>(kRows * kRows);
    for (float** piece : {&u, &part}) *piece = scratch.take<float>(kRows * p);
    sum = scratch.take<double>(kRows);
  }
};

/// Queries, keys and their products of `count` rows from `first`, in a block of `rows`.
template <typename T>
void load_group(const Group<T>& group, int64_t first, int64_t count, int64_t rows, const Block& block) {
  const int64_t n = group.n;
  cpu::at_level([&] {
    for (int64_t i = 0; i < count; ++i) {
      load(group.q.at + (first + i) * group.q.stride, n, group.unit, group.query_scale(), block.q + i * n);
      load(group.k.at + (first + i) * group.k.stride, n, group.unit, 1, block.k + i * n);
    }
    for (int64_t i = count * n; i < rows * n; ++i) block.q[i] = block.k[i] = 0;
    for (int64_t c = 0; c < n; ++c)
      for (int64_t i = 0; i < rows; ++i) block.k_transposed[c * rows + i] = block.k[i * n + c];
  });
  cpu::product(rows, rows, n, block.q, n, block.k_transposed, rows, block.query_key, rows, false);
  if (group.unit) cpu::product(rows, rows, n, block.k, n, block.k_transposed, rows, block.key_key, rows, false);
}

/// Decays inside a block. Differences of sums are taken in float64: sums may be large where their differences are not.
template <typename T>
void load_decays(const Head<T>& head, int64_t first, int64_t count, int64_t rows, const Block& block) {
  double sum = 0;
  for (int64_t i = 0; i < rows; ++i) {
    if (i < count) sum += static_cast<double>(head.g.at[(first + i) * head.g.stride]);
    block.sum[i] = sum;
  }
  cpu::at_level([&] {
    for (int64_t i = 0; i < rows; ++i) {
      float* row = block.between + i * rows;
      const double here = block.sum[i];
      for (int64_t j = 0; j <= i; ++j) row[j] = cpu::exp_fast(static_cast<float>(here - block.sum[j]));
      for (int64_t j = i + 1; j < rows; ++j) row[j] = 0;
    }
  });
}

/// u_i = β_i (v_i − e^{c_i} S₀ᵀ k_i − Σ_{j<i} e^{c_i − c_j} (k_i·k_j) u_j): what rows add to the state, of rows that were corrected.
template <typename T>
void correct(const Head<T>& head, int64_t n, int64_t first, int64_t count, int64_t rows, const Block& block) {
  const int64_t p = head.p;
  cpu::product(rows, p, n, block.k, n, head.state, p, block.part, p, false);
  cpu::at_level([&] {
    for (int64_t i = 0; i < count; ++i) {
      const float rate = head.beta.at[(first + i) * head.beta.stride], reached = cpu::exp_fast(static_cast<float>(block.sum[i]));
      float* u = block.u + i * p;
      for (int64_t c = 0; c < p; ++c) u[c] = rate * (u[c] - reached * block.part[i * p + c]);
      for (int64_t j = 0; j < i; ++j) {
        const float share = rate * block.between[i * rows + j] * block.key_key[i * rows + j];
        const float* other = block.u + j * p;
#pragma GCC ivdep
        for (int64_t c = 0; c < p; ++c) u[c] -= share * other[c];
      }
    }
  });
}

/// One head through a block: y of its rows, and the state behind it.
template <typename T>
void one_block(const Head<T>& head, int64_t n, int64_t first, int64_t count, int64_t rows, const Block& block) {
  const int64_t p = head.p;
  load_decays(head, first, count, rows, block);
  cpu::at_level([&] {
    for (int64_t i = 0; i < count; ++i) {
      const T* v = head.v.at + (first + i) * head.v.stride;
      for (int64_t c = 0; c < p; ++c) block.u[i * p + c] = cpu::to_float(v[c]);
    }
    for (int64_t i = count * p; i < rows * p; ++i) block.u[i] = 0;
  });
  if (head.beta.at != nullptr) correct(head, n, first, count, rows, block);
  cpu::at_level([&] {
    for (int64_t i = 0; i < rows; ++i) {
      const float reached = cpu::exp_fast(static_cast<float>(block.sum[i]));
      for (int64_t c = 0; c < n; ++c) block.scaled[i * n + c] = reached * block.q[i * n + c];
      for (int64_t j = 0; j < rows; ++j) block.seen[i * rows + j] = block.query_key[i * rows + j] * block.between[i * rows + j];
    }
  });
  cpu::product(rows, p, n, block.scaled, n, head.state, p, block.part, p, false);
  cpu::product(rows, p, rows, block.seen, rows, block.u, p, block.part, p, true);
  cpu::at_level([&] {
    for (int64_t i = 0; i < count; ++i) std::memcpy(head.y + (first + i) * head.y_stride, block.part + i * p, static_cast<size_t>(p) * sizeof(float));
    const float* left = block.between + (rows - 1) * rows;
    const float whole = cpu::exp_fast(static_cast<float>(block.sum[rows - 1]));
    for (int64_t c = 0; c < n; ++c)
      for (int64_t i = 0; i < rows; ++i) block.scaled[c * rows + i] = left[i] * block.k_transposed[c * rows + i];
    for (int64_t c = 0; c < n * p; ++c) head.state[c] *= whole;
  });
  cpu::product(n, p, rows, block.scaled, rows, block.u, p, head.state, p, true);
}

template <typename T>
void scan(const MatrixScan& o, at::Tensor& state, at::Tensor& y) {
  const int64_t batch = o.v.size(0), length = o.v.size(1), heads = o.v.size(2), p = o.v.size(3), groups = o.q.size(2), n = o.q.size(3);
  const int64_t in_group = heads / groups, pieces = (in_group + kHeads - 1) / kHeads;
  float *held = state.mutable_data_ptr<float>(), *out = y.mutable_data_ptr<float>();
  cpu::parallel_tasks(batch * groups * pieces, batch * heads * length * n * p * 4, [&](int64_t task) {
    const int64_t b = task / (groups * pieces), g = task / pieces % groups, begin = g * in_group + task % pieces * kHeads;
    const int64_t end = std::min(begin + kHeads, (g + 1) * in_group);
    const Group<T> group{rows_of<T>(o.q, b, g), rows_of<T>(o.k, b, g), n, o.beta.defined()};
    const auto head_of = [&](int64_t h) {
      return Head<T>{rows_of<T>(o.v, b, h), rows_of<float>(o.g, b, h), o.beta.defined() ? rows_of<float>(o.beta, b, h) : Rows<float>{nullptr, 0},
                     out + (b * length * heads + h) * p, held + (b * heads + h) * n * p, heads * p, p};
    };
    if (length < kFew) {
      cpu::Scratch<cpu::For::task> scratch(cpu::bytes_of<float>(2 * n + p));
      float* row = scratch.take<float>(2 * n + p);
      for (int64_t h = begin; h < end; ++h)
        for (int64_t t = 0; t < length; ++t) one_row(group, head_of(h), t, row);
      return;
    }
    cpu::Scratch<cpu::For::task> scratch(Block::bytes(n, p));
    const Block block(scratch, n, p);
    for (int64_t first = 0; first < length; first += kRows) {
      const int64_t count = std::min(kRows, length - first), rows = cpu::round_up(count, kStep);
      load_group(group, first, count, rows, block);
      for (int64_t h = begin; h < end; ++h) one_block(head_of(h), n, first, count, rows, block);
    }
  });
}

at::Tensor rows_in_place(const at::Tensor& t) { return t.stride(-1) == 1 || t.size(-1) == 1 ? t : t.contiguous(); }

}  // namespace

bool can_scan(const MatrixScan& o, const at::Tensor& state) {
  const auto type = o.v.scalar_type();
  if ((type != at::kFloat && type != at::kBFloat16) || o.q.scalar_type() != type || o.k.scalar_type() != type) return false;
  for (const at::Tensor& t : {o.g, o.beta, state})
    if (t.defined() && t.scalar_type() != at::kFloat) return false;
  for (const at::Tensor& t : {o.q, o.k, o.v, o.g, o.beta, state})
    if (t.defined() && (!t.device().is_cpu() || (at::GradMode::is_enabled() && t.requires_grad()))) return false;
  return true;
}

at::Tensor matrix_scan(const MatrixScan& operands, at::Tensor& state) {
  MatrixScan o = operands;
  for (at::Tensor* t : {&o.q, &o.k, &o.v}) *t = rows_in_place(*t);
  at::Tensor y = at::empty(o.v.sizes(), state.options());
  if (y.numel() == 0) return y;
  if (o.v.scalar_type() == at::kFloat) scan<float>(o, state, y);
  else scan<c10::BFloat16>(o, state, y);
  return y;
}

}  // namespace switchyard::kernels
