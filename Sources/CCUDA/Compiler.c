// Compiles kernels with NVRTC, and keeps what came out in a folder.
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "Libraries.h"

/// FNV-1a over a text and its end.
static uint64_t hash(uint64_t state, const char *text) {
  do state = (state ^ (unsigned char)*text) * 0x100000001b3;
  while (*text++);
  return state;
}

/// The bytes of a file, with a zero behind them; null if there are none.
static void *contents(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file) return NULL;
  char *bytes = NULL;
  struct stat info;
  if (fstat(fileno(file), &info) == 0 && info.st_size > 0) {
    bytes = calloc(1, (size_t)info.st_size + 1);
    if (bytes && fread(bytes, 1, (size_t)info.st_size, file) != (size_t)info.st_size) {
      free(bytes);
      bytes = NULL;
    }
  }
  fclose(file);
  return bytes;
}

/// Makes the folders of a path that are not there.
static void make_folders(const char *path) {
  char part[4096];
  snprintf(part, sizeof part, "%s", path);
  for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    mkdir(part, 0777);
    *slash = '/';
  }
}

/// Writes a file under another name, syncs and renames it. What fails is no error: the next run compiles again.
static void keep(const char *path, const void *bytes, size_t size) {
  char other[4096 + 32];
  make_folders(path);
  snprintf(other, sizeof other, "%s.%d.tmp", path, (int)getpid());
  FILE *file = fopen(other, "wb");
  if (!file) return;
  bool is_whole = fwrite(bytes, 1, size, file) == size && fflush(file) == 0 && fsync(fileno(file)) == 0;
  is_whole = fclose(file) == 0 && is_whole;
  if (!is_whole || rename(other, path) != 0) unlink(other);
}

/// The architecture that NVRTC compiles for: the device's own, or the newest that it knows, whose PTX the driver then compiles on.
static int known_architecture(const struct cuda_compiler *nvrtc, int architecture) {
  int count = 0, newest = 0;
  if (nvrtc->nvrtcGetNumSupportedArchs(&count) || count <= 0) return architecture;
  int *list = calloc((size_t)count, sizeof *list);
  if (!list || nvrtc->nvrtcGetSupportedArchs(list)) {
    free(list);
    return architecture;
  }
  for (int i = 0; i < count; i++) {
    if (list[i] <= architecture && list[i] > newest) newest = list[i];
  }
  free(list);
  return newest;
}

void *cuda_compile(
    const struct cuda_compiler *nvrtc, const struct cuda_source *source, int architecture, bool is_double, const char *cache,
    struct cuda_text why) {
  int count, major = 0, minor = 0;
  const struct cuda_source *header = cuda_sources(&count);
  nvrtc->nvrtcVersion(&major, &minor);
  int known = known_architecture(nvrtc, architecture);
  if (known == 0) {
    cuda_say(why, "NVRTC %d.%d compiles for no architecture as old as sm_%d\n", major, minor, architecture);
    return NULL;
  }
  char target[64], path[4096];
  snprintf(target, sizeof target, "--gpu-architecture=%s_%d", known == architecture ? "sm" : "compute", known);
  const char *options[] = {target, "--std=c++17", "--restrict", "-DMX_DOUBLE"};
  int option_count = is_double ? 4 : 3;

  uint64_t key = hash(hash(0xcbf29ce484222325, header->text), source->text);
  for (int i = 0; i < option_count; i++) key = hash(key, options[i]);
  key = (key ^ (uint64_t)(major * 1000 + minor)) * 0x100000001b3;
  if (cache) {
    snprintf(
        path, sizeof path, "%s/%.*s-%s-sm_%d-%016llx", cache, (int)strcspn(source->name, "."), source->name,
        is_double ? "float64" : "float32", known, (unsigned long long)key);
    void *kept = contents(path);
    if (kept) return kept;
  }

  void *program = NULL;
  char *result = NULL;
  size_t size = 0;
  int rc = nvrtc->nvrtcCreateProgram(&program, source->text, source->name, 1, &header->text, &header->name);
  if (!rc) rc = nvrtc->nvrtcCompileProgram(program, option_count, options);
  if (!rc) {
    bool is_cubin = known == architecture;
    rc = is_cubin ? nvrtc->nvrtcGetCUBINSize(program, &size) : nvrtc->nvrtcGetPTXSize(program, &size);
    if (!rc) result = calloc(1, size + 1);
    if (result) rc = is_cubin ? nvrtc->nvrtcGetCUBIN(program, result) : nvrtc->nvrtcGetPTX(program, result);
  }
  if (rc || !result) {
    cuda_say(why, "NVRTC %d.%d could not compile %s for sm_%d: %s\n", major, minor, source->name, known, nvrtc->nvrtcGetErrorString(rc));
    char *log = program && !nvrtc->nvrtcGetProgramLogSize(program, &size) ? calloc(1, size + 1) : NULL;
    if (log && !nvrtc->nvrtcGetProgramLog(program, log)) cuda_say(why, "%s", log);
    free(log);
    free(result);
    result = NULL;
  } else if (cache) {
    keep(path, result, size);
  }
  if (program) nvrtc->nvrtcDestroyProgram(&program);
  return result;
}
