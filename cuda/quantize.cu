/*
 * The residual vector quantiser (van den Oord et al. 2017; Zeghidour et al. 2021), both ways, in float
 * whatever the precision: a wrong token is worth more than the time.
 *
 * What a code adds to the latent depends on the code alone, so it is folded at creation: out_proj(table row)
 * + bias, a table [codebooks, entries, width] (57 MB for the official codec). Codes to latent is then a sum
 * of gathered rows, and quantising subtracts the row of each level.
 *
 * Quantising: all levels in one kernel. A warp takes four rows, whose residual stays in shared memory; each
 * weight it loads serves all four. Projection: lanes along the width, 4 x 8 partial sums each, which 31
 * shuffles turn into one whole sum for each lane. Search: lanes along the entries of a transposed table of
 * unit vectors; |z - c|^2 is least where z c - |c|^2 / 2 is largest, and of equal ones the first is taken.
 *
 * Rejected: a block for each row, which reads all weights (1.4 MB) again for every row.
 */
#include <math.h>
#include <stdlib.h>

#include "cuda/internal.h"
#include "cuda/launch.cuh"

enum { WARPS = 2, ROWS = 4, PART = 8 };

struct cuda_quantizer {
  struct vamp_weight base;
  int codebooks, entries, dimensions, width;
  float *in_weight;    /* [codebooks, dimensions, width] */
  float *in_bias;      /* [codebooks, dimensions] */
  float *directions;   /* [codebooks, dimensions, entries]: rows of the table, normalised, transposed */
  float *half_squares; /* [codebooks, entries]: half the squared norm of each direction */
  float *folded;       /* [codebooks, entries, width] */
};

/* The device's view, by value. */
struct quantizer_view {
  int codebooks, entries, dimensions, width;
  const float *in_weight, *in_bias, *directions, *half_squares, *folded;
};

/* ---- kernels -------------------------------------------------------------------------------------- */

/* value[i] of all lanes summed up, for i = lane. */
static __device__ __forceinline__ float transpose_sum(float value[32], int lane) {
#pragma unroll
  for (int step = 0; step < 5; step++) {
    const int half = 16 >> step;
    const bool upper = lane & half;
#pragma unroll
    for (int i = 0; i < 16; i++) {
      if (i < half) {
        float keep = upper ? value[i + half] : value[i];
        float give = upper ? value[i] : value[i + half];
        value[i] = keep + __shfl_xor_sync(0xffffffff, give, half);
      }
    }
  }
  return value[0];
}

/* z [ROWS, dimensions] in shared memory = in_proj(residual [ROWS, width]), scaled to length 1. */
static __device__ __forceinline__ void project(const struct quantizer_view &q, int level, int lane,
                                               const float *residual, float *z) {
  const float *weight = q.in_weight + (size_t)level * q.dimensions * q.width;
  for (int d = 0; d < q.dimensions; d += PART) {
    float part[ROWS * PART];
#pragma unroll
    for (int i = 0; i < ROWS * PART; i++) {
      part[i] = 0;
    }
    for (int w = lane; w < q.width; w += 32) {
      float x[ROWS];
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        x[r] = residual[r * q.width + w];
      }
#pragma unroll
      for (int i = 0; i < PART; i++) {
        float factor = d + i < q.dimensions ? weight[(size_t)(d + i) * q.width + w] : 0;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
          part[r * PART + i] = fmaf(factor, x[r], part[r * PART + i]);
        }
      }
    }
    float sum = transpose_sum(part, lane);
    if (d + lane % PART < q.dimensions) {
      z[lane / PART * q.dimensions + d + lane % PART] =
          sum + q.in_bias[level * q.dimensions + d + lane % PART];
    }
  }
  __syncwarp();
  float square = 0;
  for (int d = 0; d < q.dimensions; d++) {
    float x = z[lane % ROWS * q.dimensions + d];
    square = fmaf(x, x, square);
  }
  /* A length of at least 1e-12. Its last bits do not matter: they scale every entry's product alike. */
  float inverse = rsqrtf(fmaxf(square, 1e-24f));
  __syncwarp();
  if (lane < ROWS) {
    for (int d = 0; d < q.dimensions; d++) {
      z[lane * q.dimensions + d] *= inverse;
    }
  }
  __syncwarp();
}

/* The entries nearest to z [ROWS, dimensions], in all lanes. D: the dimensions where known, or 0. */
template <int D>
static __device__ __forceinline__ void search(const struct quantizer_view &q, int level, int lane,
                                              const float *z, int code[ROWS]) {
  const int dimensions = D > 0 ? D : q.dimensions;
  const float *directions = q.directions + (size_t)level * dimensions * q.entries;
  const float *half_squares = q.half_squares + (size_t)level * q.entries;
  float best[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    best[r] = -INFINITY;
    code[r] = 0;
  }
  for (int e = lane; e < q.entries; e += 32) {
    float score[ROWS];
    float start = -half_squares[e];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      score[r] = start;
    }
#pragma unroll
    for (int d = 0; d < dimensions; d++) {
      float direction = directions[(size_t)d * q.entries + e];
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        score[r] = fmaf(direction, z[r * dimensions + d], score[r]);
      }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      if (score[r] > best[r]) {
        best[r] = score[r];
        code[r] = e;
      }
    }
  }
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
#pragma unroll
    for (int half = 16; half > 0; half /= 2) {
      float other = __shfl_xor_sync(0xffffffff, best[r], half);
      int its = __shfl_xor_sync(0xffffffff, code[r], half);
      if (other > best[r] || (other == best[r] && its < code[r])) {
        best[r] = other;
        code[r] = its;
      }
    }
  }
}

template <int D>
__global__ void __launch_bounds__(WARPS * 32, 8)
    quantize_kernel(const struct quantizer_view q, int64_t rows, const float *latent, int32_t *codes) {
  VAMP_SHARED(float, shared);
  const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  const int64_t first = ((int64_t)blockIdx.x * WARPS + warp) * ROWS;
  float *residual = shared + warp * ROWS * (q.width + q.dimensions), *z = residual + ROWS * q.width;
  for (int r = 0; r < ROWS; r++) {
    for (int w = lane; w < q.width; w += 32) {
      residual[r * q.width + w] = first + r < rows ? latent[(first + r) * q.width + w] : 0;
    }
  }
  /* A lane reads only what it wrote, but z. */
  for (int level = 0; level < q.codebooks; level++) {
    int code[ROWS];
    project(q, level, lane, residual, z);
    search<D>(q, level, lane, z, code);
    __syncwarp();
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const float *row = q.folded + ((size_t)level * q.entries + code[r]) * q.width;
      for (int w = lane; w < q.width; w += 32) {
        residual[r * q.width + w] -= row[w];
      }
      if (lane == r && first + r < rows) {
        codes[(first + r) * q.codebooks + level] = code[r];
      }
    }
  }
}

enum { GATHER_THREADS = 256 };

/* A thread has one element of the latent. */
__global__ void __launch_bounds__(GATHER_THREADS)
    dequantize_kernel(const struct quantizer_view q, int64_t rows, const int32_t *codes, float *latent) {
  int64_t at = (int64_t)blockIdx.x * GATHER_THREADS + threadIdx.x;
  if (at >= rows * q.width) {
    return;
  }
  int64_t row = at / q.width;
  int w = (int)(at - row * q.width);
  float sum = 0;
  for (int level = 0; level < q.codebooks; level++) {
    int32_t code = codes[row * q.codebooks + level];
    sum += q.folded[((size_t)level * q.entries + code) * q.width + w];
  }
  latent[at] = sum;
}

/* ---- launch --------------------------------------------------------------------------------------- */

static struct quantizer_view view(const struct cuda_quantizer *q) {
  struct quantizer_view v = {q->codebooks, q->entries,    q->dimensions,   q->width, q->in_weight,
                             q->in_bias,   q->directions, q->half_squares, q->folded};
  return v;
}

static size_t shared_bytes(int width, int dimensions) {
  return sizeof(float) * WARPS * ROWS * ((size_t)width + (size_t)dimensions);
}

template <int D>
static int launch(struct cuda_device *device, const struct cuda_quantizer *q, int64_t rows,
                  const float *latent, int32_t *codes) {
  size_t bytes = shared_bytes(q->width, q->dimensions);
  CUDA_TRY(cuda_allow_shared((const void *)quantize_kernel<D>, bytes));
  int64_t blocks = (rows + WARPS * ROWS - 1) / (WARPS * ROWS);
  VAMP_LAUNCH(quantize_kernel<D>, dim3((unsigned)blocks), dim3(WARPS * 32), bytes, device->stream, view(q),
              rows, latent, codes);
  CUDA_TRY(cudaGetLastError());
  return 0;
}

int cuda_quantize(struct vamp_device *base, const struct vamp_weight *quantizer, int64_t rows, float *latent,
                  int32_t *codes, float *quantized) {
  struct cuda_device *device = cuda_device(base);
  const struct cuda_quantizer *q = (const struct cuda_quantizer *)quantizer;
  if (rows == 0) {
    return 0;
  }
  int status = q->dimensions == 8 ? launch<8>(device, q, rows, latent, codes)
                                  : launch<0>(device, q, rows, latent, codes);
  if (!status && quantized) {
    status = cuda_dequantize(base, quantizer, rows, codes, quantized);
  }
  return status;
}

int cuda_dequantize(struct vamp_device *base, const struct vamp_weight *quantizer, int64_t rows,
                    const int32_t *codes, float *latent) {
  struct cuda_device *device = cuda_device(base);
  const struct cuda_quantizer *q = (const struct cuda_quantizer *)quantizer;
  int64_t blocks = (rows * q->width + GATHER_THREADS - 1) / GATHER_THREADS;
  if (rows == 0) {
    return 0;
  }
  VAMP_LAUNCH(dequantize_kernel, dim3((unsigned)blocks), dim3(GATHER_THREADS), 0, device->stream, view(q),
              rows, codes, latent);
  CUDA_TRY(cudaGetLastError());
  return 0;
}

/* ---- creation ------------------------------------------------------------------------------------- */

/* Rows of each table divided by their norm (at least 1e-12), and half the squares of the quotients: 1/2, up
 * to rounding that must not decide, but for a row of zeros. */
static void normalise(const struct cuda_quantizer *q, const float *table, float *directions,
                      float *half_squares) {
  size_t entries = (size_t)q->entries, dimensions = (size_t)q->dimensions;
  for (size_t c = 0; c < (size_t)q->codebooks; c++) {
    for (size_t e = 0; e < entries; e++) {
      const float *row = table + (c * entries + e) * dimensions;
      float norm = 0, square = 0;
      for (size_t d = 0; d < dimensions; d++) {
        norm += row[d] * row[d];
      }
      norm = fmaxf(sqrtf(norm), 1e-12f);
      for (size_t d = 0; d < dimensions; d++) {
        directions[(c * dimensions + d) * entries + e] = row[d] / norm;
        square += row[d] / norm * (row[d] / norm);
      }
      half_squares[c * entries + e] = square > 0.5f ? 0.5f : square / 2;
    }
  }
}

static void fold(const struct cuda_quantizer *q, const float *table, const float *out_weight,
                 const float *out_bias, float *folded) {
  size_t entries = (size_t)q->entries, dimensions = (size_t)q->dimensions, width = (size_t)q->width;
  for (size_t c = 0; c < (size_t)q->codebooks; c++) {
    for (size_t e = 0; e < entries; e++) {
      const float *row = table + (c * entries + e) * dimensions;
      float *to = folded + (c * entries + e) * width;
      for (size_t w = 0; w < width; w++) {
        float sum = out_bias[c * width + w];
        for (size_t d = 0; d < dimensions; d++) {
          sum += row[d] * out_weight[(c * width + w) * dimensions + d];
        }
        to[w] = sum;
      }
    }
  }
}

void cuda_quantizer_free(struct cuda_device *device, struct vamp_weight *quantizer) {
  struct cuda_quantizer *q = (struct cuda_quantizer *)quantizer;
  if (q) {
    cuda_release(device, q->in_weight);
    cuda_release(device, q->in_bias);
    cuda_release(device, q->directions);
    cuda_release(device, q->half_squares);
    cuda_release(device, q->folded);
    free(q);
  }
}

static int upload(struct cuda_device *device, const float *from, size_t count, float **to) {
  void *memory = NULL;
  int status = cuda_upload_new(device, from, sizeof *from * count, &memory);
  *to = (float *)memory;
  return status;
}

static int upload_tables(struct cuda_device *device, struct cuda_quantizer *q, const float *in_weight,
                         const float *in_bias, const float *table, const float *out_weight,
                         const float *out_bias) {
  size_t c = (size_t)q->codebooks, d = (size_t)q->dimensions, e = (size_t)q->entries, w = (size_t)q->width;
  float *directions = (float *)malloc(sizeof(float) * c * d * e);
  float *half_squares = (float *)malloc(sizeof(float) * c * e);
  float *folded = (float *)malloc(sizeof(float) * c * e * w);
  int status = directions && half_squares && folded ? 0 : VAMP_MEMORY;
  if (!status) {
    normalise(q, table, directions, half_squares);
    fold(q, table, out_weight, out_bias, folded);
    status = upload(device, in_weight, c * d * w, &q->in_weight);
  }
  if (!status) {
    status = upload(device, in_bias, c * d, &q->in_bias);
  }
  if (!status) {
    status = upload(device, directions, c * d * e, &q->directions);
  }
  if (!status) {
    status = upload(device, half_squares, c * e, &q->half_squares);
  }
  if (!status) {
    status = upload(device, folded, c * e * w, &q->folded);
  }
  free(directions);
  free(half_squares);
  free(folded);
  return status;
}

int cuda_quantizer_create(struct vamp_device *base, int codebooks, int entries, int dimensions, int width,
                          const float *in_weight, const float *in_bias, const float *table,
                          const float *out_weight, const float *out_bias, struct vamp_weight **quantizer,
                          struct vamp_error *error) {
  struct cuda_device *device = cuda_device(base);
  if (shared_bytes(width, dimensions) > cuda_shared_room(device)) {
    return vamp_fail(error, VAMP_UNSUPPORTED, "a quantiser of %d channels is too wide for this device",
                     width);
  }
  struct cuda_quantizer *q = (struct cuda_quantizer *)calloc(1, sizeof *q);
  if (!q) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  q->base.kind = CUDA_QUANTIZER;
  q->codebooks = codebooks;
  q->entries = entries;
  q->dimensions = dimensions;
  q->width = width;
  int status = upload_tables(device, q, in_weight, in_bias, table, out_weight, out_bias);
  if (status) {
    vamp_fail(error, status, "the quantiser's tables: %s", vamp_device_trouble(status));
    cuda_quantizer_free(device, &q->base);
    return status;
  }
  *quantizer = &q->base;
  return 0;
}
