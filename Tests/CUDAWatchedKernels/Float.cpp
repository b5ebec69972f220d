#define MX_REAL float
#define MX_IS_WATCHED true
#include "Kernels.hpp"
