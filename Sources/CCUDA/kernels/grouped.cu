// Products of each expert's rows with its own matrix.
#include "mx.cuh"
