// Softmax, choice, the plan of the experts, and rows that follow it.
#include "mx.cuh"
