// RMS norms and rotary embedding: a block a row, a thread a pair.
#include "mx.cuh"
