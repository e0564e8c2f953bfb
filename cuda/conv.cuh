/*
 * What the convolution kernels share on the device: snake, which sequence a block works for, the loads of the
 * main loop, and what becomes of a finished sum.
 */
#ifndef CUDA_CONV_CUH
#define CUDA_CONV_CUH

#include "cuda/conv.h"
#include "cuda/launch.cuh"
#include "cuda/mma.cuh"

/* sin(x)^2, to 1e-6: reduced modulo pi, where the square does not see the sign, with pi in two terms; then a
 * polynomial in r^2. Adding 1.5 * 2^23 rounds without the slow conversion. The same as the CPU backend's. */
static __device__ __forceinline__ float conv_sin_squared(float x) {
  float n = (x * 0.318309886f + 12582912.0f) - 12582912.0f;
  float r = fmaf(n, -9.67653589793e-4f, fmaf(n, -3.140625f, x));
  float r2 = r * r;
  float p = fmaf(r2, 0.000115089831f, -0.00311458178f);
  p = fmaf(p, r2, 0.044385798f);
  p = fmaf(p, r2, -0.333313529f);
  p = fmaf(p, r2, 1.0f);
  return p * r2;
}

/* inverse: 1 / (alpha + 1e-9). */
static __device__ __forceinline__ float conv_snake(float x, float alpha, float inverse) {
  return fmaf(conv_sin_squared(alpha * x), inverse, x);
}

static __device__ __forceinline__ float conv_inverse(float alpha) {
  return 1.0f / (alpha + 1e-9f);
}

/* Four channels of a row from channel c on, of which `from` is the first; 0 beyond the last. */
static __device__ __forceinline__ void conv_read_four(const float *from, int c, int channels, float x[4]) {
  if (channels % 4 == 0 && c < channels) {
    float4 four = *(const float4 *)from;
    x[0] = four.x, x[1] = four.y, x[2] = four.z, x[3] = four.w;
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      x[i] = c + i < channels ? from[i] : 0;
    }
  }
}

static __device__ __forceinline__ bool conv_holds(const struct conv_sequence &sequence, int64_t next,
                                                  int64_t tile) {
  return sequence.tile <= tile && tile < next;
}

/* The sequence a block works for. To be called by all threads; ends at a barrier. An empty sequence begins at
 * the same tile as the next and holds none. */
static __device__ __forceinline__ struct conv_sequence conv_find(const struct conv_table &table,
                                                                 int64_t tile) {
  __shared__ int found;
  for (int s = (int)threadIdx.x; s < table.count; s += (int)blockDim.x) {
    bool last = s + 1 == table.count, holds;
    if (table.memory) {
      holds = conv_holds(table.memory[s], last ? INT64_MAX : table.memory[s + 1].tile, tile);
    } else {
      holds = conv_holds(table.few[s], last ? INT64_MAX : table.few[s + 1].tile, tile);
    }
    if (holds) {
      found = s;
    }
  }
  __syncthreads();
  return table.memory ? table.memory[found] : table.few[found];
}

/* Starts the copies of one step: a chunk of the weights of one tap, and with a chunk's first tap the chunk of
 * the input rows. `first` is the tile's first row of Y. All in bytes of an act of `size` bytes. */
static __device__ __forceinline__ void conv_fetch(const struct conv_job &job,
                                                  const struct conv_sequence &sequence, int size,
                                                  int64_t first, int column, int columns, int chunk, int tap,
                                                  char *weights, char *inputs) {
  int thread = (int)threadIdx.x, threads = (int)blockDim.x;
  const struct conv_plan &plan = job.plan;
  const char *from = (const char *)job.weight +
                     ((int64_t)(chunk * plan.taps + tap) * plan.outputs + column) * CONV_CHUNK_BYTES;
  for (int i = thread; i < columns * 4; i += threads) {
    bool valid = column + i / 4 < plan.outputs;
    vamp_copy_async16(weights + i / 4 * CONV_ROW_BYTES + i % 4 * 16, valid ? from + i * 16 : from, valid);
  }
  if (tap > 0) {
    return;
  }
  const char *signal = (const char *)job.in + sequence.in_begin * plan.width * size;
  int64_t length = sequence.in_rows * plan.width * size, pitch = plan.pitch * size;
  int64_t base = first * pitch - plan.shift * size;
  char *slot = inputs + chunk % job.input_slots * job.input_rows * CONV_ROW_BYTES;
  for (int i = thread; i < job.input_rows * 4; i += threads) {
    int inside = chunk * CONV_CHUNK_BYTES + i % 4 * 16;
    int64_t at = base + i / 4 * pitch + inside;
    bool valid = inside < plan.inputs * size && at >= 0 && at < length;
    vamp_copy_async16(slot + i / 4 * CONV_ROW_BYTES + i % 4 * 16, signal + (valid ? at : 0), valid);
  }
}

/* ---- endings -------------------------------------------------------------------------------------- */

/* A warp's sums leave through shared memory, 16 rows at a time. Straight from the registers of mma each would
 * have its own addresses, two sums to a store: that many instructions do not fit the instruction cache. */
enum { CONV_PIECE_ROWS = 16 };

/* Bytes from row to row of a piece: words are 8 more than a multiple of 32, so that the 4 rows x 4 pairs that
 * half a warp stores at once meet no bank conflict. */
static __host__ __device__ __forceinline__ constexpr int conv_piece_pitch(int columns) {
  return (columns + 23) / 32 * 128 + 32;
}

/* 16 rows of results of mma, NT side by side. */
template <int NT>
static __device__ __forceinline__ void conv_put_piece(const float sum[NT][4], int lane, char *piece) {
  piece += lane / 4 * conv_piece_pitch(NT * 8) + lane % 4 * 8;
#pragma unroll
  for (int n = 0; n < NT; n++) {
    *(float2 *)(piece + n * 32) = make_float2(sum[n][0], sum[n][1]);
    *(float2 *)(piece + 8 * conv_piece_pitch(NT * 8) + n * 32) = make_float2(sum[n][2], sum[n][3]);
  }
}

static __device__ __forceinline__ float4 conv_add_four(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

static __device__ __forceinline__ float conv_residual(const struct conv_epilogue &end, int64_t at, float y) {
  float value = end.scale * (end.residual[at] + y);
  return end.accumulate ? end.out[at] + value : value;
}

/* A sum of the plan's row t and output n, wherever these lie. */
template <enum vamp_precision P>
static __device__ __forceinline__ void
conv_end(const struct conv_job &job, const struct conv_sequence &sequence, int64_t t, int n, float sum) {
  const struct conv_epilogue &end = job.end;
  const struct conv_plan &plan = job.plan;
  if (end.ending == CONV_ACTIVATE) {
    if (t < sequence.rows && n < end.hidden_width) {
      int64_t at = (sequence.out_begin + t) * end.hidden_width + n;
      float y = 0;
      if (n < plan.outputs) {
        y = conv_snake(sum + end.bias[n], end.alpha[n], end.inverse[n]);
      }
      vamp_store_act(end.hidden, at, y, P);
    }
    return;
  }
  int64_t flat = t * plan.outputs + n - plan.out_shift;
  if (n >= plan.outputs || flat < 0 || flat >= sequence.out_rows * plan.out_channels) {
    return;
  }
  int64_t at = sequence.out_begin * plan.out_channels + flat;
  float y = sum + end.bias[n];
  if (end.ending == CONV_RESIDUAL) {
    end.out[at] = conv_residual(end, at, y);
  } else {
    end.out[at] = end.apply_tanh ? tanhf(y) : y;
  }
}

/* The same for outputs n (even) and n + 1, as one access where they are neighbours in memory. */
template <enum vamp_precision P>
static __device__ __forceinline__ void conv_end_pair(const struct conv_job &job,
                                                     const struct conv_sequence &sequence, int64_t t, int n,
                                                     float sum0, float sum1) {
  const struct conv_epilogue &end = job.end;
  const struct conv_plan &plan = job.plan;
  if (!end.paired || end.apply_tanh || n >= plan.outputs) {
    conv_end<P>(job, sequence, t, n, sum0);
    conv_end<P>(job, sequence, t, n + 1, sum1);
    return;
  }
  float2 bias = *(const float2 *)(end.bias + n);
  float2 y = make_float2(sum0 + bias.x, sum1 + bias.y);
  if (end.ending == CONV_ACTIVATE) {
    if (t < sequence.rows) {
      float2 alpha = *(const float2 *)(end.alpha + n), inverse = *(const float2 *)(end.inverse + n);
      int64_t at = (sequence.out_begin + t) * end.hidden_width + n;
      y.x = conv_snake(y.x, alpha.x, inverse.x);
      y.y = conv_snake(y.y, alpha.y, inverse.y);
      if (P == VAMP_PRECISION_BF16) {
        *(uint32_t *)((__nv_bfloat16 *)end.hidden + at) = vamp_bf16_pack(y.x, y.y);
      } else {
        if (P == VAMP_PRECISION_TF32) {
          y = make_float2(vamp_tf32_round(y.x), vamp_tf32_round(y.y));
        }
        *(float2 *)((float *)end.hidden + at) = y;
      }
    }
    return;
  }
  int64_t flat = t * plan.outputs + n - plan.out_shift;
  if (flat < 0 || flat >= sequence.out_rows * plan.out_channels) {
    return;
  }
  int64_t at = sequence.out_begin * plan.out_channels + flat;
  if (end.ending == CONV_RESIDUAL) {
    float2 residual = *(const float2 *)(end.residual + at);
    y = make_float2(end.scale * (residual.x + y.x), end.scale * (residual.y + y.y));
    if (end.accumulate) {
      float2 before = *(const float2 *)(end.out + at);
      y = make_float2(before.x + y.x, before.y + y.y);
    }
  }
  *(float2 *)(end.out + at) = y;
}

#endif
