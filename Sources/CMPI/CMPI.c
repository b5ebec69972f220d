#include "CMPI.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

// Every function that is used, by its name behind MPI_.
#define FUNCTIONS(X) \
  X(Init_thread) X(Comm_set_errhandler) X(Comm_rank) X(Comm_size) X(Type_size) X(Bcast) X(Allreduce) X(Allgather) \
  X(Sendrecv) X(Iprobe) X(Abort) X(Finalize) X(Error_string) X(Get_library_version)

static struct {
#define X(name) void *name;
  FUNCTIONS(X)
#undef X
} mpi;

static enum mpi_interface interface;
static uintptr_t world, errors_return, types[4], sum;            // handles, of whatever width
static int serialized;                                           // MPI_THREAD_SERIALIZED
static int nobody;                                               // MPI_PROC_NULL

static bool refuse(char *why, size_t size, const char *a, const char *b) {
  snprintf(why, size, "%s%s", a, b);
  return false;
}

/// Takes the handles of Open MPI, addresses of its globals.
static bool take_addresses(void *library, const char *name, char *why, size_t size) {
  static const struct {
    uintptr_t *handle;
    const char *symbol;
  } globals[] = {
      {&world, "ompi_mpi_comm_world"}, {&errors_return, "ompi_mpi_errors_return"}, {&types[MPI_TYPE_BYTE], "ompi_mpi_byte"},
      {&types[MPI_TYPE_FLOAT], "ompi_mpi_float"}, {&types[MPI_TYPE_DOUBLE], "ompi_mpi_double"},
      {&types[MPI_TYPE_INT64], "ompi_mpi_int64_t"}, {&sum, "ompi_mpi_op_sum"},
  };
  for (size_t i = 0; i < sizeof globals / sizeof *globals; i++) {
    if (!(*globals[i].handle = (uintptr_t)dlsym(library, globals[i].symbol))) {
      snprintf(why, size, "%s has no %s", name, globals[i].symbol);
      return false;
    }
  }
  return true;
}

/// Sets handles that are numbers.
static void take_numbers(const uintptr_t numbers[7]) {
  world = numbers[0], errors_return = numbers[1], sum = numbers[6];
  memcpy(types, numbers + 2, sizeof types);
}

bool mpi_open(const char *name, char *why, size_t size) {
  void *library = dlopen(name, RTLD_NOW | RTLD_GLOBAL);  // global, because plug-ins of Open MPI look for its symbols
  if (!library) return refuse(why, size, dlerror(), "");
#define X(name_) \
  if (!(mpi.name_ = dlsym(library, "MPI_" #name_))) return refuse(why, size, name, " has no MPI_" #name_);
  FUNCTIONS(X)
#undef X
  // MPICH 5's and Intel's libraries of the old interface have this function too, and it answers −1.
  int major = -1, minor = -1;
  int (*version)(int *, int *) = (int (*)(int *, int *))dlsym(library, "MPI_Abi_get_version");
  if (version) version(&major, &minor);
  serialized = 2;
  if (dlsym(library, "ompi_mpi_comm_world")) {
    if (!take_addresses(library, name, why, size)) return false;
    interface = MPI_INTERFACE_OPEN_MPI, nobody = -2;
  } else if (major >= 1) {
    take_numbers((const uintptr_t[]){0x101, 0x143, 0x247, 0x210, 0x214, 0x258, 0x21});
    interface = MPI_INTERFACE_STANDARD, nobody = -3, serialized = 2048;
  } else {
    take_numbers((const uintptr_t[]){0x44000000, 0x54000001, 0x4c00010d, 0x4c00040a, 0x4c00080b, 0x4c00083a, 0x58000003});
    interface = MPI_INTERFACE_MPICH, nobody = -1;
  }
  return true;
}

enum mpi_interface mpi_which(void) { return interface; }

void mpi_version(char *text, size_t size) {
  char all[8192] = "";  // MPI_MAX_LIBRARY_VERSION_STRING is at most that in any of them
  int length = 0;
  ((int (*)(char *, int *))mpi.Get_library_version)(all, &length);
  all[strcspn(all, "\n")] = 0;
  for (char *c = all; *c; c++) *c = *c == '\t' ? ' ' : *c;  // "MPICH Version:\t4.0.2"
  snprintf(text, size, "%s", all);
}

// A handle is an int in one interface and has a pointer's width in the others: each call is written once and cast to its true type.
#define CALL(FUNCTION) (interface == MPI_INTERFACE_MPICH ? FUNCTION(int) : FUNCTION(void *))

int mpi_start(int *rank, int *size) {
  int provided = 0, bytes = 0;
  int code = ((int (*)(int *, char ***, int, int *))mpi.Init_thread)(NULL, NULL, serialized, &provided);
#define ERRORS(H) ((int (*)(H, H))mpi.Comm_set_errhandler)((H)world, (H)errors_return)
  if (!code) code = CALL(ERRORS);
#define BYTES(H) ((int (*)(H, int *))mpi.Type_size)((H)types[MPI_TYPE_FLOAT], &bytes)
  if (!code) code = CALL(BYTES);
  if (!code && bytes != 4) code = -1;  // the handles are not what they were taken for
#define RANK(H) ((int (*)(H, int *))mpi.Comm_rank)((H)world, rank)
  if (!code) code = CALL(RANK);
#define SIZE(H) ((int (*)(H, int *))mpi.Comm_size)((H)world, size)
  if (!code) code = CALL(SIZE);
  return code;
}

int mpi_broadcast(void *data, int count, enum mpi_type type, int root) {
#define BROADCAST(H) ((int (*)(void *, int, H, int, H))mpi.Bcast)(data, count, (H)types[type], root, (H)world)
  return CALL(BROADCAST);
}

int mpi_allreduce(const void *in, void *out, int count, enum mpi_type type) {
#define ALLREDUCE(H) \
  ((int (*)(const void *, void *, int, H, H, H))mpi.Allreduce)(in, out, count, (H)types[type], (H)sum, (H)world)
  return CALL(ALLREDUCE);
}

int mpi_allgather(const void *in, void *out, int count, enum mpi_type type) {
#define ALLGATHER(H) \
  ((int (*)(const void *, int, H, void *, int, H, H))mpi.Allgather)( \
      in, count, (H)types[type], out, count, (H)types[type], (H)world)
  return CALL(ALLGATHER);
}

int mpi_exchange(const void *out, int out_count, int to, void *in, int in_count, int from, enum mpi_type type) {
  long long status[8];  // MPI_Status has at most 32 bytes in any of them
  if (to < 0) to = nobody;
  if (from < 0) from = nobody;
#define EXCHANGE(H) \
  ((int (*)(const void *, int, H, int, int, void *, int, H, int, int, H, void *))mpi.Sendrecv)( \
      out, out_count, (H)types[type], to, 0, in, in_count, (H)types[type], from, 0, (H)world, status)
  return CALL(EXCHANGE);
}

int mpi_probe(int from, bool *is_there) {
  long long status[8];
  int flag = 0;
#define PROBE(H) ((int (*)(int, int, H, int *, void *))mpi.Iprobe)(from, 0, (H)world, &flag, status)
  int code = CALL(PROBE);
  *is_there = flag;
  return code;
}

int mpi_finish(void) { return ((int (*)(void))mpi.Finalize)(); }

void mpi_abort(int code) {
#define ABORT(H) ((int (*)(H, int))mpi.Abort)((H)world, code)
  (void)CALL(ABORT);
}

void mpi_explain(int code, char *text, size_t size) {
  char all[1024] = "";  // MPI_MAX_ERROR_STRING is at most that in any of them
  int length = 0;
  if (code < 0 || ((int (*)(int, char *, int *))mpi.Error_string)(code, all, &length)) snprintf(all, sizeof all, "code %d", code);
  snprintf(text, size, "%s", all);
}
