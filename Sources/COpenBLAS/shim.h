#pragma once
#include <cblas.h>  // OpenBLAS's own, which also declares openblas_set_num_threads and openblas_get_corename
#include <lapacke.h>  // the C interface of LAPACK, whose Fortran symbols OpenBLAS has

typedef lapack_int lapack_index;  // a macro, which Swift does not see

// Whether the flags of Package.swift ask for AVX2: Swift cannot tell what it is compiled for.
#if defined(__AVX2__) && defined(__FMA__)
#define MIXLORA_AVX2 1
#else
#define MIXLORA_AVX2 0
#endif
