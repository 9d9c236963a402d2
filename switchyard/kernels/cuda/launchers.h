// What the CUDA kernels are asked for: device pointers, sizes and a stream. No header of CUDA or libtorch is needed to ask, so
// the kernels are compiled by nvcc alone, and a table of launchers stands between them and the fronts. The same table can be
// filled from the same sources compiled for the host, which is how they are tested where no GPU is.
// Every launcher returns before its kernels ran, in the order of its stream. Matrices are dense, rows first. Sums run in a
// fixed order: equal bits at every run.
#pragma once

#include <cstdint>

struct CUstream_st;

namespace switchyard::kernels::cuda {

using Stream = CUstream_st*;

/// The type of rows, and of the products they enter; sums are float32 (float64 for float64).
enum class Number : int32_t { float32, bfloat16, float64 };

// --- routing ----------------------------------------------------------------------------------

/// The k best columns of each row, best first, ties to the lower column; with more than one group, among the columns of the
/// `chosen` groups whose `best` highest scores sum highest.
struct TopKArguments {
  const float* scores;  ///< [rows, columns]
  int64_t rows, columns, k;
  int64_t groups, chosen, best;  ///< groups divides columns and is at most kMostGroups
  int64_t* ids;                  ///< [rows, k]; undefined where a row holds a NaN
  int64_t* first_nan;            ///< in: at least rows · columns; out: the least row · columns + column of a NaN
};
constexpr int64_t kMostGroups = 256;

/// Pairs by slot, stable. A slot of -1 asks for nothing when `skip_negative`.
struct SortArguments {
  const int64_t* slot;  ///< [pairs]
  const bool* kept;     ///< [pairs] or null: all
  int64_t pairs, slots;
  bool skip_negative;
  int64_t chunks;   ///< from sort_chunks
  int32_t* counts;  ///< [chunks, slots], zeros; overwritten
  int64_t* order;   ///< [pairs], filled up to offset[slots]
  int64_t* offset;  ///< [slots + 1]
  int64_t* report;  ///< [2]: in {pairs, any}; out {the first pair whose slot is out of range or pairs, offset[slots]}
};
/// Into how many runs of pairs the counting is cut: many for speed, few where a count a slot and run would fill the memory.
constexpr int64_t sort_chunks(int64_t pairs, int64_t slots) {
  const int64_t wanted = (pairs + 255) / 256, room = (int64_t{1} << 24) / (slots > 0 ? slots : 1);
  const int64_t chunks = wanted < room ? wanted : room;
  return chunks < 1 ? 1 : chunks > 256 ? 256 : chunks;
}

/// position[order[a]] = a; position: [pairs], -1 before.
struct InverseArguments {
  const int64_t* order;
  int64_t count;
  int64_t* position;
};

/// Which pairs get one of capacity[bin] places, from pairs sorted by bin: the first ones, or those of the highest priority
/// with ties to the lower pair. Writes kept of the sorted pairs alone.
struct AdmitArguments {
  const int64_t *order, *offset;  ///< [A], [bins + 1]
  int64_t bins;
  const int64_t* capacity;  ///< [bins]
  const float* priority;    ///< [pairs] or null
  bool* kept;               ///< [pairs]
};

// --- rows -------------------------------------------------------------------------------------

/// out[a] = x[row[a]] · weight[a]
struct GatherArguments {
  Number number;  ///< of x and out: float32 or bfloat16
  const void* x;  ///< [.., width]
  const int64_t* row;
  const float* weight;  ///< [count] or null
  int64_t count, width;
  void* out;  ///< [count, width]
};

/// out[r] = sum over positions a of row r, ascending, of weight[a] · y[a]
struct CombineArguments {
  Number number;
  const void* y;  ///< [count, width]
  const float* weight;
  const int64_t* row;             ///< [count]: the positions of a row are looked for, when begin is null (few positions)
  const int64_t *order, *begin;   ///< [count], [rows + 1]: positions by row
  int64_t count, rows, width;
  void* out;  ///< [rows, width]
};

/// out[a] = <y[a], x[row[a]]>
struct RowProductArguments {
  Number number;
  const void *y, *x;
  const int64_t* row;
  int64_t count, width;
  float* out;
};

// --- products ---------------------------------------------------------------------------------

/// One function of a number; the gated kinds of grouped_ffn.h are curve(g) · u.
enum class Curve : int32_t { identity, relu, relu_squared, gelu, gelu_tanh, silu, sigmoid, clamped };
struct ActivationCode {
  Curve curve = Curve::identity;
  float limit = 0, alpha = 0, shift = 0;  ///< Curve::clamped: g = min(g, limit), u within ±limit, h = g sigmoid(alpha g) (u + shift)
};

/// A stack of matrices, one an expert. The matrix of expert e begins at e · out · in.
struct Matrices {
  const void* data = nullptr;
  bool wide = false;  ///< float32 numbers beneath products in bfloat16
};

/// Rows through the matrices of their experts: y[a] = act(sum over parts of x[row(a)] W[e]^T + bias[e]).
struct MapArguments {
  Number number;  ///< float32 or bfloat16
  struct Part {
    const void* x = nullptr;
    Matrices stack;
  };
  Part part[2];      ///< summed; or gate and up of a gated activation, which read the same x
  int parts = 1;
  bool gated = false;
  const int64_t* row = nullptr;  ///< [positions] or null: the row of x that a position reads
  const int64_t* offset = nullptr;
  int64_t experts = 0, positions = 0, in = 0, out = 0;
  bool in_out = false;                            ///< matrices lie [in, out], not [out, in]
  const void *bias = nullptr, *gate_bias = nullptr;  ///< [experts, out] or null; bias is up's when gated
  ActivationCode activation;
  void *keep = nullptr, *keep_gate = nullptr;  ///< [positions, out] or null: sums before the activation
  void* y = nullptr;                           ///< [positions, out] or null
};
/// Up to so many positions, matrices [out, in] are read row by row, once for all positions of their expert.
constexpr int64_t kFewPositions = 128;
constexpr int64_t kFewRows = 16;

/// gradient[e] (+)= sum over positions a of expert e of left[l(a)] right[r(a)]^T, [experts, m, n].
struct OuterArguments {
  Number number;
  const void *left, *right;              ///< [.., m], [.., n]
  const int64_t *left_row, *right_row;   ///< [positions] or null
  const int64_t* offset;
  int64_t experts, m, n;
  void* gradient;
  bool wide;        ///< the gradient is float32
  bool accumulate;  ///< adds to what is there; an expert without positions is not touched then, and zeros otherwise
};
constexpr int64_t kMostExperts = 65535;  ///< of a gradient, and of column sums: a limit of launches
constexpr int64_t kMostWidth = 65535 * 128;

/// sum[e] = sum over positions a of expert e of weight[a] · y[row(a)], [experts, width] float32.
struct ColumnSumArguments {
  Number number;
  const void* y;
  const int64_t* row;
  const float* weight;
  const int64_t* offset;
  int64_t experts, width;
  float* sum;
};

/// h = act(gate + gate_bias, up + bias), the sums kept in place when `keep`. gate is null for ungated kinds.
struct ActivateArguments {
  Number number;
  void *gate, *up;  ///< [positions, width]
  const void *gate_bias, *bias;
  const int64_t* offset;
  int64_t experts, positions, width;
  ActivationCode activation;
  bool keep;
  void* h;
};

/// Backward of the activation: from dh before the pair's weight, weight · dgate and weight · dup, weight · h, and the
/// gradient of the weight: <h, dh> + <down_bias[e], dy[row(a)]>.
struct ActivateBackwardArguments {
  Number number;
  const void *gate, *up, *dh;  ///< [positions, width]
  const float* weight;         ///< [positions] or null
  const void *down_bias, *dy;  ///< [experts, out], [.., out]
  const int64_t *row, *offset;
  int64_t experts, positions, width, out;
  ActivationCode activation;
  void *dgate, *dup, *h;  ///< dgate is null for ungated kinds
  float* dweight;         ///< [positions] or null
};

// --- optimiser --------------------------------------------------------------------------------

/// optimiser.h's step; moments are float64 for a float64 parameter, else float32.
struct AdamWArguments {
  Number number, gradient_number;
  void* param;
  const void* gradient;  ///< or null
  void *m, *v;
  int64_t count;
  double beta1, beta2, keep, rate, root_scale, eps, grad_scale;
};
/// sums[b] = sum of squares of block b, 4096 numbers each.
struct SquaresArguments {
  Number number;
  const void* x;
  int64_t count;
  double* sums;
};
constexpr int64_t kSquaresBlock = 4096;

struct Launchers {
  int (*capability)(int device);  ///< 80, 90; 0 for a device that does not say
  void (*top_k)(const TopKArguments&, Stream);
  void (*sort)(const SortArguments&, Stream);
  void (*invert)(const InverseArguments&, Stream);
  void (*admit)(const AdmitArguments&, Stream);
  void (*gather)(const GatherArguments&, Stream);
  void (*combine)(const CombineArguments&, Stream);
  void (*row_products)(const RowProductArguments&, Stream);
  void (*map)(const MapArguments&, Stream);
  void (*map_few)(const MapArguments&, Stream);  ///< at most kFewPositions positions, not in_out
  void (*outer_products)(const OuterArguments&, Stream);
  void (*column_sums)(const ColumnSumArguments&, Stream);
  void (*activate)(const ActivateArguments&, Stream);
  void (*activate_backward)(const ActivateBackwardArguments&, Stream);
  void (*adamw)(const AdamWArguments&, Stream);
  void (*squares)(const SquaresArguments&, Stream);
};

/// Throws kernels.cuda_launch; the sources that nvcc compiles know no other error.
[[noreturn]] void refuse_launch(const char* kernel, const char* reason);

}  // namespace switchyard::kernels::cuda
