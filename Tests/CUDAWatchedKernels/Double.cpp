#define MX_REAL double
#define MX_IS_WATCHED true
#include "Kernels.hpp"
