#include "CUDAEmulator.h"

#include <cblas.h>

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

/// Bytes of ones on both sides of an allocation.
constexpr size_t redZone = 256;

void *pointer(cuda_address address) { return reinterpret_cast<void *>(address); }

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
    for (auto &buffer : buffers) free(pointer(buffer.first - redZone));
  }
};

namespace {

int allocate(cuda_device *device, size_t bytes, cuda_address *address) {
  void *memory = aligned_alloc(256, (bytes + 2 * redZone + 255) / 256 * 256);
  if (!memory) return device->fail("no memory");
  if (!device->options.is_idle) memset(memory, 0xff, (bytes + 2 * redZone + 255) / 256 * 256);  // else nobody touches it
  *address = reinterpret_cast<cuda_address>(memory) + redZone;
  device->buffers[*address] = bytes;
  return 0;
}

int release(cuda_device *device, cuda_address address) {
  if (!device->buffers.erase(address)) return device->fail("release: there is no such allocation");
  device->watch.forget(address);
  free(pointer(address - redZone));
  return 0;
}

int use(cuda_device *device, cuda_address address, size_t bytes, bool isPoisoned) {
  auto buffer = device->buffers.find(address);
  if (buffer == device->buffers.end() || buffer->second < bytes) return device->fail("use: there is no such allocation");
  if (isPoisoned && !device->options.is_idle) memset(pointer(address), 0xff, buffer->second);
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
