// All kernels for one precision, compiled by the host: `MX_REAL` and `MX_IS_WATCHED` are given.
#include "Device.hpp"

namespace {
#include "../../Sources/CCUDA/kernels/elementwise.cu"
#include "../../Sources/CCUDA/kernels/reduce.cu"
#include "../../Sources/CCUDA/kernels/gemm.cu"
#include "../../Sources/CCUDA/kernels/norm.cu"
#include "../../Sources/CCUDA/kernels/rows.cu"
#include "../../Sources/CCUDA/kernels/optimizer.cu"
#include "../../Sources/CCUDA/kernels/attention.cu"
#include "../../Sources/CCUDA/kernels/routing.cu"
#include "../../Sources/CCUDA/kernels/expert.cu"
#include "../../Sources/CCUDA/kernels/encoded.cu"
}  // namespace
