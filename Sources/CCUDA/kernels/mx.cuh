// What kernels are written in: CUDA's own words on a device, their twins in the emulator (Tests/CUDAEmulator/Device.hpp). No header of
// CUDA is included, so that NVRTC compiles every kernel from memory.
//
// A kernel is written once for `real`, which is float or double. Numbers of rows, columns and elements are 32 bits wide; whatever is
// multiplied with a stride is 64.
#pragma once

#ifdef __CUDACC_RTC__
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
#ifdef MX_DOUBLE
typedef double real;
extern "C" __device__ char mx_float64;  // tells a compiled text which one it is
#else
typedef float real;
extern "C" __device__ char mx_float32;
#endif
#define MX_KERNEL extern "C" __global__ void
/// A kernel for blocks of so many threads, which the compiler may rely on.
#define MX_BOUNDED_KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
#define MX_ENTRY(name)
/// The one piece of shared memory of a kernel.
#define MX_SHARED(Type, name) __shared__ Type name
#else
#include "Device.hpp"
#endif

/// A matrix: where its first element is, and how far rows are apart.
struct rows {
  real *base;
  i64 stride;
  __device__ __forceinline__ real *operator[](i64 n) const { return base + n * stride; }
};

/// Where an operation reports an index that is out of range: [0] the operation, [1] the index, [2] the number it must be below.
struct error_word {
  int *word;
  int operation;
  /// Remembers the first; which one that is does not matter.
  __device__ __forceinline__ void report(int index, int count) const {
    if (atomicCAS(word, 0, operation) == 0) word[1] = index, word[2] = count;
  }
};

/// True if `index` is one of `count`; if not, that is reported, and the caller skips the access.
__device__ __forceinline__ bool is_inside(int index, int count, error_word error) {
  if (index >= 0 && index < count) return true;
  error.report(index, count);
  return false;
}

/// The number of this thread among all of the grid's first dimension.
__device__ __forceinline__ i64 mx_thread() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }

// One rounding each: a compiler never joins these to a fused multiply-add.
__device__ __forceinline__ float mul_rounded(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float add_rounded(float a, float b) { return __fadd_rn(a, b); }

// The functions of the two precisions under one name.
__device__ __forceinline__ float mx_exp(float x) { return expf(x); }
__device__ __forceinline__ double mx_exp(double x) { return exp(x); }
__device__ __forceinline__ float mx_log(float x) { return logf(x); }
__device__ __forceinline__ double mx_log(double x) { return log(x); }
__device__ __forceinline__ float mx_tanh(float x) { return tanhf(x); }
__device__ __forceinline__ double mx_tanh(double x) { return tanh(x); }
__device__ __forceinline__ float mx_sqrt(float x) { return sqrtf(x); }
__device__ __forceinline__ double mx_sqrt(double x) { return sqrt(x); }
__device__ __forceinline__ real mx_infinity() { return (real)__uint_as_float(0x7f800000u); }

/// y ← α sum + β y; with β = 0, y is not read.
__device__ __forceinline__ void store(real *y, real sum, real alpha, real beta) { *y = beta == 0 ? alpha * sum : alpha * sum + beta * *y; }

/// Σ over the 32 lanes of a warp, in every lane: always the same tree.
template <class T>
__device__ __forceinline__ T warp_sum(T x) {
  for (int d = 16; d > 0; d >>= 1) x += __shfl_xor_sync(0xffffffffu, x, d);
  return x;
}

/// The largest over the 32 lanes of a warp; NaN counts as nothing.
template <class T>
__device__ __forceinline__ T warp_max(T x) {
  for (int d = 16; d > 0; d >>= 1) {
    T y = __shfl_xor_sync(0xffffffffu, x, d);
    x = y > x ? y : x;
  }
  return x;
}

/// Σ over a block of `threads` (a multiple of 32, at most 1024), in every thread; `parts` is shared memory for 32 numbers.
template <class T>
__device__ __forceinline__ T block_sum(T x, T *parts) {
  x = warp_sum(x);
  __syncthreads();  // whoever still reads the sums of a call before
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  T sum = 0;
  for (int w = 0; w < (int)blockDim.x / 32; w++) sum += parts[w];
  return sum;
}

/// The largest over a block, in every thread.
template <class T>
__device__ __forceinline__ T block_max(T x, T *parts) {
  x = warp_max(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  T largest = parts[0];
  for (int w = 1; w < (int)blockDim.x / 32; w++) largest = parts[w] > largest ? parts[w] : largest;
  return largest;
}

/// Four numbers of Philox 4×32-10 (Salmon et al. 2011).
struct philox {
  u32 n[4];
};

/// The numbers of the counter (c0, c1, c2, c3) under `key`.
__device__ __forceinline__ philox philox_numbers(u32 c0, u32 c1, u32 c2, u32 c3, u64 key) {
  u32 k0 = (u32)key, k1 = (u32)(key >> 32);
  for (int round = 0; round < 10; round++) {
    u64 p = (u64)0xd2511f53u * c0, q = (u64)0xcd9e8d57u * c2;
    c0 = (u32)(q >> 32) ^ c1 ^ k0;
    c1 = (u32)q;
    c2 = (u32)(p >> 32) ^ c3 ^ k1;
    c3 = (u32)p;
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
  return {{c0, c1, c2, c3}};
}

/// The key of the `index`-th of several alike: `RandomKey.derived(_:)`, the finalizer of SplitMix64.
__device__ __forceinline__ u64 derived_key(u64 key, int index) {
  u64 z = key + (u64)(i64)index * 0xd1b54a32d192ed03ull + 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

/// Both activations are x σ(z) of a function z of x; with ½ (1 + tanh u) = σ(2u) that is GELU's form as well:
///
///     silu       z = x                              z′ = 1
///     geluTanh   z = √(8/π) (x + 0.044715 x³)       z′ = √(8/π) (1 + 3 · 0.044715 x²)
struct gate {
  real sigma, slope;
  __device__ __forceinline__ gate(real x, int is_gelu) {
    const real root = (real)1.5957691216057308;
    real z = is_gelu ? root * (x + (real)0.044715 * (x * x * x)) : x;
    sigma = 1 / (1 + mx_exp(-z));
    slope = is_gelu ? root * (1 + (real)0.134145 * (x * x)) : 1;
  }
};
