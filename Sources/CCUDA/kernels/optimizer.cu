// AdamW, SGD and the clip factor.
#include "mx.cuh"
