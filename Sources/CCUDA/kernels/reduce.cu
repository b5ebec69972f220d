// Sums: of all elements, of columns, of rows.
#include "mx.cuh"
