// Matrices that are kept as their file encodes them, in ggml's formats: decoding, and products with few rows.
#include "mx.cuh"

/// How a matrix is kept; `format` of CUDAMatrix.swift.
enum format { format_real, format_float16, format_bfloat16, format_q8_0, format_q4_0, format_q4_1 };

/// A matrix of rows of blocks of 32 numbers, the last one of a row cut off in formats whose numbers stand alone.
struct encoded {
  const u8 *base;
  /// Bytes of a row.
  i64 stride;
  int format;
};

/// The binary16 number of `bits`: exponent and fraction move to their place in binary32 and 2¹¹² corrects the bias, which also normalizes
/// subnormals; the largest exponent means infinity or NaN.
__device__ __forceinline__ float decoded_half(u16 bits) {
  u32 magnitude = (u32)(bits & 0x7fff) << 13, sign = (u32)(bits & 0x8000) << 16;
  u32 finite = __float_as_uint(mul_rounded(__uint_as_float(magnitude), 0x1p112f));
  return __uint_as_float(sign | (magnitude >= 0x0f800000 ? magnitude | 0x7f800000 : finite));
}

/// Number i of a block of a row, each operation rounded to float32.
template <int format>
__device__ __forceinline__ real decoded(const u8 *row, i64 block, int i) {
  if (format == format_real) return ((const real *)row)[32 * block + i];
  if (format == format_float16) return decoded_half(((const u16 *)row)[32 * block + i]);
  if (format == format_bfloat16) return __uint_as_float((u32)((const u16 *)row)[32 * block + i] << 16);
  const int head = format == format_q4_1 ? 4 : 2, bytes = head + (format == format_q8_0 ? 32 : 16);
  const u8 *at = row + bytes * block;
  float d = decoded_half(((const u16 *)at)[0]);
  if (format == format_q8_0) return mul_rounded((float)(signed char)at[head + i], d);  // q d
  int q = at[head + i % 16] >> i / 16 * 4 & 15;
  if (format == format_q4_0) return mul_rounded((float)(q - 8), d);  // (q − 8) d
  return add_rounded(mul_rounded((float)q, d), decoded_half(((const u16 *)at)[1]));  // q d + m
}

__device__ __forceinline__ real decoded(const u8 *row, int format, i64 block, int i) {
  switch (format) {
    case format_real: return decoded<format_real>(row, block, i);
    case format_float16: return decoded<format_float16>(row, block, i);
    case format_bfloat16: return decoded<format_bfloat16>(row, block, i);
    case format_q8_0: return decoded<format_q8_0>(row, block, i);
    case format_q4_0: return decoded<format_q4_0>(row, block, i);
    default: return decoded<format_q4_1>(row, block, i);
  }
}

// y_n ← x[index[n]], or x_n without an index: a block decodes 1024 numbers of a row, of which there are `parts`.
MX_BOUNDED_KERNEL(256) decode(encoded x, const int *index, int limit, rows y, int width, int parts, error_word error) {
  int n = blockIdx.x / parts, from = index ? index[n] : n;
  if (!is_inside(from, limit, error)) return;
  const u8 *row = x.base + from * x.stride;
#pragma unroll
  for (int e = 0; e < 4; e++) {
    int j = 1024 * (blockIdx.x % parts) + 256 * e + threadIdx.x;
    if (j < width) y[n][j] = decoded(row, x.format, j / 32, j % 32);
  }
}
MX_ENTRY(decode)

/// Numbers of a row that a thread of `product_few` has at a time, half of them in each half of a block: q4 has both in the same bytes.
constexpr int few_numbers = sizeof(real) == 4 ? 8 : 4;
/// The e-th of them, from the first on.
__device__ __forceinline__ int few_place(int e) { return e / (few_numbers / 2) * 16 + e % (few_numbers / 2); }

/// Those numbers from number i of a block on, of a row in which `left` follow; 0 beyond its end.
template <int format>
__device__ __forceinline__ void decode_few(const u8 *row, int block, int i, int left, real (&w)[few_numbers]) {
#pragma unroll
  for (int e = 0; e < few_numbers; e++) {
    w[e] = format >= format_q8_0 || few_place(e) < left ? decoded<format>(row, block, i + few_place(e)) : 0;
  }
}

/// The sums of the threads of a block, for four columns of c and at most eight rows.
struct few_sums {
  real of[32][132];
};

// c ← α a bᵀ + β c for at most 8 rows of a: a (m,k), b (n,k) dense or encoded. A block has four rows of b, which are read once.
MX_BOUNDED_KERNEL(128) product_few(rows a, encoded b, rows c, int m, int n, int k, real alpha, real beta) {
  MX_SHARED(few_sums, shared);
  int first = 4 * blockIdx.x, t = threadIdx.x;
  const u8 *row[4];
  real sums[4][8];
#pragma unroll
  for (int o = 0; o < 4; o++) {
    row[o] = b.base + (first + o < n ? first + o : n - 1) * b.stride;  // columns beyond the last are summed up, but not stored
#pragma unroll
    for (int i = 0; i < 8; i++) sums[o][i] = 0;
  }
  const int units = 32 / few_numbers;
  for (int unit = t; unit < (k + 31) / 32 * units; unit += 128) {
    int block = unit / units, from = unit % units * (few_numbers / 2), left = k - 32 * block - from;
    real w[4][few_numbers];
#pragma unroll
    for (int o = 0; o < 4; o++) {
      switch (b.format) {
        case format_real: decode_few<format_real>(row[o], block, from, left, w[o]); break;
        case format_float16: decode_few<format_float16>(row[o], block, from, left, w[o]); break;
        case format_bfloat16: decode_few<format_bfloat16>(row[o], block, from, left, w[o]); break;
        case format_q8_0: decode_few<format_q8_0>(row[o], block, from, left, w[o]); break;
        case format_q4_0: decode_few<format_q4_0>(row[o], block, from, left, w[o]); break;
        default: decode_few<format_q4_1>(row[o], block, from, left, w[o]);
      }
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
      if (i >= m) break;
      const real *x = a[i] + 32 * (i64)block + from;
#pragma unroll
      for (int e = 0; e < few_numbers; e++) {
        real value = few_place(e) < left ? x[few_place(e)] : 0;
#pragma unroll
        for (int o = 0; o < 4; o++) sums[o][i] += w[o][e] * value;
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 8; i++) {
    if (i >= m) break;
#pragma unroll
    for (int o = 0; o < 4; o++) shared.of[4 * i + o][t] = sums[o][i];
  }
  __syncthreads();
  int i = t / 16, o = t / 4 % 4;  // four threads for an element of c
  real sum = 0;
  if (i < m) {
    for (int l = t % 4; l < 128; l += 4) sum += shared.of[4 * i + o][l];
  }
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  sum += __shfl_xor_sync(0xffffffffu, sum, 2);
  if (t % 4 > 0 || i >= m || first + o >= n) return;
  store(c[i] + first + o, sum, alpha, beta);
}
MX_ENTRY(product_few)
