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
#include "switchyard/kernels/cpu/exponentials.h"
#include "switchyard/kernels/cpu/lying.h"
#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/row_dots.h"
#include "switchyard/kernels/cpu/tiles.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels {
namespace {

using namespace cpu;

constexpr int64_t kHeads = 8;  ///< so many query heads meet keys at once, at most
constexpr int64_t kLeastKeys = 32, kMostKeys = 1024, kPieces = 16;  ///< of a piece, and how many pieces there should be of a row's keys
constexpr int64_t kKeysAHead = 8;  ///< a piece has at least so many for each query head that shares them: what it finds is written and read again
constexpr int64_t kBlock = 8;  ///< keys that all heads meet before the next keys
constexpr int64_t kLanes = 16;

/// Some of the keys of a row of q, and query heads from `head` on.
struct Piece { int64_t row, head, first_key, keys; };

/// scores[i * ld + j] = <query i, key j>.
template <typename T>
void score(const T* q, int64_t queries, const T* keys, int64_t stride, int64_t n, int64_t d, float* scores, int64_t ld) {
  if (row_dots(keys, stride, n, d, queries, q, d, scores, ld)) return;
  at_level([=] {
    for (int64_t i = 0; i < queries; ++i)
      for (int64_t j = 0; j < n; ++j) {
        float part[kLanes] = {};
        for (int64_t c = 0; c < d; ++c) part[c % kLanes] += to_float(q[i * d + c]) * to_float(keys[j * stride + c]);
        float sum = 0;
        for (const float lane : part) sum += lane;
        scores[i * ld + j] = sum;
      }
  });
}

/// y[i * d + c] += Σ_j weight[i * ld + j] values[j, c].
template <typename T>
void weigh(const float* weight, int64_t ld, int64_t queries, const T* values, int64_t stride, int64_t n, int64_t d, float* y) {
  at_level([=] {
    int64_t j = 0;
    for (; j + 4 <= n; j += 4) {
      const T *v0 = values + j * stride, *v1 = v0 + stride, *v2 = v1 + stride, *v3 = v2 + stride;
      for (int64_t i = 0; i < queries; ++i) {
        const float *w = weight + i * ld + j, w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3];
        float* to = y + i * d;
#pragma GCC ivdep
        for (int64_t c = 0; c < d; ++c) to[c] += w0 * to_float(v0[c]) + w1 * to_float(v1[c]) + w2 * to_float(v2[c]) + w3 * to_float(v3[c]);
      }
    }
    for (; j < n; ++j)
      for (int64_t i = 0; i < queries; ++i) {
        const float w = weight[i * ld + j];
        const T* v = values + j * stride;
        float* to = y + i * d;
#pragma GCC ivdep
        for (int64_t c = 0; c < d; ++c) to[c] += w * to_float(v[c]);
      }
  });
}

/// How keys and queries of a pass meet.
struct Shape {
  int64_t heads, kv_heads, d, dv;
  int64_t group() const { return heads / kv_heads; }
  /// Query heads of a piece: a few where one key head is for all of them, so that what they read and write stays in a cache.
  int64_t run() const { return kv_heads > 1 ? heads : std::min(heads, kHeads); }
  /// What the piece whose first query head is that one computes.
  Shape of_piece(int64_t head) const { return {std::min(run(), heads - head), kv_heads, d, dv}; }
};

/// Calls run(first key, keys, key head, first query head, query heads). Where key heads are several, all of them meet a few keys before the next
/// ones, so that memory is read as it lies.
template <typename Run>
void for_blocks(const Shape& shape, int64_t keys, const Run& run) {
  const int64_t block = shape.kv_heads > 1 ? kBlock : keys, group = shape.group();
  for (int64_t j = 0; j < keys; j += block)
    for (int64_t h = 0; h < shape.kv_heads; ++h)
      for (int64_t i = 0; i < group; i += kHeads) run(j, std::min(block, keys - j), h, h * group + i, std::min(kHeads, group - i));
}

/// n keys and their values; q: [H, d]. Writes of each query head the largest score and the sum of the exponentials, then the weighed values of all.
template <typename T>
void attend_piece(const Shape& shape, const T* q, const Lying<T>& keys, const Lying<T>& values, int64_t n, const HeldOptions& options, float* to) {
  Scratch<For::task> scratch(bytes_of<float>(shape.heads * n));
  float* scores = scratch.take<float>(shape.heads * n);
  for_blocks(shape, n, [&](int64_t j, int64_t count, int64_t h, int64_t first, int64_t queries) {
    score(q + first * shape.d, queries, keys.at(j, h), keys.stride, count, shape.d, scores + first * n + j, n);
  });
  float* sums = to + 2 * shape.heads;
  for (int64_t i = 0; i < shape.heads; ++i) std::tie(to[2 * i], to[2 * i + 1]) = exponentials(scores + i * n, n, options.scale, options.cap);
  std::fill_n(sums, shape.heads * shape.dv, 0.0f);
  for_blocks(shape, n, [&](int64_t j, int64_t count, int64_t h, int64_t first, int64_t queries) {
    weigh(scores + first * n + j, n, queries, values.at(j, h), values.stride, count, shape.dv, sums + first * shape.dv);
  });
}

/// What so many pieces found of a query head of theirs, `room` apart, as y [dv]. sink: its own, or null. The first piece's sums are lost.
template <typename T>
void join(const Shape& shape, float* found, int64_t room, int64_t pieces, int64_t head, const float* sink, T* y) {
  const int64_t dv = shape.dv;
  const auto most = [&](int64_t i) { return found[i * room + 2 * head]; };
  float* sum = found + 2 * shape.heads + head * dv;
  float largest = sink ? *sink : -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < pieces; ++i) largest = std::max(largest, most(i));
  float total = sink ? std::exp(*sink - largest) : 0;
  for (int64_t i = 0; i < pieces; ++i) {
    const float share = std::exp(most(i) - largest), *more = sum + i * room;
    total += share * found[i * room + 2 * head + 1];
    at_level([=] {
      for (int64_t c = 0; c < dv; ++c) sum[c] = i == 0 ? share * sum[c] : sum[c] + share * more[c];
    });
  }
  at_level([=] {
    for (int64_t c = 0; c < dv; ++c) y[c] = from_float<T>(sum[c] / total);
  });
}

template <typename T>
void attend(const at::Tensor& q, std::span<const HeldKeys> held, const HeldOptions& options, const float* sinks, at::Tensor& y) {
  const Shape shape{.heads = q.size(1), .kv_heads = held[0].keys.size(1), .d = q.size(2), .dv = y.size(2)};
  const int64_t least = std::clamp(kKeysAHead * shape.group(), kLeastKeys, kMostKeys);
  const int64_t run = shape.run(), runs = (shape.heads + run - 1) / run;
  std::vector<Piece> pieces;
  std::vector<int64_t> first;  // of the pieces of each row and run of heads, and the end of all
  int64_t operations = 0;
  for (int64_t t = 0; t < q.size(0); ++t) {
    const int64_t m = held[static_cast<size_t>(t)].keys.size(0), most = std::clamp(m / kPieces, least, kMostKeys), count = (m + most - 1) / most;
    const int64_t step = round_up((m + count - 1) / count, kBlock);  // pieces of nearly equal length
    operations += 2 * m * shape.heads * (shape.d + shape.dv);
    for (int64_t h = 0; h < shape.heads; h += run) {
      first.push_back(static_cast<int64_t>(pieces.size()));
      for (int64_t j = 0; j < m; j += step) pieces.push_back({t, h, j, std::min(step, m - j)});
    }
  }
  first.push_back(static_cast<int64_t>(pieces.size()));
  const int64_t room = run * (2 + shape.dv);
  const int64_t numbers = static_cast<int64_t>(pieces.size()) * room;
  Scratch<For::operation> scratch(bytes_of<float>(numbers));
  float* found = scratch.take<float>(numbers);
  const T* queries = q.const_data_ptr<T>();
  const int64_t cost = operations / 4;  // keys and values mostly lie in a cache, where such products take a quarter of what weights do
  parallel_tasks(static_cast<int64_t>(pieces.size()), cost, [&](int64_t i) {
    const Piece& piece = pieces[static_cast<size_t>(i)];
    const HeldKeys& of = held[static_cast<size_t>(piece.row)];
    const int64_t at = (piece.row * shape.heads + piece.head) * shape.d;
    attend_piece<T>(shape.of_piece(piece.head), queries + at, Lying<T>(of.keys, piece.first_key), Lying<T>(of.values, piece.first_key), piece.keys, options, found + i * room);
  });
  // The pieces of a row follow one another, and are added in their order.
  T* out = y.mutable_data_ptr<T>();
  parallel_tasks(q.size(0) * shape.heads, numbers, [&](int64_t i) {
    const int64_t head = i % shape.heads, of_run = head / run;
    const auto at = static_cast<size_t>(i / shape.heads * runs + of_run);
    join(shape.of_piece(of_run * run), found + first[at] * room, room, first[at + 1] - first[at], head % run, sinks ? sinks + head : nullptr, out + i * shape.dv);
  });
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
  const at::Tensor sinks = sinks_of(options.sinks, heads);
  const float* sink = sinks.defined() ? sinks.const_data_ptr<float>() : nullptr;
  if (q.scalar_type() == at::kFloat) attend<float>(rows, held, options, sink, y);
  else attend<c10::BFloat16>(rows, held, options, sink, y);
  return y;
}

}  // namespace switchyard::kernels
