/*
 * What the kernels of attention share: what they are told, the bias, and joining the four threads of a row.
 * A fragment of scores is one of mma's results, m16n8, whatever its inputs were.
 */
#ifndef CUDA_ATTENTION_CUH
#define CUDA_ATTENTION_CUH

#include "cuda/internal.h"
#include "cuda/mma.cuh"

enum { tile = CUDA_TILE_ROWS, head_64 = 64, near_tiles = 2, reach = (near_tiles + 1) * tile - 1 };
enum { bias_count = 2 * reach + 1 };

static constexpr float log2e = 1.44269504f; /* exponentials are powers of two */

struct attention {
  struct cuda_batch batch;
  const float *bias; /* [32, heads] */
  int heads, head_size;
  enum vamp_precision precision;
  const void *qkv; /* act [rows, 3 * heads * head_size] */
  void *out;       /* act [rows, heads * head_size] */
};

/* Heads of 64 in tf32 (attention_tf32.cu), a block a tile and head; `few`: smaller parts to a warp. */
int attention_tf32_run(struct cuda_device *device, const struct attention *a, dim3 grid, bool few);

/* 32 buckets: the upper 16 for keys after the query; in each half 8 exact distances, then logarithmic: a step
 * each time the distance grows by the root of two. In whole numbers, as in cpu/attention.c. */
static __device__ int bucket(int key_minus_query) {
  int half = key_minus_query > 0 ? 16 : 0;
  int distance = key_minus_query < 0 ? -key_minus_query : key_minus_query;
  if (distance < 8) {
    return half + distance;
  }
  distance = distance < 128 ? distance : 128;
  int far = 8;
  while (far < 15 && distance * distance >= 64 << (far - 7)) {
    far++;
  }
  return half + far;
}

/* Threads of a block whose warps take parts * 16 queries. */
static __host__ __device__ constexpr int fast_threads(int parts) {
  return 32 * tile / (16 * parts);
}

/* The bias of every near distance, and at the ends of all that are further, for one head. */
template <int parts>
static __device__ __forceinline__ void load_bias(float *table, const struct attention &a, int head) {
  for (int i = (int)threadIdx.x; i < bias_count; i += fast_threads(parts)) {
    table[i] = a.bias[bucket(i - reach) * a.heads + head] * log2e;
  }
}

/* Scales the scores and adds the bias, both in units of log2(e); masks the keys behind the last. `offset` is
 * first key - first query of the tiles, `row` the thread's first row of its tile. */
static __device__ __forceinline__ void add_bias(float score[8][4], const float *table, int offset, int row,
                                                float scale, int keys_left) {
  int lane = (int)threadIdx.x % 32, column = lane % 4 * 2;
  if (offset > near_tiles * tile || offset < -near_tiles * tile) {
    float constant = table[offset > 0 ? bias_count - 1 : 0];
#pragma unroll
    for (int n = 0; n < 8; n++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        score[n][e] = __fmaf_rn(score[n][e], scale, constant);
      }
    }
  } else {
    const float *at = table + reach + offset + column - row;
#pragma unroll
    for (int n = 0; n < 8; n++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        score[n][e] = __fmaf_rn(score[n][e], scale, at[n * 8 + e % 2 - e / 2 * 8]);
      }
    }
  }
  if (keys_left < tile) {
#pragma unroll
    for (int n = 0; n < 8; n++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        score[n][e] = n * 8 + column + e % 2 < keys_left ? score[n][e] : -INFINITY;
      }
    }
  }
}

static __device__ __forceinline__ float quad_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
  return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}

static __device__ __forceinline__ float quad_sum(float value) {
  value += __shfl_xor_sync(0xffffffffu, value, 1);
  return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

/* One block of keys enters the running softmax of the thread's two rows: scores become weights, rounded to
 * tf32 or left to be rounded; what was summed so far is brought to the new maximum. */
template <bool to_tf32>
static __device__ __forceinline__ void soften(float score[8][4], float most[2], float total[2],
                                              float sum[8][4]) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float best = most[half], added = 0;
#pragma unroll
    for (int n = 0; n < 8; n++) {
      best = fmaxf(best, fmaxf(score[n][2 * half], score[n][2 * half + 1]));
    }
    best = quad_max(best);
    float before = vamp_exp2(most[half] - best);
    most[half] = best;
#pragma unroll
    for (int n = 0; n < 8; n++) {
#pragma unroll
      for (int e = 2 * half; e < 2 * half + 2; e++) {
        float weight = vamp_exp2(score[n][e] - best);
        added += weight;
        sum[n][e] *= before;
        score[n][e] = to_tf32 ? __uint_as_float(vamp_tf32(weight)) : weight;
      }
    }
    total[half] = __fmaf_rn(total[half], before, added); /* of this thread's columns; joined at the end */
  }
}

#endif
