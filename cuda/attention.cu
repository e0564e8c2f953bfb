/*
 * Bidirectional attention over packed ragged sequences, with T5's relative bias (Raffel et al. 2020), in one
 * pass over the keys with a running maximum and sum (Milakov, Gimelshein 2018; Dao et al. 2022): scores are
 * never stored.
 *
 * A block takes CUDA_TILE_ROWS (64) queries of one sequence and one head, and walks that sequence's keys from
 * the first to the last, 64 at a time. So a query's numbers depend on its own sequence alone: its place in a
 * tile follows from its own frame, keys are never dealt to several blocks, and a batch is only more blocks.
 *
 * attention_64 (bf16, heads of 64): two warps of 32 queries (two parts), so that what a warp fetches of keys
 * and values from shared memory serves two rows of fragments; with 16 queries a warp, shared memory would be
 * as busy as the tensor cores of sm_80 and busier than those of sm_90. Where there are so few queries that
 * the device is not full, four warps of 16 (one part) are done sooner. A row's instructions are the same in
 * both, each written out (no multiplication and addition is left to the compiler to join), so the choice may
 * follow the batch. Keys and values of the next 64 frames travel by cp.async while the tensor cores work on
 * the current ones: two stages of 16 KiB. The queries pass through the second stage into registers before it
 * is first needed, so a block takes 34 KiB and 64 threads of 230 registers: four on a multiprocessor of sm_80
 * and sm_90 at a time. Scores stay in registers: the accumulator of the first product has the layout of the
 * second's left operand. Rows of 128 bytes lie with chunk c at c ^ (row % 8): no ldmatrix meets a bank
 * conflict.
 *
 * The bias depends on key - query, and from a distance of 91 on it is one of two constants. So blocks of keys
 * at least three tiles away take a constant, nearer ones look it up in 383 floats of shared memory, of which
 * a thread needs 18 for 32 scores.
 *
 * Bound: the tensor cores, 128 multiply-adds for each score; then the exponential and five operations of
 * plain arithmetic beside them.
 *
 * attention_tf32.cu has the same for tf32.
 *
 * attention_any: fp32, and heads of another size up to 256, in tf32 with nothing rounded but the result. Four
 * warps of four queries, a lane a key, plain arithmetic in float. This is the path of parity.
 */
#include "cuda/attention.cuh"

enum {
  few_blocks = 3
}; /* a multiprocessor: as long as each block finds a place at once, small parts are faster */
enum { stage_bytes = 2 * tile * head_64 * 2 };

/* ---- bf16, heads of 64 ------------------------------------------------------------------------------ */

static __device__ __forceinline__ int chunk_at(int row, int chunk) {
  return row * head_64 * 2 + ((chunk ^ (row & 7)) << 4);
}

/* 64 rows of the head from `row` on into shared memory, the last one again and again behind `end`: whatever
 * is there must be finite, for it is multiplied by a weight of 0. from: of row 0, where this thread's chunk
 * lies; stride: from row to row, in bytes, so that an address is one multiplication. */
template <int parts>
static __device__ __forceinline__ void load_tile(char *to, const char *from, int stride, int row, int end) {
  const int threads = fast_threads(parts);
  int r = (int)threadIdx.x / 8, last = end - 1;
  char *lane_to = to + chunk_at(r, (int)threadIdx.x % 8); /* 8 rows further the swizzle is the same */
#pragma unroll
  for (int i = 0; i < tile * 8 / threads; i++) {
    int rows = i * (threads / 8), at = row + r + rows < last ? row + r + rows : last;
    vamp_copy_async16(lane_to + rows * head_64 * 2, from + (int64_t)at * stride, true);
  }
}

/* scores [parts * 16, 64] of a warp = queries * keys^T. */
template <int parts>
static __device__ __forceinline__ void multiply_keys(const uint32_t query[parts][4][4], const char *keys,
                                                     float score[parts][8][4]) {
  int lane = (int)threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < parts * 8 * 4; i++) {
    score[i / 32][i / 4 % 8][i % 4] = 0;
  }
#pragma unroll
  for (int d = 0; d < 4; d++) {
#pragma unroll
    for (int n = 0; n < 4; n++) {
      uint32_t key[4];
      vamp_ldmatrix_x4(key, keys + chunk_at(n * 16 + lane / 16 * 8 + lane % 8, d * 2 + lane / 8 % 2));
#pragma unroll
      for (int m = 0; m < parts; m++) {
        vamp_mma_bf16(score[m][2 * n], query[m][d], key);
        vamp_mma_bf16(score[m][2 * n + 1], query[m][d], key + 2);
      }
    }
  }
}

/* sum [parts * 16, 64] += weights * values. */
template <int parts>
static __device__ __forceinline__ void multiply_values(const uint32_t weight[parts][4][4], const char *values,
                                                       float sum[parts][8][4]) {
  int lane = (int)threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < 4; k++) {
#pragma unroll
    for (int n = 0; n < 4; n++) {
      uint32_t value[4];
      vamp_ldmatrix_x4_trans(value,
                             values + chunk_at(k * 16 + lane / 8 % 2 * 8 + lane % 8, n * 2 + lane / 16));
#pragma unroll
      for (int m = 0; m < parts; m++) {
        vamp_mma_bf16(sum[m][2 * n], weight[m][k], value);
        vamp_mma_bf16(sum[m][2 * n + 1], weight[m][k], value + 2);
      }
    }
  }
}

/* Weights as the second product wants them: its left fragments are where the scores lay. */
static __device__ __forceinline__ void pack(const float score[8][4], uint32_t weight[4][4]) {
#pragma unroll
  for (int n = 0; n < 8; n++) {
    weight[n / 2][n % 2 * 2] = vamp_bf16_pack(score[n][0], score[n][1]);
    weight[n / 2][n % 2 * 2 + 1] = vamp_bf16_pack(score[n][2], score[n][3]);
  }
}

template <int parts>
static __global__ void __launch_bounds__(fast_threads(parts), parts == 1 ? 3 : 4)
    attention_64(struct attention a) {
  VAMP_SHARED(char, shared);
  if ((int)blockIdx.x >= a.batch.extent->tiles) {
    return;
  }
  struct cuda_tile t = a.batch.tiles[blockIdx.x];
  int head = (int)blockIdx.y, lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  int width = a.heads * head_64 * 2, stride = 3 * width; /* in bytes */
  const char *q = (const char *)a.qkv + head * head_64 * 2 + threadIdx.x % 8 * 16;
  const char *k = vamp_keep((char *)q + width), *v = vamp_keep((char *)q + 2 * width);
  float *table = (float *)(shared + 2 * stage_bytes);
  const float scale = 0.125f * log2e;
  load_tile<parts>(shared + stage_bytes, q, stride, t.first, t.end);
  load_tile<parts>(shared, k, stride, t.begin, t.end);
  load_tile<parts>(shared + tile * head_64 * 2, v, stride, t.begin, t.end);
  vamp_copy_commit();
  load_bias<parts>(table, a, head);
  vamp_copy_wait(0);
  __syncthreads();
  uint32_t query[parts][4][4], weight[parts][4][4];
  float score[parts][8][4], sum[parts][8][4] = {}, most[parts][2], total[parts][2];
#pragma unroll
  for (int m = 0; m < parts; m++) {
#pragma unroll
    for (int d = 0; d < 4; d++) {
      vamp_ldmatrix_x4(query[m][d], shared + stage_bytes +
                                        chunk_at(warp * 16 * parts + m * 16 + lane % 16, d * 2 + lane / 16));
    }
    most[m][0] = most[m][1] = -INFINITY;
    total[m][0] = total[m][1] = 0;
  }
  for (int key = t.begin, stage = 0; key < t.end; key += tile, stage ^= 1) {
    vamp_copy_wait(0);
    __syncthreads();
    if (key + tile < t.end) {
      char *next = shared + (stage ^ 1) * stage_bytes;
      load_tile<parts>(next, k, stride, key + tile, t.end);
      load_tile<parts>(next + tile * head_64 * 2, v, stride, key + tile, t.end);
      vamp_copy_commit();
    }
    const char *keys = shared + stage * stage_bytes;
    multiply_keys<parts>(query, keys, score);
#pragma unroll
    for (int m = 0; m < parts; m++) {
      add_bias(score[m], table, key - t.first, warp * 16 * parts + m * 16 + lane / 4, scale, t.end - key);
      soften<false>(score[m], most[m], total[m], sum[m]);
      pack(score[m], weight[m]);
    }
    multiply_values<parts>(weight, keys + tile * head_64 * 2, sum);
  }
#pragma unroll
  for (int part = 0; part < 2 * parts; part++) {
    int m = part / 2, half = part % 2;
    float inverse = 1.0f / quad_sum(total[m][half]);
    int row = t.first + warp * 16 * parts + m * 16 + lane / 4 + half * 8;
    if (row < t.end) {
      __nv_bfloat16 *to = (__nv_bfloat16 *)a.out + ((int64_t)row * a.heads + head) * head_64 + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < 8; n++) {
        *(uint32_t *)(to + n * 8) =
            vamp_bf16_pack(sum[m][n][2 * half] * inverse, sum[m][n][2 * half + 1] * inverse);
      }
    }
  }
}

/* ---- any precision, any head ------------------------------------------------------------------------- */

enum { plain_queries = 16, plain_keys = 32, most_head = 256 };

static __device__ __forceinline__ float act_at(const struct attention *a, int64_t at) {
  return a->precision == VAMP_PRECISION_BF16 ? __bfloat162float(((const __nv_bfloat16 *)a->qkv)[at])
                                             : ((const float *)a->qkv)[at];
}

static __device__ __forceinline__ float warp_max(float value) {
  for (int distance = 16; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
  }
  return value;
}

static __device__ __forceinline__ float warp_sum(float value) {
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  }
  return value;
}

/* Rows of `count` frames, zeros behind `end`; part 0, 1, 2: q, k, v. */
static __device__ void load_plain(const struct attention *a, float *to, int pitch, int part, int row,
                                  int count, int end) {
  int64_t width = (int64_t)a->heads * a->head_size;
  for (int i = (int)threadIdx.x; i < count * a->head_size; i += (int)blockDim.x) {
    int r = i / a->head_size, d = i % a->head_size;
    int64_t at = (int64_t)(row + r) * 3 * width + part * width + (int64_t)blockIdx.y * a->head_size + d;
    to[r * pitch + d] = row + r < end ? act_at(a, at) : 0.0f;
  }
}

/* Block z takes 16 of the tile's 64 queries. */
static __global__ void __launch_bounds__(128) attention_any(struct attention a) {
  VAMP_SHARED(float, shared);
  if ((int)blockIdx.x >= a.batch.extent->tiles) {
    return;
  }
  struct cuda_tile t = a.batch.tiles[blockIdx.x];
  int first = t.first + (int)blockIdx.z * plain_queries, size = a.head_size, head = (int)blockIdx.y;
  if (first >= t.end) {
    return;
  }
  int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  float *queries = shared, *keys = queries + plain_queries * size, *values = keys + plain_keys * (size + 1);
  float scale = 1.0f / sqrtf((float)size);
  float most[4], total[4], sum[4][most_head / 32];
  for (int i = 0; i < 4; i++) {
    most[i] = -INFINITY;
    total[i] = 0;
#pragma unroll
    for (int d = 0; d < most_head / 32; d++) {
      sum[i][d] = 0;
    }
  }
  load_plain(&a, queries, size, 0, first, plain_queries, t.end);
  for (int key = t.begin; key < t.end; key += plain_keys) {
    __syncthreads();
    load_plain(&a, keys, size + 1, 1, key, plain_keys, t.end);
    load_plain(&a, values, size, 2, key, plain_keys, t.end);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float *query = queries + (warp * 4 + i) * size;
      float score = 0;
      for (int d = 0; d < size; d++) {
        score = __fmaf_rn(query[d], keys[lane * (size + 1) + d], score);
      }
      int relative = key + lane - (first + warp * 4 + i);
      score =
          key + lane < t.end ? __fmaf_rn(score, scale, a.bias[bucket(relative) * a.heads + head]) : -INFINITY;
      float best = fmaxf(most[i], warp_max(score));
      float before = expf(most[i] - best), weight = expf(score - best);
      total[i] = __fmaf_rn(total[i], before, warp_sum(weight));
      most[i] = best;
#pragma unroll
      for (int d = 0; d < most_head / 32; d++) {
        sum[i][d] *= before;
      }
      for (int j = 0; j < plain_keys; j++) {
        float w = __shfl_sync(0xffffffffu, weight, j);
#pragma unroll
        for (int d = 0; d < most_head / 32; d++) {
          if (d * 32 + lane < size) {
            sum[i][d] = __fmaf_rn(w, values[j * size + d * 32 + lane], sum[i][d]);
          }
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    int row = first + warp * 4 + i;
#pragma unroll
    for (int d = 0; d < most_head / 32; d++) {
      int64_t at = ((int64_t)row * a.heads + head) * size + d * 32 + lane;
      if (row < t.end && d * 32 + lane < size) {
        float y = sum[i][d] / total[i];
        vamp_store_act(a.out, at, y, a.precision);
      }
    }
  }
}

int cuda_attention(struct vamp_device *base, const struct vamp_weight *bias,
                   const struct vamp_packing *packing, int heads, int head_size, const void *qkv, void *out) {
  struct cuda_device *device = cuda_device(base);
  struct attention a;
  if (packing->offsets[packing->count] == 0) {
    return 0;
  }
  if (head_size > most_head) {
    return VAMP_UNSUPPORTED;
  }
  if (packing->offsets[packing->count] * 3 * heads * head_size / (cuda_bf16(device) ? 8 : 4) > INT32_MAX) {
    return VAMP_LIMIT;
  }
  int status = cuda_batch_set(device, packing, NULL, &a.batch);
  if (status) {
    return status;
  }
  a.bias = cuda_vector_values(bias);
  a.heads = heads;
  a.head_size = head_size;
  a.precision = device->base.precision;
  a.qkv = qkv;
  a.out = out;
  dim3 grid((unsigned)cuda_launch_tiles(device, packing), (unsigned)heads);
  /* Rounded as size classes are: a step that is recorded takes the kernel its first run has loaded. */
  bool few =
      cuda_room_rows(packing->offsets[packing->count]) / tile * heads <= few_blocks * device->processors;
  if (cuda_tf32(device) && head_size == head_64) {
    return attention_tf32_run(device, &a, grid, few);
  }
  if (cuda_bf16(device) && head_size == head_64) {
    size_t shared = 2 * stage_bytes + sizeof(float) * bias_count;
    if (few) {
      VAMP_LAUNCH(attention_64<1>, grid, dim3(fast_threads(1)), shared, device->stream, a);
    } else {
      VAMP_LAUNCH(attention_64<2>, grid, dim3(fast_threads(2)), shared, device->stream, a);
    }
  } else {
    size_t shared = sizeof(float) * (size_t)(plain_queries * head_size + plain_keys * (2 * head_size + 1));
    CUDA_TRY(cuda_allow_shared((const void *)attention_any, shared));
    grid.z = tile / plain_queries;
    VAMP_LAUNCH(attention_any, grid, dim3(128), shared, device->stream, a);
  }
  CUDA_TRY(cudaGetLastError());
  return 0;
}
