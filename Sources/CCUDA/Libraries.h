// The vendor's libraries, found when the program runs. Types and numbers are those of their documented interfaces.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "CCUDA.h"

typedef int cu_result;
typedef struct cu_context *cu_context;
typedef struct cu_stream *cu_stream;
typedef struct cu_event *cu_event;
typedef struct cu_module *cu_module;
typedef struct cu_function *cu_function;

/// What is used of libcuda. The driver's functions end in _v2 where their arguments grew to 64 bits.
struct cuda_driver {
  cu_result (*cuInit)(unsigned flags);
  cu_result (*cuDriverGetVersion)(int *);
  cu_result (*cuGetErrorString)(cu_result, const char **);
  cu_result (*cuDeviceGetCount)(int *);
  cu_result (*cuDeviceGet)(int *, int number);
  cu_result (*cuDeviceGetName)(char *, int size, int device);
  cu_result (*cuDeviceGetAttribute)(int *, int attribute, int device);
  cu_result (*cuDeviceTotalMem_v2)(size_t *, int device);
  cu_result (*cuDevicePrimaryCtxRetain)(cu_context *, int device);
  cu_result (*cuDevicePrimaryCtxRelease_v2)(int device);
  cu_result (*cuCtxSetCurrent)(cu_context);
  cu_result (*cuStreamCreate)(cu_stream *, unsigned flags);
  cu_result (*cuStreamDestroy_v2)(cu_stream);
  cu_result (*cuStreamSynchronize)(cu_stream);
  cu_result (*cuEventCreate)(cu_event *, unsigned flags);
  cu_result (*cuEventDestroy_v2)(cu_event);
  cu_result (*cuEventRecord)(cu_event, cu_stream);
  cu_result (*cuEventSynchronize)(cu_event);
  cu_result (*cuMemAlloc_v2)(cuda_address *, size_t);
  cu_result (*cuMemFree_v2)(cuda_address);
  cu_result (*cuMemGetInfo_v2)(size_t *free, size_t *total);
  cu_result (*cuMemHostAlloc)(void **, size_t, unsigned flags);
  cu_result (*cuMemFreeHost)(void *);
  cu_result (*cuMemcpyHtoDAsync_v2)(cuda_address, const void *, size_t, cu_stream);
  cu_result (*cuMemcpyDtoHAsync_v2)(void *, cuda_address, size_t, cu_stream);
  cu_result (*cuMemsetD8Async)(cuda_address, unsigned char, size_t, cu_stream);
  cu_result (*cuModuleLoadData)(cu_module *, const void *);
  cu_result (*cuModuleUnload)(cu_module);
  cu_result (*cuModuleGetFunction)(cu_function *, cu_module, const char *);
  cu_result (*cuLaunchKernel)(
      cu_function, unsigned x, unsigned y, unsigned z, unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared, cu_stream,
      void **arguments, void **extra);
};

/// What is used of NVRTC.
struct cuda_compiler {
  int (*nvrtcVersion)(int *major, int *minor);
  const char *(*nvrtcGetErrorString)(int);
  int (*nvrtcGetNumSupportedArchs)(int *);
  int (*nvrtcGetSupportedArchs)(int *);
  int (*nvrtcCreateProgram)(void **, const char *text, const char *name, int headers, const char *const *texts, const char *const *names);
  int (*nvrtcDestroyProgram)(void **);
  int (*nvrtcCompileProgram)(void *, int count, const char *const *options);
  int (*nvrtcGetProgramLogSize)(void *, size_t *);
  int (*nvrtcGetProgramLog)(void *, char *);
  int (*nvrtcGetCUBINSize)(void *, size_t *);
  int (*nvrtcGetCUBIN)(void *, char *);
  int (*nvrtcGetPTXSize)(void *, size_t *);
  int (*nvrtcGetPTX)(void *, char *);
};

/// What is used of cuBLAS.
struct cuda_blas {
  int (*cublasCreate_v2)(void **);
  int (*cublasDestroy_v2)(void *);
  int (*cublasSetStream_v2)(void *, cu_stream);
  int (*cublasGetVersion_v2)(void *, int *);
  int (*cublasSgemm_v2)(
      void *, int transposes_a, int transposes_b, int m, int n, int k, const float *alpha, const float *a, int lda, const float *b, int ldb,
      const float *beta, float *c, int ldc);
  int (*cublasDgemm_v2)(
      void *, int transposes_a, int transposes_b, int m, int n, int k, const double *alpha, const double *a, int lda, const double *b,
      int ldb, const double *beta, double *c, int ldc);
};

/// A sentence that grows.
struct cuda_text {
  char *to;
  size_t size;
};
__attribute__((format(printf, 2, 3))) void cuda_say(struct cuda_text, const char *format, ...);

/// Find and open a library and fill its table; false, with what was looked for, if it is not there or lacks a function.
bool cuda_find_driver(struct cuda_driver *, const char *path, struct cuda_text why);
bool cuda_find_compiler(struct cuda_compiler *, const char *path, struct cuda_text why);
bool cuda_find_blas(struct cuda_blas *, const char *path, struct cuda_text why);

/// Compiles a text for an architecture (86 for sm_86), or takes what is in `cache`; null with the compiler's words if that fails.
/// The caller frees it.
void *cuda_compile(
    const struct cuda_compiler *, const struct cuda_source *, int architecture, bool is_double, const char *cache, struct cuda_text why);
