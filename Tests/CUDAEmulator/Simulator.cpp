#include "Simulator.hpp"

#include <sys/mman.h>

#include <cstdlib>
#include <vector>

#include "Watch.hpp"

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace simt {

thread_local View view;

namespace {

enum { ready, atBarrier, inWarp, done };
constexpr size_t stackBytes = 64 << 10;

/// Where the lanes of a warp meet. Values stand in turn in two places, so that a fast lane does not overwrite what a slow one reads.
struct Warp {
  uint64_t values[2][32];
  unsigned arrived, generation;
  const void *site;
};

/// What runs on this thread of the processor.
struct Machine {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<char *> freeStacks;
  void (*run)(void **) = nullptr;
  void **arguments = nullptr;
  const char *failure = nullptr;
  void *mainStack = nullptr;
  alignas(64) unsigned char sharedMemory[sharedBytes];
  size_t sharedInUse = 0;
#ifndef __x86_64__
  ucontext_t main;
  std::vector<ucontext_t> contexts;
#endif

  ~Machine() {
    for (char *stack : freeStacks) munmap(stack, stackBytes);
    for (Thread &thread : threads) {
      if (thread.stack) munmap(thread.stack, stackBytes);
    }
  }

  char *stack() {
    if (freeStacks.empty()) {
      return static_cast<char *>(mmap(nullptr, stackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    }
    char *stack = freeStacks.back();
    freeStacks.pop_back();
    return stack;
  }
};
thread_local Machine machine;

#ifdef __x86_64__
// Saves what a function must keep, exchanges the stacks, and returns on the other one.
extern "C" void mx_switch(void **save, void *to);
asm(R"(.text
.globl mx_switch
.type mx_switch,@function
mx_switch:
 pushq %rbp
 pushq %rbx
 pushq %r12
 pushq %r13
 pushq %r14
 pushq %r15
 movq %rsp,(%rdi)
 movq %rsi,%rsp
 popq %r15
 popq %r14
 popq %r13
 popq %r12
 popq %rbx
 popq %rbp
 ret
)");
void leave() { mx_switch(&view.thread->stackPointer, machine.mainStack); }
#else
void leave() { swapcontext(&machine.contexts[view.thread->number], &machine.main); }
#endif

void body() {
  machine.run(machine.arguments);
  view.thread->state = done;
  leave();
  abort();
}

/// Lets a thread run until it waits or ends.
void resume(Thread &thread) {
  view.thread = &thread;
  bool isFresh = !thread.stack;
  if (isFresh) thread.stack = machine.stack();
#ifdef __x86_64__
  if (isFresh) {
    void **top = reinterpret_cast<void **>(thread.stack + stackBytes) - 1;
    *--top = reinterpret_cast<void *>(body);  // where the switch returns to
    for (int i = 0; i < 6; i++) *--top = nullptr;
    thread.stackPointer = top;
  }
  mx_switch(&machine.mainStack, thread.stackPointer);
#else
  if (isFresh) {
    ucontext_t &context = machine.contexts[thread.number];
    getcontext(&context);
    context.uc_stack.ss_sp = thread.stack;
    context.uc_stack.ss_size = stackBytes;
    context.uc_link = nullptr;
    makecontext(&context, body, 0);
  }
  swapcontext(&machine.main, &machine.contexts[thread.number]);
#endif
  if (thread.state == done) {
    machine.freeStacks.push_back(thread.stack);
    thread.stack = nullptr;
  }
}

/// SplitMix64.
uint64_t next(uint64_t &state) {
  uint64_t z = (state += 0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

/// Runs the threads of one block in rounds, each in another order.
void runBlock(uint64_t &order) {
  auto &threads = machine.threads;
  unsigned count = threads.size(), finished = 0;
  std::vector<unsigned> turn(count);
  for (unsigned t = 0; t < count; t++) turn[t] = t;
  while (finished < count && !machine.failure) {
    if (order) {
      for (unsigned k = count - 1; k > 0; k--) std::swap(turn[k], turn[next(order) % (k + 1)]);
    }
    bool hasMoved = false;
    for (unsigned t : turn) {
      if (threads[t].state != ready) continue;
      hasMoved = true;
      resume(threads[t]);
      if (threads[t].state == done) finished++;
    }
    unsigned waiting = 0;
    const void *site = nullptr;
    bool isMixed = false;
    for (Thread &thread : threads) {
      if (thread.state != atBarrier) continue;
      if (waiting++ && thread.site != site) isMixed = true;
      site = thread.site;
    }
    if (waiting && waiting + finished == count) {
      if (finished) machine.failure = "threads ended while others wait at a barrier";
      if (isMixed) machine.failure = "threads wait at different barriers";
      for (Thread &thread : threads) {
        if (thread.state == atBarrier) thread.state = ready;
      }
      if (watch) watch->meetAtBarrier();
    } else if (!hasMoved) {
      machine.failure = "threads wait for each other";
    }
  }
}

}  // namespace

void *shared(size_t bytes) {
  if (machine.sharedInUse == 0) {
    memset(machine.sharedMemory, 0xff, bytes);
    machine.sharedInUse = bytes;
  }
  return machine.sharedMemory;
}

void barrier() {
  view.thread->state = atBarrier;
  view.thread->site = __builtin_return_address(0);
  leave();
}

uint64_t exchange(unsigned mask, uint64_t value, int source) {
  const void *site = __builtin_return_address(0);
  Thread &self = *view.thread;
  unsigned lane = self.number % 32, first = self.number - lane;
  Warp &warp = machine.warps[self.number / 32];
  unsigned turn = warp.generation & 1;
  warp.values[turn][lane] = value;
  if (!(mask >> lane & 1)) machine.failure = "a lane is not in its own mask";
  if (!(mask >> source & 1)) machine.failure = "a shuffle reads a lane outside its mask";
  if (warp.arrived && warp.site != site) machine.failure = "lanes of a warp meet at different places";
  warp.site = site;
  warp.arrived |= 1u << lane;
  for (unsigned i = 0; i < 32; i++) {
    bool isThere = first + i < machine.threads.size() && machine.threads[first + i].state != done;
    if (mask >> i & 1 && !isThere) machine.failure = "a mask names a lane that is not there";
  }
  if (warp.arrived == mask) {
    for (unsigned i = 0; i < 32; i++) {
      if (mask >> i & 1) machine.threads[first + i].state = ready;
    }
    warp.arrived = 0;
    warp.generation++;
    if (watch) watch->meetInWarp(self.number / 32);
  } else {
    self.state = inWarp;
    leave();
  }
  return warp.values[turn][source];
}

const char *launch(const Kernel &kernel, void **arguments, cuda_grid grid, uint64_t &order, Watch *watching) {
  if (grid.threads == 0 || grid.threads > 1024 || grid.x == 0 || grid.x > 0x7fffffff || grid.y == 0 || grid.y > 65535) {
    return "the grid is out of a device's limits";
  }
  machine.run = kernel.run;
  machine.arguments = arguments;
  machine.failure = nullptr;
  for (Thread &thread : machine.threads) {
    if (thread.stack) machine.freeStacks.push_back(thread.stack);  // of a launch that failed
  }
  machine.threads.assign(grid.threads, Thread{});
  machine.warps.assign((grid.threads + 31) / 32, Warp{});
#ifndef __x86_64__
  machine.contexts.resize(grid.threads);
#endif
  view.grid = {grid.x, grid.y, 1};
  view.block = {grid.threads, 1, 1};
  watch = watching;
  if (watch) watch->beginLaunch(machine.sharedMemory);
  uint64_t blocks = uint64_t(grid.x) * grid.y, shift = order ? next(order) % blocks : 0;
  bool isBackwards = order && next(order) & 1;
  for (uint64_t i = 0; i < blocks && !machine.failure; i++) {
    uint64_t b = (i + shift) % blocks;
    if (isBackwards) b = blocks - 1 - b;
    view.blockIndex = {unsigned(b % grid.x), unsigned(b / grid.x), 0};
    machine.sharedInUse = 0;
    for (unsigned t = 0; t < grid.threads; t++) {
      machine.threads[t] = Thread{};
      machine.threads[t].number = t;
      machine.threads[t].index = {t, 0, 0};
    }
    if (watch) watch->beginBlock();
    runBlock(order);
    if (watch && watch->finding()) break;
  }
  view.thread = nullptr;
  const char *finding = watch ? watch->finding() : nullptr;
  watch = nullptr;
  return machine.failure ? machine.failure : finding;
}

}  // namespace simt
