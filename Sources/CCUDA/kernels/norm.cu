// Norms, a block a row, and the turning of positions, a thread a pair.
#include "mx.cuh"

/// The sums of a block's warps.
struct norm_parts {
  double sums[32];
};

// y = ρ x ⊙ (offset + w), ρ = 1/√(mean x² + ε); `inverse` is 1/C.
MX_BOUNDED_KERNEL(256) rms_norm(rows x, const real *w, rows y, real *rho, int width, real offset, double inverse, double epsilon) {
  MX_SHARED(norm_parts, shared);
  int n = blockIdx.x;
  double squares = 0;
  for (int j = threadIdx.x; j < width; j += blockDim.x) squares += (double)x[n][j] * x[n][j];
  squares = block_sum(squares, shared.sums);
  real r = 1 / mx_sqrt((real)(squares * inverse + epsilon));
  if (threadIdx.x == 0) rho[n] = r;
  for (int j = threadIdx.x; j < width; j += blockDim.x) y[n][j] = r * x[n][j] * (offset + w[j]);
}
MX_ENTRY(rms_norm)

// dx += ρ (dy ⊙ w) − x ρ³ ⟨dy ⊙ w, x⟩ / C, with w = offset + weight.
MX_BOUNDED_KERNEL(256) rms_norm_backward(
    rows dy, rows x, const real *w, const real *rho, rows dx, int width, real offset, double inverse) {
  MX_SHARED(norm_parts, shared);
  int n = blockIdx.x;
  double inner = 0;
  for (int j = threadIdx.x; j < width; j += blockDim.x) inner += (double)dy[n][j] * ((double)offset + w[j]) * x[n][j];
  inner = block_sum(inner, shared.sums);
  real r = rho[n], factor = (real)(inner * inverse * r * r * r);
  for (int j = threadIdx.x; j < width; j += blockDim.x) dx[n][j] += r * dy[n][j] * (offset + w[j]) - factor * x[n][j];
}
MX_ENTRY(rms_norm_backward)

// (x_j, x_{j+D/2}) ← (x_j cos − x_{j+D/2} sin, x_{j+D/2} cos + x_j sin) for every pair of every head; D/2 is `half`, `pairs` a row has.
MX_KERNEL rope(rows x, const int *positions, rows table, int limit, i64 count, int pairs, int half, real sign, error_word error) {
  i64 i = mx_thread();
  if (i >= count) return;
  int n = (int)(i / pairs), k = (int)(i - (i64)n * pairs), j = k % half, p = positions[n];
  if (!is_inside(p, limit, error)) return;
  real *first = x[n] + 2 * (k - j) + j, *second = first + half;
  real a = *first, b = *second, c = table[p][j], s = sign * table[p][half + j];
  *first = a * c - b * s;
  *second = b * c + a * s;
}
MX_ENTRY(rope)
