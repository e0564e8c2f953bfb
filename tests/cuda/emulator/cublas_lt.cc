/* The other face of matrix products: see cublasLt.h and gemm.h here. */
#include "cublasLt.h"

#include "gemm.h"

struct emulator_matmul {
  cublasComputeType_t compute;
  int transa, transb, epilogue;
  const void *bias;
  int bias_type; /* -1: D's */
};
struct emulator_layout {
  cudaDataType_t type;
  uint64_t rows, columns;
  int64_t leading;
  int32_t count;
  int64_t stride;
};
struct emulator_preference {
  size_t workspace;
};

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
  return cublasCreate(handle);
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  return cublasDestroy(handle);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *matmul, cublasComputeType_t compute,
                                        cudaDataType_t scale_type) {
  if (scale_type != CUDA_R_32F) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  *matmul = new emulator_matmul{compute, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, NULL, -1};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t matmul) {
  delete matmul;
  return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t take(void *to, size_t size, const void *value, size_t bytes) {
  if (size != bytes) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  memcpy(to, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t matmul,
                                              cublasLtMatmulDescAttributes_t attribute, const void *value,
                                              size_t bytes) {
  switch (attribute) {
  case CUBLASLT_MATMUL_DESC_TRANSA:
    return take(&matmul->transa, sizeof matmul->transa, value, bytes);
  case CUBLASLT_MATMUL_DESC_TRANSB:
    return take(&matmul->transb, sizeof matmul->transb, value, bytes);
  case CUBLASLT_MATMUL_DESC_EPILOGUE:
    return take(&matmul->epilogue, sizeof matmul->epilogue, value, bytes);
  case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
    return take(&matmul->bias, sizeof matmul->bias, value, bytes);
  case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
    return take(&matmul->bias_type, sizeof matmul->bias_type, value, bytes);
  default:
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type, uint64_t rows,
                                          uint64_t columns, int64_t leading) {
  *layout = new emulator_layout{type, rows, columns, leading, 1, 0};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void *value,
                                                size_t bytes) {
  if (attribute == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT) {
    return take(&layout->count, sizeof layout->count, value, bytes);
  }
  return take(&layout->stride, sizeof layout->stride, value, bytes);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
  *preference = new emulator_preference{0};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes) {
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) {
    return take(&preference->workspace, sizeof preference->workspace, value, bytes);
  }
  return CUBLAS_STATUS_SUCCESS;
}

/* For few columns of B another algorithm is named first, whose sums have another order and so other bits: as
 * the real library may prefer another kernel there. For many, one whose order depends on how many there are,
 * and one that does not run on few. Who needs a column's bits to be independent of their number must notice.
 */
enum { FORWARDS, BACKWARDS, FICKLE, LARGE_ONLY };
#define FEW_COLUMNS 2048
#define FICKLE_COLUMNS 1000
#define LARGE_COLUMNS 16

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t,
                                              int requested, cublasLtMatmulHeuristicResult_t *results,
                                              int *returned) {
  static const uint64_t few[] = {BACKWARDS, FORWARDS}, many[] = {LARGE_ONLY, FICKLE, FORWARDS};
  const uint64_t *offered = d->columns < FEW_COLUMNS ? few : many;
  int count = d->columns < FEW_COLUMNS ? 2 : 3;
  *returned = requested < count ? requested : count;
  for (int i = 0; i < *returned; i++) {
    results[i] = {};
    results[i].wavesCount = 1;
    results[i].algo.data[0] = offered[i];
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                       cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                       cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result) {
  *result = {};
  result->algo = *algo;
  return algo->data[0] == LARGE_ONLY && d->columns < LARGE_COLUMNS ? CUBLAS_STATUS_NOT_SUPPORTED
                                                                   : CUBLAS_STATUS_SUCCESS;
}

/* What the kernels that are offered were asked to do with: see CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES. */
static bool aligned(const void *memory) {
  return (uintptr_t)memory % 16 == 0;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void *value, size_t bytes, size_t *written) {
  int32_t number = attribute == CUBLASLT_ALGO_CONFIG_SPLITK_NUM ? 1 : 0;
  if (written) {
    *written = sizeof number;
  }
  return take(value, bytes, &number, sizeof number);
}

static emulator_matrix matrix(const void *memory, cublasLtMatrixLayout_t layout, int transposed) {
  return {(void *)memory, layout->type, transposed != CUBLAS_OP_N, layout->leading, layout->stride};
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t matmul, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream) {
  uint64_t rows = matmul->transa ? a_layout->columns : a_layout->rows;
  uint64_t depth = matmul->transa ? a_layout->rows : a_layout->columns;
  uint64_t columns = matmul->transb ? b_layout->rows : b_layout->columns;
  if (depth != (matmul->transb ? b_layout->columns : b_layout->rows) || rows != d_layout->rows ||
      columns != d_layout->columns || c_layout->rows != rows || c_layout->columns != columns ||
      a_layout->count != d_layout->count || b_layout->count != d_layout->count) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (a_layout->type != b_layout->type ||
      (workspace_bytes && !emulator_is_live(workspace, workspace_bytes))) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  uint64_t order = algo ? algo->data[0] : FORWARDS;
  if (!aligned(a) || !aligned(b) || !aligned(c) || !aligned(d) ||
      (order == LARGE_ONLY && columns < LARGE_COLUMNS)) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  bool biased = matmul->epilogue == CUBLASLT_EPILOGUE_BIAS || matmul->epilogue == CUBLASLT_EPILOGUE_GELU_BIAS;
  std::shared_ptr<emulator_gemm> gemm = std::make_shared<emulator_gemm>();
  gemm->m = (int64_t)rows;
  gemm->n = (int64_t)columns;
  gemm->k = (int64_t)depth;
  gemm->count = d_layout->count;
  gemm->alpha = *(const float *)alpha;
  gemm->beta = *(const float *)beta;
  gemm->backwards = order == BACKWARDS || (order == FICKLE && columns < FICKLE_COLUMNS);
  gemm->tf32 = a_layout->type == CUDA_R_32F && matmul->compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  gemm->gelu = matmul->epilogue == CUBLASLT_EPILOGUE_GELU || matmul->epilogue == CUBLASLT_EPILOGUE_GELU_BIAS;
  gemm->a = matrix(a, a_layout, matmul->transa);
  gemm->b = matrix(b, b_layout, matmul->transb);
  gemm->c = matrix(c, c_layout, CUBLAS_OP_N);
  gemm->d = matrix(d, d_layout, CUBLAS_OP_N);
  gemm->bias = biased ? matmul->bias : NULL;
  gemm->bias_type = matmul->bias_type < 0 ? d_layout->type : (cudaDataType_t)matmul->bias_type;
  return emulator_gemm_enqueue(gemm, stream);
}
