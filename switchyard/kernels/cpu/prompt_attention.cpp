#include "switchyard/kernels/prompt_attention.h"

#include <ATen/ops/empty.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "switchyard/base/error.h"
#include "switchyard/kernels/cpu/exponentials.h"
#include "switchyard/kernels/cpu/fma_product.h"
#include "switchyard/kernels/cpu/lying.h"
#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/product.h"
#include "switchyard/kernels/cpu/stack.h"
#include "switchyard/kernels/cpu/tiles.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels {
namespace {

using namespace cpu;

constexpr int64_t kRows = 48;     ///< rows of a task: sixes, as products take them
constexpr int64_t kHeads = 4;     ///< query heads of a task that share a key head, at most
constexpr int64_t kKeys = 512;    ///< keys that are met at once: their scores stay in the second-level cache
constexpr int64_t kLine = 16;     ///< rows of scores are a line of memory apart from powers of two
constexpr float kNone = -std::numeric_limits<float>::infinity();

/// Of which keys a row sees begin ... end.
struct Seen { int64_t begin, end; };
Seen seen_by(int64_t row, int64_t n, int64_t m, const PromptOptions& o) {
  if (!o.causal) return {0, m};
  const int64_t at = m - n + row;
  return {std::max(o.window > 0 ? at - o.window + 1 : 0, o.chunk > 0 ? at / o.chunk * o.chunk : int64_t{0}), at + 1};
}

struct Shape { int64_t n, m, heads, kv_heads, d, dv; };

/// What a few rows of one query head have found so far.
struct Found {
  float *top, *sum;  ///< [rows]: the largest score, and the sum of the exponentials below it
  float* y;          ///< [rows, dv], weighed values
};

/// Scores [rows, ld] of keys first ... first + count become weights; what was found before shrinks where a larger one came.
void weights_of(float* scores, int64_t ld, int64_t row, int64_t rows, int64_t first, int64_t count, const Shape& shape, const PromptOptions& o, const Found& found) {
  for (int64_t r = 0; r < rows; ++r) {
    const Seen seen = seen_by(row + r, shape.n, shape.m, o);
    const int64_t begin = std::clamp(seen.begin - first, int64_t{0}, count), end = std::clamp(seen.end - first, begin, count);
    float* of = scores + r * ld;
    std::fill(of, of + begin, 0.0f);
    std::fill(of + end, of + count, 0.0f);
    if (begin == end) continue;
    const float before = found.top[r];
    const auto [top, sum] = exponentials(of + begin, end - begin, o.scores.scale, o.scores.cap, before);
    const float share = before == kNone ? 0.0f : std::exp(before - top);
    found.top[r] = top;
    found.sum[r] = found.sum[r] * share + sum;
    if (before == kNone || share == 1.0f) continue;
    float* y = found.y + r * shape.dv;
    for (int64_t c = 0; c < shape.dv; ++c) y[c] *= share;
  }
}

const float* floats_of(const float* rows, int64_t, int64_t, int64_t, float*) { return rows; }
const float* floats_of(const c10::BFloat16* rows, int64_t stride, int64_t count, int64_t width, float* space) {
  for (int64_t j = 0; j < count; ++j) widen(rows + j * stride, width, space + j * width);
  return space;
}

/// Rows row ... row + rows and query heads head ... head + heads, which share a key head.
template <typename T>
void attend_rows(const Shape& shape, const Lying<T>& q, const Lying<T>& keys, const Lying<T>& values, int64_t row, int64_t rows, int64_t head, int64_t heads,
                 const PromptOptions& o, const float* sinks, T* out) {
  constexpr bool kPlain = std::is_same_v<T, float>;
  const int64_t ld = kKeys + kLine, dv = shape.dv, key_head = head / (shape.heads / shape.kv_heads);
  Scratch<For::task> scratch(bytes_of<float>(rows * ld) + 2 * bytes_of<float>(heads * rows) + bytes_of<float>(heads * rows * dv) + bytes_of<float>(kPlain ? 0 : kKeys * dv));
  float* scores = scratch.take<float>(rows * ld);
  float* top = scratch.take<float>(heads * rows);
  float* sum = scratch.take<float>(heads * rows);
  float* y = scratch.take<float>(heads * rows * dv);
  float* space = scratch.take<float>(kPlain ? 0 : kKeys * dv);
  std::fill_n(top, heads * rows, kNone);
  std::fill_n(sum, heads * rows, 0.0f);
  const int64_t begin = seen_by(row, shape.n, shape.m, o).begin, end = seen_by(row + rows - 1, shape.n, shape.m, o).end;
  for (int64_t j = begin; j < end; j += kKeys) {
    const int64_t count = std::min(kKeys, end - j), value_stride = kPlain ? values.stride : dv;
    const float* weighed = floats_of(values.at(j, key_head), values.stride, count, dv, space);
    for (int64_t h = 0; h < heads; ++h) {
      const Found found{top + h * rows, sum + h * rows, y + h * rows * dv};
      fma_product_of_rows(rows, count, shape.d, q.at(row, head + h), q.stride, keys.at(j, key_head), keys.stride, scores, ld);
      weights_of(scores, ld, row, rows, j, count, shape, o, found);
      product(rows, dv, count, scores, ld, weighed, value_stride, found.y, dv, j > begin);
    }
  }
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t i = h * rows + r;
      const float sink = sinks ? sinks[head + h] : kNone, most = std::max(top[i], sink), share = std::exp(top[i] - most);
      const float all = sum[i] * share + (sinks ? std::exp(sink - most) : 0.0f);
      T* to = out + ((row + r) * shape.heads + head + h) * dv;
      for (int64_t c = 0; c < dv; ++c) to[c] = from_float<T>(y[i * dv + c] * share / all);
    }
}

template <typename T>
void attend_all(const Shape& shape, const at::Tensor& q, const HeldKeys& held, const PromptOptions& o, const float* sinks, T* out) {
  const int64_t group = shape.heads / shape.kv_heads, runs = (group + kHeads - 1) / kHeads, blocks = (shape.n + kRows - 1) / kRows;
  const Lying<T> queries(q), keys(held.keys), values(held.values);
  // The last rows see most, and come first.
  parallel_tasks(blocks * shape.kv_heads * runs, shape.n * shape.m * shape.heads * (shape.d + shape.dv), [&](int64_t i) {
    const int64_t row = (blocks - 1 - i / (shape.kv_heads * runs)) * kRows, of = i % (shape.kv_heads * runs), first = of % runs * kHeads;
    attend_rows<T>(shape, queries, keys, values, row, std::min(kRows, shape.n - row), of / runs * group + first, std::min(kHeads, group - first), o, sinks, out);
  });
}

}  // namespace

bool takes_prompt(const at::Tensor& q, const HeldKeys& held) {
  return product_is_fma(false) && takes_held(q, held) && q.stride(-1) == 1 && q.size(-1) > 0 && held.values.size(-1) > 0;
}

at::Tensor attend_prompt(const at::Tensor& q, const HeldKeys& held, const PromptOptions& options) {
  const bool fit = q.dim() == 3 && held.keys.dim() == 3 && held.values.dim() == 3 && takes_prompt(q, held);
  check(fit && held.keys.size(2) == q.size(2) && held.keys.size(1) > 0 && q.size(1) % held.keys.size(1) == 0 && held.values.size(0) == held.keys.size(0) &&
            held.values.size(1) == held.keys.size(1) && held.keys.size(0) >= (options.causal ? q.size(0) : 1),
        "kernels.shape", "keys [{}] and values [{}] are not for queries [{}]", fmt::join(held.keys.sizes(), ", "), fmt::join(held.values.sizes(), ", "),
        fmt::join(q.sizes(), ", "));
  const Shape shape{q.size(0), held.keys.size(0), q.size(1), held.keys.size(1), q.size(2), held.values.size(2)};
  const at::Tensor y = at::empty({shape.n, shape.heads, shape.dv}, q.options()), sinks = sinks_of(options.scores.sinks, shape.heads);
  const float* sink = sinks.defined() ? sinks.const_data_ptr<float>() : nullptr;
  if (q.scalar_type() == at::kFloat) attend_all<float>(shape, q, held, options, sink, y.mutable_data_ptr<float>());
  else attend_all<c10::BFloat16>(shape, q, held, options, sink, y.mutable_data_ptr<c10::BFloat16>());
  return y;
}

}  // namespace switchyard::kernels
