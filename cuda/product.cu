/*
 * See product.h. In cuBLAS's column-major eyes a product is D [n, rows] = weight^T * in, both operands with k
 * contiguous ("TN", the layout tensor cores read directly).
 *
 * The promise. A row's numbers must not depend on how many other rows there are. A cuBLASLt algorithm is a
 * kernel (a tile size, a number of stages, an instruction) and a way to cut the sum over k. As long as that
 * sum is not cut, an element of D is accumulated by one thread block, in one chain of multiply-add
 * instructions from k = 0 to the end, whose order follows from the kernel alone: `rows` decides how many
 * tiles there are and which thread holds the element, and nothing else. So:
 *  - algorithms that cut the sum over blocks are excluded when candidates are asked for (reduction scheme
 * NONE, in the words of cublasLt.h "dot-product shall be performed in one sequence", and no workspace to put
 * partial sums in), and checked again (CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
 *  - the algorithm is asked for once for each shape of weight and type of output, for a fixed large number of
 * rows, and then used for any number;
 *  - a tile that is good for 18 000 rows leaves most of the device idle at 574. Smaller batches may therefore
 * use another kernel, but only one that was seen to give the same bits: when a shape is met first, each
 * candidate multiplies matrices made so that half of the results are nothing but the rounding errors of their
 * sums, and every element is compared with the first algorithm's. Two kernels that sum in different orders
 * disagree in most of a hundred thousand such elements; one that differs anywhere is not used. So the choice
 * by row class cannot change a number. (Plain random matrices were not enough: an output rounded to bfloat16
 * hid the order of its sum.)
 */
#include <stdlib.h>

#include "cuda/product.h"

enum {
  reference_rows = 8192,
  probe_rows = 200, /* no multiple of any tile */
  candidates = 8,
};

static const int class_limit[CUDA_ROW_CLASSES - 1] = {256, 640, 1280};

static cudaDataType_t act_type(const struct cuda_device *device) {
  return cuda_bf16(device) ? CUDA_R_16BF : CUDA_R_32F;
}

static cudaDataType_t out_type(const struct cuda_device *device, const struct cuda_product *p) {
  return p->float_out ? CUDA_R_32F : act_type(device);
}

static void product_free(struct cuda_product *p) {
  if (p->matmul) {
    cublasLtMatmulDescDestroy(p->matmul);
  }
  if (p->weight) {
    cublasLtMatrixLayoutDestroy(p->weight);
  }
  free(p);
}

void cuda_products_free(struct cuda_device *device) {
  for (struct cuda_product *p = device->products, *next; p; p = next) {
    next = p->next;
    product_free(p);
  }
  device->products = NULL;
}

/* Layouts of `in` and `out` with so many rows. */
static int layouts(const struct cuda_device *device, const struct cuda_product *p, int64_t rows,
                   cublasLtMatrixLayout_t *in, cublasLtMatrixLayout_t *out) {
  *in = *out = NULL;
  int status =
      BLAS_CHECK(cublasLtMatrixLayoutCreate(in, act_type(device), (uint64_t)p->k, (uint64_t)rows, p->k));
  if (!status) {
    status = BLAS_CHECK(
        cublasLtMatrixLayoutCreate(out, out_type(device, p), (uint64_t)p->n, (uint64_t)rows, p->n));
  }
  return status;
}

static void layouts_free(cublasLtMatrixLayout_t in, cublasLtMatrixLayout_t out) {
  if (in) {
    cublasLtMatrixLayoutDestroy(in);
  }
  if (out) {
    cublasLtMatrixLayoutDestroy(out);
  }
}

static int multiply(struct cuda_device *device, const struct cuda_product *p,
                    const cublasLtMatmulAlgo_t *algorithm, const void *weight, const void *in, int64_t rows,
                    void *out) {
  cublasLtMatrixLayout_t from, to;
  const float one = 1, beta = p->add ? 1.0f : 0.0f;
  int status = layouts(device, p, rows, &from, &to);
  if (!status) {
    status = BLAS_CHECK(cublasLtMatmul(device->blas, p->matmul, &one, weight, p->weight, in, from, &beta, out,
                                       to, out, to, algorithm, NULL, 0, device->stream));
  }
  layouts_free(from, to);
  return status;
}

static bool splits_sum(const cublasLtMatmulAlgo_t *algorithm) {
  int32_t splits = 0;
  uint32_t scheme = 0;
  size_t written;
  cublasStatus_t got = cublasLtMatmulAlgoConfigGetAttribute(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
                                                            &splits, sizeof splits, &written);
  if (got == CUBLAS_STATUS_SUCCESS) {
    got = cublasLtMatmulAlgoConfigGetAttribute(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme,
                                               sizeof scheme, &written);
  }
  return got != CUBLAS_STATUS_SUCCESS || splits > 1 || splits < 0 || scheme != CUBLASLT_REDUCTION_SCHEME_NONE;
}

/* Up to `candidates` algorithms for so many rows, best first, none of which cuts the sum. */
static int suggestions(struct cuda_device *device, const struct cuda_product *p, int64_t rows,
                       cublasLtMatmulAlgo_t *list, int *count) {
  cublasLtMatmulHeuristicResult_t results[candidates];
  cublasLtMatmulPreference_t preference = NULL;
  cublasLtMatrixLayout_t from, to;
  const uint32_t none = CUBLASLT_REDUCTION_SCHEME_NONE;
  const size_t no_bytes = 0;
  int found = 0;
  *count = 0;
  int status = layouts(device, p, rows, &from, &to);
  if (!status) {
    status = BLAS_CHECK(cublasLtMatmulPreferenceCreate(&preference));
  }
  if (!status) {
    status = BLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &none, sizeof none));
  }
  if (!status) {
    status = BLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &no_bytes, sizeof no_bytes));
  }
  /* Rows begin where the engine's do: at a multiple of 256 bytes as a rule, but only 16 are promised. */
  static const cublasLtMatmulPreferenceAttributes_t operands[] = {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                                                                  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                                                                  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
  for (int i = 0; i < 3 && !status; i++) {
    const uint32_t alignment = 16;
    status = BLAS_CHECK(
        cublasLtMatmulPreferenceSetAttribute(preference, operands[i], &alignment, sizeof alignment));
  }
  if (!status && cublasLtMatmulAlgoGetHeuristic(device->blas, p->matmul, p->weight, from, to, to, preference,
                                                candidates, results, &found) != CUBLAS_STATUS_SUCCESS) {
    found = 0; /* NOT_SUPPORTED: none for this shape */
  }
  for (int i = 0; i < found; i++) {
    if (results[i].state == CUBLAS_STATUS_SUCCESS && results[i].workspaceSize == 0 &&
        !splits_sum(&results[i].algo)) {
      list[(*count)++] = results[i].algo;
    }
  }
  if (preference) {
    cublasLtMatmulPreferenceDestroy(preference);
  }
  layouts_free(from, to);
  return status;
}

/* A matrix for the probe: numbers of many magnitudes below 1, by an integer hash (Steele, Lea, Flood:
 * SplitMix, OOPSLA 2014), whose second half of columns repeats the first; with the other sign in even rows
 * where `opposed`. The product of an opposed row with a plain one is 0 but for what rounding left on the way:
 * the order of the sum laid bare, so that not even an output rounded to bfloat16 can hide it. */
static __global__ void fill_probe(void *to, int64_t count, int k, bool opposed, bool bf16, uint64_t seed) {
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count;
       i += (int64_t)gridDim.x * blockDim.x) {
    int64_t row = i / k, column = i % k, half = k / 2;
    bool repeats = column >= half && column < 2 * half;
    uint64_t z = seed + (uint64_t)(repeats ? i - half : i) * 0x9E3779B97F4A7C15ull;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    z ^= z >> 31;
    float value = (float)(int32_t)(uint32_t)z * (1.0f / 2147483648.0f) / (float)(1u << (z >> 32 & 7u));
    if (column == 2 * half) {
      value = 0; /* an odd one has no partner */
    }
    value = opposed && repeats && row % 2 == 0 ? -value : value;
    if (bf16) {
      ((__nv_bfloat16 *)to)[i] = __float2bfloat16(value);
    } else {
      ((float *)to)[i] = value;
    }
  }
}

static __global__ void count_differences(const uint32_t *a, const uint32_t *b, int64_t words,
                                         int *differences) {
  int found = 0;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < words;
       i += (int64_t)gridDim.x * blockDim.x) {
    found += a[i] != b[i];
  }
  if (found) {
    atomicAdd(differences, found);
  }
}

/* What a candidate is tried on; results are compared in words of four bytes. */
struct probe {
  void *weight, *in, *expected, *got;
  int *differences;
  size_t out_bytes;
};

static void probe_free(struct cuda_device *device, struct probe *probe) {
  cuda_release(device, probe->weight);
  cuda_release(device, probe->in);
  cuda_release(device, probe->expected);
  cuda_release(device, probe->got);
  cuda_release(device, probe->differences);
}

static int probe_matrix(struct cuda_device *device, int64_t rows, int k, bool opposed, void **memory) {
  int64_t count = rows * k;
  int status = cuda_allocate(device, device->base.act_size * (size_t)count, memory);
  if (!status) {
    VAMP_LAUNCH(fill_probe, dim3(256), dim3(256), 0, device->stream, *memory, count, k, opposed,
                cuda_bf16(device), (uint64_t)(opposed ? 1 : 2));
    status = CUDA_CHECK(cudaGetLastError());
  }
  return status;
}

static int probe_open(struct cuda_device *device, const struct cuda_product *p, struct probe *probe) {
  void *differences = NULL;
  probe->out_bytes = (p->float_out ? 4 : device->base.act_size) * (size_t)probe_rows * (size_t)p->n;
  int status = probe_matrix(device, p->n, p->k, false, &probe->weight);
  if (!status) {
    status = probe_matrix(device, probe_rows, p->k, true, &probe->in);
  }
  if (!status) {
    status = cuda_allocate(device, probe->out_bytes, &probe->expected);
  }
  if (!status) {
    status = cuda_allocate(device, probe->out_bytes, &probe->got);
  }
  if (!status) {
    status = cuda_allocate(device, sizeof(int), &differences);
    probe->differences = (int *)differences;
  }
  return status;
}

static int probe_multiply(struct cuda_device *device, const struct cuda_product *p,
                          const cublasLtMatmulAlgo_t *algorithm, const struct probe *probe, void *out) {
  int status = CUDA_CHECK(cudaMemsetAsync(out, 0, probe->out_bytes, device->stream));
  return status ? status : multiply(device, p, algorithm, probe->weight, probe->in, probe_rows, out);
}

/* Whether the algorithm gives the bits of the reference, which is algorithm[CUDA_ROW_CLASSES - 1]. */
static int probe_agrees(struct cuda_device *device, const struct cuda_product *p,
                        const cublasLtMatmulAlgo_t *algorithm, const struct probe *probe, bool *agrees) {
  int differences = 0;
  int status = probe_multiply(device, p, algorithm, probe, probe->got);
  if (!status) {
    status = CUDA_CHECK(cudaMemsetAsync(probe->differences, 0, sizeof(int), device->stream));
  }
  if (!status) {
    VAMP_LAUNCH(count_differences, dim3(256), dim3(256), 0, device->stream, (const uint32_t *)probe->expected,
                (const uint32_t *)probe->got, (int64_t)(probe->out_bytes / 4), probe->differences);
    status = CUDA_CHECK(cudaGetLastError());
  }
  if (!status) {
    status = CUDA_CHECK(cudaMemcpyAsync(&differences, probe->differences, sizeof differences,
                                        cudaMemcpyDeviceToHost, device->stream));
  }
  if (!status) {
    status = CUDA_CHECK(cudaStreamSynchronize(device->stream));
  }
  *agrees = !status && differences == 0;
  return status;
}

/* For each class of fewer rows the first candidate that agrees with the reference. Where memory for the probe
 * is short the reference serves all: the choice costs time, never bits. */
static int choose_small(struct cuda_device *device, struct cuda_product *p) {
  struct probe probe = {};
  cublasLtMatmulAlgo_t list[candidates];
  const cublasLtMatmulAlgo_t *reference = &p->algorithm[CUDA_ROW_CLASSES - 1];
  int status = probe_open(device, p, &probe), count;
  if (!status) {
    status = probe_multiply(device, p, reference, &probe, probe.expected);
  }
  for (int c = 0; c < CUDA_ROW_CLASSES - 1 && !status; c++) {
    status = suggestions(device, p, class_limit[c], list, &count);
    bool agrees = false;
    for (int i = 0; i < count && !status && !agrees; i++) {
      status = probe_agrees(device, p, &list[i], &probe, &agrees);
      if (agrees) {
        p->algorithm[c] = list[i];
      }
    }
  }
  probe_free(device, &probe);
  return status == VAMP_MEMORY ? 0 : status;
}

static int product_make(struct cuda_device *device, int n, int k, bool float_out, bool add,
                        struct cuda_product **out) {
  struct cuda_product *p = (struct cuda_product *)calloc(1, sizeof *p);
  cublasLtMatmulAlgo_t list[candidates];
  const cublasOperation_t transposed = CUBLAS_OP_T;
  int count = 0, status;
  if (!p) {
    return VAMP_MEMORY;
  }
  p->n = n;
  p->k = k;
  p->float_out = float_out;
  p->add = add;
  status = BLAS_CHECK(cublasLtMatmulDescCreate(
      &p->matmul, cuda_tf32(device) ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F));
  if (!status) {
    status = BLAS_CHECK(cublasLtMatmulDescSetAttribute(p->matmul, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                                       sizeof transposed));
  }
  if (!status) {
    status =
        BLAS_CHECK(cublasLtMatrixLayoutCreate(&p->weight, act_type(device), (uint64_t)k, (uint64_t)n, k));
  }
  if (!status) {
    status = suggestions(device, p, reference_rows, list, &count);
  }
  if (status) {
    goto err;
  }
  p->plain = count == 0;
  for (int c = 0; c < CUDA_ROW_CLASSES && count > 0; c++) {
    p->algorithm[c] = list[0];
  }
  if (!p->plain) {
    status = choose_small(device, p);
    if (status) {
      goto err;
    }
  }
  *out = p;
  return 0;
err:
  product_free(p);
  return status;
}

int cuda_product_find(struct cuda_device *device, int n, int k, bool float_out, bool add,
                      struct cuda_product **out) {
  for (struct cuda_product *p = device->products; p; p = p->next) {
    if (p->n == n && p->k == k && p->float_out == float_out && p->add == add) {
      *out = p;
      return 0;
    }
  }
  int status = product_make(device, n, k, float_out, add, out);
  if (!status) {
    (*out)->next = device->products;
    device->products = *out;
  }
  return status;
}

int cuda_product_run(struct cuda_device *device, const struct cuda_product *p, const void *weight,
                     const void *in, int64_t rows, void *out) {
  int c = 0;
  while (c < CUDA_ROW_CLASSES - 1 && rows > class_limit[c]) {
    c++;
  }
  return multiply(device, p, &p->algorithm[c], weight, in, rows, out);
}
