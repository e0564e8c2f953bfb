/*
 * RMS norm: out act [rows, width] = weight * x / sqrt(mean(x^2) + 1e-6), the sum over a row in float.
 *
 * A warp takes a row. Up to 2048 channels (a multiple of 4) the row stays in registers between the two
 * passes, so x is read once from memory: 6 bytes an element move in bf16, and that is the kernel's bound.
 * Joining the norm with the residual addition before it was considered and gains nothing: cuBLAS adds to the
 * residual stream inside the product (x read and written once there); a joint kernel would have to fetch the
 * product's result as well, which is as many bytes again as it saves.
 *
 * The order of the sum follows from the width alone: each lane its own columns, then a tree over the lanes.
 */
#include "cuda/internal.h"
#include "cuda/mma.cuh"

enum { warps = 4, vectors = 16 }; /* vectors: of 4 floats a lane: 16 * 32 * 4 = 2048 channels */

static __device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  }
  return value;
}

static __device__ __forceinline__ float scale_of(float squares, int width) {
  return 1.0f / sqrtf(squares / (float)width + 1e-6f);
}

static __device__ __forceinline__ void store4(void *out, int64_t at, float4 v,
                                              enum vamp_precision precision) {
  if (precision == VAMP_PRECISION_BF16) {
    __nv_bfloat162 low = __floats2bfloat162_rn(v.x, v.y), high = __floats2bfloat162_rn(v.z, v.w);
    uint2 bits;
    memcpy(&bits.x, &low, sizeof low);
    memcpy(&bits.y, &high, sizeof high);
    *(uint2 *)((__nv_bfloat16 *)out + at) = bits;
  } else {
    if (precision == VAMP_PRECISION_TF32) {
      v = make_float4(vamp_tf32_round(v.x), vamp_tf32_round(v.y), vamp_tf32_round(v.z), vamp_tf32_round(v.w));
    }
    *(float4 *)((float *)out + at) = v;
  }
}

static __global__ void __launch_bounds__(32 * warps)
    norm_vectors(const float *x, const float *weight, int64_t rows, int width, enum vamp_precision precision,
                 void *out) {
  int lane = (int)threadIdx.x % 32;
  int64_t row = (int64_t)blockIdx.x * warps + threadIdx.x / 32;
  if (row >= rows) {
    return;
  }
  float4 v[vectors];
  float squares = 0;
#pragma unroll
  for (int i = 0; i < vectors; i++) {
    int column = (i * 32 + lane) * 4;
    if (column < width) {
      v[i] = *(const float4 *)(x + row * width + column);
      squares = __fmaf_rn(v[i].x, v[i].x, squares);
      squares = __fmaf_rn(v[i].y, v[i].y, squares);
      squares = __fmaf_rn(v[i].z, v[i].z, squares);
      squares = __fmaf_rn(v[i].w, v[i].w, squares);
    }
  }
  float scale = scale_of(warp_sum(squares), width);
#pragma unroll
  for (int i = 0; i < vectors; i++) {
    int column = (i * 32 + lane) * 4;
    if (column < width) {
      float4 w = *(const float4 *)(weight + column);
      store4(out, row * width + column,
             make_float4(w.x * (v[i].x * scale), w.y * (v[i].y * scale), w.z * (v[i].z * scale),
                         w.w * (v[i].w * scale)),
             precision);
    }
  }
}

/* Any width. */
static __global__ void __launch_bounds__(32 * warps)
    norm_any(const float *x, const float *weight, int64_t rows, int width, enum vamp_precision precision,
             void *out) {
  int lane = (int)threadIdx.x % 32;
  int64_t row = (int64_t)blockIdx.x * warps + threadIdx.x / 32;
  if (row >= rows) {
    return;
  }
  const float *from = x + row * width;
  float squares = 0;
  for (int column = lane; column < width; column += 32) {
    squares = __fmaf_rn(from[column], from[column], squares);
  }
  float scale = scale_of(warp_sum(squares), width);
  for (int column = lane; column < width; column += 32) {
    float y = weight[column] * (from[column] * scale);
    vamp_store_act(out, row * width + column, y, precision);
  }
}

int cuda_rms_norm(struct vamp_device *base, const struct vamp_weight *weight, int64_t rows, int width,
                  const float *x, void *out) {
  struct cuda_device *device = cuda_device(base);
  rows = cuda_launch_rows(device, rows);
  if (rows == 0) {
    return 0;
  }
  dim3 grid((unsigned)((rows + warps - 1) / warps));
  const float *values = cuda_vector_values(weight);
  if (width % 4 == 0 && width <= vectors * 128) {
    VAMP_LAUNCH(norm_vectors, grid, dim3(32 * warps), 0, device->stream, x, values, rows, width,
                device->base.precision, out);
  } else {
    VAMP_LAUNCH(norm_any, grid, dim3(32 * warps), 0, device->stream, x, values, rows, width,
                device->base.precision, out);
  }
  CUDA_TRY(cudaGetLastError());
  return 0;
}
