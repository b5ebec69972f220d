#include "CCUDA.h"

static const char header[] = {
#embed "kernels/mx.cuh"
    , 0};
static const char elementwise[] = {
#embed "kernels/elementwise.cu"
    , 0};
static const char reduce[] = {
#embed "kernels/reduce.cu"
    , 0};
static const char gemm[] = {
#embed "kernels/gemm.cu"
    , 0};
static const char norm[] = {
#embed "kernels/norm.cu"
    , 0};
static const char rows[] = {
#embed "kernels/rows.cu"
    , 0};
static const char optimizer[] = {
#embed "kernels/optimizer.cu"
    , 0};
static const char attention[] = {
#embed "kernels/attention.cu"
    , 0};
static const char routing[] = {
#embed "kernels/routing.cu"
    , 0};
static const char expert[] = {
#embed "kernels/expert.cu"
    , 0};
static const char encoded[] = {
#embed "kernels/encoded.cu"
    , 0};

static const struct cuda_source sources[] = {
    {"mx.cuh", header},
    {"elementwise.cu", elementwise},
    {"reduce.cu", reduce},
    {"gemm.cu", gemm},
    {"norm.cu", norm},
    {"rows.cu", rows},
    {"optimizer.cu", optimizer},
    {"attention.cu", attention},
    {"routing.cu", routing},
    {"expert.cu", expert},
    {"encoded.cu", encoded},
};

const struct cuda_source *cuda_sources(int *count) {
  *count = sizeof sources / sizeof *sources;
  return sources;
}
