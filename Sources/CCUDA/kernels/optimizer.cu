// Optimizers: a thread an element. Their factor is read on the device; one that is not finite changes nothing.
#include "mx.cuh"

// norm = √squared, factor = min(1, maximum / (norm + 10⁻⁶)), NaN if the norm or the loss is not finite; no limit for 0.
MX_KERNEL clip_factor(const real *squared, const real *loss, real *factor, real *norm, double maximum) {
  double value = sqrt((double)*squared), nothing = value * 0 + *loss * (double)0;
  *norm = (real)value;
  double limited = maximum / (value + 1e-6);
  *factor = (real)(nothing + (maximum == 0 || limited > 1 ? 1 : limited));
}
MX_ENTRY(clip_factor)

/// What a gradient is multiplied with: 1 without a factor.
__device__ __forceinline__ real factor_of(const real *factor) { return factor ? *factor : 1; }

/// Neither infinite nor NaN.
__device__ __forceinline__ bool is_finite(real x) { return x - x == 0; }

// x ← decay x      m += (g − m) keep₁      v ← β₂ v + keep₂ g²      x −= step m / (√v / root + ε), with g times the factor.
MX_KERNEL adam_w(
    rows x, rows gradient, rows m, rows v, i64 count, int width, const real *factor, real decay, real keep1, real beta2, real keep2,
    real step, real root, real epsilon) {
  i64 i = mx_thread();
  real f = factor_of(factor);
  if (i >= count || !is_finite(f)) return;
  i64 n = i < width ? 0 : i / width, j = i - n * width;
  real g = f * gradient[n][j];
  real first = m[n][j] + (g - m[n][j]) * keep1, second = beta2 * v[n][j] + keep2 * g * g;
  m[n][j] = first;
  v[n][j] = second;
  x[n][j] = decay * x[n][j] - step * first / (mx_sqrt(second) / root + epsilon);
}
MX_ENTRY(adam_w)

// b ← μ b + g + λ x      x −= rate b, with g times the factor.
MX_KERNEL sgd(
    rows x, rows gradient, rows b, i64 count, int width, const real *factor, real rate, real decay, real momentum) {
  i64 i = mx_thread();
  real f = factor_of(factor);
  if (i >= count || !is_finite(f)) return;
  i64 n = i < width ? 0 : i / width, j = i - n * width;
  real step = momentum * b[n][j] + (f * gradient[n][j] + decay * x[n][j]);
  b[n][j] = step;
  x[n][j] -= rate * step;
}
MX_ENTRY(sgd)
