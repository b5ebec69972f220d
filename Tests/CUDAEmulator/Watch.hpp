// Looks at every load and store of a kernel, which clang reports (-fsanitize-coverage=trace-loads,trace-stores).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "Simulator.hpp"

namespace simt {

/// Bytes of ones on both sides of an allocation: a store that misses it by a row is seen and breaks nothing else.
constexpr size_t redZone = 16 << 10;

/// Finds accesses out of bounds, shared memory that is read before it is written, and accesses of two threads or blocks to one place, one
/// of them a store, that no barrier orders. The order in which the threads ran does not matter for that.
class Watch {
 public:
  uint64_t bytesRead = 0, bytesWritten = 0, bytesTouched = 0;

  /// The bytes from `base` on are memory of the device; no more, if there are none.
  void allow(uintptr_t base, size_t bytes);
  void forget(uintptr_t base) { buffers.erase(base), last = nullptr; }

  // What orders accesses.
  void beginLaunch(void *sharedMemory);
  void beginBlock() { barrierEpoch = blockEpoch = ++epoch; }
  void meetAtBarrier() { barrierEpoch = ++epoch; }
  void meetInWarp(unsigned warp) { warpEpochs[warp % 32] = ++epoch; }

  /// What was found in this launch, or null.
  const char *finding() const { return found.empty() ? nullptr : found.c_str(); }
  void access(uintptr_t address, unsigned bytes, bool isStore);

 private:
  /// What is known of two bytes: the last store, the last load and a load by another thread before it.
  struct Cell {
    uint64_t storeEpoch = 0, loadEpoch = 0, otherEpoch = 0;
    unsigned storer = 0, loader = 0, other = 0;
  };
  struct Memory {
    uintptr_t base;
    size_t bytes;
    std::vector<Cell> cells;
  };
  std::map<uintptr_t, Memory> buffers;
  Memory shared{0, 0, {}};
  Memory *last = nullptr;
  uint64_t epoch = 1, launchEpoch = 0, blockEpoch = 0, barrierEpoch = 0, warpEpochs[32] = {};
  std::string found;

  Memory *memory(uintptr_t address);
  bool isOrdered(uint64_t then, unsigned thread, bool isShared) const;
  void report(const char *what, const Memory &, uintptr_t address);
};

/// The watch of the kernel that runs on this thread, or null.
extern thread_local Watch *watch;

}  // namespace simt
