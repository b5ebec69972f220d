// MPI as a table of functions that is filled when the program runs: no mpi.h is needed to build this, and nothing is linked.
//
// Libraries have three binary interfaces, which differ in what a handle is:
//   Open MPI        libmpi.so.40                           the address of a global
//   MPICH, Intel    libmpi.so.12, Debian's libmpich.so.12  an int
//   MPI 5.0         libmpi_abi.so.1                        a small number in a pointer
#ifndef CMPI_H
#define CMPI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mpi_interface { MPI_INTERFACE_NONE, MPI_INTERFACE_OPEN_MPI, MPI_INTERFACE_MPICH, MPI_INTERFACE_STANDARD };
enum mpi_type { MPI_TYPE_BYTE, MPI_TYPE_FLOAT, MPI_TYPE_DOUBLE, MPI_TYPE_INT64 };

/// Opens a library and finds every function in it; false with a reason in `why` if that fails.
bool mpi_open(const char *_Nonnull library, char *_Nonnull why, size_t size);
/// Which interface the open library has.
enum mpi_interface mpi_which(void);
/// What the library says of itself, its first line; mpi_start need not have been called.
void mpi_version(char *_Nonnull text, size_t size);

// What follows returns the library's code, 0 for success.

/// Joins the job, for calls from one thread at a time; errors are returned from then on.
int mpi_start(int *_Nonnull rank, int *_Nonnull size);
int mpi_broadcast(void *_Nullable data, int count, enum mpi_type type, int root);
/// The sum over all ranks.
int mpi_allreduce(const void *_Nonnull in, void *_Nonnull out, int count, enum mpi_type type);
int mpi_allgather(const void *_Nullable in, void *_Nullable out, int count, enum mpi_type type);
/// Sends to one rank while it receives from another; a negative rank is nobody.
int mpi_exchange(
    const void *_Nullable out, int out_count, int to, void *_Nullable in, int in_count, int from, enum mpi_type type);
/// Whether a message of a rank is there; does not wait for one.
int mpi_probe(int from, bool *_Nonnull is_there);
int mpi_finish(void);

/// Ends all ranks of the job with an exit code.
void mpi_abort(int code);
/// What a code of the library means.
void mpi_explain(int code, char *_Nonnull text, size_t size);

#endif
