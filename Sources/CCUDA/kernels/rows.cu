// Tables, gathered and scattered rows, cross-entropy.
#include "mx.cuh"
