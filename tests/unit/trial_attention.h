/*
 * Attention of a backend. How it is tested: cpu_reference.h.
 */
#ifndef VAMP_TEST_TRIAL_ATTENTION_H
#define VAMP_TEST_TRIAL_ATTENTION_H

#include "tests/unit/cpu_reference.h"

enum { BUCKETS = 32 };

struct attention_trial {
  struct trial trial;
  int heads, head_size;
  float *bias; /* [BUCKETS, heads] */
};

/* docs/model.md in whole numbers: 8 + floor(8 ln(a/8) / ln 16) is 8 + the largest i with (a/8)^2 >= 2^i. */
static inline int bucket_of(int64_t relative) {
  int64_t distance = relative < 0 ? -relative : relative;
  int bucket = 0;
  if (distance < 8) {
    bucket = (int)distance;
  } else {
    bucket = 8;
    while (bucket < 15 && distance * distance >= (INT64_C(64) << (bucket - 8 + 1))) {
      bucket++;
    }
  }
  return bucket + (relative > 0 ? 16 : 0);
}

static inline void attention_create(const struct trial *trial, struct vamp_device *device,
                                    struct vamp_weight **weights) {
  const struct attention_trial *attention = (const struct attention_trial *)trial;
  assert_int_equal(device->ops->vector_create(device, attention->bias,
                                              (size_t)BUCKETS * (size_t)attention->heads, weights, NULL),
                   0);
}

static inline int attention_run(const struct trial *trial, struct vamp_device *device,
                                struct vamp_weight **weights, const struct vamp_packing *from,
                                const struct vamp_packing *to, const void *in, void *out) {
  (void)to;
  const struct attention_trial *attention = (const struct attention_trial *)trial;
  return device->ops->attention(device, weights[0], from, attention->heads, attention->head_size, in, out);
}

/* One query of one head: weight [rows] is room for the softmax. */
static inline void attend(const struct attention_trial *attention, int64_t rows, const float *in, int head,
                          int64_t query, double *weight, double *out) {
  int size = attention->head_size, width = attention->heads * size;
  const float *q = in + query * 3 * width + head * size;
  double largest = -INFINITY, total = 0;
  for (int64_t key = 0; key < rows; key++) {
    const float *k = in + key * 3 * width + width + head * size;
    double score = 0;
    for (int i = 0; i < size; i++) {
      score += (double)q[i] * (double)k[i];
    }
    weight[key] =
        score / sqrt(size) + (double)attention->bias[bucket_of(key - query) * attention->heads + head];
    largest = fmax(largest, weight[key]);
  }
  for (int64_t key = 0; key < rows; key++) {
    weight[key] = exp(weight[key] - largest);
    total += weight[key];
  }
  for (int i = 0; i < size; i++) {
    out[i] = 0;
    for (int64_t key = 0; key < rows; key++) {
      out[i] += weight[key] / total * (double)in[key * 3 * width + 2 * width + head * size + i];
    }
  }
}

static inline void attention_reference(const struct trial *trial, int64_t rows, const float *in,
                                       double *out) {
  const struct attention_trial *attention = (const struct attention_trial *)trial;
  double *weight = taken(malloc(sizeof *weight * (size_t)(rows + 1)));
  for (int64_t query = 0; query < rows; query++) {
    for (int head = 0; head < attention->heads; head++) {
      attend(attention, rows, in, head, query, weight,
             out + query * trial->out_width + head * attention->head_size);
    }
  }
  free(weight);
}

/* `in_scale`: the size of queries, keys and values; scores grow with its square. */
static inline void check_attention(void **state, int heads, int head_size, double bias_scale, double in_scale,
                                   int count, const int *lengths) {
  int width = heads * head_size;
  /* In bf16 the softmax's weights may be rounded, by 2^-9 each, and the values are up to in_scale. */
  struct attention_trial attention = {.trial = {.in_act = true,
                                                .out_act = true,
                                                .in_width = 3 * width,
                                                .out_width = width,
                                                .tolerance = 1e-5 * in_scale,
                                                .tolerance_bf16 = 4e-3 * in_scale,
                                                .create = attention_create,
                                                .run = attention_run,
                                                .reference = attention_reference},
                                      .heads = heads,
                                      .head_size = head_size,
                                      .bias = random_floats((size_t)BUCKETS * (size_t)heads, bias_scale, 7)};
  snprintf(attention.trial.name, sizeof attention.trial.name,
           "attention of %d heads of %d, bias to %g, input to %g", heads, head_size, bias_scale, in_scale);
  trial_check_scaled(state, &attention.trial, count, lengths, in_scale);
  free(attention.bias);
}

#endif
