#define MX_REAL double
#define MX_IS_WATCHED false
#include "Kernels.hpp"
