// Frozen matrices as they are stored: decoding, and products of few rows.
#include "mx.cuh"
