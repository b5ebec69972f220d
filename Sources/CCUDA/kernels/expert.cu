// The hidden rows of the experts in one pass forward and one backward; no (M,F) value is ever stored. For a token n, its experts k with
// weights w_k, and q = W2ᵀ dy:
//
//     a_k = base1 + s B1_k t1_k      c_k = base3 + s B3_k t3_k      h_k = act(a_k) ⊙ c_k      g_k = m_k ⊙ h_k
//     v = Σ_k w_k h_k                t2_k = A2_k g_k
//     q_k = q + m_k ⊙ A2_kᵀ z_k      dw_k = ⟨q_k, h_k⟩              dh_k = w_k q_k
//     da_k = dh_k ⊙ c_k ⊙ act′(a_k)  dbase1 = Σ_k da_k              dt1_k = s B1_kᵀ da_k      dB1_k = s Σ da_k t1_kᵀ      3 alike
//     dc_k = dh_k ⊙ act(a_k)                                                                  dA2_k = Σ w_k z_k g_kᵀ
//
// A block has 64 columns of F, and thread (y, x) of 4 × 64 column x of them. It takes tokens a tile at a time and walks the tile's
// experts in turn, an expert's rows sixteen at a time, a thread four of them. What sums over a token's experts stays in shared memory
// as long as the tile does. Sums over F stop at the end of a block's columns and sums over an expert's rows at the end of its tokens;
// what blocks have left of them is joined in their order.
#include "mx.cuh"

// Blocks of 256 threads with registers for four of them on a multiprocessor in single precision: what they do between barriers is short,
// so that time goes by waiting, and others can run then. Shared memory lets four of `expert_backward` in on Hopper, on others one to three.
#define MX_EXPERTS 256, 16 / sizeof(real)

/// One of the three low-rank branches: t (M,r), and all experts' B (F,E·r) or A2 (E·r,F).
struct expert_branch {
  rows t, b;
};

/// Where an expert's rows begin, whose they are, and what they weigh.
struct expert_plan {
  const int *offsets, *token_of_row;
  const real *weights;
  int experts, tokens;
};

/// What the masks m_k are drawn from; a threshold of 0 drops nothing.
struct expert_mask {
  const int *samples, *positions;
  u64 key;
  u32 step, threshold;
};

/// Tokens of a tile: what fits into shared memory with two numbers for each of 64 columns.
constexpr int expert_tokens = sizeof(real) == 4 ? 64 : 16;

/// Operands of a branch, a value of sixteen rows that is summed over columns or multiplied with their t, and of each row its token,
/// its weight and which elements its mask keeps, a bit each.
struct alignas(16) expert_stage {
  real b[16][68], t[16][20], rows[16][68], weight[16];
  int token[16], kept[16][8];
};

/// Sixteen rows of one expert from `first` on (`count` of them are there), and the 64 columns from `column` on.
struct expert_part {
  int expert, first, count, column, width;
};

/// b[i][x] of part of a branch's rank, from i = r0 on: of B (isAcross), or of A2. Zeros where there is none.
template <bool isAcross>
__device__ __forceinline__ void expert_stage_factor(expert_stage &stage, rows b, int rank, int r0, expert_part p) {
#pragma unroll 2
  for (int e = threadIdx.x; e < 16 * 64; e += 256) {
    int i = isAcross ? e % 16 : e / 64, x = isAcross ? e / 16 : e % 64, row = p.expert * rank + r0 + i;
    bool isThere = r0 + i < rank && p.column + x < p.width;
    stage.b[i][x] = !isThere ? 0 : isAcross ? b[p.column + x][row] : b[row][p.column + x];
  }
}

/// sum_u = Σ_i b_i t_ui of this thread's column and four rows.
template <bool isAcross>
__device__ __forceinline__ void expert_multiply(real (&sum)[4], expert_stage &stage, expert_branch branch, int rank, expert_part p) {
  int x = threadIdx.x % 64, y = threadIdx.x / 64, n = threadIdx.x / 16, c = threadIdx.x % 16;
  for (int u = 0; u < 4; u++) sum[u] = 0;
  for (int r0 = 0; r0 < rank; r0 += 16) {
    __syncthreads();
    expert_stage_factor<isAcross>(stage, branch.b, rank, r0, p);
    stage.t[c][n] = n < p.count && r0 + c < rank ? branch.t[p.first + n][r0 + c] : 0;
    __syncthreads();
#pragma unroll 4
    for (int i = 0; i < 16; i++) {
      for (int u = 0; u < 4; u++) sum[u] += stage.b[i][x] * stage.t[i][4 * y + u];
    }
  }
}

/// y_mi += Σ_x rows_mx b_ix of sixteen rows, over this block's 64 columns; what was there counts unless `isFirst`.
template <bool isAcross>
__device__ __forceinline__ void expert_project(expert_stage &stage, rows b, int rank, expert_part p, rows y, bool isFirst) {
  int n = threadIdx.x / 16, i = threadIdx.x % 16;
  for (int r0 = 0; r0 < rank; r0 += 16) {
    __syncthreads();
    expert_stage_factor<isAcross>(stage, b, rank, r0, p);
    __syncthreads();
    real sum = 0;
#pragma unroll 2
    for (int x = 0; x < 64; x += 4) {
      for (int u = 0; u < 4; u++) sum += stage.rows[n][x + u] * stage.b[i][x + u];
    }
    if (n < p.count && r0 + i < rank) y[p.first + n][r0 + i] = isFirst ? sum : y[p.first + n][r0 + i] + sum;
  }
}

/// Puts four rows of a column where all threads read them.
__device__ __forceinline__ void expert_put(expert_stage &stage, const real (&value)[4]) {
  __syncthreads();
  for (int u = 0; u < 4; u++) stage.rows[threadIdx.x / 64 * 4 + u][threadIdx.x % 64] = value[u];
}

/// g_ix += Σ_m t_mi rows_mx of sixteen rows.
__device__ __forceinline__ void expert_add_outer(expert_stage &stage, rows t, int rank, expert_part p, rows g) {
  int x = threadIdx.x % 64, y = threadIdx.x / 64, n = threadIdx.x / 16, c = threadIdx.x % 16;
  for (int r0 = 0; r0 < rank; r0 += 16) {
    __syncthreads();
    stage.t[n][c] = n < p.count && r0 + c < rank ? t[p.first + n][r0 + c] : 0;
    __syncthreads();
    real sum[4] = {0, 0, 0, 0};
#pragma unroll 4
    for (int m = 0; m < 16; m++) {
      for (int u = 0; u < 4; u++) sum[u] += stage.t[m][4 * y + u] * stage.rows[m][x];
    }
    for (int u = 0; u < 4; u++) {
      int i = r0 + 4 * y + u;
      if (i < rank && p.column + x < p.width) g[i][p.column + x] += sum[u];
    }
  }
}

/// Which of a row's elements from column 8 b on m_k keeps: a bit each.
__device__ __forceinline__ int expert_kept(expert_mask mask, int token, int expert, int b) {
  if (mask.threshold == 0) return 255;
  philox p = philox_numbers(mask.step, mask.samples[token], mask.positions[token], b, derived_key(mask.key, expert));
  int bits = 0;
  for (int i = 0; i < 8; i++) bits |= (i % 2 ? p.n[i / 2] >> 16 : p.n[i / 2] & 0xffff) >= mask.threshold ? 1 << i : 0;
  return bits;
}

/// The first of an expert's rows, among those from `low` to before `high`, whose token is at least `token`.
__device__ __forceinline__ int expert_row(const int *token_of_row, int low, int high, int token) {
  while (low < high) {
    int middle = (low + high) / 2;
    if (token_of_row[middle] < token) low = middle + 1;
    else high = middle;
  }
  return low;
}

/// The rows of an expert whose tokens are from `begin` to before `end`; no token has an expert twice.
__device__ __forceinline__ void expert_rows(expert_plan plan, int expert, int begin, int end, int &first, int &last) {
  int after = plan.offsets[expert + 1];
  first = expert_row(plan.token_of_row, plan.offsets[expert], after, begin);
  last = expert_row(plan.token_of_row, first, after - first < end - begin ? after : first + end - begin, end);
}

/// The token of this thread's u-th row, −1 where there is no row or no column.
__device__ __forceinline__ int expert_token(const expert_stage &stage, expert_part p, int u) {
  return p.column + (int)threadIdx.x % 64 < p.width ? stage.token[threadIdx.x / 64 * 4 + u] : -1;
}

/// What m_k makes of this thread's element of its u-th row.
__device__ __forceinline__ real expert_masked(const expert_stage &stage, int u, real factor, real value) {
  int x = threadIdx.x % 64;
  return stage.kept[threadIdx.x / 64 * 4 + u][x / 8] >> x % 8 & 1 ? factor * value : 0;
}

/// a_k and c_k of four rows of a column.
struct expert_sums {
  real a[4], c[4];

  __device__ __forceinline__ void form(
      expert_stage &stage, rows base1, rows base3, expert_branch one, expert_branch three, int rank1, int rank3, real scale1, real scale3,
      expert_plan plan, expert_mask mask, expert_part p) {
    int x = threadIdx.x % 64, row = threadIdx.x / 8, b = threadIdx.x % 8;
    __syncthreads();
    if (row < 16) {
      int own = row < p.count ? plan.token_of_row[p.first + row] : -1;
      stage.kept[row][b] = own < 0 ? 0 : expert_kept(mask, own, p.expert, p.column / 8 + b);
      if (b == 0) stage.token[row] = own, stage.weight[row] = own < 0 ? 0 : plan.weights[p.first + row];
    }
    __syncthreads();
    expert_multiply<true>(a, stage, one, rank1, p);
    expert_multiply<true>(c, stage, three, rank3, p);
    for (int u = 0; u < 4; u++) {
      int token = expert_token(stage, p, u);
      if (token < 0) continue;
      a[u] = base1[token][p.column + x] + scale1 * a[u];
      c[u] = base3[token][p.column + x] + scale3 * c[u];
    }
  }
};

struct alignas(16) expert_forward_tile {
  expert_stage stage;
  real v[expert_tokens][64];
};

// v = Σ_k w_k h_k, and A2_k g_k of a block's columns.
MX_BOUNDED_KERNEL(MX_EXPERTS)
expert_forward(
    rows base1, rows base3, expert_branch one, expert_branch three, rows a2, expert_plan plan, expert_mask mask, rows v, rows t2,
    i64 part_rows, int width, int rank1, int rank2, int rank3, real scale1, real scale3, real factor, int is_gelu) {
  MX_SHARED(expert_forward_tile, tile);
  int x = threadIdx.x % 64, y = threadIdx.x / 64, begin = blockIdx.x * expert_tokens;
  int end = begin + expert_tokens < plan.tokens ? begin + expert_tokens : plan.tokens;
  t2.base += blockIdx.y * part_rows * t2.stride;
  for (int column = 64 * blockIdx.y; column < width; column += 64 * gridDim.y) {
    for (int n = y; n < expert_tokens; n += 4) tile.v[n][x] = 0;
    for (int e = 0; e < plan.experts; e++) {
      int first, last;
      expert_rows(plan, e, begin, end, first, last);
      for (; first < last; first += 16) {
        expert_part p{e, first, last - first < 16 ? last - first : 16, column, width};
        expert_sums s;
        s.form(tile.stage, base1, base3, one, three, rank1, rank3, scale1, scale3, plan, mask, p);
        for (int u = 0; u < 4; u++) {
          int m = 4 * y + u;
          int token = expert_token(tile.stage, p, u);
          real g = 0;
          if (token >= 0) {
            real h = s.a[u] * gate(s.a[u], is_gelu).sigma * s.c[u];
            tile.v[token - begin][x] += tile.stage.weight[m] * h;
            g = expert_masked(tile.stage, u, factor, h);
          }
          tile.stage.rows[m][x] = g;
        }
        expert_project<false>(tile.stage, a2, rank2, p, t2, column == 64 * blockIdx.y);
      }
    }
    __syncthreads();
    for (int n = y; begin + n < end; n += 4) {
      if (column + x < width) v[begin + n][column + x] = tile.v[n][x];
    }
    __syncthreads();
  }
}
MX_ENTRY(expert_forward)

/// Columns of a sum over F: y = α Σ of what blocks have left.
struct expert_result {
  rows y;
  int width;
  real alpha;
};

// Joins the parts that blocks have left of sums over F, the columns of up to three results side by side; 0 in rows that nobody owns.
MX_KERNEL expert_join(
    rows part, expert_result first, expert_result second, expert_result third, const int *pairs, i64 count, int width, int part_rows,
    int parts) {
  i64 i = mx_thread();
  if (i >= count) return;
  int m = (int)(i / width), j = (int)(i - (i64)m * width);
  real sum = 0;
  for (int k = 0; m < *pairs && k < parts; k++) sum += part[(i64)k * part_rows + m][j];
  int after = j - first.width, last = after - second.width;
  if (after < 0) first.y[m][j] = first.alpha * sum;
  else if (last < 0) second.y[m][after] = second.alpha * sum;
  else third.y[m][last] = third.alpha * sum;
}
MX_ENTRY(expert_join)

/// The gradients of four rows of a column, da_k, dc_k, and w_k g_k; ⟨q_k, h_k⟩ before it is summed goes where all threads read it.
struct expert_gradients {
  real da[4], dc[4], g[4];

  __device__ __forceinline__ void form(
      expert_stage &stage, const expert_sums &s, rows q, expert_branch two, int rank2, real factor, int is_gelu, expert_part p) {
    int x = threadIdx.x % 64, y = threadIdx.x / 64;
    expert_multiply<false>(g, stage, two, rank2, p);
    for (int u = 0; u < 4; u++) {
      int token = expert_token(stage, p, u);
      if (token < 0) {
        stage.rows[4 * y + u][x] = da[u] = dc[u] = g[u] = 0;
        continue;
      }
      real w = stage.weight[4 * y + u], qk = q[token][p.column + x] + expert_masked(stage, u, factor, g[u]);
      gate act(s.a[u], is_gelu);
      real value = s.a[u] * act.sigma, h = value * s.c[u], dh = w * qk;
      stage.rows[4 * y + u][x] = qk * h;
      da[u] = dh * s.c[u] * (act.sigma + value * (1 - act.sigma) * act.slope);
      dc[u] = dh * value;
      g[u] = w * expert_masked(stage, u, factor, h);
    }
  }
};

struct alignas(16) expert_backward_tile {
  expert_stage stage;
  real da[expert_tokens][64], dc[expert_tokens][64];
};

// dbase1 and dbase3 of `group` tokens, and what a block has of sums: side by side B1_kᵀ da_k, B3_kᵀ dc_k and ⟨q_k, h_k⟩ of every row, and
// below each other Σ t1_k da_kᵀ, Σ w_k z_k g_kᵀ and Σ t3_k dc_kᵀ of every expert.
MX_BOUNDED_KERNEL(MX_EXPERTS)
expert_backward(
    rows q, rows base1, rows base3, expert_branch one, expert_branch two, expert_branch three, expert_plan plan, expert_mask mask, rows da,
    rows dc, rows sums, rows outer, i64 part_rows, int group, int width, int rank1, int rank2, int rank3, real scale1, real scale3,
    real factor, int is_gelu) {
  MX_SHARED(expert_backward_tile, tile);
  int x = threadIdx.x % 64, y = threadIdx.x / 64, ranks = rank1 + rank2 + rank3;
  int limit = (blockIdx.x + 1) * group < plan.tokens ? (blockIdx.x + 1) * group : plan.tokens;
  rows dt1 = {sums[blockIdx.y * part_rows], sums.stride}, dt3 = {dt1.base + rank1, sums.stride}, dw = {dt3.base + rank3, sums.stride};
  outer.base = outer[(i64)blockIdx.x * plan.experts * ranks];
  for (int column = 64 * blockIdx.y; column < width; column += 64 * gridDim.y) {
    bool isFirst = column == 64 * (int)blockIdx.y;
    for (int i = y; i < plan.experts * ranks; i += 4) {
      if (column + x < width) outer[i][column + x] = 0;
    }
    for (int begin = blockIdx.x * group; begin < limit; begin += expert_tokens) {
      int end = begin + expert_tokens < limit ? begin + expert_tokens : limit;
      for (int n = y; n < expert_tokens; n += 4) tile.da[n][x] = tile.dc[n][x] = 0;
      for (int e = 0; e < plan.experts; e++) {
        int first, last;
        expert_rows(plan, e, begin, end, first, last);
        for (; first < last; first += 16) {
          expert_part p{e, first, last - first < 16 ? last - first : 16, column, width};
          expert_sums s;
          expert_gradients d;
          s.form(tile.stage, base1, base3, one, three, rank1, rank3, scale1, scale3, plan, mask, p);
          d.form(tile.stage, s, q, two, rank2, factor, is_gelu, p);
          for (int u = 0; u < 4; u++) {
            int token = expert_token(tile.stage, p, u);
            if (token < 0) continue;
            tile.da[token - begin][x] += d.da[u];
            tile.dc[token - begin][x] += d.dc[u];
          }
          __syncthreads();
          int n = threadIdx.x / 16;
          real sum = 0;
          for (int c = threadIdx.x % 16; c < 64; c += 16) sum += tile.stage.rows[n][c];
          for (int distance = 8; distance > 0; distance >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
          if (threadIdx.x % 16 == 0 && n < p.count) dw[first + n][0] = isFirst ? sum : dw[first + n][0] + sum;
          rows of_expert = {outer[(i64)e * ranks], outer.stride};
          expert_put(tile.stage, d.da);
          expert_project<true>(tile.stage, one.b, rank1, p, dt1, isFirst);
          expert_add_outer(tile.stage, one.t, rank1, p, of_expert);
          expert_put(tile.stage, d.g);
          expert_add_outer(tile.stage, two.t, rank2, p, {of_expert[rank1], outer.stride});
          expert_put(tile.stage, d.dc);
          expert_project<true>(tile.stage, three.b, rank3, p, dt3, isFirst);
          expert_add_outer(tile.stage, three.t, rank3, p, {of_expert[rank1 + rank2], outer.stride});
        }
      }
      __syncthreads();
      for (int n = y; begin + n < end; n += 4) {
        if (column + x < width) da[begin + n][column + x] = tile.da[n][x], dc[begin + n][column + x] = tile.dc[n][x];
      }
      __syncthreads();
    }
  }
}
MX_ENTRY(expert_backward)

// dB1_k += s Σ da_k t1_kᵀ, dA2_k += Σ w_k z_k g_kᵀ and dB3_k += s Σ dc_k t3_kᵀ from what `groups` of blocks have left.
MX_KERNEL expert_add(
    rows outer, rows db1, rows da2, rows db3, i64 count, int width, int experts, int rank1, int rank2, int rank3, real scale1, real scale3,
    int groups) {
  i64 i = mx_thread();
  if (i >= count) return;
  int n = (int)(i / width), x = (int)(i - (i64)n * width), ranks = rank1 + rank2 + rank3, e = n / ranks, r = n % ranks;
  real sum = 0;
  for (int group = 0; group < groups; group++) sum += outer[(i64)group * experts * ranks + n][x];
  if (r < rank1) db1[x][e * rank1 + r] += scale1 * sum;
  else if (r < rank1 + rank2) da2[e * rank2 + r - rank1][x] += sum;
  else db3[x][e * rank3 + r - rank1 - rank2] += scale3 * sum;
}
MX_ENTRY(expert_add)
