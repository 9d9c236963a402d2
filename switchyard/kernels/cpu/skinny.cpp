#include "switchyard/kernels/cpu/skinny.h"

#include <cstring>
#include <type_traits>

#include "switchyard/kernels/cpu/activation.h"
#include "switchyard/kernels/cpu/tiles.h"
#include "switchyard/kernels/cpu/turned_blocks.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels::cpu {
namespace {

constexpr int64_t kPiece = 256;          ///< rows of weights a task, at most
constexpr int64_t kPieceBytes = 1 << 19;  ///< of weights a task: a new place in memory costs what a page of reading does
constexpr int64_t kTasks = 32;            ///< tasks that there should be, so that a busy core delays only a small part

/// Rows of weights a task takes of experts with so many rows.
template <typename T>
int64_t piece_of(const Stack<T>& w, int64_t rows, int64_t experts) {
  const int64_t bytes = w.blocks  ? w.blocks->row_bytes()
                        : w.other ? w.k
                                  : w.k * static_cast<int64_t>(w.wide ? sizeof(float) : sizeof(T));
  const int64_t most = std::min({kPiece, kPieceBytes / bytes, round_up(rows * experts / kTasks, 32)}) / 16 * 16;
  return std::min(rows, std::max<int64_t>(most, 32));
}

/// What it takes to multiply so many rows by m rows of the stack, in products of floats: those of bytes take a quarter.
template <typename T>
int64_t operations_of(const Stack<T>& w, int64_t rows, int64_t m) {
  return rows * m * w.k * (takes_ints(w) ? int_columns(w) : 4) / 4;
}

/// Partial sums of a dot product, added in a fixed order at its end: at least four vectors of them are under way at once.
template <int N> constexpr int64_t kLanes = N == 1 ? 64 : N == 2 ? 32 : 16;

/// out[n * ld + r] = <w[r], x[n]> for r < rows, n < N; x: [N, k] float32.
template <int N, typename T>
void dots_of(const T* w, int64_t rows, int64_t k, const float* x, float* out, int64_t ld) {
  constexpr int64_t lanes = kLanes<N>;
  at_level([=] {
    for (int64_t r = 0; r < rows; ++r) {
      const T* row = w + r * k;
      float part[N][lanes] = {};
      int64_t i = 0;
      for (; i + lanes <= k; i += lanes)
        for (int n = 0; n < N; ++n)
          for (int64_t j = 0; j < lanes; ++j) part[n][j] += to_float(row[i + j]) * x[n * k + i + j];
      for (; i < k; ++i)
        for (int n = 0; n < N; ++n) part[n][i % lanes] += to_float(row[i]) * x[n * k + i];
      for (int n = 0; n < N; ++n) {
        for (int64_t half = lanes / 2; half > 0; half /= 2)
          for (int64_t j = 0; j < half; ++j) part[n][j] += part[n][j + half];
        out[n * ld + r] = part[n][0];
      }
    }
  });
}

template <typename T>
void plain_dots(const T* w, int64_t rows, int64_t k, int64_t n, const float* x, float* out, int64_t ld) {
  if (row_dots(w, k, rows, k, n, x, k, out, ld)) return;
  switch (n) {
    case 1: return dots_of<1>(w, rows, k, x, out, ld);
    case 2: return dots_of<2>(w, rows, k, x, out, ld);
    case 3: return dots_of<3>(w, rows, k, x, out, ld);
    case 4: return dots_of<4>(w, rows, k, x, out, ld);
    case 5: return dots_of<5>(w, rows, k, x, out, ld);
    case 6: return dots_of<6>(w, rows, k, x, out, ld);
    case 7: return dots_of<7>(w, rows, k, x, out, ld);
    default: return dots_of<8>(w, rows, k, x, out, ld);
  }
}

}  // namespace

namespace {

template <typename B>
void add_bias(const B* bias, int64_t at, int64_t rows, int64_t n, float* out, int64_t ld) {
  if (!bias) return;
  for (int64_t j = 0; j < n; ++j)
    for (int64_t r = 0; r < rows; ++r) out[j * ld + r] += to_float(bias[at + r]);
}

constexpr int64_t kPlainRows = 24;  ///< rows of x up to which plain weights meet them so, where tiles take such weights as they lie

}  // namespace

template <typename T>
int64_t few_rows(const Stack<T>& w) {
  if ((w.same || w.wide) && has_strips(w.k)) return kPair<T> == 1 ? kPlainRows : kStripRows;  // floats of weights need no making: products take them as they lie
  return w.same && has_row_dots<T>(w.k) && cpu_level() >= CpuLevel::avx512 ? kPlainRows : kSkinnyRows;
}

namespace {

/// That of the strips which plain rows of this stack meet.
template <typename T>
StripOrder strip_order(const Stack<T>& w) { return w.same && sizeof(T) < sizeof(float) ? StripOrder::halves : StripOrder::floats; }
/// Whether n rows of x meet this stack in strips: fewer are met sooner one by one.
template <typename T>
bool takes_strips(const Stack<T>& w, int64_t n) {
  return (w.same || w.wide) && n >= (strip_order(w) == StripOrder::halves ? 6 : 4) && n <= kStripRows && has_strips(w.k);
}

}  // namespace

template <typename T>
bool takes_ints(const Stack<T>& w) {
  if (!w.blocks) return false;
  const BlockPath* path = block_path(w.blocks->codec());
  if (!path) return false;
  return int_columns(w) == 1 ? w.k % path->int_step == 0 : path->digits && w.k % path->group_step == 0;
}

template <typename T>
bool takes_many_ints(const Stack<T>& w) {
  return int_columns(w) == 1 && takes_ints(w) && w.k % block_path(w.blocks->codec())->group_step == 0;
}

namespace {

/// Of rows that lie one behind the other, or have turned.
void int_dots(const BlockTensor& w, const BlockPath& path, int64_t first, int64_t rows, int64_t n, const IntColumns& x, float* out, int64_t ld) {
  TurnedBlocks* turned = w.turned();
  if (turned) turned->dots(first, rows, n, x, out, ld);
  else path.int_dots(w.row(first), rows, w.row_values() / w.codec().length, n, x, out, ld);
}

/// The same of rows that are several columns each.
void digit_dots(const BlockTensor& w, const BlockPath& path, int64_t first, int64_t rows, int64_t n, const IntColumns& x, float* out,
                       int64_t ld) {
  thread_local std::vector<float> parts;
  parts.resize(static_cast<size_t>(kDigits * n * rows));
  int_dots(w, path, first, rows, kDigits * n, x, parts.data(), rows);
  for (int64_t j = 0; j < n; ++j) {
    const float* part = parts.data() + kDigits * j * rows;
    for (int64_t r = 0; r < rows; ++r) out[j * ld + r] = part[r] + (part[rows + r] + part[2 * rows + r]);
  }
}

}  // namespace

template <typename T, typename B>
void dots(const Stack<T>& w, int64_t e, int64_t first, int64_t rows, int64_t n, const FewRows<T>& x, const B* bias, float* space,
          float* out, int64_t ld) {
  const int64_t at = e * w.m + first;
  if (x.strips && takes_strips(w, n) && x.order == strip_order(w)) {
    w.same ? strip_dots(w.same + at * w.k, w.k, rows, w.k, n, x.strips, out, ld) : strip_dots(w.wide + at * w.k, w.k, rows, w.k, n, x.strips, out, ld);
  } else if (w.same) {
    if (!x.plain || !row_dots(w.same + at * w.k, w.k, rows, w.k, n, x.plain, FewRows<T>::plain_stride(w.k), out, ld))
      plain_dots(w.same + at * w.k, rows, w.k, n, x.x, out, ld);
  } else if (w.wide) {
    plain_dots(w.wide + at * w.k, rows, w.k, n, x.x, out, ld);
  } else if (w.other) {
    const int64_t step = w.together();
    for (int64_t r = 0; r < rows; r += step) {
      const int64_t here = std::min(step, rows - r);
      w.other->unpack(at + r, here, space);
      plain_dots(space, here, w.k, n, x.x, out + r, ld);
    }
  } else {
    const int64_t blocks = w.k / w.blocks->codec().length;
    const BlockPath* path = block_path(w.blocks->codec());
    thread_local std::vector<uint8_t> lying;
    if (x.ints.q && takes_ints(w)) (x.columns == 1 ? int_dots : digit_dots)(*w.blocks, *path, at, rows, n, x.ints, out, ld);
    else if (path) path->dots(w.blocks->lying(at, rows, lying), rows, blocks, n, x.x, out, ld);
    else
      for (int64_t r = 0; r < rows; ++r) {
        w.blocks->codec().dequantise(w.blocks->lying(at + r, 1, lying), space, blocks);
        plain_dots(space, 1, w.k, n, x.x, out + r, ld);
      }
  }
  add_bias(bias, at, rows, n, out, ld);
}

#define SWITCHYARD_DOTS(T, B) \
  template void dots<T, B>(const Stack<T>&, int64_t, int64_t, int64_t, int64_t, const FewRows<T>&, const B*, float*, float*, int64_t);
SWITCHYARD_DOTS(float, float)
SWITCHYARD_DOTS(c10::BFloat16, c10::BFloat16)
SWITCHYARD_DOTS(c10::BFloat16, float)
template int64_t few_rows<float>(const Stack<float>&);
template int64_t few_rows<c10::BFloat16>(const Stack<c10::BFloat16>&);
template bool takes_ints<float>(const Stack<float>&);
template bool takes_ints<c10::BFloat16>(const Stack<c10::BFloat16>&);
template bool takes_many_ints<float>(const Stack<float>&);
template bool takes_many_ints<c10::BFloat16>(const Stack<c10::BFloat16>&);

namespace {

/// dst[i, r] = T(src[i * ld + r]).
template <typename T>
void narrow_rows(const float* src, int64_t ld, int64_t n, int64_t count, T* dst, int64_t dst_ld) {
  for (int64_t i = 0; i < n; ++i) narrow(src + i * ld, count, dst + i * dst_ld);
}

}  // namespace

/// Where the rows of tiles lie in their forms: one behind the other, but a row of x that several tiles have for their only one lies once.
struct Places {
  /// row: the row of x at each position; null: every position has its own.
  explicit Places(const std::vector<RowTile>& tiles, const int64_t* row = nullptr) {
    std::vector<int64_t> alone;  // the place of a row of x that is alone in a tile; less than 0: there is none yet
    for (const RowTile& tile : tiles) {
      positions += tile.count;
      int64_t place = -1;
      if (row && tile.count == 1) {
        const auto source = static_cast<size_t>(row[tile.begin]);
        if (source >= alone.size()) alone.resize(source + 1, -1);
        place = alone[source];
        if (place < 0) alone[source] = total;
      }
      first.push_back(place < 0);
      of.push_back(place < 0 ? total : place);
      strips_of.push_back(strip_total);
      if (place < 0) total += tile.count;
      strip_total += strip_columns(tile.count);
    }
  }
  std::vector<bool> first;  ///< whether a tile's rows lie at no earlier tile's place
  std::vector<int64_t> of, strips_of;  ///< in rows; in columns of strips
  int64_t positions = 0, total = 0, strip_total = 0;
};

/// The forms of rows that some stacks read, of one input: which there are, their memory, and making those of a tile.
template <typename T>
class Forms {
 public:
  Forms(std::initializer_list<const Stack<T>*> stacks, const std::vector<RowTile>& tiles, const Places& places, int64_t k)
      : tiles_(tiles), places_(places), k_(k) {
    for (const Stack<T>* stack : stacks) {
      if (!*stack) continue;
      stacks_[count_++] = stack;
      if (takes_ints(*stack)) columns_ = std::max(columns_, int_columns(*stack));
    }
    for (const RowTile& tile : tiles) all_ = all_ | of(tile.count);
  }
  size_t bytes() const {
    const int64_t n = places_.total;
    return (all_.floats ? bytes_of<float>(n * k_) : 0) + (all_.plain ? bytes_of<T>(n * FewRows<T>::plain_stride(k_)) : 0) +
           (all_.strips ? bytes_of<float>(places_.strip_total * k_) : 0) +
           (all_.ints ? bytes_of<int8_t>(columns_ * n * k_) + bytes_of<float>(columns_ * n * (k_ / 64)) + bytes_of<int16_t>(columns_ * n * (k_ / 64 * kColumnSums)) : 0);
  }
  template <For use>
  void take(Scratch<use>& scratch) {
    const int64_t n = places_.total;
    if (all_.floats) x_ = scratch.template take<float>(n * k_);
    if (all_.plain) plain_rows_ = scratch.template take<T>(n * FewRows<T>::plain_stride(k_));
    if (all_.strips) strips_ = scratch.template take<float>(places_.strip_total * k_);
    if (!all_.ints) return;
    q_ = scratch.template take<int8_t>(columns_ * n * k_);
    scale_ = scratch.template take<float>(columns_ * n * (k_ / 64));
    sum_ = scratch.template take<int16_t>(columns_ * n * (k_ / 64 * kColumnSums));
  }
  /// Of tile t, whose rows are row(0), row(1) ...: const T* or const float*. Nothing where an earlier tile makes them.
  template <typename Row>
  void make(int64_t t, const Row& row) const {
    if (!places_.first[static_cast<size_t>(t)]) return;
    using X = std::remove_cvref_t<decltype(*row(0))>;
    const int64_t n = tiles_[t].count, at = places_.of[t];
    const Needed needed = of(n);
    if (needed.strips) {
      const X* rows[kStripRows];
      for (int64_t j = 0; j < n; ++j) rows[j] = row(j);
      make_strips(rows, n, k_, order(), strips_ + places_.strips_of[t] * k_);
    }
    if (needed.floats || needed.plain || needed.ints)
      for (int64_t j = 0; j < n; ++j) make_row(needed, at + j, row(j));
  }
  FewRows<T> from(int64_t t) const {
    FewRows<T> rows = FewRows<T>{x_, plain_rows_, nullptr, {}, {q_, scale_, sum_}, columns_}.from(places_.of[t], k_);
    if (!strips_) return rows;
    rows.strips = strips_ + places_.strips_of[t] * k_;
    rows.order = order();
    return rows;
  }

 private:
  struct Needed {
    bool floats = false, plain = false, ints = false, strips = false;
    Needed operator|(const Needed& o) const { return {floats || o.floats, plain || o.plain, ints || o.ints, strips || o.strips}; }
  };
  /// By a tile of n rows.
  Needed of(int64_t n) const {
    Needed all;
    for (int i = 0; i < count_; ++i) {
      const Stack<T>& w = *stacks_[i];
      Needed one;
      if (takes_strips(w, n) && strip_order(w) == order()) one.strips = true;
      else if (w.same && has_row_dots<T>(k_)) one.plain = true;
      else if (takes_ints(w)) one.ints = true;
      else one.floats = true;
      all = all | one;
    }
    return all;
  }
  StripOrder order() const { return strip_order(*stacks_[0]); }

  void make_row(const Needed& needed, int64_t row, const T* from) const {
    if (needed.plain && !needed.floats && !needed.ints) {
      std::memcpy(static_cast<void*>(plain_rows_ + row * FewRows<T>::plain_stride(k_)), from, sizeof(T) * k_);
    } else if constexpr (std::is_same_v<T, float>) {
      make_of(needed, row, from);
    } else if (columns_ == 1 && !needed.plain && !needed.floats) {
      make_ints(row, from);
    } else {
      Scratch<For::task> task(bytes_of<float>(k_));
      float* floats = task.template take<float>(k_);
      widen(from, k_, floats);
      make_of(needed, row, floats);
    }
  }
  void make_row(const Needed& needed, int64_t row, const float* from) const requires(!std::is_same_v<T, float>) { make_of(needed, row, from); }
  void make_of(const Needed& needed, int64_t row, const float* from) const {
    if (needed.floats) std::copy(from, from + k_, x_ + row * k_);
    if (needed.plain) narrow(from, k_, plain_rows_ + row * FewRows<T>::plain_stride(k_));
    if (needed.ints) make_ints(row, from);
  }
  /// Only float32 rows become several columns.
  template <typename X>
  void make_ints(int64_t row, const X* from) const {
    const int64_t column = columns_ * row;
    int8_t* q = q_ + column * k_;
    float* scale = scale_ + column * (k_ / 64);
    int16_t* sum = sum_ + column * (k_ / 64 * kColumnSums);
    if (columns_ == 1) quantise_columns(from, 1, k_, q, scale, sum);
    else if constexpr (std::is_same_v<X, float>) quantise_digits(from, 1, k_, q, scale, sum);
  }

  const std::vector<RowTile>& tiles_;
  const Places& places_;
  int64_t k_, columns_ = 1;
  const Stack<T>* stacks_[2] = {};
  int count_ = 0;
  Needed all_;
  float *x_ = nullptr, *scale_ = nullptr, *strips_ = nullptr;
  T* plain_rows_ = nullptr;
  int8_t* q_ = nullptr;
  int16_t* sum_ = nullptr;
};

/// Calls make(t) for every tile, on all threads where they have many rows.
template <typename Make>
void for_tiles(const std::vector<RowTile>& tiles, const Places& places, int64_t k, const Make& make) {
  constexpr int64_t kSixteenth = 16;  // what a value costs here, against a product
  parallel_tasks(static_cast<int64_t>(tiles.size()), places.total * k * kSixteenth, make);
}

template <typename T, typename B>
void map_few(const Stack<T>& stack, const std::vector<RowTile>& tiles, const T* x, const B* bias, T* y) {
  const int64_t m = stack.m, k = stack.k;
  const Places places(tiles);
  Forms<T> forms({&stack}, tiles, places, k);
  Scratch<For::operation> scratch(forms.bytes());
  forms.take(scratch);
  for_tiles(tiles, places, k, [&](int64_t t) {
    forms.make(t, [&](int64_t j) { return x + (tiles[t].begin + j) * k; });
  });
  const int64_t piece = piece_of(stack, m, static_cast<int64_t>(tiles.size())), pieces = (m + piece - 1) / piece, space = stack.together() * k;
  parallel_tasks(static_cast<int64_t>(tiles.size()) * pieces, operations_of(stack, places.positions, m), [&](int64_t i) {
    const RowTile& tile = tiles[i / pieces];
    const int64_t m0 = i % pieces * piece, mc = std::min(piece, m - m0);
    Scratch<For::task> task(bytes_of<float>(space) + bytes_of<float>(tile.count * piece));
    float* floats = task.template take<float>(space);
    float* out = task.template take<float>(tile.count * piece);
    dots(stack, tile.expert, m0, mc, tile.count, forms.from(i / pieces), bias, floats, out, piece);
    narrow_rows(out, piece, tile.count, mc, y + tile.begin * m + m0, m);
  });
}

template void map_few<float, float>(const Stack<float>&, const std::vector<RowTile>&, const float*, const float*, float*);
template void map_few<c10::BFloat16, c10::BFloat16>(const Stack<c10::BFloat16>&, const std::vector<RowTile>&, const c10::BFloat16*,
                                                    const c10::BFloat16*, c10::BFloat16*);
template void map_few<c10::BFloat16, float>(const Stack<c10::BFloat16>&, const std::vector<RowTile>&, const c10::BFloat16*, const float*,
                                            c10::BFloat16*);

template <typename T>
void ffn_forward_skinny(const FfnWeights<T>& w, const FfnRows<T>& rows, const std::vector<RowTile>& tiles, T* y, T* keep_gate,
                        T* keep_up) {
  const int64_t F = w.hidden, D = w.in, O = w.out, count = static_cast<int64_t>(tiles.size());
  const Places places(tiles), x_places(tiles, rows.row);
  Forms<T> x({&w.up, &w.gate}, tiles, x_places, D), hidden({&w.down}, tiles, places, F);
  Scratch<For::operation> scratch(bytes_of<float>(places.total * F) + x.bytes() + hidden.bytes());
  float* h = scratch.template take<float>(places.total * F);
  x.take(scratch);
  hidden.take(scratch);
  for_tiles(tiles, x_places, D, [&](int64_t t) {
    x.make(t, [&](int64_t j) {
      const int64_t position = tiles[t].begin + j;
      return rows.x + (rows.row ? rows.row[position] : position) * D;
    });
  });

  const int64_t up_piece = piece_of(w.up, F, count), up_pieces = (F + up_piece - 1) / up_piece;
  const int64_t up_space = std::max(w.up.together(), w.gate.together()) * D;
  parallel_tasks(count * up_pieces, operations_of(w.up, places.positions, F) * (w.gate ? 2 : 1), [&](int64_t i) {
    const RowTile& tile = tiles[i / up_pieces];
    const int64_t f0 = i % up_pieces * up_piece, fc = std::min(up_piece, F - f0), n = tile.count, at = places.of[i / up_pieces];
    Scratch<For::task> task(bytes_of<float>(up_space) + 2 * bytes_of<float>(n * up_piece));
    float* space = task.template take<float>(up_space);
    float* gate = task.template take<float>(n * up_piece);
    float* up = task.template take<float>(n * up_piece);
    if (w.gate) dots(w.gate, tile.expert, f0, fc, n, x.from(i / up_pieces), w.gate_bias, space, gate, up_piece);
    dots(w.up, tile.expert, f0, fc, n, x.from(i / up_pieces), w.up_bias, space, up, up_piece);
    const int64_t kept = tile.begin * F + f0;
    if (keep_up) narrow_rows(up, up_piece, n, fc, keep_up + kept, F);
    if (keep_gate && w.gate) narrow_rows(gate, up_piece, n, fc, keep_gate + kept, F);
    for (int64_t j = 0; j < n; ++j)
      activate_values(w.activation, w.gate ? gate + j * up_piece : nullptr, up + j * up_piece, h + (at + j) * F + f0, fc);
  });

  for_tiles(tiles, places, F, [&](int64_t t) {
    hidden.make(t, [&](int64_t j) -> const float* { return h + (places.of[t] + j) * F; });
  });
  const int64_t down_piece = piece_of(w.down, O, count), down_pieces = (O + down_piece - 1) / down_piece;
  const int64_t down_space = w.down.together() * F;
  parallel_tasks(count * down_pieces, operations_of(w.down, places.positions, O), [&](int64_t i) {
    const RowTile& tile = tiles[i / down_pieces];
    const int64_t o0 = i % down_pieces * down_piece, oc = std::min(down_piece, O - o0);
    Scratch<For::task> task(bytes_of<float>(down_space) + bytes_of<float>(tile.count * down_piece));
    float* space = task.template take<float>(down_space);
    float* out = task.template take<float>(tile.count * down_piece);
    dots(w.down, tile.expert, o0, oc, tile.count, hidden.from(i / down_pieces), w.down_bias, space, out, down_piece);
    narrow_rows(out, down_piece, tile.count, oc, y + tile.begin * O + o0, O);
  });
}

template void ffn_forward_skinny<float>(const FfnWeights<float>&, const FfnRows<float>&, const std::vector<RowTile>&, float*, float*,
                                        float*);
template void ffn_forward_skinny<c10::BFloat16>(const FfnWeights<c10::BFloat16>&, const FfnRows<c10::BFloat16>&,
                                                const std::vector<RowTile>&, c10::BFloat16*, c10::BFloat16*, c10::BFloat16*);

}  // namespace switchyard::kernels::cpu
