#pragma once
#include <cblas.h>  // OpenBLAS's own, which also declares openblas_set_num_threads and openblas_get_corename
