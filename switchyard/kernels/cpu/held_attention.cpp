#include "switchyard/kernels/held_attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "switchyard/base/error.h"
#include "switchyard/kernels/cpu/exp.h"
#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/row_dots.h"
#include "switchyard/kernels/cpu/tiles.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels {
namespace {

using namespace cpu;

constexpr int64_t kKeys = 1024, kHeads = 8;  ///< a piece has at most so many keys and query heads
constexpr int64_t kLanes = 16;

/// Some query heads of one key head of a row, and some of its keys.
struct Piece { int64_t row, head, first_query, queries, first_key, keys; };

/// scores[i * n + j] = <query i, key j>.
template <typename T>
void score(const T* q, int64_t queries, const T* keys, int64_t stride, int64_t n, int64_t d, float* scores) {
  if (row_dots(keys, stride, n, d, queries, q, d, scores, n)) return;
  at_level([=] {
    for (int64_t i = 0; i < queries; ++i)
      for (int64_t j = 0; j < n; ++j) {
        float part[kLanes] = {};
        for (int64_t c = 0; c < d; ++c) part[c % kLanes] += to_float(q[i * d + c]) * to_float(keys[j * stride + c]);
        float sum = 0;
        for (const float lane : part) sum += lane;
        scores[i * n + j] = sum;
      }
  });
}

/// Scores become exponentials of what they lie below the largest. Returns that, and their sum.
std::pair<float, float> exponentials(float* s, int64_t n, const HeldOptions& options) {
  const auto scale = static_cast<float>(options.scale), cap = static_cast<float>(options.cap);
  if (cap > 0)
    for (int64_t j = 0; j < n; ++j) s[j] = cap * std::tanh(s[j] * scale / cap);
  float largest = 0, sum = 0;
  at_level([=, &largest, &sum] {
    const float factor = cap > 0 ? 1 : scale;
    float top[kLanes], part[kLanes] = {};
    for (float& lane : top) lane = -std::numeric_limits<float>::infinity();
    const int64_t whole = n / kLanes * kLanes;
    for (int64_t j = 0; j < n; ++j) s[j] *= factor;
    for (int64_t j = 0; j < whole; j += kLanes)
      for (int64_t l = 0; l < kLanes; ++l) top[l] = s[j + l] > top[l] ? s[j + l] : top[l];
    for (int64_t j = whole; j < n; ++j) top[0] = s[j] > top[0] ? s[j] : top[0];
    float most = top[0];
    for (const float lane : top) most = std::max(most, lane);
    for (int64_t j = 0; j < n; ++j) s[j] = exp_fast(s[j] - most);
    for (int64_t j = 0; j < whole; j += kLanes)
      for (int64_t l = 0; l < kLanes; ++l) part[l] += s[j + l];
    for (int64_t j = whole; j < n; ++j) part[0] += s[j];
    float all = 0;
    for (const float lane : part) all += lane;
    largest = most;
    sum = all;
  });
  return {largest, sum};
}

/// y[i * d + c] = Σ_j weight[i * n + j] values[j, c].
template <typename T>
void weigh(const float* weight, int64_t queries, const T* values, int64_t stride, int64_t n, int64_t d, float* y) {
  at_level([=] {
    std::fill_n(y, queries * d, 0.0f);
    int64_t j = 0;
    for (; j + 4 <= n; j += 4) {
      const T *v0 = values + j * stride, *v1 = v0 + stride, *v2 = v1 + stride, *v3 = v2 + stride;
      for (int64_t i = 0; i < queries; ++i) {
        const float *w = weight + i * n + j, w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3];
        float* to = y + i * d;
#pragma GCC ivdep
        for (int64_t c = 0; c < d; ++c) to[c] += w0 * to_float(v0[c]) + w1 * to_float(v1[c]) + w2 * to_float(v2[c]) + w3 * to_float(v3[c]);
      }
    }
    for (; j < n; ++j)
      for (int64_t i = 0; i < queries; ++i) {
        const float w = weight[i * n + j];
        const T* v = values + j * stride;
        float* to = y + i * d;
#pragma GCC ivdep
        for (int64_t c = 0; c < d; ++c) to[c] += w * to_float(v[c]);
      }
  });
}

template <typename T>
void attend(const at::Tensor& q, std::span<const HeldKeys> held, const HeldOptions& options, const float* sinks, at::Tensor& y) {
  const int64_t heads = q.size(1), d = q.size(2), dv = y.size(2), kv_heads = held[0].keys.size(1), group = heads / kv_heads;
  std::vector<Piece> pieces;
  int64_t operations = 0, longest = 0;
  for (int64_t t = 0; t < q.size(0); ++t) {
    const int64_t m = held[static_cast<size_t>(t)].keys.size(0);
    operations += 2 * m * heads * (d + dv);
    longest = std::max(longest, std::min(m, kKeys));
    for (int64_t h = 0; h < kv_heads; ++h)
      for (int64_t i = 0; i < group; i += kHeads)
        for (int64_t j = 0; j < m; j += kKeys) pieces.push_back({t, h, i, std::min(kHeads, group - i), j, std::min(kKeys, m - j)});
  }
  // Of each piece: for each of its queries the largest score, the sum of the exponentials, and the weighed values.
  const int64_t most = std::min(kHeads, group), room = most * (2 + dv);
  std::vector<float> found(pieces.size() * static_cast<size_t>(room));
  const T* queries = q.const_data_ptr<T>();
  const int64_t cost = operations / 4;  // keys and values mostly lie in a cache, where such products take a quarter of what weights do
  parallel_tasks(static_cast<int64_t>(pieces.size()), cost, [&](int64_t i) {
    const Piece& piece = pieces[static_cast<size_t>(i)];
    const HeldKeys& of = held[static_cast<size_t>(piece.row)];
    const int64_t key_stride = of.keys.stride(0), value_stride = of.values.stride(0), n = piece.keys;
    Scratch<For::task> scratch(bytes_of<float>(most * longest));
    float* scores = scratch.take<float>(most * longest);
    score(queries + (piece.row * heads + piece.head * group + piece.first_query) * d, piece.queries,
          of.keys.const_data_ptr<T>() + piece.first_key * key_stride + piece.head * of.keys.stride(1), key_stride, n, d, scores);
    float* to = found.data() + i * room;
    for (int64_t g = 0; g < piece.queries; ++g) std::tie(to[2 * g], to[2 * g + 1]) = exponentials(scores + g * n, n, options);
    weigh(scores, piece.queries, of.values.const_data_ptr<T>() + piece.first_key * value_stride + piece.head * of.values.stride(1), value_stride, n,
          dv, to + 2 * most);
  });
  // The pieces of a head follow one another, and are added in their order.
  T* out = y.mutable_data_ptr<T>();
  std::vector<float> sum(static_cast<size_t>(dv));
  for (size_t first = 0, last = 0; first < pieces.size(); first = last) {
    const Piece& piece = pieces[first];
    while (last < pieces.size() && (last == first || pieces[last].first_key > 0)) ++last;
    for (int64_t g = 0; g < piece.queries; ++g) {
      const int64_t head = piece.head * group + piece.first_query + g;
      const auto of = [&](size_t i) { return found.data() + static_cast<int64_t>(i) * room; };
      float largest = sinks ? sinks[head] : -std::numeric_limits<float>::infinity();
      for (size_t i = first; i < last; ++i) largest = std::max(largest, of(i)[2 * g]);
      float total = sinks ? std::exp(sinks[head] - largest) : 0;
      std::fill(sum.begin(), sum.end(), 0.0f);
      for (size_t i = first; i < last; ++i) {
        const float share = std::exp(of(i)[2 * g] - largest);
        total += share * of(i)[2 * g + 1];
        for (int64_t c = 0; c < dv; ++c) sum[static_cast<size_t>(c)] += share * of(i)[2 * most + g * dv + c];
      }
      T* to = out + (piece.row * heads + head) * dv;
      for (int64_t c = 0; c < dv; ++c) to[c] = from_float<T>(sum[static_cast<size_t>(c)] / total);
    }
  }
}

}  // namespace

bool takes_held(const at::Tensor& q, const HeldKeys& held) {
  const at::ScalarType type = q.scalar_type();
  const auto fits = [type](const at::Tensor& t) { return t.is_cpu() && t.scalar_type() == type && t.stride(-1) == 1; };
  return (type == at::kFloat || type == at::kBFloat16) && q.is_cpu() && fits(held.keys) && fits(held.values) &&
         !(at::GradMode::is_enabled() && (q.requires_grad() || held.keys.requires_grad() || held.values.requires_grad()));
}

at::Tensor attend_held(const at::Tensor& q, std::span<const HeldKeys> held, const HeldOptions& options) {
  check(q.dim() == 3 && q.size(0) == static_cast<int64_t>(held.size()), "kernels.shape", "{} sequences hold keys for queries [{}]", held.size(), fmt::join(q.sizes(), ", "));
  const int64_t heads = q.size(1);
  const at::Tensor rows = q.contiguous();
  for (const HeldKeys& of : held) {
    check(takes_held(q, of) && of.keys.dim() == 3 && of.values.dim() == 3 && of.keys.size(0) > 0 && of.keys.size(2) == q.size(2) &&
              of.keys.size(1) > 0 && heads % of.keys.size(1) == 0 && of.values.size(0) == of.keys.size(0) && of.values.size(1) == of.keys.size(1) &&
              of.keys.size(1) == held[0].keys.size(1) && of.values.size(2) == held[0].values.size(2),
          "kernels.shape", "keys [{}] and values [{}] are not for queries [{}]", fmt::join(of.keys.sizes(), ", "), fmt::join(of.values.sizes(), ", "),
          fmt::join(q.sizes(), ", "));
  }
  at::Tensor y = at::empty({q.size(0), heads, held.empty() ? q.size(2) : held[0].values.size(2)}, rows.options());
  if (y.numel() == 0) return y;
  at::Tensor sinks;
  if (options.sinks.defined()) {
    sinks = options.sinks.to(at::kFloat).contiguous();
    check(sinks.dim() == 1 && sinks.size(0) == heads, "kernels.shape", "sinks [{}] are not for {} heads", fmt::join(sinks.sizes(), ", "), heads);
  }
  const float* sink = sinks.defined() ? sinks.const_data_ptr<float>() : nullptr;
  if (q.scalar_type() == at::kFloat) attend<float>(rows, held, options, sink, y);
  else attend<c10::BFloat16>(rows, held, options, sink, y);
  return y;
}

}  // namespace switchyard::kernels
