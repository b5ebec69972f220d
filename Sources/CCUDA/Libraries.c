// Finds the vendor's libraries where toolkits, drivers and Python's packages put them.
#define _GNU_SOURCE
#include "Libraries.h"

#include <dlfcn.h>
#include <glob.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cuda_say(struct cuda_text text, const char *format, ...) {
  size_t length = strlen(text.to);
  va_list arguments;
  va_start(arguments, format);
  if (length + 1 < text.size) vsnprintf(text.to + length, text.size - length, format, arguments);
  va_end(arguments);
}

/// Opens what a library beside it needs and asks for by its bare name.
static void open_beside(const char *library, const char *name) {
  char pattern[4096];
  glob_t found;
  snprintf(pattern, sizeof pattern, "%.*s/%s", (int)(strrchr(library, '/') - library), library, name);
  if (glob(pattern, 0, NULL, &found) == 0) dlopen(found.gl_pathv[found.gl_pathc - 1], RTLD_NOW | RTLD_GLOBAL);
  globfree(&found);
}

/// Opens the newest of the files that a pattern matches.
static void *open_matching(const char *pattern, struct cuda_text tried) {
  glob_t found;
  void *library = NULL;
  if (glob(pattern, 0, NULL, &found)) cuda_say(tried, "  %s: nothing there\n", pattern);
  for (size_t i = found.gl_pathc; i > 0 && !library; i--) {
    const char *path = found.gl_pathv[i - 1];
    if (strstr(path, "/libnvrtc.so")) open_beside(path, "libnvrtc-builtins.so*");
    if (strstr(path, "/libcublas.so")) open_beside(path, "libcublasLt.so*");
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) cuda_say(tried, "  %s\n", dlerror());
  }
  globfree(&found);
  return library;
}

/// Opens a library: in the user's folders, by the loader's own search, then where it usually is. `names` go from the newest to the
/// plain one, which the files of all versions begin with.
static void *open_library(const char *const *names, const char *path, const char *const *folders, struct cuda_text tried) {
  static const char *const inside[] = {"", "/lib", "/lib64", "/*/lib"};
  char pattern[4096];
  void *library = NULL;
  const char *plain = names[0];
  for (int n = 0; names[n]; n++) plain = names[n];
  for (const char *from = path; from && *from && !library;) {
    size_t length = strcspn(from, ":");
    for (size_t i = 0; i < sizeof inside / sizeof *inside && !library; i++) {
      snprintf(pattern, sizeof pattern, "%.*s%s/%s*", (int)length, from, inside[i], plain);
      library = open_matching(pattern, tried);
    }
    from += length + (from[length] == ':');
  }
  for (int n = 0; names[n] && !library; n++) {
    library = dlopen(names[n], RTLD_NOW | RTLD_LOCAL);
    if (!library) cuda_say(tried, "  %s\n", dlerror());
  }
  for (int i = 0; folders[i] && !library; i++) {
    const char *folder = folders[i], *value = "";
    if (*folder == '$') {  // a folder of the environment: $NAME/rest
      char name[64];
      size_t length = strcspn(folder + 1, "/");
      snprintf(name, sizeof name, "%.*s", (int)length, folder + 1);
      value = getenv(name);
      folder += 1 + length;
      if (!value || !*value) continue;
    }
    snprintf(pattern, sizeof pattern, "%s%s/%s*", value, folder, plain);
    library = open_matching(pattern, tried);
  }
  return library;
}

/// Fills a table, a list of pointers, with the functions `names` of a library.
static bool fill(void *library, void **table, const char *const *names, struct cuda_text why) {
  for (int i = 0; names[i]; i++) {
    table[i] = dlsym(library, names[i]);
    if (table[i]) continue;
    cuda_say(why, "a library was found, but it has no %s; it is too old\n", names[i]);
    return false;
  }
  return true;
}

static const char *const toolkits[] = {
    "$CUDA_HOME/lib64",
    "$CUDA_PATH/lib64",
    "/usr/local/cuda/lib64",
    "/opt/cuda/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "$VIRTUAL_ENV/lib/python3*/site-packages/nvidia/*/lib",
    "$CONDA_PREFIX/lib",
    NULL,
};

bool cuda_find_driver(struct cuda_driver *driver, const char *path, struct cuda_text why) {
  static const char *const libraries[] = {"libcuda.so.1", NULL};
  static const char *const folders[] = {
      "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/local/nvidia/lib64", "/usr/lib/wsl/lib", NULL};
  static const char *const names[] = {
      "cuInit", "cuDriverGetVersion", "cuGetErrorString", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute",
      "cuDeviceTotalMem_v2", "cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2", "cuCtxSetCurrent", "cuStreamCreate",
      "cuStreamDestroy_v2", "cuStreamSynchronize", "cuEventCreate", "cuEventDestroy_v2", "cuEventRecord", "cuEventSynchronize",
      "cuMemAlloc_v2", "cuMemFree_v2", "cuMemGetInfo_v2", "cuMemHostAlloc", "cuMemFreeHost", "cuMemcpyHtoDAsync_v2",
      "cuMemcpyDtoHAsync_v2", "cuMemsetD8Async", "cuModuleLoadData", "cuModuleUnload", "cuModuleGetFunction", "cuLaunchKernel", NULL};
  _Static_assert(sizeof names / sizeof *names - 1 == sizeof *driver / sizeof(void *), "a name for every function");
  cuda_say(why, "no NVIDIA driver; looked for\n");
  void *library = open_library(libraries, path, folders, why);
  if (!library) return false;
  why.to[0] = 0;
  return fill(library, (void **)driver, names, why);
}

bool cuda_find_compiler(struct cuda_compiler *compiler, const char *path, struct cuda_text why) {
  static const char *const libraries[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so", NULL};
  static const char *const names[] = {
      "nvrtcVersion", "nvrtcGetErrorString", "nvrtcGetNumSupportedArchs", "nvrtcGetSupportedArchs", "nvrtcCreateProgram",
      "nvrtcDestroyProgram", "nvrtcCompileProgram", "nvrtcGetProgramLogSize", "nvrtcGetProgramLog", "nvrtcGetCUBINSize", "nvrtcGetCUBIN",
      "nvrtcGetPTXSize", "nvrtcGetPTX", NULL};
  _Static_assert(sizeof names / sizeof *names - 1 == sizeof *compiler / sizeof(void *), "a name for every function");
  cuda_say(why, "a driver, but no NVRTC, which compiles the kernels; looked for\n");
  void *library = open_library(libraries, path, toolkits, why);
  if (!library) return false;
  why.to[0] = 0;
  return fill(library, (void **)compiler, names, why);
}

bool cuda_find_blas(struct cuda_blas *blas, const char *path, struct cuda_text why) {
  static const char *const libraries[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so", NULL};
  static const char *const names[] = {
      "cublasCreate_v2", "cublasDestroy_v2", "cublasSetStream_v2", "cublasGetVersion_v2", "cublasSgemm_v2", "cublasDgemm_v2", NULL};
  _Static_assert(sizeof names / sizeof *names - 1 == sizeof *blas / sizeof(void *), "a name for every function");
  void *library = open_library(libraries, path, toolkits, why);
  return library && fill(library, (void **)blas, names, why);
}
