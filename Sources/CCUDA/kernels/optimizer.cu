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

// Numbers in 8 bits: y = scale map[code], a thread a number.
MX_KERNEL decode_bytes(const u8 *codes, const real *scales, const real *map, real *y, i64 count) {
  i64 i = mx_thread();
  if (i < count) y[i] = scales[i / 256] * map[codes[i]];
}
MX_ENTRY(decode_bytes)

/// The largest numbers of the warps of a block.
struct byte_parts {
  real of[32];
};

/// The code of the value of the map that is nearest to x / scale, the lower one of two; 0 for a scale of 0 and for NaN.
__device__ __forceinline__ u16 nearest_code(real x, real scale, const real *map) {
  real value = x / scale;
  int low = 0, high = scale == 0 ? 0 : 255;  // the first code whose middle to the next the number is not above
  while (low < high) {
    int middle = (low + high) / 2;
    if (value > (map[middle] + map[middle + 1]) / 2) low = middle + 1;
    else high = middle;
  }
  return (u16)low;
}

/// |x|, infinite for NaN too.
__device__ __forceinline__ real magnitude(real x) { return !is_finite(x) ? mx_infinity() : x < 0 ? -x : x; }

// A block of 128 threads a block of 256 numbers: scale = max |x|, NaN if one is not finite, and the code of each. A thread has two
// neighbours and stores both codes at once, so that every word of 16 bits has one writer.
MX_KERNEL encode_bytes(const real *x, u16 *codes, real *scales, const real *map, i64 count, const real *factor) {
  MX_SHARED(byte_parts, parts);
  if (!is_finite(factor_of(factor))) return;  // all threads or none
  i64 i = (i64)blockIdx.x * 256 + 2 * threadIdx.x;
  real first = i < count ? x[i] : 0, second = i + 1 < count ? x[i + 1] : 0;
  real larger = magnitude(first) > magnitude(second) ? magnitude(first) : magnitude(second);
  real largest = block_max(larger, parts.of), scale = largest + (largest - largest);
  if (threadIdx.x == 0) scales[blockIdx.x] = scale;
  if (i >= count) return;
  u16 next = i + 1 < count ? nearest_code(second, scale, map) : (u16)0;
  codes[i / 2] = (u16)(nearest_code(first, scale, map) | next << 8);
}
MX_ENTRY(encode_bytes)

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
