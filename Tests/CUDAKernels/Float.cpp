#define MX_REAL float
#define MX_IS_WATCHED false
#include "Kernels.hpp"
