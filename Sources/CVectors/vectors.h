#pragma once
// What one instruction does to a vector and Swift's SIMD types spell lane by lane. Every function is inlined where it is called and
// compiled for that target's instructions; without them it gives the same numbers, but for the rounding of `multiply_add`'s product.

#include <stdint.h>
#include <string.h>

typedef uint8_t vectors_byte8 __attribute__((ext_vector_type(8)));
typedef uint32_t vectors_word4 __attribute__((ext_vector_type(4)));
typedef int32_t vectors_int8 __attribute__((ext_vector_type(8)));
typedef float vectors_float4 __attribute__((ext_vector_type(4)));
typedef float vectors_float8 __attribute__((ext_vector_type(8)));

#define VECTORS_INLINE static inline __attribute__((always_inline))

/// Eight consecutive bytes, 0 to 255.
VECTORS_INLINE vectors_int8 vectors_bytes(const void *bytes) {
  vectors_byte8 values;
  memcpy(&values, bytes, sizeof values);
  return __builtin_convertvector(values, vectors_int8);
}

/// Eight whole numbers as float32.
VECTORS_INLINE vectors_float8 vectors_floats(vectors_int8 n) { return __builtin_convertvector(n, vectors_float8); }

/// Four consecutive little-endian binary16 numbers.
VECTORS_INLINE vectors_float4 vectors_halves(const void *bytes) {
#if defined(__F16C__) || defined(__aarch64__)
  typedef _Float16 half4 __attribute__((ext_vector_type(4)));
  half4 values;
  memcpy(&values, bytes, sizeof values);
  return __builtin_convertvector(values, vectors_float4);
#else
  const uint8_t *b = (const uint8_t *)bytes;
  vectors_word4 bits = {b[0] | b[1] << 8, b[2] | b[3] << 8, b[4] | b[5] << 8, b[6] | b[7] << 8};
  // Exponent and fraction move to their place in binary32, and 2^112 corrects the bias, which also normalizes subnormals; the largest
  // exponent means infinity or NaN.
  vectors_word4 magnitude = (bits & 0x7fff) << 13;
  vectors_word4 finite = __builtin_bit_cast(vectors_word4, __builtin_bit_cast(vectors_float4, magnitude) * 0x1p112f);
  vectors_word4 isSpecial = __builtin_bit_cast(vectors_word4, magnitude >= 0x0f800000);
  vectors_word4 value = (finite & ~isSpecial) | ((magnitude | 0x7f800000) & isSpecial);
  return __builtin_bit_cast(vectors_float4, value | (bits & 0x8000) << 16);
#endif
}

/// The binary16 number of `bits`.
VECTORS_INLINE float vectors_half(uint16_t bits) {
  const uint8_t bytes[8] = {(uint8_t)bits, (uint8_t)(bits >> 8)};
  return vectors_halves(bytes)[0];
}

/// a b + c, the product unrounded where the target has the instruction (a call of the C library would take a hundred times as long).
VECTORS_INLINE vectors_float8 vectors_multiply_add(vectors_float8 a, vectors_float8 b, vectors_float8 c) {
#ifdef __FMA__
  return __builtin_elementwise_fma(a, b, c);
#else
  return a * b + c;
#endif
}

/// Asks for the cache line at `address`, which will be read or written soon.
VECTORS_INLINE void vectors_prefetch(const void *address) { __builtin_prefetch(address); }
