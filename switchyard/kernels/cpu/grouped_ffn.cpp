#include "switchyard/kernels/cpu/grouped_ffn.h"

#include <algorithm>
#include <cstring>

#include "switchyard/kernels/cpu/activation.h"
#include "switchyard/kernels/cpu/few_products.h"
#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/product.h"
#include "switchyard/kernels/cpu/skinny.h"
#include "switchyard/kernels/cpu/tiles.h"
#include "switchyard/kernels/cpu/vector_moves.h"
#include "switchyard/kernels/cpu/weight_gradient.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels::cpu {
namespace {

/// Rows a tile, at most: each tile packs its weights again, which costs more where they become bf16.
template <typename T> constexpr int64_t kRows = sizeof(T) == 2 ? 320 : 192;
constexpr int64_t kPanel = 65536;  ///< weights that are made and multiplied at once: a panel stays in the second-level cache
constexpr int64_t kHidden = 64;    ///< hidden units that backward works on at once
constexpr int64_t kWidth = 64;     ///< outputs worked on at once
constexpr int64_t kLane = 16;      ///< columns are padded to it
constexpr int64_t kStep = 8;       ///< rows are padded to it: few shapes of products, as each costs a compilation once

/// Rows of a matrix with k columns that are worked on at once.
int64_t panel_rows(int64_t k, int64_t rows) { return std::min(rows, std::clamp(kPanel / k / kLane * kLane, 2 * kLane, 16 * kLane)); }

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
  pack_rows(tile, columns, nullptr, rows, rows, columns, dst);
}

/// dst[j * ld + i] = T(src[j * width + i] * scale[j]), scale null = 1.
template <typename T>
void narrow_rows(const float* src, int64_t rows, int64_t width, const float* scale, T* dst, int64_t ld) {
  if constexpr (kPair<T> == 2) {
    int64_t j = 0;
    while (j < rows && narrow_fast(src + j * width, width, scale ? scale[j] : 1.0f, dst + j * ld)) ++j;
    if (j == rows) return;
  }
  at_level([=] {
    for (int64_t j = 0; j < rows; ++j) {
      const float by = scale ? scale[j] : 1.0f;
      for (int64_t i = 0; i < width; ++i) dst[j * ld + i] = from_float<T>(src[j * width + i] * by);
    }
  });
}
template <typename T>
void widen_rows(const T* src, int64_t ld, int64_t rows, int64_t width, float* dst) {
  at_level([=] {
    for (int64_t j = 0; j < rows; ++j)
      for (int64_t i = 0; i < width; ++i) dst[j * width + i] = to_float(src[j * ld + i]);
  });
}

/// sum[j] += <a[j], b[j]> over rows of `width`, in 16 partial sums that are added in a fixed order.
void add_row_products(const float* a, const float* b, int64_t rows, int64_t width, float* sum) {
  at_level([=] {
    for (int64_t j = 0; j < rows; ++j) {
      float part[kLane] = {};
      const float *left = a + j * width, *right = b + j * width;
      int64_t i = 0;
      for (; i + kLane <= width; i += kLane)
        for (int64_t l = 0; l < kLane; ++l) part[l] += left[i + l] * right[i + l];
      for (; i < width; ++i) part[i % kLane] += left[i] * right[i];
      for (int64_t half = kLane / 2; half > 0; half /= 2)
        for (int64_t l = 0; l < half; ++l) part[l] += part[l + half];
      sum[j] += part[0];
    }
  });
}

/// The rows of a tile behind its last whole lane of columns. A few of them are met by dot products with the panels of weights that
/// are in cache anyway: as columns they would cost a whole lane.
template <typename T>
struct Tail {
  int64_t count = 0;
  T *x = nullptr, *hidden = nullptr;                          ///< [count, in], [count, hidden]
  float *gate = nullptr, *up = nullptr, *h = nullptr;         ///< [count, rows of a panel]
};

/// How many rows of a tile are its tail. A dot product ends with a sum over lanes, which short rows pay dearly.
template <typename T>
int64_t tail_of(int64_t count, int64_t in, int64_t hidden) {
  const int64_t rest = count % kLane, most = std::min(in, hidden) >= 768 ? 8 : 5;
  return count > kLane && rest <= most && has_row_dots<T>(in) && has_row_dots<T>(hidden) ? rest : 0;
}

/// out[j, r] = <w[r], x[j]> + bias[r].
template <typename T>
void tail_dots(const T* w, int64_t stride, int64_t rows, int64_t k, int64_t count, const T* x, const T* bias, float* out) {
  if (count == 0) return;
  row_dots(w, stride, rows, k, count, x, k, out, rows);
  if (!bias) return;
  for (int64_t j = 0; j < count; ++j)
    for (int64_t r = 0; r < rows; ++r) out[j * rows + r] += to_float(bias[r]);
}

/// Pre-activations of hidden units f0 ... f0 + fc for packed columns: gate (when there is one) and up, [fc, columns].
/// space: a panel of `in` wide rows. Those of the tail go to its own places.
template <typename T>
void pre_activations(const FfnWeights<T>& w, int64_t expert, int64_t f0, int64_t fc, const T* packed, int64_t columns, T* space,
                     float* gate, float* up, const Tail<T>& tail = {}) {
  const auto map = [&](const Stack<T>& stack, const T* biases, float* out, float* tail_out) {
    const auto panel = stack.rows(expert, f0, fc, columns, space);
    const T* bias = biases ? biases + expert * w.hidden + f0 : nullptr;
    product(fc, columns, w.in, panel.data, panel.ld, packed, columns, out, columns, false);
    add_bias(bias, fc, columns, out);
    tail_dots(panel.data, panel.ld, fc, w.in, tail.count, tail.x, bias, tail_out);
  };
  if (w.gate) map(w.gate, w.gate_bias, gate, tail.gate);
  map(w.up, w.up_bias, up, tail.up);
}

template <typename T>
void pack_tile(const FfnWeights<T>& w, const FfnRows<T>& rows, const RowTile& tile, int64_t columns, T* packed) {
  const T* x = rows.row ? rows.x : rows.x + tile.begin * w.in;
  pack_columns(x, w.in, rows.row ? rows.row + tile.begin : nullptr, std::min(tile.count, columns), columns, packed);
}

template <typename T>
void forward_tile(const FfnWeights<T>& w, const FfnRows<T>& rows, const RowTile& tile, T* y, T* keep_gate, T* keep_up) {
  const int64_t F = w.hidden, D = w.in, O = w.out;
  Tail<T> tail{.count = tail_of<T>(tile.count, D, F)};
  const int64_t whole = tile.count - tail.count, columns = round_up(whole, kLane);
  const int64_t chunk = panel_rows(D, F), piece = panel_rows(F, O), most = std::max(chunk, piece);
  const int64_t panel_size = std::max(chunk * Stack<T>::panel_stride(D), piece * Stack<T>::panel_stride(F));
  Scratch<For::task> scratch(bytes_of<T>(D * columns) + bytes_of<T>(F * columns) + bytes_of<T>(panel_size) +
                             3 * bytes_of<float>(most * columns) + bytes_of<T>(tail.count * D) + bytes_of<T>(tail.count * F) +
                             3 * bytes_of<float>(most * tail.count));
  T* packed = scratch.template take<T>(D * columns);
  T* hidden = scratch.template take<T>(F * columns);
  T* space = scratch.template take<T>(panel_size);
  float* gate = scratch.template take<float>(most * columns);
  float* up = scratch.template take<float>(most * columns);
  float* h = scratch.template take<float>(most * columns);
  pack_tile(w, rows, tile, columns, packed);
  if (tail.count > 0) {
    tail.x = scratch.template take<T>(tail.count * D);
    tail.hidden = scratch.template take<T>(tail.count * F);
    for (float** part : {&tail.gate, &tail.up, &tail.h}) *part = scratch.template take<float>(most * tail.count);
    for (int64_t j = 0; j < tail.count; ++j) {
      const int64_t a = tile.begin + whole + j;
      std::memcpy(static_cast<void*>(tail.x + j * D), rows.x + (rows.row ? rows.row[a] : a) * D, sizeof(T) * D);
    }
  }
  const int64_t behind = tile.begin + whole;  // the tail's first position
  for (int64_t f0 = 0; f0 < F; f0 += chunk) {
    const int64_t fc = std::min(chunk, F - f0);
    pre_activations(w, tile.expert, f0, fc, packed, columns, space, gate, up, tail);
    if (keep_up) store_transposed(up, fc, columns, whole, keep_up + tile.begin * F + f0, F);
    if (keep_gate && w.gate) store_transposed(gate, fc, columns, whole, keep_gate + tile.begin * F + f0, F);
    activate_values(w.activation, w.gate ? gate : nullptr, up, h, fc * columns);
    as_columns(h, fc, columns, hidden + f0 * columns);
    if (tail.count == 0) continue;
    if (keep_up) narrow_rows(tail.up, tail.count, fc, nullptr, keep_up + behind * F + f0, F);
    if (keep_gate && w.gate) narrow_rows(tail.gate, tail.count, fc, nullptr, keep_gate + behind * F + f0, F);
    activate_values(w.activation, w.gate ? tail.gate : nullptr, tail.up, tail.h, fc * tail.count);
    narrow_rows(tail.h, tail.count, fc, nullptr, tail.hidden + f0, F);
  }
  for (int64_t o0 = 0; o0 < O; o0 += piece) {
    const int64_t oc = std::min(piece, O - o0);
    const auto panel = w.down.rows(tile.expert, o0, oc, columns, space);
    const T* bias = w.down_bias ? w.down_bias + tile.expert * O + o0 : nullptr;
    product(oc, columns, F, panel.data, panel.ld, hidden, columns, up, columns, false);
    add_bias(bias, oc, columns, up);
    store_transposed(up, oc, columns, whole, y + tile.begin * O + o0, O);
    if (tail.count == 0) continue;
    tail_dots(panel.data, panel.ld, oc, F, tail.count, tail.hidden, bias, tail.up);
    narrow_rows(tail.up, tail.count, oc, nullptr, y + behind * O + o0, O);
  }
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
                   const GradientTiles<T>& g, const RowTile& tile) {
  const int64_t n = tile.count, np = round_up(n, kStep), F = w.hidden, O = w.out, D = w.in, e = tile.expert;
  const int64_t columns = round_up(n, kLane), chunk = std::min(kHidden, F), piece = std::min(kWidth, D);
  const bool gated = static_cast<bool>(w.gate), again = in.up == nullptr, few = n <= kFewInBackward;
  const int64_t panel = std::max({O * chunk, F * piece, again ? chunk * Stack<T>::panel_stride(D) : 0});
  Scratch<For::task> scratch(bytes_of<T>(np * O) + bytes_of<T>(n * O) + 2 * bytes_of<T>(np * F) + bytes_of<T>(panel) +
                             7 * bytes_of<float>(columns * std::max(chunk, piece)) + 2 * bytes_of<float>(np) +
                             (again ? bytes_of<T>(D * columns) : 0) +
                             (few ? bytes_of<float>(n * std::max(F, O)) + bytes_of<float>(n * few_stride(F)) + bytes_of<float>(n * few_stride(D)) : 0));
  T* dy = scratch.template take<T>(np * O);
  T* dgate_rows = scratch.template take<T>(np * F);
  T* dup_rows = scratch.template take<T>(np * F);
  T* space = scratch.template take<T>(panel);
  float* tiles[7];
  for (float*& t : tiles) t = scratch.template take<float>(columns * std::max(chunk, piece));
  float *dh = tiles[0], *gate = tiles[1], *up = tiles[2], *dgate = tiles[3], *dup = tiles[4], *h = tiles[5], *turned = tiles[6];
  float* products = scratch.template take<float>(np);
  float* scale = scratch.template take<float>(np);

  for (int64_t j = 0; j < n; ++j) {
    const int64_t source = in.grad_row ? in.grad_row[tile.begin + j] : tile.begin + j;
    std::memcpy(dy + j * O, in.grad + source * O, sizeof(T) * O);
  }
  std::memset(static_cast<void*>(dy + n * O), 0, sizeof(T) * (np - n) * O);
  for (int64_t j = 0; j < np; ++j) {
    products[j] = 0;
    scale[j] = in.weight && j < n ? in.weight[tile.begin + j] : 1.0f;
  }
  T* packed = again ? scratch.template take<T>(D * columns) : nullptr;
  if (again) pack_tile(w, rows, tile, columns, packed);
  // Few rows meet whole matrices, in the order in which they lie.
  float* floats = few ? scratch.template take<float>(n * std::max(F, O)) : nullptr;
  float* all_dh = few ? scratch.template take<float>(n * few_stride(F)) : nullptr;
  float* all_dx = few ? scratch.template take<float>(n * few_stride(D)) : nullptr;
  if (few) few_times(w.down, e, 0, F, n, dy, floats, all_dh, false);

  const int64_t first = g.padded.begin[e], ld = g.padded.count(e), at = tile.begin - rows.offset[e];
  const int64_t depth = std::min(round_up(n, kStep), ld - at);
  for (int64_t f0 = 0; f0 < F; f0 += chunk) {
    const int64_t fc = std::min(chunk, F - f0);
    if (again) {
      pre_activations(w, e, f0, fc, packed, columns, space, dgate, turned);
      transpose(turned, columns, fc, n, up, fc);
      if (gated) transpose(dgate, columns, fc, n, gate, fc);
    } else {
      widen_rows(in.up + tile.begin * F + f0, F, n, fc, up);
      if (gated) widen_rows(in.gate + tile.begin * F + f0, F, n, fc, gate);
    }
    std::fill(up + n * fc, up + np * fc, 0.0f);
    if (gated) std::fill(gate + n * fc, gate + np * fc, 0.0f);
    if (few) {
      for (int64_t j = 0; j < n; ++j) std::copy_n(all_dh + j * few_stride(F) + f0, fc, dh + j * fc);
      std::fill(dh + n * fc, dh + np * fc, 0.0f);
    } else {
      const auto down = w.down.panel(e, 0, O, f0, fc, space);
      product(np, fc, O, dy, O, down.data, down.ld, dh, fc, false);
    }
    activate_slopes(w.activation, gated ? gate : nullptr, up, dh, gated ? dgate : nullptr, dup, h, np * fc);
    if (out.dweight) add_row_products(h, dh, n, fc, products);  // <y, dy> without y: <h, dh> plus the bias's share
    narrow_rows(dup, np, fc, scale, dup_rows + f0, F);
    if (gated) narrow_rows(dgate, np, fc, scale, dgate_rows + f0, F);
    if (!out.up) continue;
    transpose(dup_rows + f0, F, depth, fc, g.dup_t + first * F + f0 * ld + at, ld);
    if (gated) transpose(dgate_rows + f0, F, depth, fc, g.dgate_t + first * F + f0 * ld + at, ld);
    pack_rows(h, fc, nullptr, n, depth, fc, g.h + (first + at) * F + f0 * kPair<T>, F);
  }
  if (out.dweight)
    for (int64_t j = 0; j < n; ++j) {
      float sum = products[j];
      if (w.down_bias)
        for (int64_t o = 0; o < O; ++o) sum += to_float(w.down_bias[e * O + o]) * to_float(dy[j * O + o]);
      out.dweight[tile.begin + j] = sum;
    }

  if (out.dx && few) {
    if (gated) few_times(w.gate, e, 0, D, n, dgate_rows, floats, all_dx, false);
    few_times(w.up, e, 0, D, n, dup_rows, floats, all_dx, gated);
    for (int64_t j = 0; j < n; ++j) narrow(all_dx + j * few_stride(D), D, out.dx + (tile.begin + j) * D);
  }
  if (out.dx && !few)
    for (int64_t d0 = 0; d0 < D; d0 += piece) {
      const int64_t dc = std::min(piece, D - d0);
      float* dx = dh;
      if (gated) {
        const auto panel_of = w.gate.panel(e, 0, F, d0, dc, space);
        product(np, dc, F, dgate_rows, F, panel_of.data, panel_of.ld, dx, dc, false);
      }
      const auto panel_of = w.up.panel(e, 0, F, d0, dc, space);
      product(np, dc, F, dup_rows, F, panel_of.data, panel_of.ld, dx, dc, gated);
      narrow_rows(dx, n, dc, nullptr, out.dx + tile.begin * D + d0, D);
    }
  if (!out.up) return;
  if (in.weight) {
    const T* plain = dy;
    T* weighted = dy;
    at_level([=] {
      for (int64_t j = 0; j < n; ++j)
        for (int64_t o = 0; o < O; ++o) weighted[j * O + o] = from_float<T>(to_float(plain[j * O + o]) * scale[j]);
    });
  }
  transpose(dy, O, depth, O, g.dy_t + first * O + at, ld);
  const T* x = rows.row ? rows.x : rows.x + tile.begin * D;
  pack_rows(x, D, rows.row ? rows.row + tile.begin : nullptr, n, depth, D, g.x + (first + at) * D, D);
}

}  // namespace

template <typename T>
void ffn_forward(const FfnWeights<T>& w, const FfnRows<T>& rows, T* y, T* keep_gate, T* keep_up) {
  if (takes_many_ints(w.up) && (!w.gate || takes_many_ints(w.gate)) && takes_many_ints(w.down)) {
    const std::vector<RowTile> all = equal_tiles(rows.offset, w.experts, kIntRows, 4);
    if (!all.empty()) ffn_forward_skinny(w, rows, all, y, keep_gate, keep_up);
    return;
  }
  const int64_t fewest = std::min({few_rows(w.up), few_rows(w.gate ? w.gate : w.up), few_rows(w.down)});
  std::vector<RowTile> many = equal_tiles(rows.offset, w.experts, kRows<T>, kLane);
  const std::vector<RowTile> few = take_few(many, rows.offset, fewest);
  if (!few.empty()) ffn_forward_skinny(w, rows, few, y, keep_gate, keep_up);
  const int64_t operations = rows.offset[w.experts] * w.hidden * (2 * w.in + w.out);
  parallel_tasks(static_cast<int64_t>(many.size()), operations,
                 [&](int64_t i) { forward_tile(w, rows, many[i], y, keep_gate, keep_up); });
}

template <typename T>
void ffn_backward(const FfnWeights<T>& w, const FfnRows<T>& rows, const FfnGradientInputs<T>& in, const FfnGradients<T>& out) {
  const int64_t F = w.hidden, O = w.out, D = w.in, E = w.experts;
  const Padded padded = pad_experts(rows.offset, E, kStep);
  const int64_t total = padded.begin[E];
  const bool stacks = static_cast<bool>(out.up);
  Scratch<For::operation> scratch(stacks ? bytes_of<T>(total * (3 * F + O + D)) + 5 * 64 : 0);
  GradientTiles<T> g{padded, nullptr, nullptr, nullptr, nullptr, nullptr};
  if (stacks) {
    g.dgate_t = scratch.template take<T>(total * F);
    g.dup_t = scratch.template take<T>(total * F);
    g.dy_t = scratch.template take<T>(total * O);
    g.h = scratch.template take<T>(total * F);
    g.x = scratch.template take<T>(total * D);
  }
  const std::vector<RowTile> tiles = equal_tiles(rows.offset, E, kRows<T>, kLane);
  parallel_tasks(static_cast<int64_t>(tiles.size()), rows.offset[E] * F * (2 * D + O),
                 [&](int64_t i) { backward_tile(w, rows, in, out, g, tiles[i]); });
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
