#include "switchyard/kernels/cpu/skinny.h"

#include "switchyard/kernels/cpu/activation.h"
#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/tiles.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels::cpu {
namespace {

constexpr int64_t kPiece = 64;  ///< rows of weights a task
constexpr int64_t kLanes = 16;  ///< partial sums of a dot product, added in a fixed order at its end

/// out[n * ld + r] = <w[r], x[n]> (+ bias[r]) for r < rows, n < N; x: [N, k] float32.
template <int N, typename T>
void dots_of(const T* w, int64_t rows, int64_t k, const float* x, const T* bias, float* out, int64_t ld) {
  at_level([=] {
    for (int64_t r = 0; r < rows; ++r) {
      const T* row = w + r * k;
      float part[N][kLanes] = {};
      int64_t i = 0;
      for (; i + kLanes <= k; i += kLanes)
        for (int n = 0; n < N; ++n)
          for (int64_t j = 0; j < kLanes; ++j) part[n][j] += to_float(row[i + j]) * x[n * k + i + j];
      for (; i < k; ++i)
        for (int n = 0; n < N; ++n) part[n][i % kLanes] += to_float(row[i]) * x[n * k + i];
      for (int n = 0; n < N; ++n) {
        for (int64_t half = kLanes / 2; half > 0; half /= 2)
          for (int64_t j = 0; j < half; ++j) part[n][j] += part[n][j + half];
        out[n * ld + r] = part[n][0] + (bias ? to_float(bias[r]) : 0.0f);
      }
    }
  });
}

}  // namespace

template <typename T>
void dots(int64_t n, const T* w, int64_t rows, int64_t k, const float* x, const T* bias, float* out, int64_t ld) {
  switch (n) {
    case 1: return dots_of<1>(w, rows, k, x, bias, out, ld);
    case 2: return dots_of<2>(w, rows, k, x, bias, out, ld);
    case 3: return dots_of<3>(w, rows, k, x, bias, out, ld);
    default: return dots_of<4>(w, rows, k, x, bias, out, ld);
  }
}

template void dots<float>(int64_t, const float*, int64_t, int64_t, const float*, const float*, float*, int64_t);
template void dots<c10::BFloat16>(int64_t, const c10::BFloat16*, int64_t, int64_t, const float*, const c10::BFloat16*, float*, int64_t);

namespace {

/// dst[n, r] = T(src[n * ld + r]).
template <typename T>
void narrow_rows(const float* src, int64_t ld, int64_t n, int64_t count, T* dst, int64_t dst_ld) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t r = 0; r < count; ++r) dst[i * dst_ld + r] = from_float<T>(src[i * ld + r]);
}

template <typename T>
const T* offset_or_null(const T* base, int64_t offset) { return base ? base + offset : nullptr; }

}  // namespace

template <typename T>
void ffn_forward_skinny(const FfnWeights<T>& w, const FfnRows<T>& rows, T* y, T* keep_gate, T* keep_up) {
  const int64_t F = w.hidden, D = w.in, O = w.out, A = rows.offset[w.experts];
  Scratch<For::operation> scratch(bytes_of<float>(A * (D + F)) + 64);
  float* x = scratch.template take<float>(A * D);
  float* h = scratch.template take<float>(A * F);
  for (int64_t a = 0; a < A; ++a) {
    const T* from = rows.x + (rows.row ? rows.row[a] : a) * D;
    for (int64_t i = 0; i < D; ++i) x[a * D + i] = to_float(from[i]);
  }
  const std::vector<RowTile> tiles = row_tiles(rows.offset, w.experts, kSkinnyRows);
  const int64_t count = static_cast<int64_t>(tiles.size());

  const int64_t up_pieces = (F + kPiece - 1) / kPiece;
  parallel_tasks(count * up_pieces, A * F * D * 2, [&](int64_t i) {
    const RowTile& tile = tiles[i / up_pieces];
    const int64_t f0 = i % up_pieces * kPiece, fc = std::min(kPiece, F - f0), first = tile.expert * F + f0, n = tile.count;
    float gate[kSkinnyRows * kPiece], up[kSkinnyRows * kPiece];
    if (w.gate) dots(n, w.gate + first * D, fc, D, x + tile.begin * D, offset_or_null(w.gate_bias, first), gate, kPiece);
    dots(n, w.up + first * D, fc, D, x + tile.begin * D, offset_or_null(w.up_bias, first), up, kPiece);
    const int64_t kept = tile.begin * F + f0;
    if (keep_up) narrow_rows(up, kPiece, n, fc, keep_up + kept, F);
    if (keep_gate && w.gate) narrow_rows(gate, kPiece, n, fc, keep_gate + kept, F);
    for (int64_t j = 0; j < n; ++j)
      activate_values(w.activation, w.gate ? gate + j * kPiece : nullptr, up + j * kPiece, h + (tile.begin + j) * F + f0, fc);
  });

  const int64_t down_pieces = (O + kPiece - 1) / kPiece;
  parallel_tasks(count * down_pieces, A * F * O, [&](int64_t i) {
    const RowTile& tile = tiles[i / down_pieces];
    const int64_t o0 = i % down_pieces * kPiece, oc = std::min(kPiece, O - o0), first = tile.expert * O + o0;
    float out[kSkinnyRows * kPiece];
    dots(tile.count, w.down + first * F, oc, F, h + tile.begin * F, offset_or_null(w.down_bias, first), out, kPiece);
    narrow_rows(out, kPiece, tile.count, oc, y + tile.begin * O + o0, O);
  });
}

template void ffn_forward_skinny<float>(const FfnWeights<float>&, const FfnRows<float>&, float*, float*, float*);
template void ffn_forward_skinny<c10::BFloat16>(const FfnWeights<c10::BFloat16>&, const FfnRows<c10::BFloat16>&, c10::BFloat16*,
                                                c10::BFloat16*, c10::BFloat16*);

}  // namespace switchyard::kernels::cpu
