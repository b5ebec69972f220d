// Products of matrices: a block sums up a tile of the result in its threads' registers, piece by piece from shared memory.
#include "mx.cuh"

/// A factor of a product: term q of line i stands at base[i·line + q·term], and one of both strides is 1. The lines are rows of a left
/// factor and columns of a right one; a transposed matrix has its strides exchanged.
struct factor {
  const real *base;
  i64 line, term;
  /// The factor from another line or term on.
  __device__ __forceinline__ factor from(i64 i, i64 q) const { return {base + i * line + q * term, line, term}; }
};

/// The shared memory of a tile: pieces of both factors, the lines of a term side by side.
template <int lines, int terms>
struct pieces {
  alignas(16) real a[terms][lines + 4], b[terms][lines + 4];
};

/// A thread's share of a piece, on its way from a factor through registers into shared memory. Threads follow one another along the
/// stride of 1. What lies outside the factor counts as 0.
template <int lines, int terms>
struct share {
  static constexpr int count = lines * terms / 256;
  real values[count];
  const real *next;
  i64 step, advance;
  int line, term, line_step, term_step;

  __device__ __forceinline__ share(factor x) {
    int t = threadIdx.x;
    bool is_along_terms = x.term == 1;
    line = is_along_terms ? t / terms : t % lines;
    term = is_along_terms ? t % terms : t / lines;
    line_step = is_along_terms ? 256 / terms : 0;
    term_step = is_along_terms ? 0 : 256 / lines;
    next = x.from(line, term).base;
    step = line_step * x.line + term_step * x.term;
    advance = terms * x.term;
  }

  /// Reads the share of the next piece, where so many lines and terms are left.
  __device__ __forceinline__ void load(int lines_left, int terms_left) {
#pragma unroll
    for (int e = 0; e < count; e++) {
      bool is_inside = line + e * line_step < lines_left && term + e * term_step < terms_left;
      values[e] = is_inside ? next[e * step] : 0;
    }
    next += advance;
  }

  /// Lines stand where `place` says.
  template <class Place>
  __device__ __forceinline__ void store(real (*piece)[lines + 4], Place place) const {
#pragma unroll
    for (int e = 0; e < count; e++) piece[term + e * term_step][place(line + e * line_step)] = values[e];
  }
};

/// A square tile, of which each of 256 threads sums up `width`² elements; where fewer threads are enough, groups of them share the terms
/// of a piece out.
///
/// A thread's rows and columns lie together by fours in shared memory, to be read at once. Its columns are `side` apart in the tile, so
/// that threads which follow one another write columns which follow one another.
template <int lines, int terms, int width>
struct tile {
  static constexpr int side = lines / width, groups = 256 / (side * side), own = terms / groups;
  typedef pieces<lines, terms> memory;
  real sums[width][width];
  int x, y, group;

  /// Where the i-th of a thread's lines stands in a piece.
  static __device__ __forceinline__ int place(int thread, int i) { return 4 * thread + i % 4 + 4 * side * (i / 4); }
  /// Where a column stands in a piece, and which one the j-th of this thread is.
  static __device__ __forceinline__ int column_place(int column) {
    return column / (4 * side) * (4 * side) + column % side * 4 + column % (4 * side) / side;
  }
  __device__ __forceinline__ int column(int j) const { return x + side * j; }
  __device__ __forceinline__ int row(int i) const { return place(y, i); }

  /// Sums up k terms of a and b, of which the tile has so many rows and columns.
  __device__ __forceinline__ tile(memory &shared, factor a, factor b, int rows, int columns, int k) {
    x = threadIdx.x % side;
    y = threadIdx.x / side % side;
    group = threadIdx.x / (side * side);
#pragma unroll
    for (int i = 0; i < width; i++) {
#pragma unroll
      for (int j = 0; j < width; j++) sums[i][j] = 0;
    }
    share<lines, terms> of_a(a), of_b(b);
    of_a.load(rows, k);
    of_b.load(columns, k);
    for (int q = 0; q < k; q += terms) {
      of_a.store(shared.a, [](int line) { return line; });
      of_b.store(shared.b, column_place);
      __syncthreads();
      if (q + terms < k) {  // under way while this piece is multiplied
        of_a.load(rows, k - q - terms);
        of_b.load(columns, k - q - terms);
      }
      add_products(shared);
      __syncthreads();
    }
  }

  __device__ __forceinline__ void add_products(const memory &shared) {
#pragma unroll(width == 8 ? 1 : 2)  // more would cost a block per multiprocessor its registers
    for (int q = 0; q < own; q++) {
      real a[width], b[width];
#pragma unroll
      for (int i = 0; i < width; i++) a[i] = shared.a[group * own + q][place(y, i)], b[i] = shared.b[group * own + q][place(x, i)];
#pragma unroll
      for (int i = 0; i < width; i++) {
#pragma unroll
        for (int j = 0; j < width; j++) sums[i][j] += a[i] * b[j];
      }
    }
  }
};

/// Large products: as many elements a thread as registers hold.
typedef tile<sizeof(real) == 4 ? 128 : 64, 8, sizeof(real) == 4 ? 8 : 4> large;
/// Others: four groups of threads share the terms of a small tile out, so that few and thin tiles keep a device busy.
typedef tile<32, 64, 4> small;

/// The shared memory of a small tile: at its end the groups' sums lie where its pieces were.
union small_memory {
  small::memory pieces;
  real sums[small::groups][32][32];
};

/// c ← α a b + β c, the part that a small tile has of c: (rows, columns) with sums of k terms.
__device__ __forceinline__ void multiply_small(
    small_memory &shared, factor a, factor b, rows c, int rows, int columns, int k, real alpha, real beta) {
  small own(shared.pieces, a, b, rows, columns, k);
#pragma unroll
  for (int i = 0; i < 4; i++) {
#pragma unroll
    for (int j = 0; j < 4; j++) shared.sums[own.group][own.row(i)][own.column(j)] = own.sums[i][j];
  }
  __syncthreads();
#pragma unroll
  for (int e = 0; e < 4; e++) {
    int i = threadIdx.x / 32 + 8 * e, j = threadIdx.x % 32;
    if (i >= rows || j >= columns) continue;
    real sum = shared.sums[0][i][j];
#pragma unroll
    for (int g = 1; g < small::groups; g++) sum += shared.sums[g][i][j];
    store(c[i] + j, sum, alpha, beta);
  }
}

/// The first row and column of a block's tile, in bands of 16 tile rows: blocks that run at the same time share rows and columns.
struct corner {
  int i, j;
  __device__ __forceinline__ corner(int block, int lines, int m, int n) {
    int down = (m + lines - 1) / lines, across = (n + lines - 1) / lines;
    int band = block / (16 * across), rest = block % (16 * across), height = down - 16 * band < 16 ? down - 16 * band : 16;
    i = (16 * band + rest % height) * lines;
    j = rest / height * lines;
  }
};

// c ← α a b + β c: a (m,k), b (k,n), in large tiles.
MX_BOUNDED_KERNEL(256) gemm_large(factor a, factor b, rows c, int m, int n, int k, real alpha, real beta) {
  MX_SHARED(large::memory, shared);
  const int lines = large::side * (sizeof(real) == 4 ? 8 : 4);
  corner at(blockIdx.x, lines, m, n);
  large own(shared, a.from(at.i, 0), b.from(at.j, 0), m - at.i, n - at.j, k);
#pragma unroll
  for (int i = 0; i < lines / large::side; i++) {
    if (at.i + own.row(i) >= m) continue;
    real *y = c[at.i + own.row(i)] + at.j;
#pragma unroll
    for (int j = 0; j < lines / large::side; j++) {
      if (at.j + own.column(j) < n) store(y + own.column(j), own.sums[i][j], alpha, beta);
    }
  }
}
MX_ENTRY(gemm_large)

// c ← α a b + β c: a (m,k), b (k,n), in small tiles; blocks of the second dimension have `terms` terms each, and an (m,n) of their own.
MX_BOUNDED_KERNEL(256) gemm_small(factor a, factor b, rows c, int m, int n, int k, int terms, real alpha, real beta) {
  MX_SHARED(small_memory, shared);
  corner at(blockIdx.x, 32, m, n);
  int q = blockIdx.y * terms, left = k - q < terms ? k - q : terms;
  rows part = {c[(i64)blockIdx.y * m + at.i] + at.j, c.stride};
  multiply_small(shared, a.from(at.i, q), b.from(at.j, q), part, m - at.i, n - at.j, left, alpha, beta);
}
MX_ENTRY(gemm_small)

// c ← α Σ parts + β c, in the order of the parts: (m,n) each, one behind the other.
MX_KERNEL gemm_sum(const real *parts, rows c, i64 count, int width, int number, real alpha, real beta) {
  i64 i = mx_thread();
  if (i >= count) return;
  real sum = 0;
  for (int part = 0; part < number; part++) sum += parts[part * count + i];
  int n = (int)(i / width);
  store(c[n] + (int)(i - (i64)n * width), sum, alpha, beta);
}
MX_ENTRY(gemm_sum)

// c_e ← α a_e b_e + β c_e over every expert's rows: a (M,k), c (M,n), b a stack of (k,n) that lie `stride` apart. Tiles never cross an
// expert: a block counts the tiles of each until it finds its own.
MX_BOUNDED_KERNEL(256) grouped_gemm(
    factor a, factor b, i64 stride, rows c, const int *offsets, int experts, int n, int k, real alpha, real beta) {
  MX_SHARED(small_memory, shared);
  int across = (n + 31) / 32, tile = blockIdx.x / across, j = blockIdx.x % across * 32;
  for (int e = 0; e < experts; e++) {
    int first = offsets[e], count = offsets[e + 1] - first, tiles = (count + 31) / 32;
    if (tile < tiles) {
      int i = 32 * tile;
      rows part = {c[first + i] + j, c.stride};
      multiply_small(
          shared, a.from(first + i, 0), factor{b.base + e * stride, b.line, b.term}.from(j, 0), part, count - i, n - j, k, alpha, beta);
      return;
    }
    tile -= tiles;
  }
}
MX_ENTRY(grouped_gemm)

// g_e += α a_eᵀ b_e over every expert's rows, in their order: a (M,p), b (M,q), g a stack of (p,q) that lie `stride` apart.
MX_BOUNDED_KERNEL(256) grouped_outer(factor a, factor b, rows g, i64 stride, const int *offsets, int p, int q, real alpha) {
  MX_SHARED(small_memory, shared);
  int e = blockIdx.y, first = offsets[e], count = offsets[e + 1] - first;
  if (count == 0) return;
  corner at(blockIdx.x, 32, p, q);
  rows part = {g[at.i] + e * stride + at.j, g.stride};
  multiply_small(shared, a.from(at.i, first), b.from(at.j, first), part, p - at.i, q - at.j, count, alpha, 1);
}
MX_ENTRY(grouped_outer)
