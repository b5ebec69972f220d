// Attention that never stores the scores, forward and backward. For a head of one sequence, whose query i stands at row past + i of
// its keys:
//
//     S = scale Q Kᵀ      S′ = cap tanh(S / cap), or S      lse_i = log Σ_j exp S′_ij      P = exp(S′ − lse)      O = P V
//     dV = Pᵀ dO          dP = dO Vᵀ      δ_i = ⟨dO_i, O_i⟩      dS = scale P ⊙ (dP − δ) ⊙ (1 − (S′/cap)²)
//     dQ = dS K           dK = dSᵀ Q
//
// A block of 16 × 16 threads has a tile of 16 I rows and 32 columns of S, thread (y, x) its rows y + 16 i and its columns x and
// x + 16; of a result it has the same rows, and W/16 of at most W columns of the head. A tile lies within one sequence: what belongs to
// another is never read. δ and dQ have a block for every tile of queries and head, then dK and dV for every tile of keys and head that
// reads it, so that a device is busy where few heads of keys are; what heads that share keys have left is summed last.
#include "mx.cuh"

/// The sequences of a batch, the query heads that read one head of keys, the width of a head, and how many rows a query sees.
struct sequences {
  const int *plan;
  int count, group, width, window;
};

/// A tile of queries: where its sequence lies in q and in k, how long it is, and the tile's first row in it.
struct attention_place {
  int query, key, queries, keys, first;

  /// The t-th tile of `size` rows. Those of sequence s begin at number ⌊offset_s / size⌋ + s, so that the host need not count them; some
  /// are empty.
  __device__ __forceinline__ bool find(sequences s, int size, int t) {
    int low = 0, high = s.count;
    while (high - low > 1) {
      int middle = (low + high) / 2;
      if (s.plan[middle] / size + middle <= t) low = middle;
      else high = middle;
    }
    query = s.plan[low];
    queries = s.plan[low + 1] - query;
    key = s.plan[s.count + 1 + low];
    keys = s.plan[2 * s.count + 1 + low] - key;
    first = (t - query / size - low) * size;
    return first < queries;
  }
};

/// Scores of a tile, and the operands of the product that is being formed.
template <int I>
struct alignas(16) attention_tile {
  static constexpr int scored = (16 * I + 32) * 36, summed = 2048;
  real p[16 * I][36];
  real stage[scored > summed ? scored : summed];
};

/// Part of a matrix, from a row and a column on.
__device__ __forceinline__ rows attention_part(rows x, int row, int column) { return {x[row] + column, x.stride}; }

/// The first `columns` ≤ C columns of `count` rows, in `size` rows of shared memory with room for `pitch` numbers; zeros behind them.
template <int C, int pitch>
__device__ __forceinline__ void attention_stage(real *stage, int size, rows x, int count, int columns) {
  int c = threadIdx.x % C, n = threadIdx.x / C;
  const real *p = x[n] + c;
  i64 step = 256 / C * x.stride;
  if (c >= columns) count = 0;
#pragma unroll 4
  for (; n < size; n += 256 / C, p += step) stage[n * pitch + c] = n < count ? *p : 0;
}

/// s_ij = ⟨a_i, b_j⟩ of `na` rows of a and `nb` of b; where there is no row, 0.
template <int I>
__device__ __forceinline__ void attention_scores(real (&s)[I][2], rows a, int na, rows b, int nb, int width, real *stage) {
  int x = threadIdx.x % 16, y = threadIdx.x / 16;
  for (int i = 0; i < I; i++) s[i][0] = s[i][1] = 0;
  for (int c0 = 0; c0 < width; c0 += 32) {
    int columns = width - c0 < 32 ? width - c0 : 32;
    __syncthreads();
    attention_stage<32, 36>(stage, 16 * I, attention_part(a, 0, c0), na, columns);
    attention_stage<32, 36>(stage + 16 * I * 36, 32, attention_part(b, 0, c0), nb, columns);
    __syncthreads();
#pragma unroll 1
    for (int c = 0; c < columns; c += 4) {
      real as[I][4], bs[2][4];
      for (int u = 0; u < 4; u++) {
        for (int i = 0; i < I; i++) as[i][u] = stage[(y + 16 * i) * 36 + c + u];
        for (int j = 0; j < 2; j++) bs[j][u] = stage[(16 * I + x + 16 * j) * 36 + c + u];
      }
      for (int u = 0; u < 4; u++) {
        for (int i = 0; i < I; i++) {
          for (int j = 0; j < 2; j++) s[i][j] += as[i][u] * bs[j][u];
        }
      }
    }
  }
}

/// Columns of a result that a thread has side by side, so that it reads them at once and a warp whole lines.
template <int W>
constexpr int attention_neighbours = W / 16 < 4 ? W / 16 : 4;

/// Which column of a result a thread's c-th is.
template <int W>
__device__ __forceinline__ int attention_column(int c) {
  constexpr int neighbours = attention_neighbours<W>;
  return c / neighbours * (16 * neighbours) + threadIdx.x % 16 * neighbours + c % neighbours;
}

/// out_i += Σ_j p_ij x_j over `nx` ≤ 32 rows of x.
template <int I, int W>
__device__ __forceinline__ void attention_sum(real (&out)[I][W / 16], const real (*p)[36], rows x, int nx, int width, real *stage) {
  constexpr int staged = 2048 / W < 32 ? 2048 / W : 32, neighbours = attention_neighbours<W>;
  int y = threadIdx.x / 16;
  for (int j0 = 0; j0 < nx; j0 += staged) {
    __syncthreads();
    attention_stage<W, W>(stage, staged, attention_part(x, j0, 0), nx - j0, width);
    __syncthreads();
#pragma unroll 1
    for (int j = 0; j < staged && j0 + j < nx; j += 4) {
      real ps[I][4];
      for (int u = 0; u < 4; u++) {
        for (int i = 0; i < I; i++) ps[i][u] = p[y + 16 * i][j0 + j + u];
      }
      for (int u = 0; u < 4; u++) {
        const real *values = stage + (j + u) * W + attention_column<W>(0);
        for (int c = 0; c < W / 16; c++) {
          real value = values[c / neighbours * (16 * neighbours) + c % neighbours];
          for (int i = 0; i < I; i++) out[i][c] += ps[i][u] * value;
        }
      }
    }
  }
}

/// Writes a thread's part of `count` rows.
template <int I, int W>
__device__ __forceinline__ void attention_store(const real (&out)[I][W / 16], rows y, int count, int width) {
  for (int i = 0; i < I; i++) {
    int n = threadIdx.x / 16 + 16 * i;
    for (int c = 0; c < W / 16; c++) {
      int column = attention_column<W>(c);
      if (n < count && column < width) y[n][column] = out[i][c];
    }
  }
}

/// A score under the soft cap (0: there is none), and the slope of the cap.
__device__ __forceinline__ real attention_capped(real s, real cap, real &slope) {
  slope = 1;
  if (cap == 0) return s;
  real t = mx_tanh(s / cap);
  slope = 1 - t * t;
  return cap * t;
}

/// The first key that some query of the tile sees.
__device__ __forceinline__ int attention_lowest(int itself, int window) { return itself >= window ? itself - window + 1 : 0; }

// O and lse of a tile of queries: largest score and sum follow as keys come, and what was summed before is scaled anew.
template <int I, int W>
__device__ __forceinline__ void attend(
    attention_tile<I> &t, rows q, rows k, rows v, rows o, rows lse, sequences s, real scale, real cap) {
  attention_place at;
  if (!at.find(s, 16 * I, gridDim.x - 1 - blockIdx.x)) return;
  int head = blockIdx.y, x = threadIdx.x % 16, y = threadIdx.x / 16, past = at.keys - at.queries;
  int nq = at.queries - at.first < 16 * I ? at.queries - at.first : 16 * I, end = past + at.first + nq;
  q = attention_part(q, at.query + at.first, head * s.width);
  k = attention_part(k, at.key, head / s.group * s.width);
  v = attention_part(v, at.key, head / s.group * s.width);
  real out[I][W / 16], largest[I], sum[I];
  for (int i = 0; i < I; i++) {
    largest[i] = (real)-3e38, sum[i] = 0;
    for (int c = 0; c < W / 16; c++) out[i][c] = 0;
  }
  for (int j0 = attention_lowest(past + at.first, s.window); j0 < end; j0 += 32) {
    int nk = end - j0 < 32 ? end - j0 : 32;
    real scores[I][2];
    attention_scores<I>(scores, q, nq, attention_part(k, j0, 0), nk, s.width, t.stage);
    for (int i = 0; i < I; i++) {
      int itself = past + at.first + y + 16 * i;
      bool seen[2];
      real top = largest[i], slope;
      for (int j = 0; j < 2; j++) {
        int key = j0 + x + 16 * j;
        seen[j] = key <= itself && itself - key < s.window && key < end;
        scores[i][j] = attention_capped(scale * scores[i][j], cap, slope);
        if (seen[j] && scores[i][j] > top) top = scores[i][j];
      }
      for (int d = 8; d > 0; d >>= 1) {
        real other = __shfl_xor_sync(0xffffffffu, top, d);
        top = other > top ? other : top;
      }
      real factor = mx_exp(largest[i] - top);
      largest[i] = top;
      sum[i] *= factor;
      for (int c = 0; c < W / 16; c++) out[i][c] *= factor;
      for (int j = 0; j < 2; j++) {
        real p = seen[j] ? mx_exp(scores[i][j] - top) : 0;
        sum[i] += p;
        t.p[y + 16 * i][x + 16 * j] = p;
      }
    }
    attention_sum<I, W>(out, t.p, attention_part(v, j0, 0), nk, s.width, t.stage);
  }
  for (int i = 0; i < I; i++) {
    for (int d = 8; d > 0; d >>= 1) sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], d);
    for (int c = 0; c < W / 16; c++) out[i][c] /= sum[i];
    if (x == 0 && y + 16 * i < nq) lse[at.query + at.first + y + 16 * i][head] = largest[i] + mx_log(sum[i]);
  }
  attention_store<I, W>(out, attention_part(o, at.query + at.first, head * s.width), nq, s.width);
}

/// Softmax and its sum of values so far, of one warp.
template <int W>
struct attention_parts {
  real largest[8], sum[8], out[8][W];
};

// O and lse of sequences with one query each: a warp takes four keys of every 32, the block joins what its warps have.
template <int W>
__device__ __forceinline__ void attend_row(
    attention_parts<W> &parts, rows q, rows k, rows v, rows o, rows lse, sequences s, real scale, real cap) {
  attention_place at;
  if (!at.find(s, 1, blockIdx.x)) return;
  int head = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  k = attention_part(k, at.key, head / s.group * s.width);
  v = attention_part(v, at.key, head / s.group * s.width);
  const real *query = q[at.query] + head * s.width;
  real qs[W / 32], out[W / 32], largest = (real)-3e38, sum = 0;
  for (int c = 0; c < W / 32; c++) qs[c] = lane + 32 * c < s.width ? query[lane + 32 * c] : 0, out[c] = 0;
#pragma unroll 1
  for (int j = attention_lowest(at.keys - 1, s.window) + 4 * warp; j < at.keys; j += 32) {
    real scores[4], top = largest, slope;
    for (int u = 0; u < 4; u++) {
      scores[u] = 0;
      const real *key = k[j + u] + lane;
      for (int c = 0; c < W / 32; c++) {
        if (j + u < at.keys && lane + 32 * c < s.width) scores[u] += qs[c] * key[32 * c];
      }
    }
    for (int u = 0; u < 4; u++) {
      scores[u] = attention_capped(scale * warp_sum(scores[u]), cap, slope);
      if (j + u < at.keys && scores[u] > top) top = scores[u];
    }
    real factor = mx_exp(largest - top);
    largest = top;
    sum *= factor;
    for (int c = 0; c < W / 32; c++) out[c] *= factor;
    for (int u = 0; u < 4 && j + u < at.keys; u++) {
      real p = mx_exp(scores[u] - top);
      sum += p;
      const real *value = v[j + u] + lane;
      for (int c = 0; c < W / 32; c++) {
        if (lane + 32 * c < s.width) out[c] += p * value[32 * c];
      }
    }
  }
  if (lane == 0) parts.largest[warp] = largest, parts.sum[warp] = sum;
  for (int c = 0; c < W / 32; c++) parts.out[warp][lane + 32 * c] = out[c];
  __syncthreads();
  real top = parts.largest[0], total = 0;
  for (int w = 1; w < 8; w++) top = parts.largest[w] > top ? parts.largest[w] : top;
  for (int w = 0; w < 8; w++) total += mx_exp(parts.largest[w] - top) * parts.sum[w];
  if (threadIdx.x == 0) lse[at.query][head] = top + mx_log(total);
  if ((int)threadIdx.x < s.width) {
    real value = 0;
    for (int w = 0; w < 8; w++) value += mx_exp(parts.largest[w] - top) * parts.out[w][threadIdx.x];
    o[at.query][head * s.width + threadIdx.x] = value / total;
  }
}

/// P and dS of a pair from ⟨q, k⟩ and dP; zeros where the query does not see the key.
__device__ __forceinline__ void attention_pair(real &s, real &dp, bool isSeen, real lse, real delta, real scale, real cap) {
  real slope, p = isSeen ? mx_exp(attention_capped(scale * s, cap, slope) - lse) : 0;
  s = p;
  dp = isSeen ? scale * (p * (dp - delta) * slope) : 0;
}

// δ and dQ of a tile of queries.
template <int I, int W>
__device__ __forceinline__ void attend_queries(
    attention_tile<I> &t, rows dy, rows q, rows k, rows v, rows o, rows lse, rows delta, rows dq, sequences s, real scale, real cap) {
  attention_place at;
  if (!at.find(s, 16 * I, gridDim.x - 1 - blockIdx.x)) return;
  int head = blockIdx.y, x = threadIdx.x % 16, y = threadIdx.x / 16;
  int nq = at.queries - at.first < 16 * I ? at.queries - at.first : 16 * I, end = at.first + nq, row = at.query + at.first;
  q = attention_part(q, row, head * s.width);
  dy = attention_part(dy, row, head * s.width);
  k = attention_part(k, at.key, head / s.group * s.width);
  v = attention_part(v, at.key, head / s.group * s.width);
  o = attention_part(o, row, head * s.width);
  real out[I][W / 16];
  for (int i = 0; i < I; i++) {
    int m = y + 16 * i;
    real center = 0;
    for (int c = x; c < s.width && m < nq; c += 16) center += dy[m][c] * o[m][c];
    for (int d = 8; d > 0; d >>= 1) center += __shfl_xor_sync(0xffffffffu, center, d);
    if (x == 0 && m < nq) delta[row + m][head] = center;  // read behind the barriers of attention_scores: registers are full
    for (int c = 0; c < W / 16; c++) out[i][c] = 0;
  }
  for (int j0 = attention_lowest(at.first, s.window); j0 < end; j0 += 32) {
    int nk = end - j0 < 32 ? end - j0 : 32;
    real scores[I][2], dp[I][2];
    attention_scores<I>(scores, q, nq, attention_part(k, j0, 0), nk, s.width, t.stage);
    attention_scores<I>(dp, dy, nq, attention_part(v, j0, 0), nk, s.width, t.stage);
    for (int i = 0; i < I; i++) {
      int m = y + 16 * i, itself = at.first + m;
      real shift = m < nq ? lse[row + m][head] : 0, center = m < nq ? delta[row + m][head] : 0;
      for (int j = 0; j < 2; j++) {
        int key = j0 + x + 16 * j;
        attention_pair(scores[i][j], dp[i][j], key <= itself && itself - key < s.window && m < nq, shift, center, scale, cap);
        t.p[m][x + 16 * j] = dp[i][j];
      }
    }
    attention_sum<I, W>(out, t.p, attention_part(k, j0, 0), nk, s.width, t.stage);
  }
  attention_store<I, W>(out, attention_part(dq, row, head * s.width), nq, s.width);
}

// dK and dV of a tile of keys, as one head of queries has them, in that head's columns: over the queries that see the tile.
template <int I, int W>
__device__ __forceinline__ void attend_keys(
    attention_tile<I> &t, rows dy, rows q, rows k, rows v, rows lse, rows delta, rows dk, rows dv, sequences s, real scale, real cap) {
  attention_place at;
  if (!at.find(s, 16 * I, blockIdx.x)) return;
  int head = blockIdx.y, group = head / s.group, x = threadIdx.x % 16, y = threadIdx.x / 16, row = at.key + at.first;
  int nk = at.keys - at.first < 16 * I ? at.keys - at.first : 16 * I, last = at.first + nk - 1;
  int end = at.queries - last < s.window ? at.queries : last + s.window;
  k = attention_part(k, row, group * s.width);
  v = attention_part(v, row, group * s.width);
  real dks[I][W / 16], dvs[I][W / 16];
  for (int i = 0; i < I; i++) {
    for (int c = 0; c < W / 16; c++) dks[i][c] = dvs[i][c] = 0;
  }
  for (int i0 = at.first; i0 < end; i0 += 32) {
    int nq = end - i0 < 32 ? end - i0 : 32;
    rows qs = attention_part(q, at.query + i0, head * s.width), dys = attention_part(dy, at.query + i0, head * s.width);
    real scores[I][2], dp[I][2];
    attention_scores<I>(scores, k, nk, qs, nq, s.width, t.stage);
    attention_scores<I>(dp, v, nk, dys, nq, s.width, t.stage);
    for (int j = 0; j < 2; j++) {
      int m = x + 16 * j, itself = i0 + m;
      real shift = m < nq ? lse[at.query + itself][head] : 0, center = m < nq ? delta[at.query + itself][head] : 0;
      for (int i = 0; i < I; i++) {
        int key = at.first + y + 16 * i;
        attention_pair(scores[i][j], dp[i][j], key <= itself && itself - key < s.window && m < nq, shift, center, scale, cap);
        t.p[y + 16 * i][m] = scores[i][j];
      }
    }
    attention_sum<I, W>(dvs, t.p, dys, nq, s.width, t.stage);
    __syncthreads();
    for (int i = 0; i < I; i++) {
      for (int j = 0; j < 2; j++) t.p[y + 16 * i][x + 16 * j] = dp[i][j];
    }
    attention_sum<I, W>(dks, t.p, qs, nq, s.width, t.stage);
  }
  attention_store<I, W>(dks, attention_part(dk, row, head * s.width), nk, s.width);
  attention_store<I, W>(dvs, attention_part(dv, row, head * s.width), nk, s.width);
}

// dK and dV of `columns` columns each: sums over the `group` heads that read one head of keys, in their order.
MX_KERNEL attention_join(rows dks, rows dvs, rows dk, rows dv, i64 count, int columns, int width, int group) {
  i64 i = mx_thread();
  if (i >= count) return;
  int n = (int)(i / columns), c = (int)(i - (i64)n * columns), first = c / width * group * width + c % width;
  real k = 0, v = 0;
  for (int head = 0; head < group; head++) k += dks[n][first + head * width], v += dvs[n][first + head * width];
  dk[n][c] = k, dv[n][c] = v;
}
MX_ENTRY(attention_join)

// Blocks of 256 threads, of which a multiprocessor is to hold two in single precision if heads have at most 128 columns.
#define MX_TILE(W) 256, W <= 128 ? 8 / sizeof(real) : 1

// The kernels for heads of up to W columns: tiles of 16 I queries, of 16 J keys where dK and dV are kept.
#define MX_ATTENTION(W, I, J)                                                                                                  \
  MX_BOUNDED_KERNEL(MX_TILE(W))                                                                                                       \
  attention_##W(rows q, rows k, rows v, rows o, rows lse, sequences s, real scale, real cap) {                                 \
    MX_SHARED(attention_tile<I>, tile);                                                                                        \
    attend<I, W>(tile, q, k, v, o, lse, s, scale, cap);                                                                        \
  }                                                                                                                            \
  MX_ENTRY(attention_##W)                                                                                                      \
  MX_BOUNDED_KERNEL(MX_TILE(W))                                                                                                       \
  attention_row_##W(rows q, rows k, rows v, rows o, rows lse, sequences s, real scale, real cap) {                             \
    MX_SHARED(attention_parts<W>, parts);                                                                                      \
    attend_row<W>(parts, q, k, v, o, lse, s, scale, cap);                                                                      \
  }                                                                                                                            \
  MX_ENTRY(attention_row_##W)                                                                                                  \
  MX_BOUNDED_KERNEL(MX_TILE(W))                                                                                                       \
  attention_queries_##W(                                                                                                       \
      rows dy, rows q, rows k, rows v, rows o, rows lse, rows delta, rows dq, sequences s, real scale, real cap) {             \
    MX_SHARED(attention_tile<I>, tile);                                                                                        \
    attend_queries<I, W>(tile, dy, q, k, v, o, lse, delta, dq, s, scale, cap);                                                 \
  }                                                                                                                            \
  MX_ENTRY(attention_queries_##W)                                                                                              \
  MX_BOUNDED_KERNEL(MX_TILE(W))                                                                                                       \
  attention_keys_##W(                                                                                                          \
      rows dy, rows q, rows k, rows v, rows lse, rows delta, rows dk, rows dv, sequences s, real scale, real cap) {            \
    MX_SHARED(attention_tile<J>, tile);                                                                                        \
    attend_keys<J, W>(tile, dy, q, k, v, lse, delta, dk, dv, s, scale, cap);                                                   \
  }                                                                                                                            \
  MX_ENTRY(attention_keys_##W)

MX_ATTENTION(32, 4, 4)
MX_ATTENTION(64, 4, 4)
MX_ATTENTION(128, 4, 2)
MX_ATTENTION(256, 2, 1)
