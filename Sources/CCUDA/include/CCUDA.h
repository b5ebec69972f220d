// What a device can do, as one table of C functions: a GPU's, filled from the driver's libraries when the program runs, or that of the
// tests' emulator. No header of CUDA is needed to build this.
#ifndef CCUDA_H
#define CCUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// A place in the device's memory.
typedef uint64_t cuda_address;

/// A device that was opened; what it is, the table's functions know.
struct cuda_device;

/// A kernel of a device.
struct cuda_kernel;

/// How a kernel is launched: blocks in x and y, threads of a block.
struct cuda_grid {
  uint32_t x, y, threads;
};

/// An argument of a kernel, passed by value; its size is compared with the parameter's where the device can.
struct cuda_argument {
  const void *_Nonnull value;
  uint32_t size;
};

/// A matrix of `cuda_product` in BLAS's words: column-major, with the distance of two columns, read transposed or not.
struct cuda_matrix {
  cuda_address base;
  int64_t stride;
  bool is_transposed;
};

/// c ← α a b + β c in column-major words: a (m,k), b (k,n), c (m,n); of float64 or float32 numbers.
struct cuda_product {
  int32_t m, n, k;
  double alpha, beta;
  struct cuda_matrix a, b, c;
  bool is_double;
};

/// What a device can do. Work is enqueued in order on one stream; entries return 0, or a number after which `error` has the sentence.
struct cuda_table {
  /// Memory of its own, with undefined contents.
  int (*_Nonnull allocate)(struct cuda_device *_Nonnull, size_t bytes, cuda_address *_Nonnull);
  /// Gives memory back that no enqueued work uses any more.
  int (*_Nonnull release)(struct cuda_device *_Nonnull, cuda_address);
  /// Says that the first `bytes` of an allocation are in use from here on, filled with ones where `is_poisoned`; 0: none are.
  int (*_Nonnull use)(struct cuda_device *_Nonnull, cuda_address, size_t bytes, bool is_poisoned);
  /// Copies from the host; the source may change when the call returns.
  int (*_Nonnull upload)(struct cuda_device *_Nonnull, cuda_address, const void *_Nonnull, size_t bytes);
  /// Copies to the host once all work before it is done, and waits for that.
  int (*_Nonnull download)(struct cuda_device *_Nonnull, void *_Nonnull, cuda_address, size_t bytes);
  /// The kernel `name` in single or double precision.
  int (*_Nonnull kernel)(
      struct cuda_device *_Nonnull, const char *_Nonnull name, bool is_double, struct cuda_kernel *_Nullable *_Nonnull);
  /// Enqueues a kernel.
  int (*_Nonnull launch)(
      struct cuda_device *_Nonnull, struct cuda_kernel *_Nonnull, struct cuda_grid, const struct cuda_argument *_Nonnull, int count);
  /// Enqueues a product of the vendor's library; null where there is none.
  int (*_Nullable multiply)(struct cuda_device *_Nonnull, const struct cuda_product *_Nonnull);
  /// Waits for all work.
  int (*_Nonnull synchronize)(struct cuda_device *_Nonnull);
  /// What went wrong last.
  const char *_Nonnull (*_Nonnull error)(struct cuda_device *_Nonnull);
  /// What the device is called, and with what it was opened.
  const char *_Nonnull (*_Nonnull describe)(struct cuda_device *_Nonnull);
  /// Ends the device's use; what was allocated is gone.
  void (*_Nonnull close)(struct cuda_device *_Nonnull);
};

/// A device and its table, both null if none was opened.
struct cuda_opened {
  const struct cuda_table *_Nullable table;
  struct cuda_device *_Nullable device;
};

/// Which device, and where its libraries are.
struct cuda_options {
  /// The device's number.
  int number;
  /// Folders that are searched first, separated by colons, and their `lib`, `lib64` and `*/lib`; null for none.
  const char *_Nullable path;
  /// Where compiled kernels are kept; null to compile them each time.
  const char *_Nullable cache;
  /// Whether products of the vendor's library are used where it is found.
  bool uses_library;
};

/// Opens a GPU: its driver, NVRTC, which compiles the kernels for it, and cuBLAS where there is one. If that fails, `why` says what
/// was looked for and where.
struct cuda_opened cuda_open(struct cuda_options, char *_Nonnull why, size_t why_size);

/// Text of kernels, as NVRTC compiles it.
struct cuda_source {
  const char *_Nonnull name;
  const char *_Nonnull text;
};

/// The texts of all kernels; the first is the header that the others include.
const struct cuda_source *_Nonnull cuda_sources(int *_Nonnull count);

#ifdef __cplusplus
}
#endif

#endif
