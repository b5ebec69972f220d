// Routing: probabilities and choices, a warp a token; the plan; rows between the order of tokens and that of experts, a thread an element.
#include "mx.cuh"

// p = softmax(z).
MX_BOUNDED_KERNEL(256) softmax(rows z, rows p, int count, int width) {
  int n = (int)(mx_thread() / 32), lane = threadIdx.x % 32;
  if (n >= count) return;
  real largest = -mx_infinity();
  for (int j = lane; j < width; j += 32) largest = z[n][j] > largest ? z[n][j] : largest;
  largest = warp_max(largest);
  double sum = 0;
  for (int j = lane; j < width; j += 32) {
    real e = mx_exp(z[n][j] - largest);
    p[n][j] = e;
    sum += e;
  }
  real factor = (real)(1 / warp_sum(sum));
  for (int j = lane; j < width; j += 32) p[n][j] *= factor;
}
MX_ENTRY(softmax)

// The experts of each row of p by falling p, ties to the lower index, NaN as −∞, until Σ p / divisor exceeds the threshold; then −1.
MX_BOUNDED_KERNEL(256) choose(rows p, int *choice, int count, int experts, int slots, double threshold, double divisor) {
  int n = (int)(mx_thread() / 32), lane = threadIdx.x % 32, last = -1;
  if (n >= count) return;
  real last_value = mx_infinity();
  double sum = 0;
  for (int k = 0; k < slots; k++) {
    int best = -1;
    if (!(sum > threshold)) {
      // The best of those that come after the last choice; `experts` stands for none.
      best = experts;
      real value = -mx_infinity();
      for (int j = lane; j < experts; j += 32) {
        real x = p[n][j] == p[n][j] ? p[n][j] : -mx_infinity();
        bool is_left = x < last_value || (x == last_value && j > last);
        if (is_left && (best == experts || x > value)) best = j, value = x;
      }
      for (int d = 16; d > 0; d >>= 1) {
        int other = __shfl_xor_sync(0xffffffffu, best, d);
        real x = __shfl_xor_sync(0xffffffffu, value, d);
        if (x > value || (x == value && other < best)) best = other, value = x;
      }
      last = best;
      last_value = value;
      sum += (double)value / divisor;
    }
    if (lane == 0) choice[(i64)n * slots + k] = best;
  }
}
MX_ENTRY(choose)

/// The sums of a block's warps.
struct warp_counts {
  int sums[32];
};

/// Σ over the threads of a block before this one.
__device__ __forceinline__ int sum_before(int own, int *parts) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, sum = own;
  for (int d = 1; d < 32; d <<= 1) {
    int other = __shfl_sync(0xffffffffu, sum, lane - d);
    if (lane >= d) sum += other;
  }
  if (lane == 31) parts[warp] = sum;
  __syncthreads();
  for (int w = 0; w < warp; w++) sum += parts[w];
  return sum - own;
}

// Orders pairs by expert, then token: one block, in which each thread takes tokens that follow each other. It counts its pairs of every
// expert (`next`, expert by expert, thread by thread, and behind it the first choices), the sums of all before become each thread's next
// row, and each thread gives rows to its pairs in turn. Weights are p / divisor, with 0 p / Σ p of the token.
MX_BOUNDED_KERNEL(512) route(
    rows p, const int *choice, int tokens, int slots, int experts, real divisor, int *row_of_slot, int *token_of_row, int *slot_of_row,
    int *offsets, real *weights, real *counts, real *first_counts, int *next, error_word error) {
  MX_SHARED(warp_counts, shared);
  int t = threadIdx.x, threads = blockDim.x, share = (tokens + threads - 1) / threads;
  int begin = t * share < tokens ? t * share : tokens, end = begin + share < tokens ? begin + share : tokens;
  int *firsts = next + (i64)experts * threads;
  for (int e = 0; e < experts; e++) next[(i64)e * threads + t] = firsts[(i64)e * threads + t] = 0;
  for (int n = begin; n < end; n++) {
    const int *chosen = choice + (i64)n * slots;
    int *pairs = row_of_slot + (i64)n * slots;
    for (int k = 0; k < slots; k++) {
      int e = chosen[k];
      pairs[k] = -1;
      if (e == -1 || !is_inside(e, experts, error)) continue;
      int other = 0;
      while (chosen[other] != e) other++;
      if (other < k) {
        error.report(e, -1);  // the token chose it before
        continue;
      }
      pairs[k] = e;
      next[(i64)e * threads + t]++;
      if (k == 0) firsts[(i64)e * threads + t]++;
    }
  }
  __syncthreads();

  // As many counters a thread as there are experts.
  int *own = next + (i64)t * experts, sum = 0;
  for (int i = 0; i < experts; i++) sum += own[i];
  int row = sum_before(sum, shared.sums);
  for (int i = 0; i < experts; i++) {
    i64 place = (i64)t * experts + i;
    if (place % threads == 0) offsets[place / threads] = row;
    int count = own[i];
    own[i] = row;
    row += count;
  }
  if (t == threads - 1) offsets[experts] = row;
  __syncthreads();

  for (int slot = begin * slots; slot < end * slots; slot++) {
    int e = row_of_slot[slot];
    if (e < 0) continue;
    int m = next[(i64)e * threads + t]++;
    row_of_slot[slot] = m;
    slot_of_row[m] = slot;
  }
  for (int e = t / 32; e < experts; e += threads / 32) {
    int first = 0;
    for (int i = t % 32; i < threads; i += 32) first += firsts[(i64)e * threads + i];
    first = warp_sum(first);
    if (t % 32 == 0) counts[e] = (real)(offsets[e + 1] - offsets[e]), first_counts[e] = (real)first;
  }
  __syncthreads();

  int pairs = offsets[experts];
  for (int m = t; m < tokens * slots; m += threads) {
    int slot = m < pairs ? slot_of_row[m] : -1, n = m < pairs ? slot / slots : -1;
    real sum = divisor;
    for (int k = 0; k < slots && n >= 0 && divisor == 0; k++) {
      if (row_of_slot[(i64)n * slots + k] >= 0) sum += p[n][choice[(i64)n * slots + k]];
    }
    weights[m] = n >= 0 ? p[n][choice[slot]] / sum : 0;  // 0 in rows that are nobody's
    token_of_row[m] = n;
    slot_of_row[m] = slot;
  }
}
MX_ENTRY(route)

// The gradient of the logits: dz = p ⊙ (b − ⟨b, p⟩), and of top-K, for which a divisor of 0 stands, dz_j += w_j (dw_j − Σ w dw) on the
// chosen; of top-P, with dp = dw / divisor on the chosen, dz += p ⊙ (dp − ⟨dp, p⟩).
MX_BOUNDED_KERNEL(256) router_backward(
    const real *dw, rows p, const real *balance, const real *weights, const int *row_of_slot, const int *choice, rows dz, int count,
    int experts, int slots, real divisor) {
  int n = (int)(mx_thread() / 32), lane = threadIdx.x % 32;
  if (n >= count) return;
  const int *row = row_of_slot + (i64)n * slots, *chosen = choice + (i64)n * slots;
  double mean = 0, inner = 0;
  for (int j = lane; j < experts; j += 32) mean += (double)balance[j] * p[n][j];
  for (int k = lane; k < slots; k += 32) {
    if (row[k] >= 0) inner += (double)(divisor == 0 ? weights[row[k]] : p[n][chosen[k]]) * dw[row[k]];
  }
  mean = warp_sum(mean);
  inner = warp_sum(inner) / (divisor == 0 ? 1 : divisor);
  for (int j = lane; j < experts; j += 32) {
    int m = -1;
    for (int k = 0; k < slots; k++) m = row[k] >= 0 && chosen[k] == j ? row[k] : m;
    real x = p[n][j], d = x * (balance[j] - (real)mean);
    if (divisor != 0) d -= x * (real)inner;
    if (m >= 0) d += divisor == 0 ? weights[m] * (dw[m] - (real)inner) : x * (dw[m] / divisor);
    dz[n][j] = d;
  }
}
MX_ENTRY(router_backward)

// y_m ← x of row m's token; 0 where it has none.
MX_KERNEL dispatch(rows x, rows y, const int *token_of_row, const int *pairs, i64 count, int width) {
  i64 i = mx_thread();
  if (i >= count) return;
  int m = (int)(i / width), j = (int)(i - (i64)m * width);
  y[m][j] = m < *pairs ? x[token_of_row[m]][j] : 0;
}
MX_ENTRY(dispatch)

// y_n = Σ_k w x of its slots' rows. Without w, 1.
MX_KERNEL combine(rows x, const real *w, rows y, const int *row_of_slot, i64 count, int width, int slots) {
  i64 i = mx_thread();
  if (i >= count) return;
  int n = (int)(i / width), j = (int)(i - (i64)n * width);
  real sum = 0;
  for (int k = 0; k < slots; k++) {
    int m = row_of_slot[(i64)n * slots + k];
    if (m >= 0) sum += w ? w[m] * x[m][j] : x[m][j];
  }
  y[n][j] = sum;
}
MX_ENTRY(combine)

// y_m ← the columns of x that belong to row m's expert, of its token; 0 where it has none.
MX_KERNEL dispatch_blocks(
    rows x, rows y, const int *slot_of_row, const int *choice, const int *pairs, i64 count, int width, int slots) {
  i64 i = mx_thread();
  if (i >= count) return;
  int m = (int)(i / width), j = (int)(i - (i64)m * width);
  if (m < *pairs) {
    int slot = slot_of_row[m];
    y[m][j] = x[slot / slots][(i64)choice[slot] * width + j];
  } else {
    y[m][j] = 0;
  }
}
MX_ENTRY(dispatch_blocks)

// y_n: in the columns of each chosen expert w x of its row, 0 in the others; `width` columns belong to an expert. Without w, 1.
MX_KERNEL combine_blocks(
    rows x, const real *w, rows y, const int *row_of_slot, const int *choice, i64 count, int columns, int width, int slots) {
  i64 i = mx_thread();
  if (i >= count) return;
  int n = (int)(i / columns), c = (int)(i - (i64)n * columns), e = c / width, j = c - e * width;
  real value = 0;
  for (int k = 0; k < slots; k++) {
    int m = row_of_slot[(i64)n * slots + k];
    if (m >= 0 && choice[(i64)n * slots + k] == e) value = w ? w[m] * x[m][j] : x[m][j];
  }
  y[n][c] = value;
}
MX_ENTRY(combine_blocks)
