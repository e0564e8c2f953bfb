/*
 * Drawing candidates (docs/model.md, "Generation"). cpu/sample.c is the specification to the bit: from equal
 * logits the same token comes out, because
 *  - the exponential is the CPU's polynomial, with its multiplications and additions joined as its vector
 * code joins them (cpu/simd_vector.h under FMA);
 *  - sums run in the CPU's order: sixteen interleaved chains and a tree for the softmax, one chain over the
 * vocabulary for the running sum that the random number is compared with;
 *  - filters look at the same sorted list: by probability, and by token where that is equal.
 * Logarithms, of confidence and of the typical filter, are taken in double and rounded, as the CPU does it;
 * the GPU's own logf is good to a bit and often differs in it.
 *
 * draw_plain: a warp takes a position. The chain over the vocabulary is the cost: some 1024 dependent
 * additions, 5 cycles each, against 30 microseconds that a step's smallest product takes; thousands of warps
 * do it at once. A scan in a tree would be faster and would not give the CPU's tokens.
 *
 * draw_filtered: a block takes a position of a sequence that filters, and sorts its vocabulary in shared
 * memory by a bitonic network. What the CPU does in a chain (sums along the sorted list) one thread does here
 * in a chain.
 *
 * Both overwrite logits with exponentials in place. Bound by latency, not by bytes.
 */
#include <float.h>

#include "cuda/sample.cuh"

enum { warps = 4, threads = 32 * warps };

/* Philox 4x32-10 and the uniform number of vamp/random.h. */
struct draws {
  float token, noise;
};

static __device__ __forceinline__ float uniform(uint32_t word) {
  return ((float)(word >> 8) + 0.5f) * (1.0f / 16777216.0f);
}

static __device__ __forceinline__ struct draws random_draws(const struct vamp_sequence *s, int frame,
                                                            int codebook) {
  uint32_t c0 = (uint32_t)frame, c1 = (uint32_t)codebook + 256u * (uint32_t)s->step, c2 = s->counter,
           c3 = s->stream;
  uint32_t k0 = (uint32_t)s->seed, k1 = (uint32_t)(s->seed >> 32);
  for (int round = 0; round < 10; round++) {
    uint32_t low0 = 0xD2511F53u * c0, high0 = __umulhi(0xD2511F53u, c0);
    uint32_t low1 = 0xCD9E8D57u * c2, high1 = __umulhi(0xCD9E8D57u, c2);
    c0 = high1 ^ c1 ^ k0;
    c2 = high0 ^ c3 ^ k1;
    c1 = low1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  struct draws d = {uniform(c0), uniform(c1)};
  return d;
}

/* vexp of cpu/simd_vector.h. */
static __device__ __forceinline__ float exponential(float x) {
  const float magic = 12582912.0f;
  x = fminf(fmaxf(x, -87.0f), 88.0f);
  float n = __fadd_rn(__fmaf_rn(x, 1.44269504f, magic), -magic);
  float r = __fmaf_rn(-n, -2.12194440e-4f, __fmaf_rn(-n, 0.693359375f, x));
  float p = 1.9875691500e-4f;
  p = __fmaf_rn(p, r, 1.3981999507e-3f);
  p = __fmaf_rn(p, r, 8.3334519073e-3f);
  p = __fmaf_rn(p, r, 4.1665795894e-2f);
  p = __fmaf_rn(p, r, 1.6666665459e-1f);
  p = __fmaf_rn(p, r, 5.0000001201e-1f);
  p = __fadd_rn(__fmaf_rn(__fmul_rn(p, r), r, r), 1.0f);
  return __fmul_rn(p, __uint_as_float((uint32_t)((int)n + 127) << 23));
}

static __device__ __forceinline__ float logarithm(float x) {
  return (float)log((double)x);
}

/* A position of the slab. */
struct position {
  const struct vamp_sequence *sequence;
  float *logits;       /* [vocabulary] */
  int frame, codebook; /* codebook counted from the first predicted one */
};

/* Slot: row of the slab. */
static __device__ bool find_position(const struct sample *sample, int slot, struct position *at) {
  int group, first, rows;
  if (!gemm_find(&sample->gemm, sample->gemm.first_tile + slot / GEMM_ROWS, &group, &first, &rows) ||
      slot % GEMM_ROWS >= rows) {
    return false;
  }
  int row = sample->gemm.list[(int64_t)group * sample->gemm.capacity + first + slot % GEMM_ROWS];
  int s = cuda_sequence_of(&sample->batch, row);
  at->sequence = &sample->batch.sequences[s];
  at->logits = sample->gemm.out + (int64_t)slot * sample->vocabulary;
  at->frame = row - sample->batch.offsets[s];
  at->codebook = group;
  return true;
}

static __device__ __forceinline__ bool filters_on(const struct vamp_sequence *s) {
  return s->top_k > 0 || s->top_p < 1 || s->typical_mass > 0;
}

static __device__ __forceinline__ float warp_max(float value) {
  for (int distance = 16; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
  }
  return value;
}

/* The CPU's order: sixteen chains, then halves. Whole warp; every lane gets it. */
static __device__ float sum_of_sixteen(const float *p, int count) {
  float sum = 0;
  for (int i = (int)threadIdx.x % 16; i < count; i += 16) {
    sum += p[i];
  }
  for (int distance = 8; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  }
  return sum;
}

/* The likeliest token, the first of equals. Whole warp. */
static __device__ int likeliest(const float *p, int count) {
  float most = -1;
  int token = 0;
  for (int v = (int)threadIdx.x % 32; v < count; v += 32) {
    if (p[v] > most) {
      most = p[v];
      token = v;
    }
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    float other = __shfl_xor_sync(0xffffffffu, most, distance);
    int theirs = __shfl_xor_sync(0xffffffffu, token, distance);
    if (other > most || (other == most && theirs < token)) {
      most = other;
      token = theirs;
    }
  }
  return token;
}

/* The sum in one chain over the vocabulary, and the first token at which it is above the goal, or else the
 * last that is possible at all. Whole warp; every lane adds the same. */
static __device__ int walk(const float *p, int count, float goal, float *total) {
  float reached = 0;
  int token = 0;
  for (int first = 0; first < count; first += 32) {
    int lane = (int)threadIdx.x % 32;
    float mine = first + lane < count ? p[first + lane] : 0.0f;
    unsigned possible = __ballot_sync(0xffffffffu, mine > 0);
    unsigned above = 0;
#pragma unroll
    for (int i = 0; i < 32; i++) {
      reached += __shfl_sync(0xffffffffu, mine, i);
      above |= reached > goal ? 1u << i : 0u;
    }
    above &= possible;
    if (above) {
      *total = reached;
      return first + __ffs((int)above) - 1;
    }
    token = possible ? first + 31 - __clz((int)possible) : token;
  }
  *total = reached;
  return token;
}

/* Whole warp; p [vocabulary] adds up to total. */
static __device__ void draw(const struct sample *sample, const struct position *at, float total) {
  const struct vamp_sequence *s = at->sequence;
  const float *p = at->logits;
  struct draws random = random_draws(s, at->frame, sample->codebooks - sample->predicted + at->codebook);
  float reached;
  int token = s->argmax ? likeliest(p, sample->vocabulary)
                        : walk(p, sample->vocabulary, __fmul_rn(random.token, total), &reached);
  if (threadIdx.x % 32 == 0) {
    int64_t to = (int64_t)at->frame * sample->predicted + at->codebook;
    float probability = p[token] / total;
    float noise = s->noise > 0 ? __fmul_rn(-s->noise, logarithm(-logarithm(random.noise))) : 0.0f;
    s->sampled[to] = token;
    s->probability[to] = probability;
    s->confidence[to] = __fadd_rn(logarithm(fmaxf(probability, FLT_MIN)), noise);
  }
}

static __global__ void __launch_bounds__(threads, 8) draw_plain(struct sample sample) {
  int lane = (int)threadIdx.x % 32;
  struct position at;
  if (!find_position(&sample, (int)blockIdx.x * warps + (int)threadIdx.x / 32, &at) ||
      filters_on(at.sequence)) {
    return;
  }
  float most = -INFINITY, scale = 1.0f / at.sequence->temperature;
  for (int v = lane; v < sample.vocabulary; v += 32) {
    most = fmaxf(most, at.logits[v]);
  }
  most = warp_max(most);
  for (int v = lane; v < sample.vocabulary; v += 32) {
    at.logits[v] = exponential(__fmul_rn(__fadd_rn(at.logits[v], -most), scale));
  }
  __syncwarp();
  draw(&sample, &at, sum_of_sixteen(at.logits, sample.vocabulary));
}

/* ---- filters ------------------------------------------------------------------------------------------ */

/* A token in the order of the list: rising keys are falling probabilities, then rising tokens. */
static __device__ __forceinline__ uint64_t ranked(float p, int token) {
  return (uint64_t)~__float_as_uint(p) << 32 | (uint32_t)token;
}

static __device__ __forceinline__ float ranked_p(uint64_t key) {
  return __uint_as_float(~(uint32_t)(key >> 32));
}

/* Whole block; count a power of two. */
static __device__ void bitonic_sort(uint64_t *list, int count) {
  for (int size = 2; size <= count; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      for (int i = (int)threadIdx.x; i < count / 2; i += threads) {
        int low = i / stride * 2 * stride + i % stride, high = low + stride;
        uint64_t a = list[low], b = list[high];
        if ((a > b) == ((low & size) == 0)) {
          list[low] = b;
          list[high] = a;
        }
      }
      __syncthreads();
    }
  }
}

/* top_k, then top_p on what is left: how many stay. One thread. */
static __device__ int keep_top(const struct vamp_sequence *s, const uint64_t *list, int count, float total) {
  if (s->top_k > 0 && s->top_k < count) {
    count = s->top_k;
    total = 0;
    for (int i = 0; i < count; i++) {
      total += ranked_p(list[i]);
    }
  }
  if (s->top_p < 1) {
    float reached = 0;
    for (int i = 0; i < count; i++) {
      reached += ranked_p(list[i]);
      if (reached >= __fmul_rn(s->top_p, total)) {
        return i + 1;
      }
    }
  }
  return count;
}

/* What the block agrees on. */
struct agreement {
  int low, high; /* of the list: those that stay */
  float total, entropy;
};

/* Typical filtering (Meister et al. 2023) on the list's first a->high: information rises along it, so the
 * farthest from the entropy is one of the ends. Whole block. */
static __device__ void keep_typical(const struct vamp_sequence *s, const uint64_t *list, float *distance,
                                    struct agreement *a) {
  int count = a->high;
  if (threadIdx.x == 0) {
    float total = 0;
    for (int i = 0; i < count; i++) {
      total += ranked_p(list[i]);
    }
    a->total = total;
  }
  __syncthreads();
  for (int i = (int)threadIdx.x; i < count; i += threads) {
    float p = ranked_p(list[i]) / a->total;
    distance[i] = p > 0 ? __fmul_rn(p, logarithm(p)) : 0.0f;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    float entropy = 0;
    for (int i = 0; i < count; i++) {
      entropy -= distance[i];
    }
    a->entropy = entropy;
  }
  __syncthreads();
  for (int i = (int)threadIdx.x; i < count; i += threads) {
    float p = ranked_p(list[i]);
    distance[i] = fabsf(-logarithm(p > 0 ? p / a->total : FLT_MIN) - a->entropy);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int low = 0, high = count;
    float reached = a->total;
    while (high - low > 1 && high - low > s->typical_min) {
      bool from_low = distance[low] > distance[high - 1];
      float p = ranked_p(list[from_low ? low : high - 1]);
      if (__fadd_rn(reached, -p) < __fmul_rn(s->typical_mass, a->total)) {
        break;
      }
      reached -= p;
      low += from_low;
      high -= !from_low;
    }
    a->low = low;
    a->high = high;
  }
  __syncthreads();
}

/* The largest logit, to every thread. Whole block, which agrees before it is asked again. */
static __device__ float block_max(const float *logits, int count) {
  __shared__ float most_of[warps];
  float most = -INFINITY;
  for (int v = (int)threadIdx.x; v < count; v += threads) {
    most = fmaxf(most, logits[v]);
  }
  most = warp_max(most);
  if (threadIdx.x % 32 == 0) {
    most_of[threadIdx.x / 32] = most;
  }
  __syncthreads();
  for (int w = 0; w < warps; w++) {
    most = fmaxf(most, most_of[w]);
  }
  return most;
}

/* Dynamic shared memory: the list [padded], distances [vocabulary]. */
static __global__ void __launch_bounds__(threads, 8) draw_filtered(struct sample sample, int padded) {
  VAMP_SHARED(uint64_t, list);
  __shared__ struct agreement a;
  struct position at;
  if (!find_position(&sample, (int)blockIdx.x, &at) || !filters_on(at.sequence)) {
    return;
  }
  const struct vamp_sequence *s = at.sequence;
  float *distance = (float *)(list + padded), *p = at.logits;
  int count = sample.vocabulary;
  float most = block_max(p, count), scale = 1.0f / s->temperature;
  for (int v = (int)threadIdx.x; v < padded; v += threads) {
    float plain = v < count ? exponential(__fadd_rn(p[v], -most)) : 0.0f;
    list[v] = v < count ? ranked(plain, v) : ~(uint64_t)0;
    if (v < count) {
      distance[v] = plain;
    }
  }
  __syncthreads();
  float plain_total = sum_of_sixteen(distance, count);
  bitonic_sort(list, padded);
  if (threadIdx.x == 0) {
    a.low = 0;
    a.high = keep_top(s, list, count, plain_total);
  }
  __syncthreads();
  if (s->typical_mass > 0) {
    keep_typical(s, list, distance, &a);
  }
  for (int i = (int)threadIdx.x; i < count; i += threads) {
    if (i < a.low || i >= a.high) {
      p[(uint32_t)list[i]] = -INFINITY;
    }
  }
  __syncthreads();
  most = block_max(p, count); /* of what is left: see filter() of cpu/sample.c */
  for (int v = (int)threadIdx.x; v < count; v += threads) {
    p[v] = p[v] != -INFINITY ? exponential(__fmul_rn(__fadd_rn(p[v], -most), scale)) : 0.0f;
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    float total;
    walk(p, count, INFINITY, &total);
    draw(&sample, &at, total);
  }
}

int cuda_sample(struct cuda_device *device, const struct sample *sample, int tiles, bool filters) {
  int slots = tiles * GEMM_ROWS, padded = 2;
  VAMP_LAUNCH(draw_plain, dim3((unsigned)(slots / warps)), dim3(threads), 0, device->stream, *sample);
  CUDA_TRY(cudaGetLastError());
  if (filters) {
    while (padded < sample->vocabulary) {
      padded *= 2;
    }
    size_t shared = sizeof(uint64_t) * (size_t)padded + sizeof(float) * (size_t)sample->vocabulary;
    if (shared > cuda_shared_room(device)) {
      return VAMP_UNSUPPORTED;
    }
    CUDA_TRY(cuda_allow_shared((const void *)draw_filtered, shared));
    VAMP_LAUNCH(draw_filtered, dim3((unsigned)slots), dim3(threads), shared, device->stream, *sample, padded);
    CUDA_TRY(cudaGetLastError());
  }
  return 0;
}
