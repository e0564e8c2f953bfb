/*
 * The device's own rate of multiplying matrices: the yardstick of tools/measure/gpu.
 *
 *   matrix_rate [SIZE]     a SIZE x SIZE product (8192), bf16 in, float sums, by cuBLAS
 *
 * Prints TFLOP/s: the best of twenty runs after a warm-up, which is what the device can do and not what it
 * does while hot or shared. Operands are random: zeros take less power, and a device that may clock higher
 * would flatter itself.
 */
#include <stdio.h>
#include <stdlib.h>

#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#define TRY(call)                                                                                            \
  if ((call) != 0) {                                                                                         \
    fprintf(stderr, "matrix_rate: %s failed\n", #call);                                                      \
    return 1;                                                                                                \
  }

enum { WARM_UP = 3, RUNS = 20 };

static int fill(__nv_bfloat16 *device, size_t count) {
  __nv_bfloat16 *host = (__nv_bfloat16 *)malloc(count * sizeof *host);
  if (!host) {
    return -1;
  }
  unsigned long long state = 1;
  for (size_t i = 0; i < count; i++) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    host[i] = __float2bfloat16((float)(state >> 40) / 16777216.0f - 0.5f);
  }
  cudaError_t status = cudaMemcpy(device, host, count * sizeof *host, cudaMemcpyHostToDevice);
  free(host);
  return status == cudaSuccess ? 0 : -1;
}

int main(int argc, char **argv) {
  int size = argc > 1 ? atoi(argv[1]) : 8192;
  if (size < 16 || size > 32768) {
    fprintf(stderr, "usage: matrix_rate [SIZE]\n");
    return 2;
  }
  size_t count = (size_t)size * (size_t)size;
  __nv_bfloat16 *a, *b, *c;
  cublasHandle_t blas;
  cudaEvent_t begin, end;
  TRY(cudaMalloc((void **)&a, count * sizeof *a));
  TRY(cudaMalloc((void **)&b, count * sizeof *b));
  TRY(cudaMalloc((void **)&c, count * sizeof *c));
  TRY(fill(a, count));
  TRY(fill(b, count));
  TRY(cublasCreate(&blas));
  TRY(cudaEventCreate(&begin));
  TRY(cudaEventCreate(&end));
  const float one = 1, zero = 0;
  float best = 0;
  for (int run = 0; run < WARM_UP + RUNS; run++) {
    float milliseconds = 0;
    TRY(cudaEventRecord(begin, 0));
    TRY(cublasGemmEx(blas, CUBLAS_OP_T, CUBLAS_OP_N, size, size, size, &one, a, CUDA_R_16BF, size, b,
                     CUDA_R_16BF, size, &zero, c, CUDA_R_16BF, size, CUBLAS_COMPUTE_32F,
                     CUBLAS_GEMM_DEFAULT));
    TRY(cudaEventRecord(end, 0));
    TRY(cudaEventSynchronize(end));
    TRY(cudaEventElapsedTime(&milliseconds, begin, end));
    if (run >= WARM_UP && (best == 0 || milliseconds < best)) {
      best = milliseconds;
    }
  }
  printf("%.6g\n", 2.0 * (double)size * (double)count / ((double)best * 1e9));
  cublasDestroy(blas);
  cudaFree(a);
  cudaFree(b);
  cudaFree(c);
  return 0;
}
