/*
 * Which of a sequence's candidates are committed: all masked positions but the keep_masked least confident,
 * the first in [frame, codebook] order where confidence is equal.
 *
 * A block takes a sequence and finds the confidence of rank keep_masked exactly, by radix selection: floats
 * become integers of the same order, and four passes of a histogram over eight bits each narrow down the one
 * that is sought. No sort, no float arithmetic, no dependence on the order of the atomics (counts are
 * integers). What is below stays masked, what is above is committed; of those equal to it, the first so many
 * in order stay, which a count by stretches of the sequence decides.
 *
 * A clip has 2296 positions, read five times out of the first-level cache: latency is all this costs.
 */
#include "cuda/internal.h"

enum { threads = 1024, warps = threads / 32, buckets = 256 };

struct remask {
  struct cuda_batch batch;
  int codebooks, predicted, vocabulary;
};

struct positions {
  const struct vamp_sequence *sequence;
  int count;
  int codebooks, predicted, vocabulary;
};

static __device__ __forceinline__ int32_t *token_at(const struct positions *p, int at) {
  return p->sequence->tokens + (int64_t)(at / p->predicted) * p->codebooks + (p->codebooks - p->predicted) +
         at % p->predicted;
}

/* Whether a position is masked, and its confidence as an integer of the same order; -0 is 0. */
static __device__ __forceinline__ bool key_at(const struct positions *p, int at, uint32_t *key) {
  if (*token_at(p, at) != p->vocabulary) {
    return false;
  }
  uint32_t bits = __float_as_uint(__fadd_rn(p->sequence->confidence[at], 0.0f));
  *key = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return true;
}

/* First warp: the bucket in which the running count reaches `rank` (from 1), and how many lie before it;
 * bucket -1 where all together are fewer. */
static __device__ void find_bucket(const int *histogram, int rank, int *bucket, int *before) {
  int lane = (int)threadIdx.x, mine = 0;
  for (int i = 0; i < buckets / 32; i++) {
    mine += histogram[lane * (buckets / 32) + i];
  }
  int up_to = mine;
  for (int distance = 1; distance < 32; distance *= 2) {
    int other = __shfl_up_sync(0xffffffffu, up_to, distance);
    up_to += lane >= distance ? other : 0;
  }
  unsigned reached = __ballot_sync(0xffffffffu, up_to >= rank);
  if (lane == 0 && !reached) {
    *bucket = -1;
  }
  if (reached && lane == __ffs((int)reached) - 1) {
    int count = up_to - mine, i = lane * (buckets / 32);
    while (count + histogram[i] < rank) {
      count += histogram[i++];
    }
    *bucket = i;
    *before = count;
  }
}

/* Whole block: the sum of `mine` over the threads before this one. */
static __device__ int count_before(int mine) {
  __shared__ int warp_total[warps];
  int lane = (int)threadIdx.x % 32, up_to = mine, before = 0;
  for (int distance = 1; distance < 32; distance *= 2) {
    int other = __shfl_up_sync(0xffffffffu, up_to, distance);
    up_to += lane >= distance ? other : 0;
  }
  if (lane == 31) {
    warp_total[threadIdx.x / 32] = up_to;
  }
  __syncthreads();
  for (int w = 0; w < (int)threadIdx.x / 32; w++) {
    before += warp_total[w];
  }
  return before + up_to - mine;
}

/* Whole block: the key of rank `rank` (from 1) among the masked; *rank becomes its rank among those equal to
 * it. False where there are not that many. */
static __device__ bool select_key(const struct positions *p, int *rank, uint32_t *selected) {
  __shared__ int histogram[buckets], bucket, before;
  uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = (int)threadIdx.x; i < buckets; i += threads) {
      histogram[i] = 0;
    }
    __syncthreads();
    for (int at = (int)threadIdx.x; at < p->count; at += threads) {
      uint32_t key;
      if (key_at(p, at, &key) && (shift == 24 || key >> (shift + 8) == prefix)) {
        atomicAdd(&histogram[key >> shift & 255u], 1);
      }
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      find_bucket(histogram, *rank, &bucket, &before);
    }
    __syncthreads();
    if (bucket < 0) {
      return false;
    }
    prefix = prefix << 8 | (uint32_t)bucket;
    *rank -= before; /* the next round's barriers come before anyone writes it again */
  }
  *selected = prefix;
  return true;
}

static __global__ void __launch_bounds__(threads) remask_sequences(struct remask job) {
  int index = (int)blockIdx.x;
  if (index >= job.batch.extent->count) {
    return;
  }
  const struct vamp_sequence *s = &job.batch.sequences[index];
  struct positions p = {s, (job.batch.offsets[index + 1] - job.batch.offsets[index]) * job.predicted,
                        job.codebooks, job.predicted, job.vocabulary};
  int rank = s->keep_masked;
  uint32_t limit = 0;
  if (rank > 0 && !select_key(&p, &rank, &limit)) {
    return; /* as many stay as there are */
  }
  /* Each thread takes a stretch of neighbours, so that equals are counted in order. */
  int stretch = (p.count + threads - 1) / threads, first = (int)threadIdx.x * stretch;
  int last = first + stretch < p.count ? first + stretch : p.count, equal = 0;
  uint32_t key;
  for (int at = first; at < last; at++) {
    equal += key_at(&p, at, &key) && key == limit;
  }
  equal = count_before(equal);
  for (int at = first; at < last; at++) {
    if (!key_at(&p, at, &key)) {
      continue;
    }
    bool stays = s->keep_masked > 0 && (key < limit || (key == limit && equal < rank));
    equal += key == limit;
    if (!stays) {
      *token_at(&p, at) = s->sampled[at];
      s->committed[at] = s->step;
    }
  }
}

int cuda_remask(struct vamp_device *base, int codebooks, int predicted, int vocabulary,
                const struct vamp_packing *packing, const struct vamp_sequence *sequences) {
  struct cuda_device *device = cuda_device(base);
  struct remask job;
  if (packing->count == 0) {
    return 0;
  }
  int status = cuda_batch_set(device, packing, sequences, &job.batch);
  if (status) {
    return status;
  }
  job.codebooks = codebooks;
  job.predicted = predicted;
  job.vocabulary = vocabulary;
  VAMP_LAUNCH(remask_sequences, dim3((unsigned)cuda_launch_sequences(device, packing)), dim3(threads), 0,
              device->stream, job);
  CUDA_TRY(cudaGetLastError());
  return 0;
}
