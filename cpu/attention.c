/*
 * Bidirectional attention over packed ragged sequences: one task a (sequence, head), computed by one
 * thread with the kernel of simd.c. Relative positions fall into T5's buckets (Raffel et al. 2020),
 * which depend on key - query alone, so each head's bias is one short vector.
 */
#include <math.h>
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
  int far = 8 + (int)(logf((float)distance / 8.0f) / logf(16.0f) * 8.0f);
  return half + (far < 15 ? far : 15);
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
  int status = cpu_scratch_reserve(device, simd_attention_scratch((int)longest, head_size));
  size_t width = (size_t)heads * (size_t)head_size, element = device->base.act_size;
  if (!status) {
    int64_t work = (int64_t)packing->count * heads;
#pragma omp parallel for schedule(dynamic, 1) num_threads(device->threads)
    for (int64_t w = 0; w < work; w++) {
      int s = (int)(w / heads);
      size_t head = (size_t)(w % heads), first = (size_t)packing->offsets[s];
      int64_t frames = packing->offsets[s + 1] - packing->offsets[s];
      if (frames == 0) {
        continue;
      }
      const char *q = (const char *)qkv + (first * 3 * width + head * (size_t)head_size) * element;
      struct simd_attention a = {.bf16 = cpu_bf16(device),
                                 .frames = (int)frames,
                                 .head_size = head_size,
                                 .row = 3 * width,
                                 .q = q,
                                 .k = q + width * element,
                                 .v = q + 2 * width * element,
                                 .bias = relative + head * span + (size_t)(longest - frames),
                                 .out = (char *)out + (first * width + head * (size_t)head_size) * element,
                                 .out_row = width,
                                 .scratch = cpu_scratch(device)};
      device->simd->attention(&a);
    }
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
