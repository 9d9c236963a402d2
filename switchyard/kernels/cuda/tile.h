// One tile of a product on one block: C[64, 128] = A[64, depth] B[128, depth]^T, in float32 sums. Slices of 64 bytes of depth go
// through registers into one of two buffers of shared memory, while the other is multiplied: tensor cores for bfloat16 (mma.sync,
// from compute capability 8.0 on), fused multiply-adds for float32. Device code.
#pragma once

#include "switchyard/kernels/cuda/device.h"

namespace switchyard::kernels::cuda {

constexpr int kTileRows = 64, kTileColumns = 128, kTileThreads = 128;
constexpr int kSliceBytes = 64;   ///< of depth, a row
constexpr int kSliceStride = 80;  ///< bytes between rows in shared memory: keeps readers on different banks, rows on 16 bytes
constexpr int kSums = kTileRows * kTileColumns / kTileThreads;  ///< a thread
template <typename T>
constexpr int kSlice = kSliceBytes / static_cast<int>(sizeof(T));  ///< numbers of depth

/// A side of a product: rows by depth. Along depth: element (r, k) is data[pick(r) · step + k]; along rows: data[pick(k) · step + r].
struct Operand {
  const void* data;
  bool wide;         ///< float32 numbers, multiplied as T
  bool along_depth;  ///< what lies side by side in memory
  int64_t step;
  const int64_t* pick;  ///< null: as they come
  int64_t rows, depth;  ///< beyond are zeros
};

/// What a thread holds of one slice: `Rows` rows of the operand, 64 bytes each, over the block.
template <typename T, int Rows>
struct Staged {
  static constexpr int kVectors = Rows * kSliceBytes / 16 / kTileThreads;
  Vector<T> vector[kVectors];
};

/// Where vector i of this thread lies in a slice: first row and first depth.
template <typename T>
__device__ inline void place_of(const Operand& o, int i, int& row, int& depth) {
  const int index = i * kTileThreads + static_cast<int>(threadIdx.x);
  if (o.along_depth) {
    row = index / (kSliceBytes / 16);
    depth = index % (kSliceBytes / 16) * Vector<T>::kCount;
  } else {
    row = index / kSlice<T> * Vector<T>::kCount;
    depth = index % kSlice<T>;
  }
}

/// Reads rows first_row ... of depths first_depth ... from global memory into rows at ... at + count - 1 of the slice.
template <typename T, int Rows>
__device__ inline void stage(const Operand& o, int64_t first_row, int64_t first_depth, Staged<T, Rows>& staged, int at = 0,
                             int count = Rows) {
#pragma unroll
  for (int i = 0; i < Staged<T, Rows>::kVectors; ++i) {
    int row, depth;
    place_of<T>(o, i, row, depth);
    if (row < at || row >= at + count) continue;
    const int64_t r = first_row + row - at, k = first_depth + depth;
    if (r >= o.rows || k >= o.depth) {
      staged.vector[i] = Vector<T>{};
    } else if (o.along_depth) {
      staged.vector[i] = load_vector<T>(o.data, (o.pick ? o.pick[r] : r) * o.step + k, o.depth - k, o.wide);
    } else {
      staged.vector[i] = load_vector<T>(o.data, (o.pick ? o.pick[k] : k) * o.step + r, o.rows - r, o.wide);
    }
  }
}

/// Puts a staged slice into shared memory, [Rows][depth].
template <typename T, int Rows>
__device__ inline void unstage(const Operand& o, const Staged<T, Rows>& staged, unsigned char* to) {
#pragma unroll
  for (int i = 0; i < Staged<T, Rows>::kVectors; ++i) {
    int row, depth;
    place_of<T>(o, i, row, depth);
    if (o.along_depth) {
      *reinterpret_cast<Vector<T>*>(to + row * kSliceStride + depth * static_cast<int>(sizeof(T))) = staged.vector[i];
    } else {
#pragma unroll
      for (int j = 0; j < Vector<T>::kCount; ++j)
        *reinterpret_cast<T*>(to + (row + j) * kSliceStride + depth * static_cast<int>(sizeof(T))) = staged.vector[i].value[j];
    }
  }
}

// Each thread holds kSums sums of the tile; sum i is of row row_of(i) and column column_of(i).

// --- float32: threads as 8 rows by 16 columns, each with every 8th row and every 16th column --------------------------

__device__ inline int row_of(int i, float) { return static_cast<int>(threadIdx.x) / 16 + i / 8 * 8; }
__device__ inline int column_of(int i, float) { return static_cast<int>(threadIdx.x) % 16 + i % 8 * 16; }

__device__ inline void multiply(const unsigned char* left, const unsigned char* right, float (&sums)[kSums], float) {
  const unsigned char* a = left + static_cast<int>(threadIdx.x) / 16 * kSliceStride;
  const unsigned char* b = right + static_cast<int>(threadIdx.x) % 16 * kSliceStride;
#pragma unroll 1
  for (int k = 0; k < kSliceBytes; k += 16) {
    Vector<float> rows[8];
#pragma unroll
    for (int r = 0; r < 8; ++r) rows[r] = *reinterpret_cast<const Vector<float>*>(a + r * 8 * kSliceStride + k);
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      const Vector<float> column = *reinterpret_cast<const Vector<float>*>(b + c * 16 * kSliceStride + k);
#pragma unroll
      for (int r = 0; r < 8; ++r) {
        float& sum = sums[r * 8 + c];
#pragma unroll
        for (int i = 0; i < 4; ++i) sum += rows[r].value[i] * column.value[i];
      }
    }
  }
}

// --- bfloat16: four warps as 2 by 2, each 32 rows by 64 columns, in tensor core tiles of 16 x 8 x 16 -------------------
// Fragments as PTX lays them out for m16n8k16: with g = lane / 4 and t = lane % 4, a lane holds A at rows g, g + 8 and depths
// 2t, 2t + 1, 2t + 8, 2t + 9; B at column g and the same depths; C at rows g, g + 8 and columns 2t, 2t + 1.

__device__ inline int row_of(int i, Bf16) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  return warp / 2 * 32 + i / 32 * 16 + lane / 4 + i % 4 / 2 * 8;
}
__device__ inline int column_of(int i, Bf16) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  return warp % 2 * 64 + i % 32 / 4 * 8 + lane % 4 * 2 + i % 2;
}

#if defined(__CUDACC__)
__device__ inline void tensor_product(float* c, const unsigned (&a)[4], const unsigned (&b)[2]) {
#if defined(__CUDA_ARCH__)
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
#endif

__device__ inline unsigned word(const unsigned char* at) { return *reinterpret_cast<const unsigned*>(at); }

__device__ inline void multiply(const unsigned char* left, const unsigned char* right, float (&sums)[kSums], Bf16) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const unsigned char* a_base = left + (warp / 2 * 32 + lane / 4) * kSliceStride + lane % 4 * 4;
  const unsigned char* b_base = right + (warp % 2 * 64 + lane / 4) * kSliceStride + lane % 4 * 4;
#pragma unroll
  for (int k = 0; k < kSliceBytes; k += 32) {
    unsigned a[2][4];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      const unsigned char* at = a_base + m * 16 * kSliceStride + k;
      a[m][0] = word(at);
      a[m][1] = word(at + 8 * kSliceStride);
      a[m][2] = word(at + 16);
      a[m][3] = word(at + 8 * kSliceStride + 16);
    }
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const unsigned char* at = b_base + n * 8 * kSliceStride + k;
      const unsigned b[2] = {word(at), word(at + 16)};
#pragma unroll
      for (int m = 0; m < 2; ++m) tensor_product(&sums[m * 32 + n * 4], a[m], b);
    }
  }
}

}  // namespace switchyard::kernels::cuda
