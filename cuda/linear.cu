/*
 * Products with a weight matrix, by cuBLASLt, and their epilogues.
 *
 * out [rows, n] = in [rows, k] * weight [n, k]^T. In cuBLAS's column-major eyes that is D [n, rows] =
 * weight^T * in, both operands with k contiguous ("TN", the layout tensor cores read directly).
 *
 * How cuBLAS is held to the promise of vamp/backend.h: product.cu.
 *
 * Epilogues. Storing and adding to the residual stream (beta = 1, in place) are cuBLAS's own. The gated GELU
 * needs two columns that lie n/2 apart, which no epilogue of cuBLASLt joins: the product of a slab of rows
 * goes to scratch, in act, and a kernel makes the result from there. A slab of 4096 rows is 40 MiB at the
 * official size: it is written and read again in the second-level cache of a data-centre GPU. Interleaving
 * the two halves in a kernel of our own was rejected, for on sm_90 only wgmma reaches the device's rate, and
 * cuBLAS has it. A bias (no product of the transformers has one but the classifier) goes the same way,
 * through float.
 */
#include <stdlib.h>
#include <string.h>

#include "cuda/gemm.cuh"
#include "cuda/mma.cuh"
#include "cuda/product.h"

enum { slab_rows = 4096 };

struct linear {
  struct vamp_weight base;
  int n, k;
  bool gated;
  void *weight; /* act [n, k] */
  float *bias;  /* [n] or NULL */
};

/* ---- weights ---------------------------------------------------------------------------------------- */

void cuda_linear_free(struct cuda_device *device, struct vamp_weight *weight) {
  struct linear *l = (struct linear *)weight;
  if (l) {
    cuda_release(device, l->weight);
    cuda_release(device, l->bias);
    free(l);
  }
}

int cuda_linear_create(struct vamp_device *base, int n, int k, bool gated, const float *weight,
                       const float *bias, struct vamp_weight **out, struct vamp_error *error) {
  struct cuda_device *device = cuda_device(base);
  struct linear *l = (struct linear *)calloc(1, sizeof *l);
  void *memory = NULL;
  int status = VAMP_MEMORY;
  if (!l) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  l->base.kind = CUDA_LINEAR;
  l->n = n;
  l->k = k;
  l->gated = gated;
  status = cuda_upload_act(device, weight, (size_t)n * (size_t)k, &l->weight);
  if (!status && bias) {
    status = cuda_upload_new(device, bias, sizeof *bias * (size_t)n, &memory);
    l->bias = (float *)memory;
  }
  if (status) {
    cuda_linear_free(device, &l->base);
    return vamp_fail(error, status, "loading weights: %s", vamp_device_trouble(status));
  }
  *out = &l->base;
  return 0;
}

const void *cuda_linear_weight(const struct vamp_weight *linear, int *k, const float **bias) {
  const struct linear *l = (const struct linear *)linear;
  *k = l->k;
  *bias = l->bias;
  return l->weight;
}

/* ---- epilogues -------------------------------------------------------------------------------------- */

/* tanh GELU as cpu/simd.c has it: 0.5 x (1 + tanh u) = x / (1 + exp(-2u)). */
static __device__ __forceinline__ float gelu(float x, bool fast) {
  float u2 = x * __fmaf_rn(0.0713548163f * x, x, 1.5957691216f);
  return fast ? __fdividef(x, 1.0f + __expf(-fmaxf(u2, -80.0f))) : x / (1.0f + expf(-u2));
}

static __device__ __forceinline__ uint32_t gate_pair(uint32_t value, uint32_t gate) {
  float v0 = __uint_as_float(value << 16), v1 = __uint_as_float(value & 0xffff0000u);
  float g0 = __uint_as_float(gate << 16), g1 = __uint_as_float(gate & 0xffff0000u);
  __nv_bfloat162 pair = __floats2bfloat162_rn(v0 * gelu(g0, true), v1 * gelu(g1, true));
  uint32_t bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}

/* y bf16 [rows, 2 * half] -> out bf16 [rows, half]; half a multiple of 8: sixteen bytes a thread. A slab has
 * few enough elements for 32 bits, and a division of 64 would cost as much as all the rest. */
static __global__ void gate_bf16(const uint4 *y, uint32_t rows, uint32_t half, uint4 *out) {
  uint32_t chunks = half / 8, count = rows * chunks;
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    uint32_t at = i + i / chunks * chunks;
    uint4 value = y[at], gate = y[at + chunks];
    out[i] = make_uint4(gate_pair(value.x, gate.x), gate_pair(value.y, gate.y), gate_pair(value.z, gate.z),
                        gate_pair(value.w, gate.w));
  }
}

static __device__ __forceinline__ float gate_float(float value, float gate, bool tf32) {
  float y = value * gelu(gate, false);
  return tf32 ? vamp_tf32_round(y) : y;
}

/* The same in float, rounded to tf32 or not; half a multiple of 4. */
static __global__ void gate_floats(const float4 *y, uint32_t rows, uint32_t half, bool tf32, float4 *out) {
  uint32_t chunks = half / 4, count = rows * chunks;
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    uint32_t at = i + i / chunks * chunks;
    float4 value = y[at], gate = y[at + chunks];
    out[i] = make_float4(gate_float(value.x, gate.x, tf32), gate_float(value.y, gate.y, tf32),
                         gate_float(value.z, gate.z, tf32), gate_float(value.w, gate.w, tf32));
  }
}

struct finish {
  const void *y; /* [rows, n], float or bf16 */
  bool bf16_in;
  enum vamp_precision precision; /* of out */
  const float *bias;             /* [n] or NULL */
  enum vamp_epilogue epilogue;
  int64_t rows;
  int n;
  void *out;
};

static __device__ __forceinline__ float finish_read(const struct finish *f, int64_t row, int column) {
  int64_t at = row * f->n + column;
  float y = f->bf16_in ? __bfloat162float(((const __nv_bfloat16 *)f->y)[at]) : ((const float *)f->y)[at];
  return f->bias ? y + f->bias[column] : y;
}

/* Any epilogue, an element a thread: for odd shapes, a bias, and fp32. */
static __global__ void finish_any(struct finish f) {
  int width = f.epilogue == VAMP_GATED_GELU ? f.n / 2 : f.n;
  int64_t count = f.rows * width;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count;
       i += (int64_t)gridDim.x * blockDim.x) {
    int64_t row = i / width;
    int column = (int)(i % width);
    float y = finish_read(&f, row, column);
    if (f.epilogue == VAMP_GATED_GELU) {
      y *= gelu(finish_read(&f, row, column + width), f.precision == VAMP_PRECISION_BF16);
    }
    if (f.epilogue == VAMP_ADD) {
      ((float *)f.out)[i] += y;
    } else {
      vamp_store_act(f.out, i, y, f.epilogue == VAMP_STORE_F32 ? VAMP_PRECISION_FP32 : f.precision);
    }
  }
}

static int finish_slab(struct cuda_device *device, const struct finish *f) {
  int64_t blocks = (f->rows * f->n + 255) / 256;
  dim3 grid((unsigned)(blocks < 16 * device->processors ? blocks : 16 * device->processors));
  if (f->bf16_in && f->epilogue == VAMP_GATED_GELU && !f->bias && f->n % 16 == 0) {
    VAMP_LAUNCH(gate_bf16, grid, dim3(256), 0, device->stream, (const uint4 *)f->y, (uint32_t)f->rows,
                (uint32_t)f->n / 2, (uint4 *)f->out);
  } else if (!f->bf16_in && f->precision != VAMP_PRECISION_BF16 && f->epilogue == VAMP_GATED_GELU &&
             !f->bias && f->n % 8 == 0) {
    VAMP_LAUNCH(gate_floats, grid, dim3(256), 0, device->stream, (const float4 *)f->y, (uint32_t)f->rows,
                (uint32_t)f->n / 2, f->precision == VAMP_PRECISION_TF32, (float4 *)f->out);
  } else {
    VAMP_LAUNCH(finish_any, grid, dim3(256), 0, device->stream, *f);
  }
  CUDA_TRY(cudaGetLastError());
  return 0;
}

/* ---- the operation ---------------------------------------------------------------------------------- */

static int product_run(struct cuda_device *device, const struct cuda_product *p, const struct linear *l,
                       const void *in, int64_t rows, void *out) {
  if (p->plain) {
    struct gemm g = {in, l->weight, NULL, (float *)out, NULL, NULL, 1, l->n, l->k, (int)rows, 0};
    return cuda_gemm(device, &g, (int)((rows + GEMM_ROWS - 1) / GEMM_ROWS));
  }
  return cuda_product_run(device, p, l->weight, in, rows, out);
}

/* Slab by slab through scratch. How long a slab is follows from n alone. */
static int linear_slabs(struct cuda_device *device, const struct cuda_product *p, const struct linear *l,
                        enum vamp_epilogue epilogue, const char *in, int64_t rows, char *out) {
  struct finish f = {};
  size_t width = (size_t)(epilogue == VAMP_GATED_GELU ? l->n / 2 : l->n);
  size_t out_size = epilogue == VAMP_STORE || epilogue == VAMP_GATED_GELU ? device->base.act_size : 4;
  size_t y_size = p->float_out || p->plain ? 4 : device->base.act_size;
  int64_t slab = ((int64_t)64 << 20) / ((int64_t)y_size * l->n) / GEMM_ROWS * GEMM_ROWS;
  if (slab < GEMM_ROWS || slab > slab_rows) {
    slab = slab < GEMM_ROWS ? (int64_t)GEMM_ROWS : (int64_t)slab_rows;
  }
  void *y;
  int64_t room = cuda_room_rows(rows < slab ? rows : slab);
  int status = cuda_scratch(device, y_size * (size_t)room * (size_t)l->n, &y);
  f.y = y;
  f.bf16_in = y_size == 2;
  f.precision = device->base.precision;
  f.bias = l->bias;
  f.epilogue = epilogue;
  f.n = l->n;
  for (int64_t row = 0; row < rows && !status; row += slab) {
    f.rows = rows - row < slab ? rows - row : slab;
    f.out = out + (size_t)row * width * out_size;
    status = product_run(device, p, l, in + (size_t)row * (size_t)l->k * device->base.act_size, f.rows, y);
    if (!status) {
      status = finish_slab(device, &f);
    }
  }
  return status;
}

int cuda_linear(struct vamp_device *base, const struct vamp_weight *linear, enum vamp_epilogue epilogue,
                const struct vamp_packing *packing, const void *in, void *out) {
  struct cuda_device *device = cuda_device(base);
  const struct linear *l = (const struct linear *)linear;
  int64_t rows = cuda_launch_rows(device, packing->offsets[packing->count]);
  bool through_act = epilogue == VAMP_GATED_GELU && !l->bias;
  bool direct = epilogue != VAMP_GATED_GELU && !l->bias;
  struct cuda_product *p;
  if (rows == 0) {
    return 0;
  }
  int status = cuda_product_find(device, l->n, l->k, direct ? epilogue != VAMP_STORE : !through_act,
                                 direct && epilogue == VAMP_ADD, &p);
  if (status) {
    return status;
  }
  if (direct && !p->plain) {
    return product_run(device, p, l, in, rows, out);
  }
  return linear_slabs(device, p, l, epilogue, (const char *)in, rows, (char *)out);
}
