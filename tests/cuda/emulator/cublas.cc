/*
 * Matrix products: see cublas_v2.h and gemm.h here. One element is one sum in float in the order of k
 * (or backwards, as the algorithm says), whatever the other dimensions are, so that a row's result does not
 * depend on how many rows there are. (That the real library keeps this promise is for make check-gpu to
 * show.) All that is read and written is checked to be live device memory.
 */
#include "cublas_v2.h"

#include "cuda_bf16.h"
#include "gemm.h"

struct emulator_cublas {
  cudaStream_t stream;
  cublasMath_t math;
};

static float element(const emulator_matrix *matrix, int product, int64_t row, int64_t column) {
  int64_t at = product * matrix->stride +
               (matrix->transposed ? row * matrix->leading + column : column * matrix->leading + row);
  if (matrix->type == CUDA_R_16BF) {
    return __bfloat162float(((const __nv_bfloat16 *)matrix->memory)[at]);
  }
  return ((const float *)matrix->memory)[at];
}

/* As a tensor core sees it. */
static float narrowed(float value, bool tf32) {
  return tf32 ? __uint_as_float(__float_as_uint(value) & 0xffffe000u) : value;
}

static void check(const emulator_matrix *matrix, int64_t rows, int64_t columns, int count, const char *name) {
  if (matrix->transposed) {
    std::swap(rows, columns);
  }
  size_t size = matrix->type == CUDA_R_16BF ? 2 : 4;
  for (int product = 0; product < count; product++) {
    for (int64_t column = 0; column < columns; column++) {
      const char *at = (const char *)matrix->memory;
      at += (size_t)(product * matrix->stride + column * matrix->leading) * size;
      if (!emulator_is_live(at, (size_t)rows * size)) {
        emulator_host_fault(
            NULL, "cuBLAS: column %lld of %s, %lld elements at %p, is not in one live piece of device memory",
            (long long)column, name, (long long)rows, (const void *)at);
      }
    }
  }
}

static void store(const emulator_matrix *d, int product, int64_t row, int64_t column, float value) {
  int64_t at = product * d->stride + column * d->leading + row;
  if (d->type == CUDA_R_16BF) {
    ((__nv_bfloat16 *)d->memory)[at] = __float2bfloat16_rn(value);
  } else {
    ((float *)d->memory)[at] = value;
  }
}

static float gelu_tanh(float x) {
  return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}

bool emulator_gemm::run() {
  check(&a, m, k, count, "A");
  check(&b, k, n, count, "B");
  check(&d, m, n, count, "D");
  if (beta != 0) {
    check(&c, m, n, count, "C");
  }
  std::vector<float> left((size_t)(m * k)), sum((size_t)m), weights((size_t)k);
  for (int product = 0; product < count; product++) {
    for (int64_t p = 0; p < k; p++) {
      for (int64_t i = 0; i < m; i++) {
        left[(size_t)(p * m + i)] = narrowed(element(&a, product, i, p), tf32);
      }
    }
    for (int64_t j = 0; j < n; j++) {
      std::fill(sum.begin(), sum.end(), 0.0f);
      for (int64_t step = 0; step < k; step++) {
        int64_t p = backwards ? k - 1 - step : step;
        float weight = narrowed(element(&b, product, p, j), tf32);
        const float *column = &left[(size_t)(p * m)];
        for (int64_t i = 0; i < m; i++) {
          sum[(size_t)i] += column[i] * weight;
        }
      }
      for (int64_t i = 0; i < m; i++) {
        float value = alpha * sum[(size_t)i];
        value += beta != 0 ? beta * element(&c, product, i, j) : 0.0f;
        if (bias) {
          emulator_matrix vector = {(void *)bias, bias_type, false, 0, 0};
          check(&vector, m, 1, 1, "the bias");
          value += element(&vector, 0, i, 0);
        }
        store(&d, product, i, j, gelu ? gelu_tanh(value) : value);
      }
    }
  }
  return true;
}

static bool fits(const emulator_matrix *matrix, int64_t rows) {
  return matrix->leading >= (rows > 1 ? rows : 1);
}

cublasStatus_t emulator_gemm_enqueue(std::shared_ptr<emulator_gemm> gemm, cudaStream_t stream) {
  if (gemm->m < 0 || gemm->n < 0 || gemm->k < 0 || gemm->count < 0 || gemm->c.transposed ||
      !fits(&gemm->a, gemm->a.transposed ? gemm->k : gemm->m) ||
      !fits(&gemm->b, gemm->b.transposed ? gemm->n : gemm->k) || !fits(&gemm->c, gemm->m) ||
      !fits(&gemm->d, gemm->m)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  emulator_lock lock = emulator_api_lock();
  return emulator_enqueue(stream, gemm) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                       : CUBLAS_STATUS_EXECUTION_FAILED;
}

const char *cublasGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS         ? "success"
         : status == CUBLAS_STATUS_INVALID_VALUE ? "invalid value"
                                                 : "a failure of the emulator's cuBLAS";
}

cublasStatus_t cublasCreate(cublasHandle_t *handle) {
  *handle = new emulator_cublas{NULL, CUBLAS_DEFAULT_MATH};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  handle->math = mode;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetAtomicsMode(cublasHandle_t, cublasAtomicsMode_t) {
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace(cublasHandle_t, void *workspace, size_t bytes) {
  emulator_lock lock = emulator_api_lock();
  return emulator_is_live(workspace, bytes) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t transa,
                                          cublasOperation_t transb, int m, int n, int k, const void *alpha,
                                          const void *a, cudaDataType_t a_type, int lda, long long a_stride,
                                          const void *b, cudaDataType_t b_type, int ldb, long long b_stride,
                                          const void *beta, void *c, cudaDataType_t c_type, int ldc,
                                          long long c_stride, int count, cublasComputeType_t compute,
                                          cublasGemmAlgo_t) {
  if (a_type != b_type || (a_type == CUDA_R_32F && c_type != CUDA_R_32F)) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  std::shared_ptr<emulator_gemm> gemm = std::make_shared<emulator_gemm>();
  gemm->m = m;
  gemm->n = n;
  gemm->k = k;
  gemm->count = count;
  gemm->alpha = *(const float *)alpha;
  gemm->beta = *(const float *)beta;
  gemm->tf32 =
      a_type == CUDA_R_32F && (compute == CUBLAS_COMPUTE_32F_FAST_TF32 ||
                               (compute == CUBLAS_COMPUTE_32F && handle->math == CUBLAS_TF32_TENSOR_OP_MATH));
  gemm->a = {(void *)a, a_type, transa != CUBLAS_OP_N, lda, a_stride};
  gemm->b = {(void *)b, b_type, transb != CUBLAS_OP_N, ldb, b_stride};
  gemm->c = gemm->d = {c, c_type, false, ldc, c_stride};
  return emulator_gemm_enqueue(gemm, handle->stream);
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m,
                            int n, int k, const void *alpha, const void *a, cudaDataType_t a_type, int lda,
                            const void *b, cudaDataType_t b_type, int ldb, const void *beta, void *c,
                            cudaDataType_t c_type, int ldc, cublasComputeType_t compute,
                            cublasGemmAlgo_t algo) {
  return cublasGemmStridedBatchedEx(handle, transa, transb, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb,
                                    0, beta, c, c_type, ldc, 0, 1, compute, algo);
}

cublasStatus_t cublasSgemm(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m,
                           int n, int k, const float *alpha, const float *a, int lda, const float *b, int ldb,
                           const float *beta, float *c, int ldc) {
  return cublasGemmEx(handle, transa, transb, m, n, k, alpha, a, CUDA_R_32F, lda, b, CUDA_R_32F, ldb, beta, c,
                      CUDA_R_32F, ldc, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
}
