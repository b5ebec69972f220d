// A GPU behind the table: the driver's primary context, one stream, and kernels that are compiled for the device's own architecture.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "Libraries.h"

enum { texts = 16, compute_capability_major = 75, compute_capability_minor = 76, half_ring = 4 << 20 };

struct cuda_device {
  struct cuda_driver driver;
  struct cuda_compiler compiler;
  struct cuda_blas blas;
  void *blas_handle;
  int device, architecture;
  cu_context context;
  cu_stream stream;
  /// The compiled texts in both precisions; null until a kernel of them is asked for.
  cu_module modules[2][texts];
  bool has_modules[2];
  /// Pinned memory from which uploads go on their way: two halves in turn, each with the event that its last copy is done.
  char *ring;
  cu_event is_done[2];
  int half;
  size_t used;
  char *cache;
  char name[512], error[8192];
};

/// Notes what failed; gives 1, or 0 if nothing did.
static int check(struct cuda_device *d, cu_result rc, const char *what) {
  if (rc == 0) return 0;
  const char *text = NULL;
  if (d->driver.cuGetErrorString(rc, &text) || !text) text = "an unknown error";
  snprintf(d->error, sizeof d->error, "%s: %s (CUDA error %d)", what, text, rc);
  return 1;
}

/// The context belongs to the thread that works with it, and callers may change threads between calls.
static int enter(struct cuda_device *d) { return check(d, d->driver.cuCtxSetCurrent(d->context), "cuCtxSetCurrent"); }

static int gpu_allocate(struct cuda_device *d, size_t bytes, cuda_address *address) {
  if (enter(d)) return 1;
  cu_result rc = d->driver.cuMemAlloc_v2(address, bytes);
  if (rc == 0) return 0;
  size_t free = 0, total = 0;
  d->driver.cuMemGetInfo_v2(&free, &total);
  char what[160];
  snprintf(what, sizeof what, "the device has no %.1f MiB left (%.1f of %.1f MiB are free)", bytes / 0x1p20, free / 0x1p20, total / 0x1p20);
  return check(d, rc, what);
}

static int gpu_release(struct cuda_device *d, cuda_address address) {
  return enter(d) || check(d, d->driver.cuMemFree_v2(address), "cuMemFree");
}

static int gpu_use(struct cuda_device *d, cuda_address address, size_t bytes, bool is_poisoned) {
  if (!is_poisoned || bytes == 0) return 0;
  return enter(d) || check(d, d->driver.cuMemsetD8Async(address, 0xff, bytes, d->stream), "cuMemsetD8Async");
}

static int gpu_upload(struct cuda_device *d, cuda_address to, const void *from, size_t bytes) {
  if (enter(d)) return 1;
  while (bytes > 0) {
    if (d->used == half_ring) {
      // This half is full: its event says when it is free again, and the other half must be free now.
      if (check(d, d->driver.cuEventRecord(d->is_done[d->half], d->stream), "cuEventRecord")) return 1;
      d->half = 1 - d->half;
      d->used = 0;
      if (check(d, d->driver.cuEventSynchronize(d->is_done[d->half]), "upload")) return 1;
    }
    size_t part = bytes < half_ring - d->used ? bytes : half_ring - d->used;
    char *place = d->ring + (size_t)d->half * half_ring + d->used;
    memcpy(place, from, part);
    if (check(d, d->driver.cuMemcpyHtoDAsync_v2(to, place, part, d->stream), "upload")) return 1;
    d->used += part;
    to += part;
    from = (const char *)from + part;
    bytes -= part;
  }
  return 0;
}

static int gpu_synchronize(struct cuda_device *d) {
  return enter(d) || check(d, d->driver.cuStreamSynchronize(d->stream), "the device's work failed");
}

static int gpu_download(struct cuda_device *d, void *to, cuda_address from, size_t bytes) {
  return enter(d) || check(d, d->driver.cuMemcpyDtoHAsync_v2(to, from, bytes, d->stream), "download") || gpu_synchronize(d);
}

/// Compiles and loads all texts in one precision.
static int load_modules(struct cuda_device *d, bool is_double) {
  int count;
  const struct cuda_source *sources = cuda_sources(&count);
  d->error[0] = 0;
  struct cuda_text why = {d->error, sizeof d->error};
  for (int i = 1; i < count && i < texts; i++) {
    void *image = cuda_compile(&d->compiler, &sources[i], d->architecture, is_double, d->cache, why);
    if (!image) return 1;
    cu_result rc = d->driver.cuModuleLoadData(&d->modules[is_double][i], image);
    free(image);
    if (rc != 0 && d->cache) {  // what was kept may be damaged
      image = cuda_compile(&d->compiler, &sources[i], d->architecture, is_double, NULL, why);
      if (!image) return 1;
      rc = d->driver.cuModuleLoadData(&d->modules[is_double][i], image);
      free(image);
    }
    if (check(d, rc, sources[i].name)) return 1;
  }
  d->has_modules[is_double] = true;
  return 0;
}

static int gpu_kernel(struct cuda_device *d, const char *name, bool is_double, struct cuda_kernel **kernel) {
  if (enter(d) || (!d->has_modules[is_double] && load_modules(d, is_double))) return 1;
  for (int i = 0; i < texts; i++) {
    cu_function function;
    if (!d->modules[is_double][i] || d->driver.cuModuleGetFunction(&function, d->modules[is_double][i], name)) continue;
    *kernel = (struct cuda_kernel *)function;
    return 0;
  }
  snprintf(d->error, sizeof d->error, "there is no kernel %s", name);
  return 1;
}

static int gpu_launch(
    struct cuda_device *d, struct cuda_kernel *kernel, struct cuda_grid grid, const struct cuda_argument *arguments, int count) {
  void *pointers[64];
  if (count > 64) return check(d, 1, "more than 64 arguments");
  for (int i = 0; i < count; i++) pointers[i] = (void *)arguments[i].value;
  return enter(d)
         || check(
             d, d->driver.cuLaunchKernel((cu_function)kernel, grid.x, grid.y, 1, grid.threads, 1, 1, 0, d->stream, pointers, NULL),
             "cuLaunchKernel");
}

static int gpu_multiply(struct cuda_device *d, const struct cuda_product *p) {
  if (enter(d)) return 1;
  int ta = p->a.is_transposed, tb = p->b.is_transposed, lda = (int)p->a.stride, ldb = (int)p->b.stride, ldc = (int)p->c.stride, rc;
  if (p->is_double) {
    rc = d->blas.cublasDgemm_v2(
        d->blas_handle, ta, tb, p->m, p->n, p->k, &p->alpha, (const double *)p->a.base, lda, (const double *)p->b.base, ldb, &p->beta,
        (double *)p->c.base, ldc);
  } else {
    float alpha = (float)p->alpha, beta = (float)p->beta;
    rc = d->blas.cublasSgemm_v2(
        d->blas_handle, ta, tb, p->m, p->n, p->k, &alpha, (const float *)p->a.base, lda, (const float *)p->b.base, ldb, &beta,
        (float *)p->c.base, ldc);
  }
  if (rc) snprintf(d->error, sizeof d->error, "cuBLAS: status %d in a product (%d,%d)(%d,%d)", rc, p->m, p->k, p->k, p->n);
  return rc != 0;
}

static const char *gpu_error(struct cuda_device *d) { return d->error; }
static const char *gpu_describe(struct cuda_device *d) { return d->name; }

static void gpu_close(struct cuda_device *d) {
  if (d->context && enter(d) == 0) {
    if (d->stream) d->driver.cuStreamSynchronize(d->stream);
    if (d->blas_handle) d->blas.cublasDestroy_v2(d->blas_handle);
    for (int precision = 0; precision < 2; precision++) {
      for (int i = 0; i < texts; i++) {
        if (d->modules[precision][i]) d->driver.cuModuleUnload(d->modules[precision][i]);
      }
    }
    for (int i = 0; i < 2; i++) {
      if (d->is_done[i]) d->driver.cuEventDestroy_v2(d->is_done[i]);
    }
    if (d->ring) d->driver.cuMemFreeHost(d->ring);
    if (d->stream) d->driver.cuStreamDestroy_v2(d->stream);
    d->driver.cuDevicePrimaryCtxRelease_v2(d->device);
  }
  free(d->cache);
  free(d);
}

static const struct cuda_table with_library = {
    gpu_allocate, gpu_release, gpu_use,  gpu_upload,   gpu_download, gpu_kernel,
    gpu_launch,   gpu_multiply, gpu_synchronize, gpu_error, gpu_describe, gpu_close,
};
static const struct cuda_table without_library = {
    gpu_allocate, gpu_release, gpu_use,  gpu_upload,   gpu_download, gpu_kernel,
    gpu_launch,   NULL, gpu_synchronize, gpu_error, gpu_describe, gpu_close,
};

/// Everything that a device needs before its first kernel.
static int open_device(struct cuda_device *d, struct cuda_options options, struct cuda_text why) {
  int count = 0, major = 0, minor = 0, driver = 0, nvrtc[2] = {0, 0}, blas = 0;
  size_t memory = 0;
  char name[256] = "";
  if (!cuda_find_driver(&d->driver, options.path, why)) return 1;
  if (check(d, d->driver.cuInit(0), "the NVIDIA driver was found, but does not start: cuInit")) return 1;
  if (check(d, d->driver.cuDeviceGetCount(&count), "cuDeviceGetCount")) return 1;
  if (options.number < 0 || options.number >= count) {
    snprintf(d->error, sizeof d->error, "there is no GPU %d: the driver knows %d", options.number, count);
    return 1;
  }
  if (check(d, d->driver.cuDeviceGet(&d->device, options.number), "cuDeviceGet")
      || check(d, d->driver.cuDeviceGetName(name, sizeof name, d->device), "cuDeviceGetName")
      || check(d, d->driver.cuDeviceGetAttribute(&major, compute_capability_major, d->device), "cuDeviceGetAttribute")
      || check(d, d->driver.cuDeviceGetAttribute(&minor, compute_capability_minor, d->device), "cuDeviceGetAttribute")
      || check(d, d->driver.cuDeviceTotalMem_v2(&memory, d->device), "cuDeviceTotalMem")
      || check(d, d->driver.cuDriverGetVersion(&driver), "cuDriverGetVersion")) {
    return 1;
  }
  d->architecture = 10 * major + minor;
  if (!cuda_find_compiler(&d->compiler, options.path, why)) return 1;
  d->compiler.nvrtcVersion(&nvrtc[0], &nvrtc[1]);
  if (check(d, d->driver.cuDevicePrimaryCtxRetain(&d->context, d->device), "cuDevicePrimaryCtxRetain") || enter(d)
      || check(d, d->driver.cuStreamCreate(&d->stream, 1), "cuStreamCreate")
      || check(d, d->driver.cuMemHostAlloc((void **)&d->ring, 2 * half_ring, 0), "cuMemHostAlloc")
      || check(d, d->driver.cuEventCreate(&d->is_done[0], 2), "cuEventCreate")
      || check(d, d->driver.cuEventCreate(&d->is_done[1], 2), "cuEventCreate")) {
    return 1;
  }
  char ignored[4096] = "";
  if (options.uses_library && cuda_find_blas(&d->blas, options.path, (struct cuda_text){ignored, sizeof ignored})) {
    if (d->blas.cublasCreate_v2(&d->blas_handle)) d->blas_handle = NULL;
    if (d->blas_handle) {
      d->blas.cublasSetStream_v2(d->blas_handle, d->stream);
      d->blas.cublasGetVersion_v2(d->blas_handle, &blas);
    }
  }
  if (options.cache) d->cache = strdup(options.cache);
  int length = snprintf(
      d->name, sizeof d->name, "%s (sm_%d, %.1f GiB), driver for CUDA %d.%d, NVRTC %d.%d, ", name, d->architecture, memory / 0x1p30,
      driver / 1000, driver % 1000 / 10, nvrtc[0], nvrtc[1]);
  if (d->blas_handle) {
    snprintf(d->name + length, sizeof d->name - (size_t)length, "products by cuBLAS %d.%d", blas / 10000, blas / 100 % 100);
  } else {
    snprintf(d->name + length, sizeof d->name - (size_t)length, "products by own kernels%s", options.uses_library ? " (no cuBLAS)" : "");
  }
  return 0;
}

struct cuda_opened cuda_open(struct cuda_options options, char *why, size_t why_size) {
  struct cuda_opened opened = {NULL, NULL};
  struct cuda_text text = {why, why_size};
  why[0] = 0;
  struct cuda_device *d = calloc(1, sizeof *d);
  if (!d) return opened;
  if (open_device(d, options, text)) {
    if (d->error[0]) cuda_say(text, "%s\n", d->error);
    gpu_close(d);
    return opened;
  }
  opened.device = d;
  opened.table = d->blas_handle ? &with_library : &without_library;
  return opened;
}
