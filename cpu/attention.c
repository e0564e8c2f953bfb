/*
 * Bidirectional attention over packed ragged sequences: one task a (sequence, head), computed by one
 * thread with the kernel of simd.c. Relative positions fall into T5's buckets (Raffel et al. 2020),
 * which depend on key - query alone, so each head's bias is one short vector.
 */
#include <stdlib.h>

#include "cpu/internal.h"

/* 32 buckets: the upper 16 for keys after the query; in each half 8 exact distances, then logarithmic
 * up to 128. */
static int bucket(int64_t key_minus_query) {
  int half = key_minus_query > 0 ? 16 : 0;
  int64_t distance = key_minus_query < 0 ? -key_minus_query : key_minus_query;
  if (distance < 8) {
    return half + (int)distance;
  }
  /* 8 + floor(8 log(distance / 8) / log 16): a step each time the distance grows by the root of two. In whole
   * numbers, so that no library's logarithm decides at the steps. */
  int far = 8;
  while (far < 15 && distance * distance >= (int64_t)64 << (far - 7)) {
    far++;
  }
  return half + far;
}

struct attention_job {
  const struct cpu_device *device;
  const struct vamp_packing *packing;
  int heads, head_size;
  const char *qkv;
  char *out;
  const float *relative; /* [heads, span] */
  size_t span;           /* 2 * longest - 1 */
};

/* Item: sequence * heads + head. */
static int attend(void *context, int64_t item, int thread) {
  const struct attention_job *j = context;
  int s = (int)(item / j->heads);
  size_t head = (size_t)(item % j->heads), first = (size_t)j->packing->offsets[s];
  size_t width = (size_t)j->heads * (size_t)j->head_size, element = j->device->base.act_size;
  size_t frames = (size_t)(j->packing->offsets[s + 1] - j->packing->offsets[s]);
  if (frames == 0) {
    return 0;
  }
  const char *q = j->qkv + (first * 3 * width + head * (size_t)j->head_size) * element;
  struct simd_attention a = {.bf16 = cpu_bf16(j->device),
                             .frames = (int)frames,
                             .head_size = j->head_size,
                             .row = 3 * width,
                             .q = q,
                             .k = q + width * element,
                             .v = q + 2 * width * element,
                             .bias = j->relative + head * j->span + (j->span + 1) / 2 - frames,
                             .out = j->out + (first * width + head * (size_t)j->head_size) * element,
                             .out_row = width,
                             .scratch = cpu_scratch(j->device, thread)};
  j->device->simd->attention(&a);
  return 0;
}

int cpu_attention(struct vamp_device *base, const struct vamp_weight *bias,
                  const struct vamp_packing *packing, int heads, int head_size, const void *qkv, void *out) {
  struct cpu_device *device = cpu_device(base);
  const float *table = ((const struct cpu_vector *)bias)->values;
  int64_t longest = 0;
  for (int s = 0; s < packing->count; s++) {
    int64_t frames = packing->offsets[s + 1] - packing->offsets[s];
    longest = frames > longest ? frames : longest;
  }
  if (longest == 0) {
    return 0;
  }
  size_t span = 2 * (size_t)longest - 1;
  float *relative = malloc(sizeof *relative * span * (size_t)heads);
  if (!relative) {
    return VAMP_MEMORY;
  }
  for (size_t r = 0; r < span; r++) {
    int b = bucket((int64_t)r - (longest - 1));
    for (int h = 0; h < heads; h++) {
      relative[(size_t)h * span + r] = table[b * heads + h];
    }
  }
  struct attention_job j = {device, packing, heads, head_size, qkv, out, relative, span};
  int status = cpu_scratch_reserve(device, simd_attention_scratch((int)longest, head_size));
  if (!status) {
    status = cpu_pool_run(device->pool, (int64_t)packing->count * heads, attend, &j);
  }
  free(relative);
  return status;
}

/* Keys, values, six queries, their scores and the bias, in float (bfloat16 needs less), each rounded up to
 * whole panels of 64. */
size_t simd_attention_scratch(int frames, int head_size) {
  size_t padded = ((size_t)frames + 63) / 64 * 64, depth = ((size_t)head_size + 63) / 64 * 64;
  return sizeof(float) * (2 * padded * depth + 6 * depth + 14 * padded) + 4096;
}
