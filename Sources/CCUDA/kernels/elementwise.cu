// Memory, elementwise operations, gated units, dropout and random numbers: a thread an element, a pair of places or a block of numbers.
#include "mx.cuh"

// The element of a thread in a matrix of `count` elements, `width` a row.
#define MX_ELEMENT                                       \
  i64 i = mx_thread();                                   \
  if (i >= count) return;                                \
  int n = (int)(i / width), j = (int)(i - (i64)n * width)

// x ← value.
MX_KERNEL fill(rows x, i64 count, int width, real value) {
  MX_ELEMENT;
  x[n][j] = value;
}
MX_ENTRY(fill)

// y ← x.
MX_KERNEL copy(rows x, rows y, i64 count, int width) {
  MX_ELEMENT;
  y[n][j] = x[n][j];
}
MX_ENTRY(copy)

// y ← x, whole numbers.
MX_KERNEL copy_integers(const int *x, int *y, i64 count) {
  i64 i = mx_thread();
  if (i < count) y[i] = x[i];
}
MX_ENTRY(copy_integers)

// Moves the error word to where it is downloaded from, and clears it. What is downloaded behind it begins at the 16th byte.
MX_KERNEL take_error(int *word, int *to) {
  for (int i = 0; i < 3; i++) to[i] = word[i], word[i] = 0;
  to[3] = 0;
}
MX_ENTRY(take_error)

// y[rows[n]] ← x_n.
MX_KERNEL copy_scattered(rows x, rows y, const int *index, int limit, i64 count, int width, error_word error) {
  MX_ELEMENT;
  if (is_inside(index[n], limit, error)) y[index[n]][j] = x[n][j];
}
MX_ENTRY(copy_scattered)

// y += α x.
MX_KERNEL add(rows x, rows y, i64 count, int width, real alpha) {
  MX_ELEMENT;
  y[n][j] += alpha * x[n][j];
}
MX_ENTRY(add)

// x ← α x.
MX_KERNEL scale(rows x, i64 count, int width, real alpha) {
  MX_ELEMENT;
  x[n][j] *= alpha;
}
MX_ENTRY(scale)

// y_n += bias.
MX_KERNEL add_bias(const real *bias, rows y, i64 count, int width) {
  MX_ELEMENT;
  y[n][j] += bias[j];
}
MX_ENTRY(add_bias)

// x_n ← w_n x_n.
MX_KERNEL scale_rows(const real *w, rows x, i64 count, int width) {
  MX_ELEMENT;
  x[n][j] *= w[n];
}
MX_ENTRY(scale_rows)

// z ← cap · tanh(z / cap).
MX_KERNEL softcap(rows z, i64 count, int width, real cap) {
  MX_ELEMENT;
  z[n][j] = cap * mx_tanh(z[n][j] / cap);
}
MX_ENTRY(softcap)

// h = act(a) ⊙ c.
MX_KERNEL gated(rows a, rows c, rows h, i64 count, int width, int is_gelu) {
  MX_ELEMENT;
  real x = a[n][j];
  h[n][j] = x * gate(x, is_gelu).sigma * c[n][j];
}
MX_ENTRY(gated)

// da = dh ⊙ c ⊙ act′(a), dc = dh ⊙ act(a), with act′ = σ + x σ (1 − σ) z′.
MX_KERNEL gated_backward(rows dh, rows a, rows c, rows da, rows dc, i64 count, int width, int is_gelu) {
  MX_ELEMENT;
  real x = a[n][j], d = dh[n][j];
  gate g(x, is_gelu);
  real act = x * g.sigma;
  da[n][j] = d * c[n][j] * (g.sigma + act * (1 - g.sigma) * g.slope);
  dc[n][j] = d * act;
}
MX_ENTRY(gated_backward)

/// Eight elements of a row, from column 8 b on, under the mask of one block of numbers; the lower half of each word comes first.
__device__ __forceinline__ void dropout_block(const real *x, real *y, int b, int width, philox numbers, u32 threshold, real factor) {
  for (int i = 0; i < 8 && 8 * b + i < width; i++) {
    u32 number = i % 2 ? numbers.n[i / 2] >> 16 : numbers.n[i / 2] & 0xffff;
    y[8 * b + i] = number >= threshold ? factor * x[8 * b + i] : 0;
  }
}

// m ⊙ x: a thread draws a block of numbers, for 8 columns of a row; `blocks` of them make up a row.
MX_KERNEL dropout(
    rows x, rows y, const int *samples, const int *positions, i64 count, int blocks, int width, u32 step, u64 key, u32 threshold, real factor) {
  i64 i = mx_thread();
  if (i >= count) return;
  int n = (int)(i / blocks), b = (int)(i - (i64)n * blocks);
  dropout_block(x[n], y[n], b, width, philox_numbers(step, samples[n], positions[n], b, key), threshold, factor);
}
MX_ENTRY(dropout)

// The same for rows ordered by expert: row m is that of its token under its expert's key; rows that nobody owns become 0.
MX_KERNEL dropout_routed(
    rows x, rows y, const int *samples, const int *positions, const int *choice, const int *token_of_row, const int *slot_of_row,
    const int *pairs, i64 count, int blocks, int width, u32 step, u64 key, u32 threshold, real factor) {
  i64 i = mx_thread();
  if (i >= count) return;
  int m = (int)(i / blocks), b = (int)(i - (i64)m * blocks);
  if (m >= *pairs) {
    for (int j = 8 * b; j < 8 * b + 8 && j < width; j++) y[m][j] = 0;
    return;
  }
  int n = token_of_row[m];
  u64 own = derived_key(key, choice[slot_of_row[m]]);
  dropout_block(x[m], y[m], b, width, philox_numbers(step, samples[n], positions[n], b, own), threshold, factor);
}
MX_ENTRY(dropout_routed)

// Four elements from the block of numbers i under `key`; uniform in [−size, size), or normal with deviation `size`.
MX_KERNEL random_numbers(real *y, i64 count, double size, int is_normal, u64 key) {
  i64 i = mx_thread();
  if (4 * i >= count) return;
  philox p = philox_numbers((u32)i, (u32)(i >> 32), 0, 0, key);
  double values[4];
  for (int k = 0; k < 4; k += 2) {
    if (is_normal) {
      double radius = size * sqrt(-2 * log((p.n[k] + 1.0) * 0x1p-32)), angle = 6.283185307179586 * (p.n[k + 1] * 0x1p-32);
      values[k] = radius * cos(angle);
      values[k + 1] = radius * sin(angle);
    } else {
      values[k] = size * ((p.n[k] >> 8) * 0x1p-23 - 1);
      values[k + 1] = size * ((p.n[k + 1] >> 8) * 0x1p-23 - 1);
    }
  }
  for (int k = 0; k < 4 && 4 * i + k < count; k++) y[4 * i + k] = (real)values[k];
}
MX_ENTRY(random_numbers)
