// Attention that never stores the scores, forward and backward.
#include "mx.cuh"
