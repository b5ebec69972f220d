// CUDA's model of execution on one thread of the processor: a fiber for every thread of a block, blocks one after the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "CCUDA.h"

struct dim {
  unsigned x, y, z;
};

namespace simt {

/// One thread of a block.
struct Thread {
  void *stackPointer;
  char *stack;
  dim index;
  unsigned number;
  int state;
  const void *site;
};

/// What a kernel sees of its launch.
struct View {
  dim grid, block, blockIndex;
  Thread *thread;
};
extern thread_local View view;

/// The most bytes of shared memory that a kernel may have without asking for more.
constexpr size_t sharedBytes = 48 << 10;

/// The shared memory of this block, filled with ones when a block's first thread asks for it.
void *shared(size_t bytes);
// Where threads meet is the place that one of these is called from: a compiler that doubles a call would make two places of one.
#define MX_MEETING __attribute__((noduplicate, convergent))

/// Waits for all threads of the block.
MX_MEETING void barrier();
/// Waits for the lanes of `mask`; gives what lane `source` brought.
MX_MEETING uint64_t exchange(unsigned mask, uint64_t value, int source);

/// A kernel as the emulator knows it.
struct Kernel {
  const char *name;
  bool isDouble, isWatched;
  /// Calls it with arguments that lie where the pointers say.
  void (*run)(void **);
  /// A complaint about arguments, or null; `isInside` says whether an address is one of the device's memory.
  const char *(*complaint)(const cuda_argument *, int, bool (*isInside)(void *, cuda_address), void *);
};

/// Adds a kernel to the list of all.
void enroll(Kernel);

/// Runs a kernel; what went wrong, or null. `watch` looks on, if there is one.
class Watch;
const char *launch(const Kernel &, void **arguments, cuda_grid, uint64_t &order, Watch *);

}  // namespace simt
