// Products of matrices, by the program's own kernels.
#include "mx.cuh"
