#include "switchyard/kernels/cpu/grouped_ffn.h"

#include <cstring>

#include "switchyard/kernels/cpu/activation.h"
#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/product.h"
#include "switchyard/kernels/cpu/skinny.h"
#include "switchyard/kernels/cpu/tiles.h"
#include "switchyard/kernels/cpu/weight_gradient.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels::cpu {
namespace {

constexpr int64_t kRows = 64;     ///< rows a tile
constexpr int64_t kHidden = 256;  ///< hidden units worked on at once: a tile of them stays in the second-level cache
constexpr int64_t kLane = 16;     ///< columns are padded to it

/// tile[f, j] += bias[f].
template <typename T>
void add_bias(const T* bias, int64_t rows, int64_t columns, float* tile) {
  if (!bias) return;
  for (int64_t f = 0; f < rows; ++f) {
    const float b = to_float(bias[f]);
    float* row = tile + f * columns;
    for (int64_t j = 0; j < columns; ++j) row[j] += b;
  }
}

/// A float tile [rows, columns] as B of the next product.
void as_columns(const float* tile, int64_t rows, int64_t columns, float* dst) {
  std::memcpy(dst, tile, sizeof(float) * rows * columns);
}
void as_columns(const float* tile, int64_t rows, int64_t columns, c10::BFloat16* dst) {
  at_level([=] {
    for (int64_t f = 0; f < rows; f += 2)
      for (int64_t j = 0; j < columns; ++j) {
        dst[(f / 2 * columns + j) * 2] = from_float<c10::BFloat16>(tile[f * columns + j]);
        dst[(f / 2 * columns + j) * 2 + 1] = from_float<c10::BFloat16>(tile[(f + 1) * columns + j]);
      }
  });
}

/// dst[i] = T(src[i] * scale).
template <typename T>
void convert(const float* src, float scale, int64_t count, T* dst) {
  at_level([=] { for (int64_t i = 0; i < count; ++i) dst[i] = from_float<T>(src[i] * scale); });
}
template <typename T>
void widen(const T* src, int64_t count, float* dst) {
  at_level([=] { for (int64_t i = 0; i < count; ++i) dst[i] = to_float(src[i]); });
}

/// Pre-activations of hidden units f0 ... f0 + fc for packed columns: gate (when there is one) and up, [fc, columns].
template <typename T>
void pre_activations(const FfnWeights<T>& w, int64_t expert, int64_t f0, int64_t fc, const T* packed, int64_t columns,
                     float* gate, float* up) {
  const int64_t first = expert * w.hidden + f0;
  if (w.gate) {
    product(fc, columns, w.in, w.gate + first * w.in, w.in, packed, columns, gate, columns, false);
    add_bias(w.gate_bias ? w.gate_bias + first : nullptr, fc, columns, gate);
  }
  product(fc, columns, w.in, w.up + first * w.in, w.in, packed, columns, up, columns, false);
  add_bias(w.up_bias ? w.up_bias + first : nullptr, fc, columns, up);
}

template <typename T>
void pack_tile(const FfnWeights<T>& w, const FfnRows<T>& rows, const RowTile& tile, int64_t columns, T* packed) {
  const T* x = rows.row ? rows.x : rows.x + tile.begin * w.in;
  pack_columns(x, w.in, rows.row ? rows.row + tile.begin : nullptr, tile.count, columns, packed);
}

template <typename T>
void forward_tile(const FfnWeights<T>& w, const FfnRows<T>& rows, const RowTile& tile, T* y, T* keep_gate, T* keep_up) {
  const int64_t columns = round_up(tile.count, kLane), chunk = std::min(kHidden, w.hidden);
  Scratch<For::task> scratch(bytes_of<T>((w.in + chunk) * columns) + 64 + bytes_of<float>((3 * chunk + w.out) * columns) + 256);
  T* packed = scratch.template take<T>(w.in * columns);
  T* hidden = scratch.template take<T>(chunk * columns);
  float* gate = scratch.template take<float>(chunk * columns);
  float* up = scratch.template take<float>(chunk * columns);
  float* h = scratch.template take<float>(chunk * columns);
  float* out = scratch.template take<float>(w.out * columns);
  pack_tile(w, rows, tile, columns, packed);
  for (int64_t f0 = 0; f0 < w.hidden; f0 += chunk) {
    const int64_t fc = std::min(chunk, w.hidden - f0);
    pre_activations(w, tile.expert, f0, fc, packed, columns, gate, up);
    if (keep_up) store_transposed(up, fc, columns, tile.count, keep_up + tile.begin * w.hidden + f0, w.hidden);
    if (keep_gate && w.gate) store_transposed(gate, fc, columns, tile.count, keep_gate + tile.begin * w.hidden + f0, w.hidden);
    activate_values(w.activation, w.gate ? gate : nullptr, up, h, fc * columns);
    as_columns(h, fc, columns, hidden);
    product(w.out, columns, fc, w.down + tile.expert * w.out * w.hidden + f0, w.hidden, hidden, columns, out, columns, f0 > 0);
  }
  add_bias(w.down_bias ? w.down_bias + tile.expert * w.out : nullptr, w.out, columns, out);
  store_transposed(out, w.out, columns, tile.count, y + tile.begin * w.out, w.out);
}

/// Rows of every expert, transposed or packed for the products of the weights' gradients.
template <typename T>
struct GradientTiles {
  Padded padded;
  T *dgate_t, *dup_t;  ///< [F, rows] an expert
  T* dy_t;             ///< [O, rows] an expert
  T *h, *x;            ///< [rows, F], [rows, D] as B
};

template <typename T>
void backward_tile(const FfnWeights<T>& w, const FfnRows<T>& rows, const FfnGradientInputs<T>& in, const FfnGradients<T>& out,
                   const GradientTiles<T>& g, const T* down_b, const T* gate_b, const T* up_b, const RowTile& tile) {
  const int64_t n = tile.count, F = w.hidden, O = w.out, D = w.in, e = tile.expert;
  const int64_t columns = round_up(n, kLane), chunk = std::min(kHidden, F);
  const bool gated = w.gate != nullptr, again = in.up == nullptr;
  Scratch<For::task> scratch(bytes_of<T>(n * (2 * O + 3 * F)) + 5 * 64 + bytes_of<float>(n * (6 * F + D)) + 7 * 64 +
                             (again ? bytes_of<T>(D * columns) + 2 * bytes_of<float>(chunk * columns) : 0));
  T* dy = scratch.template take<T>(n * O);
  T* weighted = scratch.template take<T>(n * O);
  T* dgate_rows = scratch.template take<T>(n * F);
  T* dup_rows = scratch.template take<T>(n * F);
  T* h_rows = scratch.template take<T>(n * F);
  float* dh = scratch.template take<float>(n * F);
  float* gate = scratch.template take<float>(n * F);
  float* up = scratch.template take<float>(n * F);
  float* dgate = scratch.template take<float>(n * F);
  float* dup = scratch.template take<float>(n * F);
  float* h = scratch.template take<float>(n * F);
  float* dx = scratch.template take<float>(n * D);

  for (int64_t j = 0; j < n; ++j) {
    const int64_t source = in.grad_row ? in.grad_row[tile.begin + j] : tile.begin + j;
    std::memcpy(dy + j * O, in.grad + source * O, sizeof(T) * O);
  }
  product(n, F, O, dy, O, down_b + e * O * F, F, dh, F, false);

  if (again) {
    T* packed = scratch.template take<T>(D * columns);
    float* gate_c = scratch.template take<float>(chunk * columns);
    float* up_c = scratch.template take<float>(chunk * columns);
    pack_tile(w, rows, tile, columns, packed);
    for (int64_t f0 = 0; f0 < F; f0 += chunk) {
      const int64_t fc = std::min(chunk, F - f0);
      pre_activations(w, e, f0, fc, packed, columns, gate_c, up_c);
      store_transposed(up_c, fc, columns, n, up + f0, F);
      if (gated) store_transposed(gate_c, fc, columns, n, gate + f0, F);
    }
  } else {
    widen(in.up + tile.begin * F, n * F, up);
    if (gated) widen(in.gate + tile.begin * F, n * F, gate);
  }
  activate_slopes(w.activation, gated ? gate : nullptr, up, dh, gated ? dgate : nullptr, dup, h, n * F);

  for (int64_t j = 0; j < n; ++j) {
    const float weight = in.weight ? in.weight[tile.begin + j] : 1.0f;
    if (out.dweight) {
      // <y, dy> without y: <h, dh> plus the bias's share.
      float sum = 0;
      for (int64_t f = 0; f < F; ++f) sum += h[j * F + f] * dh[j * F + f];
      if (w.down_bias)
        for (int64_t o = 0; o < O; ++o) sum += to_float(w.down_bias[e * O + o]) * to_float(dy[j * O + o]);
      out.dweight[tile.begin + j] = sum;
    }
    convert(dup + j * F, weight, F, dup_rows + j * F);
    if (gated) convert(dgate + j * F, weight, F, dgate_rows + j * F);
    for (int64_t o = 0; o < O; ++o) weighted[j * O + o] = from_float<T>(to_float(dy[j * O + o]) * weight);
  }
  convert(h, 1.0f, n * F, h_rows);

  if (out.dx) {
    if (gated) product(n, D, F, dgate_rows, F, gate_b + e * F * D, D, dx, D, false);
    product(n, D, F, dup_rows, F, up_b + e * F * D, D, dx, D, gated);
    convert(dx, 1.0f, n * D, out.dx + tile.begin * D);
  }
  if (!out.up) return;
  const int64_t first = g.padded.begin[e], ld = g.padded.count(e), at = tile.begin - rows.offset[e];
  const int64_t depth = std::min(round_up(n, kPair<T>), ld - at);
  transpose(dup_rows, F, n, F, g.dup_t + first * F + at, ld);
  if (gated) transpose(dgate_rows, F, n, F, g.dgate_t + first * F + at, ld);
  transpose(weighted, O, n, O, g.dy_t + first * O + at, ld);
  if (depth > n) {  // the odd row that bf16 pairs need
    for (int64_t f = 0; f < F; ++f) {
      g.dup_t[first * F + f * ld + at + n] = T(0);
      if (gated) g.dgate_t[first * F + f * ld + at + n] = T(0);
    }
    for (int64_t o = 0; o < O; ++o) g.dy_t[first * O + o * ld + at + n] = T(0);
  }
  pack_rows(h_rows, F, nullptr, n, depth, F, g.h + (first + at) * F);
  const T* x = rows.row ? rows.x : rows.x + tile.begin * D;
  pack_rows(x, D, rows.row ? rows.row + tile.begin : nullptr, n, depth, D, g.x + (first + at) * D);
}

}  // namespace

template <typename T>
void ffn_forward(const FfnWeights<T>& w, const FfnRows<T>& rows, T* y, T* keep_gate, T* keep_up) {
  int64_t most = 0;
  for (int64_t e = 0; e < w.experts; ++e) most = std::max(most, rows.offset[e + 1] - rows.offset[e]);
  if (most <= kSkinnyRows) return ffn_forward_skinny(w, rows, y, keep_gate, keep_up);
  const std::vector<RowTile> tiles = row_tiles(rows.offset, w.experts, kRows);
  const int64_t operations = rows.offset[w.experts] * w.hidden * (2 * w.in + w.out);
  parallel_tasks(static_cast<int64_t>(tiles.size()), operations,
                 [&](int64_t i) { forward_tile(w, rows, tiles[i], y, keep_gate, keep_up); });
}

template <typename T>
void ffn_backward(const FfnWeights<T>& w, const FfnRows<T>& rows, const FfnGradientInputs<T>& in, const FfnGradients<T>& out) {
  const int64_t F = w.hidden, O = w.out, D = w.in, E = w.experts;
  const Padded padded = pad_experts(rows.offset, E, kPair<T>);
  const int64_t total = padded.begin[E], gates = w.gate ? 1 : 0;
  const bool stacks = out.up != nullptr, pack = kPair<T> > 1;
  const int64_t matrix = E * F;
  Scratch<For::operation> scratch((stacks ? bytes_of<T>(total * (3 * F + O + D)) + 5 * 64 : 0) +
                                  (pack ? bytes_of<T>(matrix * (O + (1 + gates) * D)) + 3 * 64 : 0));
  GradientTiles<T> g{padded, nullptr, nullptr, nullptr, nullptr, nullptr};
  if (stacks) {
    g.dgate_t = scratch.template take<T>(total * F);
    g.dup_t = scratch.template take<T>(total * F);
    g.dy_t = scratch.template take<T>(total * O);
    g.h = scratch.template take<T>(total * F);
    g.x = scratch.template take<T>(total * D);
  }
  const T *down_b = w.down, *gate_b = w.gate, *up_b = w.up;
  if (pack) {
    down_b = pack_stack(w.down, rows.offset, E, O, F, scratch.template take<T>(matrix * O));
    if (out.dx) {
      up_b = pack_stack(w.up, rows.offset, E, F, D, scratch.template take<T>(matrix * D));
      if (w.gate) gate_b = pack_stack(w.gate, rows.offset, E, F, D, scratch.template take<T>(matrix * D));
    }
  }
  const std::vector<RowTile> tiles = row_tiles(rows.offset, E, kRows);
  parallel_tasks(static_cast<int64_t>(tiles.size()), rows.offset[E] * F * (2 * D + O),
                 [&](int64_t i) { backward_tile(w, rows, in, out, g, down_b, gate_b, up_b, tiles[i]); });
  if (!stacks) return;
  std::vector<WeightGradient<T>> products;
  if (w.gate) products.push_back({g.dgate_t, g.x, F, D, out.gate, out.gate_bias});
  products.push_back({g.dup_t, g.x, F, D, out.up, out.up_bias});
  products.push_back({g.dy_t, g.h, O, F, out.down, out.down_bias});
  weight_gradients(products, padded, E);
}

#define SWITCHYARD_FFN(T)                                                                   \
  template void ffn_forward<T>(const FfnWeights<T>&, const FfnRows<T>&, T*, T*, T*);        \
  template void ffn_backward<T>(const FfnWeights<T>&, const FfnRows<T>&, const FfnGradientInputs<T>&, const FfnGradients<T>&);
SWITCHYARD_FFN(float)
SWITCHYARD_FFN(c10::BFloat16)

}  // namespace switchyard::kernels::cpu
