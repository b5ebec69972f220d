// Rows that indices name, and the loss of rows of logits.
#include "mx.cuh"

// y_n ← x[index[n]].
MX_KERNEL take_rows(rows x, rows y, const int *index, int limit, i64 count, int width, error_word error) {
  i64 i = mx_thread();
  if (i >= count) return;
  int n = (int)(i / width), j = (int)(i - (i64)n * width);
  if (is_inside(index[n], limit, error)) y[n][j] = x[index[n]][j];
}
MX_ENTRY(take_rows)

// y[index[n]] += x_n; no row is named twice.
MX_KERNEL add_scattered(rows x, rows y, const int *index, int limit, i64 count, int width, error_word error) {
  i64 i = mx_thread();
  if (i >= count) return;
  int n = (int)(i / width), j = (int)(i - (i64)n * width);
  if (is_inside(index[n], limit, error)) y[index[n]][j] += x[n][j];
}
MX_ENTRY(add_scattered)

// table[ids[n]] += α dy_n, in the order of n: the block of an id's first row adds all of that id, a thread a column.
MX_BOUNDED_KERNEL(256) add_embedding_gradient(
    rows dy, const int *ids, rows table, int limit, int count, int width, real alpha, error_word error) {
  int n = blockIdx.x, id = ids[n], earlier = 0;
  if (!is_inside(id, limit, error)) return;
  for (int k = threadIdx.x % 32; k < n; k += 32) earlier += ids[k] == id;
  if (warp_sum(earlier) > 0) return;
  int j = blockIdx.y * blockDim.x + threadIdx.x;
  if (j >= width) return;
  real sum = table[id][j];
  for (int k = n; k < count; k++) {
    if (ids[k] == id) sum += alpha * dy[k][j];
  }
  table[id][j] = sum;
}
MX_ENTRY(add_embedding_gradient)

/// The sums and the largest numbers of a block's warps.
struct loss_parts {
  double sums[32];
  real largest[32];
};

/// A logit under a soft cap, 0 for none.
__device__ __forceinline__ real capped(real z, real cap) { return cap > 0 ? cap * mx_tanh(z / cap) : z; }

// loss = log Σ exp(y − m) + m − y_label with y = cap · tanh(z / cap) and the largest m; z ← scale (softmax − onehot)(1 − (y / cap)²).
// A block takes a row. Each thread's sum is relative to its own largest so far.
MX_BOUNDED_KERNEL(1024) cross_entropy(rows z, const int *labels, real *loss, int width, real scale, real cap, error_word error) {
  MX_SHARED(loss_parts, shared);
  int n = blockIdx.x, label = labels[n];
  if (!is_inside(label, width, error)) return;
  double at_label = capped(z[n][label], cap);
  real largest = -mx_infinity(), sum = 0;
  for (int j = threadIdx.x; j < width; j += blockDim.x) {
    real y = capped(z[n][j], cap);
    if (y > largest) {
      sum = sum * mx_exp(largest - y) + 1;
      largest = y;
    } else {
      sum += y == largest ? 1 : mx_exp(y - largest);
    }
  }
  real m = block_max(largest, shared.largest);
  sum *= largest < m ? mx_exp(largest - m) : 1;
  double total = block_sum((double)sum, shared.sums) + (m - m);  // NaN if all are infinitely small, or one is infinitely large
  if (threadIdx.x == 0) loss[n] = (real)(log(total) + ((double)m - at_label));
  real factor = scale / (real)total;
  for (int j = threadIdx.x; j < width; j += blockDim.x) {
    real y = capped(z[n][j], cap), slope = cap > 0 ? 1 - (y / cap) * (y / cap) : 1;
    z[n][j] = (factor * mx_exp(y - m) - (j == label ? scale : 0)) * slope;
  }
}
MX_ENTRY(cross_entropy)
