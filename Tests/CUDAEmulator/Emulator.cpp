#include "CUDAEmulator.h"

#include <cblas.h>
#include <sys/mman.h>

#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "Simulator.hpp"
#include "Watch.hpp"

namespace {

std::vector<simt::Kernel> &kernels() {
  static std::vector<simt::Kernel> list;
  return list;
}

void *pointer(cuda_address address) { return reinterpret_cast<void *>(address); }

/// Larger allocations hold zeros and take memory only where something is stored, so that rows can lie very far apart.
constexpr size_t sparseBytes = size_t(1) << 34;

void unmap(cuda_address address, size_t bytes) {
  void *memory = pointer(address - simt::redZone);
  bytes < sparseBytes ? free(memory) : (void)munmap(memory, bytes + 2 * simt::redZone);
}

}  // namespace

namespace simt {
void enroll(Kernel kernel) { kernels().push_back(kernel); }
}  // namespace simt

struct cuda_device {
  emulator_options options;
  uint64_t order;
  struct emulator_counts counts;
  std::string error;
  simt::Watch watch;
  /// Begin and length of what was allocated.
  std::map<cuda_address, size_t> buffers;

  int fail(const std::string &why) {
    error = why;
    return 1;
  }

  /// The bytes from an address to the end of its allocation, or 0.
  size_t bytesFrom(cuda_address address) const {
    auto next = buffers.upper_bound(address);
    if (next == buffers.begin()) return 0;
    --next;
    return address <= next->first + next->second ? next->first + next->second - address : 0;
  }
  bool isInside(cuda_address address) const {
    auto next = buffers.upper_bound(address);
    return next != buffers.begin() && (--next, address <= next->first + next->second);
  }

  ~cuda_device() {
    for (auto &buffer : buffers) unmap(buffer.first, buffer.second);
  }
};

namespace {

int allocate(cuda_device *device, size_t bytes, cuda_address *address) {
  const size_t whole = (bytes + 2 * simt::redZone + 255) / 256 * 256;
  void *memory = bytes < sparseBytes ? aligned_alloc(256, whole)
                                     : mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (!memory || memory == MAP_FAILED) return device->fail("no memory");
  if (bytes < sparseBytes && !device->options.is_idle) memset(memory, 0xff, whole);  // else nobody touches it
  *address = reinterpret_cast<cuda_address>(memory) + simt::redZone;
  device->buffers[*address] = bytes;
  return 0;
}

int release(cuda_device *device, cuda_address address) {
  auto buffer = device->buffers.find(address);
  if (buffer == device->buffers.end()) return device->fail("release: there is no such allocation");
  unmap(address, buffer->second);
  device->buffers.erase(buffer);
  device->watch.forget(address);
  return 0;
}

int use(cuda_device *device, cuda_address address, size_t bytes, bool isPoisoned) {
  auto buffer = device->buffers.find(address);
  if (buffer == device->buffers.end() || buffer->second < bytes) return device->fail("use: there is no such allocation");
  if (isPoisoned && buffer->second < sparseBytes && !device->options.is_idle) memset(pointer(address), 0xff, buffer->second);
  if (device->options.is_watched) device->watch.allow(address, bytes);
  return 0;
}

int upload(cuda_device *device, cuda_address to, const void *from, size_t bytes) {
  if (bytes > device->bytesFrom(to)) return device->fail("upload: out of bounds");
  device->counts.uploads++;
  if (!device->options.is_idle) memcpy(pointer(to), from, bytes);
  return 0;
}

int download(cuda_device *device, void *to, cuda_address from, size_t bytes) {
  if (bytes > device->bytesFrom(from)) return device->fail("download: out of bounds");
  device->counts.downloads++;
  device->options.is_idle ? memset(to, 0, bytes) : memcpy(to, pointer(from), bytes);
  return 0;
}

int kernel(cuda_device *device, const char *name, bool isDouble, cuda_kernel **found) {
  for (simt::Kernel &kernel : kernels()) {
    if (kernel.isDouble != isDouble || kernel.isWatched != device->options.is_watched || strcmp(kernel.name, name)) continue;
    *found = reinterpret_cast<cuda_kernel *>(&kernel);
    return 0;
  }
  return device->fail(std::string("there is no kernel ") + name);
}

int launch(cuda_device *device, cuda_kernel *handle, cuda_grid grid, const cuda_argument *arguments, int count) {
  const simt::Kernel &kernel = *reinterpret_cast<simt::Kernel *>(handle);
  auto isInside = [](void *device, cuda_address address) { return static_cast<cuda_device *>(device)->isInside(address); };
  device->counts.launches++;
  const char *why = kernel.complaint(arguments, count, isInside, device);
  if (!why && !device->options.is_idle) {
    alignas(16) char copies[64][32];
    void *pointers[64];
    for (int i = 0; i < count; i++) pointers[i] = memcpy(copies[i], arguments[i].value, arguments[i].size);
    why = simt::launch(kernel, pointers, grid, device->order, device->options.is_watched ? &device->watch : nullptr);
  }
  return why ? device->fail(std::string(kernel.name) + ": " + why) : 0;
}

/// The vendor's product by OpenBLAS, in the same column-major words.
int multiply(cuda_device *device, const cuda_product *p) {
  device->counts.launches++;
  if (device->options.is_idle) return 0;
  auto transposition = [](const cuda_matrix &m) { return m.is_transposed ? CblasTrans : CblasNoTrans; };
  if (p->is_double) {
    cblas_dgemm(
        CblasColMajor, transposition(p->a), transposition(p->b), p->m, p->n, p->k, p->alpha, static_cast<double *>(pointer(p->a.base)),
        p->a.stride, static_cast<double *>(pointer(p->b.base)), p->b.stride, p->beta, static_cast<double *>(pointer(p->c.base)), p->c.stride);
  } else {
    cblas_sgemm(
        CblasColMajor, transposition(p->a), transposition(p->b), p->m, p->n, p->k, p->alpha, static_cast<float *>(pointer(p->a.base)),
        p->a.stride, static_cast<float *>(pointer(p->b.base)), p->b.stride, p->beta, static_cast<float *>(pointer(p->c.base)), p->c.stride);
  }
  return 0;
}

int synchronize(cuda_device *) { return 0; }
const char *error(cuda_device *device) { return device->error.c_str(); }
const char *describe(cuda_device *) { return "emulator"; }
void close(cuda_device *device) { delete device; }

const cuda_table withProducts = {
    allocate, release, use, upload, download, kernel, launch, multiply, synchronize, error, describe, close};
const cuda_table withoutProducts = {
    allocate, release, use, upload, download, kernel, launch, nullptr, synchronize, error, describe, close};

}  // namespace

cuda_opened emulator_open(emulator_options options) {
  auto *device = new cuda_device{options, options.seed, {}, {}, {}, {}};
  return {options.has_products ? &withProducts : &withoutProducts, device};
}

struct emulator_counts emulator_counts(cuda_device *device) {
  struct emulator_counts counts = device->counts;
  counts.bytes_read = device->watch.bytesRead;
  counts.bytes_written = device->watch.bytesWritten;
  counts.bytes_touched = device->watch.bytesTouched;
  return counts;
}
