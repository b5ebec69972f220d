// The hidden rows of the experts in one pass, forward and backward.
#include "mx.cuh"
