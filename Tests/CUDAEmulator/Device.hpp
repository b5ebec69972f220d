// The host's twins of the words that kernels are written in, so that one text is compiled by NVRTC and by the host's compiler.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "Simulator.hpp"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef unsigned long long u64;
typedef long long i64;
typedef MX_REAL real;

#define MX_KERNEL static void
#define MX_BOUNDED_KERNEL(threads) static void
#define MX_ENTRY(kernel)                                                                           \
  static const bool kernel##_is_enrolled =                                                         \
      (simt::enroll({#kernel, sizeof(real) == 8, MX_IS_WATCHED, simt::Call<decltype(&kernel)>::run<&kernel>, \
                     simt::Call<decltype(&kernel)>::complaint}),                                   \
       true);
#define MX_SHARED(Type, name) Type &name = *static_cast<Type *>(simt::sharedOf<Type>())
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define threadIdx (simt::view.thread->index)
#define blockIdx (simt::view.blockIndex)
#define blockDim (simt::view.block)
#define gridDim (simt::view.grid)

static inline MX_MEETING void __syncthreads() { simt::barrier(); }
static inline void __syncwarp(u32 mask = 0xffffffffu) { simt::exchange(mask, 0, (int)(simt::view.thread->number % 32)); }

/// What lane `lane` brings, as bits of its type.
template <class T>
static inline T mx_exchange(u32 mask, T value, int lane) {
  u64 bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = simt::exchange(mask, bits, lane);
  memcpy(&value, &bits, sizeof value);
  return value;
}
template <class T>
static inline T __shfl_sync(u32 mask, T value, int lane) {
  return mx_exchange(mask, value, lane & 31);
}
template <class T>
static inline T __shfl_xor_sync(u32 mask, T value, int bits) {
  return mx_exchange(mask, value, (int)(simt::view.thread->number % 32) ^ bits);
}
template <class T>
static inline T __shfl_down_sync(u32 mask, T value, int distance) {
  int lane = simt::view.thread->number % 32;
  return mx_exchange(mask, value, lane + distance < 32 ? lane + distance : lane);
}

// Only the error word is ever written by several threads at once; those accesses nobody watches.
static __attribute__((noinline, no_sanitize("coverage"), unused)) int atomicCAS(int *p, int expected, int value) {
  int old = *p;
  if (old == expected) *p = value;
  return old;
}

#pragma clang fp contract(off)
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
#pragma clang fp contract(on)
static inline float __uint_as_float(u32 bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
static inline u32 __float_as_uint(float x) {
  u32 bits;
  memcpy(&bits, &x, sizeof x);
  return bits;
}

namespace simt {

/// The shared memory of a kernel as what the kernel declares.
template <class T>
inline void *sharedOf() {
  static_assert(sizeof(T) <= sharedBytes, "more shared memory than a block has");
  static_assert(std::is_trivially_destructible<T>::value, "shared memory is not constructed");
  return shared(sizeof(T));
}

/// A kernel's function behind an interface of plain pointers.
template <class F>
struct Call;
template <class... A>
struct Call<void (*)(A...)> {
  template <void (*kernel)(A...)>
  static void run(void **arguments) {
    run<kernel>(arguments, std::index_sequence_for<A...>{});
  }
  template <void (*kernel)(A...), size_t... I>
  static void run(void **arguments, std::index_sequence<I...>) {
    kernel(*static_cast<A *>(arguments[I])...);
  }

  static const char *complaint(const cuda_argument *arguments, int count, bool (*isInside)(void *, cuda_address), void *device) {
    if (count != (int)sizeof...(A)) return "the number of arguments is not that of the parameters";
    int i = 0;
    const char *first = nullptr;
    auto check = [&](size_t size, bool isAddress) {
      const cuda_argument &argument = arguments[i++];
      if (first) return;
      if (argument.size != size) {
        first = "an argument has not the size of its parameter";
      } else if (isAddress) {
        cuda_address address;
        memcpy(&address, argument.value, sizeof address);
        if (address && !isInside(device, address)) first = "an address is not one of the device's memory";
      }
    };
    // What begins with a pointer (`rows`, `error_word`) is checked as one.
    (check(sizeof(A), std::is_pointer<A>::value || std::is_class<A>::value), ...);
    return first;
  }
};

}  // namespace simt
