// A libcuda.so.1 whose GPU is the emulator: the whole program then runs with `--backend cuda` where there is no GPU, up to the driver's
// own behaviour. NVRTC compiles in earnest; what it gives is looked at, and the host's twins of the kernels run.
//
// Only what Sources/CCUDA/Libraries.h asks for is here.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "../CUDAEmulator/Simulator.hpp"
#include "../CUDAEmulator/include/CUDAEmulator.h"

namespace {

enum { success = 0, invalid_value = 1, out_of_memory = 2, not_found = 500 };
enum { architecture_major = 75, architecture_minor = 76, memory = 8 };  // sm_86 with 8 GiB

struct Module {
  bool isDouble;
};

cuda_opened opened;
uint64_t order;
int contexts, streams, events, modules;
std::map<cuda_address, size_t> allocations;
size_t allocated;

/// Bytes of a CUBIN, which is an ELF file, or of the text of PTX.
size_t imageSize(const char *image) {
  if (memcmp(image, "\x7f"
                    "ELF",
          4)) {
    return strlen(image);
  }
  uint64_t sections;
  uint16_t size, count;
  memcpy(&sections, image + 40, 8);
  memcpy(&size, image + 58, 2);
  memcpy(&count, image + 60, 2);
  return sections + size_t(size) * count;
}

bool contains(const char *image, size_t size, const char *name) { return memmem(image, size, name, strlen(name)) != nullptr; }

bool isInside(cuda_address address, size_t bytes) {
  auto next = allocations.upper_bound(address);
  return next != allocations.begin() && (--next, address + bytes <= next->first + next->second);
}

}  // namespace

extern "C" {

int cuInit(unsigned) {
  if (const char *seed = getenv("EMULATOR_SEED")) order = strtoull(seed, nullptr, 10);
  opened = emulator_open({order, false, false, false});
  return success;
}
int cuDriverGetVersion(int *version) { return *version = 13000, success; }
int cuGetErrorString(int code, const char **text) {
  *text = code == invalid_value ? "invalid argument" : code == out_of_memory ? "out of memory" : code == not_found ? "not found" : "unknown";
  return success;
}
int cuDeviceGetCount(int *count) { return *count = 1, success; }
int cuDeviceGet(int *device, int number) { return number == 0 ? (*device = 0, success) : invalid_value; }
int cuDeviceGetName(char *name, int size, int) { return snprintf(name, size, "Emulated GPU"), success; }
int cuDeviceGetAttribute(int *value, int attribute, int) {
  if (attribute != architecture_major && attribute != architecture_minor) return invalid_value;
  *value = attribute == architecture_major ? 8 : 6;
  return success;
}
int cuDeviceTotalMem_v2(size_t *bytes, int) { return *bytes = size_t(memory) << 30, success; }
int cuDevicePrimaryCtxRetain(void **context, int) { return *context = &contexts, contexts++, success; }
int cuDevicePrimaryCtxRelease_v2(int) {
  // What the program leaves behind is its bug; scripts look for this line.
  if (--contexts == 0 && (streams || events || modules)) {
    fprintf(stderr, "emulated driver: %d streams, %d events and %d modules are left\n", streams, events, modules);
  }
  return success;
}
int cuCtxSetCurrent(void *context) { return context == &contexts ? success : invalid_value; }
int cuStreamCreate(void **stream, unsigned) { return *stream = &streams, streams++, success; }
int cuStreamDestroy_v2(void *) { return streams--, success; }
int cuStreamSynchronize(void *) { return success; }
int cuEventCreate(void **event, unsigned) { return *event = &events, events++, success; }
int cuEventDestroy_v2(void *) { return events--, success; }
int cuEventRecord(void *, void *) { return success; }
int cuEventSynchronize(void *) { return success; }
int cuMemAlloc_v2(cuda_address *address, size_t bytes) {
  if (bytes == 0) return invalid_value;
  if (allocated + bytes > size_t(memory) << 30) return out_of_memory;
  if (opened.table->allocate(opened.device, bytes, address)) return out_of_memory;
  allocations[*address] = bytes;
  allocated += bytes;
  return success;
}
int cuMemFree_v2(cuda_address address) {
  auto found = allocations.find(address);
  if (found == allocations.end()) return invalid_value;
  allocated -= found->second;
  allocations.erase(found);
  return opened.table->release(opened.device, address) ? invalid_value : success;
}
int cuMemGetInfo_v2(size_t *free, size_t *total) {
  *total = size_t(memory) << 30;
  *free = *total - allocated;
  return success;
}
int cuMemHostAlloc(void **pointer, size_t bytes, unsigned) { return (*pointer = malloc(bytes)) ? success : out_of_memory; }
int cuMemFreeHost(void *pointer) { return free(pointer), success; }
int cuMemcpyHtoDAsync_v2(cuda_address to, const void *from, size_t bytes, void *) {
  if (!isInside(to, bytes)) return invalid_value;
  return memcpy(reinterpret_cast<void *>(to), from, bytes), success;
}
int cuMemcpyDtoHAsync_v2(void *to, cuda_address from, size_t bytes, void *) {
  if (!isInside(from, bytes)) return invalid_value;
  return memcpy(to, reinterpret_cast<void *>(from), bytes), success;
}
int cuMemsetD8Async(cuda_address to, unsigned char value, size_t bytes, void *) {
  if (!isInside(to, bytes)) return invalid_value;
  return memset(reinterpret_cast<void *>(to), value, bytes), success;
}
int cuModuleLoadData(void **module, const void *image) {
  auto *bytes = static_cast<const char *>(image);
  size_t size = imageSize(bytes);
  bool isDouble = contains(bytes, size, "mx_float64");
  if (isDouble == contains(bytes, size, "mx_float32")) return invalid_value;  // one of both, or it is none of ours
  *module = new Module{isDouble};
  return modules++, success;
}
int cuModuleUnload(void *module) { return delete static_cast<Module *>(module), modules--, success; }
int cuModuleGetFunction(void **function, void *module, const char *name) {
  cuda_kernel *kernel;
  if (opened.table->kernel(opened.device, name, static_cast<Module *>(module)->isDouble, &kernel)) return not_found;
  *function = kernel;
  return success;
}
int cuLaunchKernel(
    void *function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned, unsigned, void *, void **arguments, void **) {
  if (z != 1) return invalid_value;
  const char *why = simt::launch(*static_cast<simt::Kernel *>(function), arguments, {x, y, threads}, order, nullptr);
  if (why) fprintf(stderr, "emulated driver: %s: %s\n", static_cast<simt::Kernel *>(function)->name, why);
  return why ? invalid_value : success;
}
}
