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
 * rows, and then used for any number, if the library says that it can be (cublasLtMatmulAlgoCheck) and it was
 * seen to give one row, 200 and 1300 the bits that it gives them among 2600: nobody promises of an algorithm
 * that it runs one kernel only;
 *  - a tile that is good for 18 000 rows leaves most of the device idle at 574. Smaller batches may therefore
 * use another kernel, but only one that was seen to give the same bits: when a shape is met first, each
 * candidate multiplies matrices made so that half of the results are nothing but the rounding errors of their
 * sums, and every element is compared with the first algorithm's. Two kernels that sum in different orders
 * disagree in most of a hundred thousand such elements; one that differs anywhere, with the most rows of its
 * class or the fewest, is not used. So the choice by row class cannot change a number. (Plain random matrices
 * were not enough: an output rounded to bfloat16 hid the order of its sum.)
 */
#include <stdlib.h>

#include "cuda/product.h"

enum {
  reference_rows = 8192,
  probe_rows = 2600,
  drawn_rows = 200,    /* of the probe; the others repeat them */
  small_rows = 1300,   /* more than any class but the last has, and no multiple of any tile */
  most_rows = 1 << 17, /* more than a step takes; far beyond, kernels of 32-bit indices refuse */
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

static cublasStatus_t multiply(struct cuda_device *device, const struct cuda_product *p,
                               const cublasLtMatmulAlgo_t *algorithm, const void *weight, const void *in,
                               int64_t rows, void *out) {
  cublasLtMatrixLayout_t from, to;
  const float one = 1, beta = p->add ? 1.0f : 0.0f;
  cublasStatus_t status = CUBLAS_STATUS_ALLOC_FAILED;
  if (!layouts(device, p, rows, &from, &to)) {
    status = cublasLtMatmul(device->blas, p->matmul, &one, weight, p->weight, in, from, &beta, out, to, out,
                            to, algorithm, NULL, 0, device->stream);
  }
  layouts_free(from, to);
  return status;
}

/* Whether the library would run the algorithm on so many rows, without a workspace. */
static bool runs_on(struct cuda_device *device, const struct cuda_product *p,
                    const cublasLtMatmulAlgo_t *algorithm, int64_t rows) {
  cublasLtMatmulHeuristicResult_t result = {};
  cublasLtMatrixLayout_t from, to;
  bool runs = !layouts(device, p, rows, &from, &to) &&
              cublasLtMatmulAlgoCheck(device->blas, p->matmul, p->weight, from, to, to, algorithm, &result) ==
                  CUBLAS_STATUS_SUCCESS &&
              result.workspaceSize == 0;
  layouts_free(from, to);
  return runs;
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

/* Up to `candidates` algorithms for so many rows, best first, none of which cuts the sum, and all of which
 * run on `least` as well, and the last class's on any number. */
static int suggestions(struct cuda_device *device, const struct cuda_product *p, int64_t rows, int64_t least,
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
        !splits_sum(&results[i].algo) && runs_on(device, p, &results[i].algo, least) &&
        (rows < reference_rows || runs_on(device, p, &results[i].algo, most_rows))) {
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
  void *weight, *in;
  void *expected; /* the product of `rows` rows */
  void *got;      /* of up to small_rows, the same ones */
  int *differences;
  int64_t rows;
  size_t row_bytes;
};

static void probe_free(struct cuda_device *device, struct probe *probe) {
  cuda_release(device, probe->weight);
  cuda_release(device, probe->in);
  cuda_release(device, probe->expected);
  cuda_release(device, probe->got);
  cuda_release(device, probe->differences);
}

static int probe_matrix(struct cuda_device *device, int64_t rows, int k, bool opposed, int64_t drawn,
                        void **memory) {
  size_t row_bytes = device->base.act_size * (size_t)k;
  int status = cuda_allocate(device, row_bytes * (size_t)rows, memory);
  if (status) {
    return status;
  }
  VAMP_LAUNCH(fill_probe, dim3(256), dim3(256), 0, device->stream, *memory, drawn * k, k, opposed,
              cuda_bf16(device), (uint64_t)(opposed ? 1 : 2));
  CUDA_TRY(cudaGetLastError());
  for (int64_t row = drawn; row < rows; row += drawn) {
    size_t bytes = row_bytes * (size_t)(rows - row < drawn ? rows - row : drawn);
    CUDA_TRY(cudaMemcpyAsync((char *)*memory + row_bytes * (size_t)row, *memory, bytes,
                             cudaMemcpyDeviceToDevice, device->stream));
  }
  return 0;
}

static int probe_open(struct cuda_device *device, const struct cuda_product *p, int64_t rows,
                      struct probe *probe) {
  void *differences = NULL;
  probe->rows = rows;
  probe->row_bytes = (p->float_out ? 4 : device->base.act_size) * (size_t)p->n;
  int status = probe_matrix(device, p->n, p->k, false, p->n, &probe->weight);
  if (!status) {
    status = probe_matrix(device, rows, p->k, true, drawn_rows, &probe->in);
  }
  if (!status) {
    status = cuda_allocate(device, probe->row_bytes * (size_t)rows, &probe->expected);
  }
  if (!status) {
    status = cuda_allocate(device, probe->row_bytes * small_rows, &probe->got);
  }
  if (!status) {
    status = cuda_allocate(device, sizeof(int), &differences);
    probe->differences = (int *)differences;
  }
  if (status) {
    probe_free(device, probe);
    *probe = {};
  }
  return status;
}

/* false: the library refused. What it would say of a device that failed, the next wait says. */
static int probe_multiply(struct cuda_device *device, const struct cuda_product *p,
                          const cublasLtMatmulAlgo_t *algorithm, const struct probe *probe, int64_t rows,
                          void *out, bool *done) {
  CUDA_TRY(cudaMemsetAsync(out, 0, probe->row_bytes * (size_t)rows, device->stream));
  *done = multiply(device, p, algorithm, probe->weight, probe->in, rows, out) == CUBLAS_STATUS_SUCCESS;
  return 0;
}

/* Whether the algorithm gives the first so many rows the bits that are expected. */
static int probe_agrees(struct cuda_device *device, const struct cuda_product *p,
                        const cublasLtMatmulAlgo_t *algorithm, const struct probe *probe, int64_t rows,
                        bool *agrees) {
  int differences = 0;
  int status = probe_multiply(device, p, algorithm, probe, rows, probe->got, agrees);
  if (status || !*agrees) {
    return status;
  }
  CUDA_TRY(cudaMemsetAsync(probe->differences, 0, sizeof(int), device->stream));
  VAMP_LAUNCH(count_differences, dim3(256), dim3(256), 0, device->stream, (const uint32_t *)probe->expected,
              (const uint32_t *)probe->got, (int64_t)(probe->row_bytes * (size_t)rows / 4),
              probe->differences);
  CUDA_TRY(cudaGetLastError());
  CUDA_TRY(cudaMemcpyAsync(&differences, probe->differences, sizeof differences, cudaMemcpyDeviceToHost,
                           device->stream));
  CUDA_TRY(cudaStreamSynchronize(device->stream));
  *agrees = differences == 0;
  return 0;
}

/* Whether an algorithm may be the reference: it then serves any number of rows. */
static int reference_holds(struct cuda_device *device, const struct cuda_product *p,
                           const cublasLtMatmulAlgo_t *algorithm, const struct probe *probe, bool *holds) {
  static const int64_t ROWS[] = {1, 200, small_rows};
  int status = probe_multiply(device, p, algorithm, probe, probe->rows, probe->expected, holds);
  for (int i = 0; i < 3 && *holds && !status; i++) {
    status = probe_agrees(device, p, algorithm, probe, ROWS[i], holds);
  }
  return status;
}

/* The first of the candidates that holds; where none does the shape is `plain`, our own product's. */
static int choose_reference(struct cuda_device *device, struct cuda_product *p,
                            const cublasLtMatmulAlgo_t *list, int count, const struct probe *probe) {
  bool holds = false;
  int status = 0;
  for (int i = 0; i < count && !holds && !status; i++) {
    status = reference_holds(device, p, &list[i], probe, &holds);
    p->algorithm[CUDA_ROW_CLASSES - 1] = list[i];
  }
  p->plain = !holds;
  for (int c = 0; c < CUDA_ROW_CLASSES - 1; c++) {
    p->algorithm[c] = p->algorithm[CUDA_ROW_CLASSES - 1];
  }
  return status;
}

/* For each class of fewer rows the first candidate that agrees with the reference. */
static int choose_small(struct cuda_device *device, struct cuda_product *p, const struct probe *probe) {
  cublasLtMatmulAlgo_t list[candidates];
  int status = 0, count;
  for (int c = 0; c < CUDA_ROW_CLASSES - 1 && !status; c++) {
    int64_t most = class_limit[c], least = c > 0 ? class_limit[c - 1] + 1 : 1;
    status = suggestions(device, p, most, least, list, &count);
    bool agrees = false;
    for (int i = 0; i < count && !status && !agrees; i++) {
      status = probe_agrees(device, p, &list[i], probe, most, &agrees);
      if (agrees && !status) {
        status = probe_agrees(device, p, &list[i], probe, least, &agrees);
      }
      if (agrees && !status) {
        p->algorithm[c] = list[i];
      }
    }
  }
  return status;
}

/* Where memory for the probe is short even for few rows, the library's first candidate serves all: that is
 * what every kernel seen so far allows. */
static int choose(struct cuda_device *device, struct cuda_product *p) {
  struct probe probe = {};
  cublasLtMatmulAlgo_t list[candidates];
  int count, status = suggestions(device, p, reference_rows, 1, list, &count);
  p->plain = count == 0;
  if (status || p->plain) {
    return status;
  }
  for (int c = 0; c < CUDA_ROW_CLASSES; c++) {
    p->algorithm[c] = list[0];
  }
  status = probe_open(device, p, probe_rows, &probe);
  if (status == VAMP_MEMORY) {
    status = probe_open(device, p, small_rows, &probe);
  }
  if (status) {
    return status == VAMP_MEMORY ? 0 : status;
  }
  status = choose_reference(device, p, list, count, &probe);
  if (!status && !p->plain) {
    status = choose_small(device, p, &probe);
  }
  probe_free(device, &probe);
  return status;
}

static int product_make(struct cuda_device *device, int n, int k, bool float_out, bool add,
                        struct cuda_product **out) {
  struct cuda_product *p = (struct cuda_product *)calloc(1, sizeof *p);
  const cublasOperation_t transposed = CUBLAS_OP_T;
  int status;
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
    status = choose(device, p);
  }
  if (status) {
    goto err;
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
  return BLAS_CHECK(multiply(device, p, &p->algorithm[c], weight, in, rows, out));
}
