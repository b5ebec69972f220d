#include "Watch.hpp"

#include <cstdio>

namespace simt {

thread_local Watch *watch;

void Watch::allow(uintptr_t base, size_t bytes) {
  last = nullptr;
  Memory &memory = buffers[base];
  memory.base = base;
  memory.bytes = bytes;
  memory.cells.assign(bytes / 2 + 1, Cell());
}

void Watch::beginLaunch(void *sharedMemory) {
  found.clear();
  barrierEpoch = blockEpoch = launchEpoch = ++epoch;
  shared.base = reinterpret_cast<uintptr_t>(sharedMemory);
  shared.bytes = sharedBytes;
  shared.cells.resize(sharedBytes / 2);
}

/// The memory that an address belongs to or lies shortly behind; null for the program's own.
Watch::Memory *Watch::memory(uintptr_t address) {
  if (address - shared.base < shared.bytes) return &shared;
  if (last && address - last->base < last->bytes) return last;
  auto next = buffers.upper_bound(address);
  if (next != buffers.begin()) {
    Memory &before = std::prev(next)->second;
    if (address - before.base < before.bytes + redZone) return last = &before;
  }
  if (next != buffers.end() && next->second.base - address <= redZone) return &next->second;
  return nullptr;
}

/// Whether an access then, by `thread`, comes before this one by more than chance.
bool Watch::isOrdered(uint64_t then, unsigned thread, bool isShared) const {
  if (then < launchEpoch) return true;
  if (then < blockEpoch) return isShared;  // another block of this launch; shared memory is each block's own
  const Thread &now = *view.thread;
  if (thread == now.number || then < barrierEpoch) return true;
  return thread / 32 == now.number / 32 && then < warpEpochs[thread / 32 % 32];
}

void Watch::report(const char *what, const Memory &memory, uintptr_t address) {
  if (!found.empty()) return;
  char text[256];
  snprintf(
      text, sizeof text, "%s: byte %td of %zu of a %s, block (%u,%u), thread %u", what, ptrdiff_t(address - memory.base), memory.bytes,
      &memory == &shared ? "block's shared memory" : "buffer", view.blockIndex.x, view.blockIndex.y, view.thread->number);
  found = text;
}

void Watch::access(uintptr_t address, unsigned bytes, bool isStore) {
  if (address - reinterpret_cast<uintptr_t>(view.thread->stack) < (64u << 10)) return;  // the thread's own
  Memory *memory = this->memory(address);
  if (!memory) return;
  bool isShared = memory == &shared;
  if (!isShared) (isStore ? bytesWritten : bytesRead) += bytes;
  if (address < memory->base || address + bytes > memory->base + memory->bytes) return report("out of bounds", *memory, address);
  unsigned thread = view.thread->number;
  for (size_t i = (address - memory->base) / 2; i <= (address - memory->base + bytes - 1) / 2; i++) {
    Cell &cell = memory->cells[i];
    uintptr_t place = memory->base + 2 * i;
    bool isFirst = (isStore || cell.loadEpoch < launchEpoch) && cell.storeEpoch < launchEpoch;
    if (!isShared && isFirst) bytesTouched += 2;
    if (isStore) {
      if (!isOrdered(cell.storeEpoch, cell.storer, isShared)) report("two threads store without a barrier between", *memory, place);
      if (!isOrdered(cell.loadEpoch, cell.loader, isShared) || !isOrdered(cell.otherEpoch, cell.other, isShared)) {
        report("stored while another thread may still load", *memory, place);
      }
      cell.storeEpoch = epoch;
      cell.storer = thread;
    } else {
      if (isShared && cell.storeEpoch < blockEpoch) report("loaded before it was stored", *memory, place);
      if (!isOrdered(cell.storeEpoch, cell.storer, isShared)) report("loaded while another thread may still store", *memory, place);
      if (cell.loader != thread || cell.loadEpoch < blockEpoch) {
        cell.otherEpoch = cell.loadEpoch;
        cell.other = cell.loader;
        cell.loader = thread;
      }
      cell.loadEpoch = epoch;
    }
  }
}

}  // namespace simt

#define MX_CALLBACK(bytes)                                                                                  \
  extern "C" void __sanitizer_cov_load##bytes(void *p) {                                                    \
    if (simt::watch) simt::watch->access(reinterpret_cast<uintptr_t>(p), bytes, false);                     \
  }                                                                                                         \
  extern "C" void __sanitizer_cov_store##bytes(void *p) {                                                   \
    if (simt::watch) simt::watch->access(reinterpret_cast<uintptr_t>(p), bytes, true);                      \
  }
MX_CALLBACK(1)
MX_CALLBACK(2)
MX_CALLBACK(4)
MX_CALLBACK(8)
MX_CALLBACK(16)
extern "C" void __sanitizer_cov_trace_pc_guard(uint32_t *) {}
extern "C" void __sanitizer_cov_trace_pc_guard_init(uint32_t *, uint32_t *) {}
