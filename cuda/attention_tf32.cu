/*
 * Attention in tf32, heads of 64: attention.cu in its other precision, and what differs for it.
 *
 * Blocks, warps, the running softmax and the bias are those of attention_64 there. An element takes four
 * bytes, so a stage of 64 keys and values is 32 KiB and a block takes 66: two blocks at a time on sm_80,
 * three on sm_90, one on sm_86 and sm_89.
 *
 * Scores. Queries and keys are read by ldmatrix: to it, four floats are eight 16-bit elements, and the lane
 * that gets elements 2 * pair and 2 * pair + 1 gets float `pair`, which is the fragment of m16n8k8.
 *
 * Values. The second product wants them transposed, which ldmatrix does for 16 bits alone. But a sum does not
 * ask in which order mma numbers its keys, nor a result how it numbers its columns. So number `pair` of eight
 * keys is key 2 * pair and number pair + 4 is key 2 * pair + 1: then the fragment of scores is the fragment
 * of weights, in the registers it lies in. And column `group` of fragment n is channel 8 * group + n: then
 * what a thread needs of a key is eight floats in a row, and of the result it has two times eight. All of it
 * moves sixteen bytes at a time.
 *
 * Rows of 256 bytes, chunks of 16. Keys lie with chunk c at c ^ (row % 8), as in bf16. Of the values, eight
 * threads read chunks c and c + 2 of the four even (or odd) rows of eight: chunk c lies at c ^ {0, 1, 4, 5}
 * by (row / 2 % 4), which makes that eight different groups of banks.
 *
 * What comes from the product before (cuBLAS) is not yet rounded: fragments are, each once a warp. So are
 * the softmax's weights, and the result, which the next product reads.
 *
 * Bound: the tensor cores, at half the rate of bf16.
 */
#include "cuda/attention.cuh"

enum { row_bytes = head_64 * 4, tile_bytes = tile * row_bytes, stage_bytes = 2 * tile_bytes };

static __device__ __forceinline__ int key_at(int row, int chunk) {
  return row * row_bytes + ((chunk ^ (row & 7)) << 4);
}

static __device__ __forceinline__ int value_at(int row, int chunk) {
  return row * row_bytes + ((chunk ^ (row >> 1 & 1) ^ (row & 4)) << 4);
}

/* As load_tile of attention.cu: rows of the head from `row` on, zeros behind `end`; `stride` in chunks. */
template <int parts, bool values>
static __device__ __forceinline__ void load_tile(char *to, const uint4 *from, int stride, int row, int end) {
  const int threads = fast_threads(parts);
  int r = (int)threadIdx.x / 16, chunk = (int)threadIdx.x % 16, at = (row + r) * stride + chunk;
#pragma unroll 4
  for (int i = 0; i < tile * 16 / threads; i++, r += threads / 16, at += threads / 16 * stride) {
    bool valid = row + r < end;
    vamp_copy_async16(to + (values ? value_at(r, chunk) : key_at(r, chunk)), from + (valid ? at : 0), valid);
  }
}

static __device__ __forceinline__ void round_all(uint32_t fragment[4]) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    fragment[i] = vamp_tf32(__uint_as_float(fragment[i]));
  }
}

/* scores [parts * 16, 64] of a warp = queries * keys^T. */
template <int parts>
static __device__ __forceinline__ void multiply_keys(const uint32_t query[parts][8][4], const char *keys,
                                                     float score[parts][8][4]) {
  /* Two chunks further is another 32 bytes under the exclusive or; said so, it takes one register. */
  int lane = (int)threadIdx.x % 32, at = key_at(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
  for (int i = 0; i < parts * 8 * 4; i++) {
    score[i / 32][i / 4 % 8][i % 4] = 0;
  }
#pragma unroll
  for (int d = 0; d < 8; d++) {
#pragma unroll
    for (int n = 0; n < 4; n++) {
      uint32_t key[4];
      vamp_ldmatrix_x4(key, keys + (at ^ d * 32) + n * 16 * row_bytes);
      round_all(key);
#pragma unroll
      for (int m = 0; m < parts; m++) {
        vamp_mma_tf32(score[m][2 * n], query[m][d], key);
        vamp_mma_tf32(score[m][2 * n + 1], query[m][d], key + 2);
      }
    }
  }
}

/* sum [parts * 16, 64] += weights * values; columns as said above. */
template <int parts>
static __device__ __forceinline__ void multiply_values(const float weight[parts][8][4], const char *values,
                                                       float sum[parts][8][4]) {
  int group = (int)threadIdx.x % 32 / 4, pair = (int)threadIdx.x % 4;
#pragma unroll
  for (int k = 0; k < 8; k++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float4 first = *(const float4 *)(values + value_at(k * 8 + pair * 2, group * 2 + half));
      float4 second = *(const float4 *)(values + value_at(k * 8 + pair * 2 + 1, group * 2 + half));
      uint32_t value[4][2] = {{vamp_tf32(first.x), vamp_tf32(second.x)},
                              {vamp_tf32(first.y), vamp_tf32(second.y)},
                              {vamp_tf32(first.z), vamp_tf32(second.z)},
                              {vamp_tf32(first.w), vamp_tf32(second.w)}};
#pragma unroll
      for (int m = 0; m < parts; m++) {
        const float *w = weight[m][k]; /* row group: 0, 1; row group + 8: 2, 3 */
        uint32_t left[4] = {__float_as_uint(w[0]), __float_as_uint(w[2]), __float_as_uint(w[1]),
                            __float_as_uint(w[3])};
#pragma unroll
        for (int n = 0; n < 4; n++) {
          vamp_mma_tf32(sum[m][half * 4 + n], left, value[n]);
        }
      }
    }
  }
}

/* Sixteen channels of two rows of the result: 16 * pair on. */
static __device__ __forceinline__ void store_rows(const struct attention &a, int row, int end, int head,
                                                  const float total[2], const float sum[8][4]) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float inverse = 1.0f / quad_sum(total[half]);
    if (row + half * 8 < end) {
      float *to =
          (float *)a.out + ((int64_t)(row + half * 8) * a.heads + head) * head_64 + threadIdx.x % 4 * 16;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int e = 2 * half + i / 2, n = i % 2 * 4;
        *(float4 *)(to + i * 4) =
            make_float4(vamp_tf32_round(sum[n][e] * inverse), vamp_tf32_round(sum[n + 1][e] * inverse),
                        vamp_tf32_round(sum[n + 2][e] * inverse), vamp_tf32_round(sum[n + 3][e] * inverse));
      }
    }
  }
}

template <int parts>
static __global__ void __launch_bounds__(fast_threads(parts), parts == 1 ? 3 : 4)
    attention_tf32(struct attention a) {
  VAMP_SHARED(char, shared);
  if ((int)blockIdx.x >= a.batch.extent->tiles) {
    return;
  }
  struct cuda_tile t = a.batch.tiles[blockIdx.x];
  int head = (int)blockIdx.y, lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  int width = a.heads * (head_64 / 4), stride = 3 * width; /* in chunks */
  const uint4 *q = (const uint4 *)a.qkv + head * (head_64 / 4);
  float *table = (float *)(shared + 2 * stage_bytes);
  const float scale = 0.125f * log2e;
  load_tile<parts, false>(shared + stage_bytes, q, stride, t.first, t.end);
  load_tile<parts, false>(shared, q + width, stride, t.begin, t.end);
  load_tile<parts, true>(shared + tile_bytes, q + 2 * width, stride, t.begin, t.end);
  vamp_copy_commit();
  load_bias<parts>(table, a, head);
  vamp_copy_wait(0);
  __syncthreads();
  uint32_t query[parts][8][4];
  float score[parts][8][4], sum[parts][8][4] = {}, most[parts][2], total[parts][2];
#pragma unroll
  for (int m = 0; m < parts; m++) {
#pragma unroll
    for (int d = 0; d < 8; d++) {
      vamp_ldmatrix_x4(query[m][d], shared + stage_bytes +
                                        key_at(warp * 16 * parts + m * 16 + lane % 16, d * 2 + lane / 16));
      round_all(query[m][d]);
    }
    most[m][0] = most[m][1] = -INFINITY;
    total[m][0] = total[m][1] = 0;
  }
  for (int key = t.begin, stage = 0; key < t.end; key += tile, stage ^= 1) {
    vamp_copy_wait(0);
    __syncthreads();
    if (key + tile < t.end) {
      char *next = shared + (stage ^ 1) * stage_bytes;
      load_tile<parts, false>(next, q + width, stride, key + tile, t.end);
      load_tile<parts, true>(next + tile_bytes, q + 2 * width, stride, key + tile, t.end);
      vamp_copy_commit();
    }
    const char *keys = shared + stage * stage_bytes;
    multiply_keys<parts>(query, keys, score);
#pragma unroll
    for (int m = 0; m < parts; m++) {
      add_bias(score[m], table, key - t.first, warp * 16 * parts + m * 16 + lane / 4, scale, t.end - key);
      soften<true>(score[m], most[m], total[m], sum[m]);
    }
    multiply_values<parts>(score, keys + tile_bytes, sum);
  }
#pragma unroll
  for (int m = 0; m < parts; m++) {
    store_rows(a, t.first + warp * 16 * parts + m * 16 + lane / 4, t.end, head, total[m], sum[m]);
  }
}

int attention_tf32_run(struct cuda_device *device, const struct attention *a, dim3 grid, bool few) {
  const size_t shared = 2 * stage_bytes + sizeof(float) * bias_count;
  const void *kernel = few ? (const void *)attention_tf32<1> : (const void *)attention_tf32<2>;
  CUDA_TRY(cuda_allow_shared(kernel, shared));
  if (few) {
    VAMP_LAUNCH(attention_tf32<1>, grid, dim3(fast_threads(1)), shared, device->stream, *a);
  } else {
    VAMP_LAUNCH(attention_tf32<2>, grid, dim3(fast_threads(2)), shared, device->stream, *a);
  }
  CUDA_TRY(cudaGetLastError());
  return 0;
}
