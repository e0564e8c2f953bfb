/*
 * Attention of the CPU backend. How it is tested: cpu_reference.h.
 */
#include "tests/unit/cpu_reference.h"

enum { BUCKETS = 32 };

struct attention_trial {
  struct trial trial;
  int heads, head_size;
  float *bias; /* [BUCKETS, heads] */
};

/* docs/model.md in whole numbers: 8 + floor(8 ln(a/8) / ln 16) is 8 + the largest i with (a/8)^2 >= 2^i. */
static int bucket_of(int64_t relative) {
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

static void attention_create(const struct trial *trial, struct vamp_device *device,
                             struct vamp_weight **weights) {
  const struct attention_trial *attention = (const struct attention_trial *)trial;
  assert_int_equal(device->ops->vector_create(device, attention->bias,
                                              (size_t)BUCKETS * (size_t)attention->heads, weights, NULL),
                   0);
}

static int attention_run(const struct trial *trial, struct vamp_device *device, struct vamp_weight **weights,
                         const struct vamp_packing *from, const struct vamp_packing *to, const void *in,
                         void *out) {
  (void)to;
  const struct attention_trial *attention = (const struct attention_trial *)trial;
  return device->ops->attention(device, weights[0], from, attention->heads, attention->head_size, in, out);
}

/* One query of one head: weight [rows] is room for the softmax. */
static void attend(const struct attention_trial *attention, int64_t rows, const float *in, int head,
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

static void attention_reference(const struct trial *trial, int64_t rows, const float *in, double *out) {
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
static void check_attention(void **state, int heads, int head_size, double bias_scale, double in_scale,
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

/* The reference's own buckets, against the formula's values worked out by hand. */
static void test_buckets(void **state) {
  (void)state;
  static const int WANT[][2] = {{0, 0},   {1, 1},   {7, 7},   {8, 8},   {11, 8},   {12, 9},   {15, 9},
                                {16, 10}, {22, 10}, {23, 11}, {31, 11}, {32, 12},  {45, 12},  {46, 13},
                                {63, 13}, {64, 14}, {90, 14}, {91, 15}, {127, 15}, {128, 15}, {500, 15}};
  for (int i = 0; i < COUNT(WANT); i++) {
    assert_int_equal(bucket_of(-WANT[i][0]), WANT[i][1]);
    assert_int_equal(bucket_of(WANT[i][0]), WANT[i][1] + (WANT[i][0] ? 16 : 0));
  }
}

static void test_head_sizes(void **state) {
  static const int SIZES[] = {1, 8, 16, 20, 48, 64, 80, 128};
  static const int LENGTHS[] = {5, 1, 0, 63, 64, 65, 2};
  for (int i = 0; i < COUNT(SIZES); i++) {
    check_attention(state, i % 3 + 1, SIZES[i], 1, 1, COUNT(LENGTHS), LENGTHS);
  }
}

static void test_long(void **state) {
  static const int LENGTHS[] = {575, 1, 173};
  check_attention(state, 2, 64, 1, 2, COUNT(LENGTHS), LENGTHS);
  check_attention(state, 1, 20, 1, 2, COUNT(LENGTHS), LENGTHS);
}

/* Where the bias alone decides, with a bias that all but selects: every distance must find its bucket. */
static void test_bias(void **state) {
  static const int LENGTHS[] = {575, 9, 130};
  check_attention(state, 3, 16, 12, 1, COUNT(LENGTHS), LENGTHS);
}

/* Scores in the thousands: exp() of them is infinite, of their distance from the largest it is not. */
static void test_loud(void **state) {
  static const int LENGTHS[] = {40, 3, 70};
  check_attention(state, 2, 64, 1, 32, COUNT(LENGTHS), LENGTHS);
  check_attention(state, 2, 16, 100, 1, COUNT(LENGTHS), LENGTHS);
}

static void test_many_heads(void **state) {
  static const int LENGTHS[] = {1, 100, 0, 17, 1, 1, 32, 33};
  check_attention(state, 20, 16, 1, 1, COUNT(LENGTHS), LENGTHS);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_buckets), cmocka_unit_test(test_head_sizes), cmocka_unit_test(test_long),
      cmocka_unit_test(test_bias),    cmocka_unit_test(test_loud),       cmocka_unit_test(test_many_heads),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
