// Sums: of all elements, of columns, of rows. Every thread adds its own terms in their order, then threads and blocks are added in theirs.
#include "mx.cuh"

/// The sums of a block's warps.
struct dot_parts {
  double sums[32];
};

// Σ x y, of 4096 elements a block; of all where there is one block, else parts of a sum. Without y, Σ x.
MX_BOUNDED_KERNEL(256) dot(rows x, rows y, i64 count, i64 width, double *parts, real *total) {
  MX_SHARED(dot_parts, shared);
  i64 begin = (i64)blockIdx.x * 4096, end = begin + 4096 < count ? begin + 4096 : count;
  double sum = 0;
  for (i64 i = begin + threadIdx.x; i < end; i += blockDim.x) {
    i64 n = i < width ? 0 : i / width, j = i - n * width;
    double term = x[n][j];
    if (y.base) term *= y[n][j];
    sum += term;
  }
  sum = block_sum(sum, shared.sums);
  if (threadIdx.x > 0) return;
  if (gridDim.x == 1) *total = (real)sum;
  else parts[blockIdx.x] = sum;
}
MX_ENTRY(dot)

// Σ parts, by one block.
MX_BOUNDED_KERNEL(256) sum_parts(const double *parts, int count, real *total) {
  MX_SHARED(dot_parts, shared);
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) sum += parts[i];
  sum = block_sum(sum, shared.sums);
  if (threadIdx.x == 0) *total = (real)sum;
}
MX_ENTRY(sum_parts)

/// What a block's warps found of its 32 columns.
struct column_parts {
  real sums[32][32];
};

// sums += Σ_n w_n x_n ⊙ y_n: a block takes 32 columns of `chunk` rows, a lane a column, a warp every so many rows. Where that is not all
// rows, the block's sums become a row of `parts` instead. Without w or y, they are ones.
MX_BOUNDED_KERNEL(1024) column_sums(
    rows x, rows y, const real *w, int count, int width, int chunk, real *sums, real *parts) {
  MX_SHARED(column_parts, shared);
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, j = blockIdx.x * 32 + lane;
  int begin = blockIdx.y * chunk, end = begin + chunk < count ? begin + chunk : count;
  real sum = 0;
  if (j < width) {
    for (int n = begin + warp; n < end; n += warps) {
      real term = x[n][j];
      if (w) term *= w[n];
      if (y.base) term *= y[n][j];
      sum += term;
    }
  }
  shared.sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || j >= width) return;
  for (int other = 1; other < warps; other++) sum += shared.sums[other][lane];
  if (gridDim.y == 1) sums[j] += sum;
  else parts[(i64)blockIdx.y * width + j] = sum;
}
MX_ENTRY(column_sums)

// w_n = ⟨x_n, y_n⟩: a warp a row.
MX_BOUNDED_KERNEL(256) row_dots(rows x, rows y, real *w, int count, int width) {
  int n = (int)(mx_thread() / 32), lane = threadIdx.x % 32;
  if (n >= count) return;
  double sum = 0;
  for (int j = lane; j < width; j += 32) sum += (double)x[n][j] * y[n][j];
  sum = warp_sum(sum);
  if (lane == 0) w[n] = (real)sum;
}
MX_ENTRY(row_dots)
