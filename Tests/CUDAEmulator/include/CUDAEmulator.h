// A device that runs the kernels on the processor, behind the same table as a GPU: CUDA's threads as fibers, in an order that a seed draws.
#ifndef CUDA_EMULATOR_H
#define CUDA_EMULATOR_H

#include "CCUDA.h"

#ifdef __cplusplus
extern "C" {
#endif

/// How kernels run.
struct emulator_options {
  /// Orders blocks and threads; 0 keeps theirs.
  uint64_t seed;
  /// Looks at every load and store: bounds, races between threads and blocks, shared memory that nobody wrote.
  bool is_watched;
  /// Launches are counted and checked, and nothing is computed or moved, zeros come back: what a step costs beside arithmetic.
  bool is_idle;
  /// Products of the vendor's library are to be had: OpenBLAS stands for it, in its column-major words.
  bool has_products;
};

/// Opens the emulator.
struct cuda_opened emulator_open(struct emulator_options);

/// What was launched and moved since the device was opened.
struct emulator_counts {
  uint64_t launches, uploads, downloads;
  /// Bytes of device memory that kernels read and wrote; 0 unless watched.
  uint64_t bytes_read, bytes_written;
  /// The same, where a launch's loads of one place, and its stores to it, count once: what a cache large enough would move.
  uint64_t bytes_touched;
};
struct emulator_counts emulator_counts(struct cuda_device *_Nonnull);

#ifdef __cplusplus
}
#endif

#endif
