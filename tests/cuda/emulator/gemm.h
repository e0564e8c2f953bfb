/* One matrix product as both faces of cuBLAS describe it: column-major, D = epilogue(alpha op(A) op(B) + beta
 * C). */
#ifndef EMULATOR_GEMM_H
#define EMULATOR_GEMM_H

#include "cublasLt.h"
#include "internal.h"

struct emulator_matrix {
  void *memory;
  cudaDataType_t type;
  bool transposed;
  int64_t leading, stride; /* elements from column to column, from product to product */
};

struct emulator_gemm : emulator_work {
  int64_t m, n, k;
  int count;
  float alpha, beta;
  bool tf32, gelu;
  bool backwards; /* sums over k from the end: another algorithm, with other bits */
  emulator_matrix a, b, c, d;
  const void *bias; /* [m] or NULL */
  cudaDataType_t bias_type;
  bool run() override;
};

/* CUBLAS_STATUS_INVALID_VALUE where a size or a leading dimension makes no sense. */
EMULATOR_INSIDE cublasStatus_t emulator_gemm_enqueue(std::shared_ptr<emulator_gemm> gemm,
                                                     cudaStream_t stream);

#endif
