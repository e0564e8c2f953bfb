/*
 * The matrix operations of a backend: linear with its epilogues, the norm, the embedding. How they are
 * tested: cpu_reference.h.
 */
#ifndef VAMP_TEST_TRIAL_LINEAR_H
#define VAMP_TEST_TRIAL_LINEAR_H

#include "tests/unit/cpu_reference.h"

/* What a gated product in bf16 may be off, besides its own rounding. A backend that rounds both halves before
 * it joins them says so. */
#ifndef TRIAL_GATED_BF16
#define TRIAL_GATED_BF16 1e-5
#endif

/* ---- linear ------------------------------------------------------------------------------------- */

struct linear_trial {
  struct trial trial;
  enum vamp_epilogue epilogue;
  int n, k;
  float *weight, *bias; /* [n, k], [n] or NULL */
};

static inline void linear_create(const struct trial *trial, struct vamp_device *device,
                                 struct vamp_weight **weights) {
  const struct linear_trial *linear = (const struct linear_trial *)trial;
  /* The host's arrays may go at once: what is kept must be a copy. */
  size_t bytes = sizeof(float) * (size_t)linear->n * (size_t)linear->k;
  float *weight = taken(malloc(bytes));
  memcpy(weight, linear->weight, bytes);
  struct vamp_error error = {0};
  int status = device->ops->linear_create(device, linear->n, linear->k, linear->epilogue == VAMP_GATED_GELU,
                                          weight, linear->bias, weights, &error);
  memset(weight, 0xFF, bytes);
  free(weight);
  if (status) {
    fail_msg("%s: %s", trial->name, error.message);
  }
}

static inline int linear_run(const struct trial *trial, struct vamp_device *device,
                             struct vamp_weight **weights, const struct vamp_packing *from,
                             const struct vamp_packing *to, const void *in, void *out) {
  (void)to;
  const struct linear_trial *linear = (const struct linear_trial *)trial;
  return device->ops->linear(device, weights[0], linear->epilogue, from, in, out);
}

static inline double linear_value(const struct linear_trial *linear, const float *row, int channel) {
  double sum = linear->bias ? (double)linear->bias[channel] : 0;
  for (int i = 0; i < linear->k; i++) {
    sum += (double)row[i] * (double)linear->weight[(size_t)channel * (size_t)linear->k + (size_t)i];
  }
  return sum;
}

static inline double gelu_tanh(double x) {
  return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

static inline void linear_reference(const struct trial *trial, int64_t rows, const float *in, double *out) {
  const struct linear_trial *linear = (const struct linear_trial *)trial;
  for (int64_t r = 0; r < rows; r++) {
    const float *row = in + r * linear->k;
    double *to = out + r * trial->out_width;
    for (int c = 0; c < trial->out_width; c++) {
      double y = linear_value(linear, row, c);
      if (linear->epilogue == VAMP_GATED_GELU) {
        to[c] = y * gelu_tanh(linear_value(linear, row, c + linear->n / 2));
      } else if (linear->epilogue == VAMP_ADD) {
        to[c] += y;
      } else {
        to[c] = y;
      }
    }
  }
}

/* `loud` scales the weights up: gates far out on both sides. */
static inline void check_linear(void **state, enum vamp_epilogue epilogue, int n, int k, bool with_bias,
                                double loud, int count, const int *lengths) {
  static const char *const NAMES[] = {"store", "store_f32", "add", "gated_gelu"};
  struct linear_trial linear = {
      .trial = {.in_act = true,
                .out_act = epilogue == VAMP_STORE || epilogue == VAMP_GATED_GELU,
                .in_width = k,
                .out_width = epilogue == VAMP_GATED_GELU ? n / 2 : n,
                .tolerance = 1e-5,
                .tolerance_bf16 = epilogue == VAMP_GATED_GELU ? TRIAL_GATED_BF16 : 1e-5,
                .create = linear_create,
                .run = linear_run,
                .reference = linear_reference},
      .epilogue = epilogue,
      .n = n,
      .k = k,
  };
  snprintf(linear.trial.name, sizeof linear.trial.name, "linear %s n=%d k=%d%s", NAMES[epilogue], n, k,
           with_bias ? " bias" : "");
  linear.weight = random_weights((size_t)n * (size_t)k, k / (loud * loud), (uint64_t)n * 1000 + (uint64_t)k);
  linear.bias = with_bias ? random_floats((size_t)n, 1, (uint64_t)n) : NULL;
  trial_check(state, &linear.trial, count, lengths);
  free(linear.weight);
  free(linear.bias);
}

/* ---- rms_norm ----------------------------------------------------------------------------------- */

struct norm_trial {
  struct trial trial;
  int width;
  float *weight;
};

static inline void norm_create(const struct trial *trial, struct vamp_device *device,
                               struct vamp_weight **weights) {
  const struct norm_trial *norm = (const struct norm_trial *)trial;
  assert_int_equal(device->ops->vector_create(device, norm->weight, (size_t)norm->width, weights, NULL), 0);
}

static inline int norm_run(const struct trial *trial, struct vamp_device *device,
                           struct vamp_weight **weights, const struct vamp_packing *from,
                           const struct vamp_packing *to, const void *in, void *out) {
  (void)to;
  const struct norm_trial *norm = (const struct norm_trial *)trial;
  return device->ops->rms_norm(device, weights[0], from->offsets[from->count], norm->width, in, out);
}

static inline void norm_reference(const struct trial *trial, int64_t rows, const float *in, double *out) {
  const struct norm_trial *norm = (const struct norm_trial *)trial;
  int width = norm->width;
  for (int64_t r = 0; r < rows; r++) {
    double square = 0;
    for (int i = 0; i < width; i++) {
      square += (double)in[r * width + i] * (double)in[r * width + i];
    }
    for (int i = 0; i < width; i++) {
      out[r * width + i] = (double)norm->weight[i] * (double)in[r * width + i] / sqrt(square / width + 1e-6);
    }
  }
}

static inline void check_norm(void **state, int width, double scale, int count, const int *lengths) {
  struct norm_trial norm = {.trial = {.out_act = true,
                                      .in_width = width,
                                      .out_width = width,
                                      .tolerance = 2e-6,
                                      .tolerance_bf16 = 2e-6,
                                      .create = norm_create,
                                      .run = norm_run,
                                      .reference = norm_reference},
                            .width = width,
                            .weight = random_floats((size_t)width, 2, 5)};
  snprintf(norm.trial.name, sizeof norm.trial.name, "rms_norm width=%d inputs to %g", width, scale);
  trial_check_scaled(state, &norm.trial, count, lengths, scale);
  free(norm.weight);
}

/* ---- embed -------------------------------------------------------------------------------------- */

struct embed_trial {
  struct trial trial;
  int codebooks, entries, dimensions, width;
  float *tables, *projection, *bias;
};

static inline void embed_create(const struct trial *trial, struct vamp_device *device,
                                struct vamp_weight **weights) {
  const struct embed_trial *embed = (const struct embed_trial *)trial;
  struct vamp_error error = {0};
  if (device->ops->embedding_create(device, embed->codebooks, embed->entries, embed->dimensions, embed->width,
                                    embed->tables, embed->projection, embed->bias, weights, &error)) {
    fail_msg("%s: %s", trial->name, error.message);
  }
}

/* A trial's inputs are numbers in (-1, 1): this makes a token of one, the first and the last included. */
static inline int token_of(const struct embed_trial *embed, float number) {
  int token = (int)floor(((double)number + 1) / 2 * (embed->entries + 2)) - 1;
  return token < 0 ? 0 : token >= embed->entries ? embed->entries - 1 : token;
}

static inline int embed_run(const struct trial *trial, struct vamp_device *device,
                            struct vamp_weight **weights, const struct vamp_packing *from,
                            const struct vamp_packing *to, const void *in, void *out) {
  (void)to;
  const struct embed_trial *embed = (const struct embed_trial *)trial;
  struct vamp_sequence sequences[MAX_SEQUENCES] = {0};
  for (int s = 0; s < from->count; s++) {
    size_t count = (size_t)((from->offsets[s + 1] - from->offsets[s]) * embed->codebooks);
    float *numbers = taken(malloc(4 * (count + 1)));
    int32_t *tokens = taken(malloc(4 * (count + 1)));
    const float *begin = (const float *)in + from->offsets[s] * embed->codebooks;
    assert_int_equal(device->ops->download(device, numbers, begin, 4 * count), 0);
    for (size_t i = 0; i < count; i++) {
      tokens[i] = token_of(embed, numbers[i]);
    }
    sequences[s].tokens = device_array(device, tokens, 4 * count);
    free(numbers);
    free(tokens);
  }
  int status = device->ops->embed(device, weights[0], from, sequences, out);
  device->ops->wait(device);
  for (int s = 0; s < from->count; s++) {
    device->ops->release(device, sequences[s].tokens);
  }
  return status;
}

static inline void embed_reference(const struct trial *trial, int64_t rows, const float *in, double *out) {
  const struct embed_trial *embed = (const struct embed_trial *)trial;
  int dimensions = embed->dimensions, inputs = embed->codebooks * dimensions;
  for (int64_t r = 0; r < rows; r++) {
    for (int c = 0; c < embed->width; c++) {
      double sum = embed->bias ? (double)embed->bias[c] : 0;
      for (int i = 0; i < inputs; i++) {
        int codebook = i / dimensions;
        int token = token_of(embed, in[r * embed->codebooks + codebook]);
        const float *row =
            embed->tables + ((size_t)codebook * (size_t)embed->entries + (size_t)token) * (size_t)dimensions;
        sum += (double)row[i % dimensions] * (double)embed->projection[c * inputs + i];
      }
      out[r * embed->width + c] = sum;
    }
  }
}

static inline void check_embed(void **state, int codebooks, int entries, int dimensions, int width, int count,
                               const int *lengths) {
  size_t inputs = (size_t)codebooks * (size_t)dimensions;
  struct embed_trial embed = {
      .trial = {.in_width = codebooks,
                .out_width = width,
                .tolerance = 1e-5,
                .tolerance_bf16 = 1e-5,
                .create = embed_create,
                .run = embed_run,
                .reference = embed_reference},
      .codebooks = codebooks,
      .entries = entries,
      .dimensions = dimensions,
      .width = width,
      .tables = random_floats(inputs * (size_t)entries, 1, 1),
      .projection = random_weights(inputs * (size_t)width, (double)inputs, 2),
      .bias = random_floats((size_t)width, 1, 3),
  };
  snprintf(embed.trial.name, sizeof embed.trial.name, "embed %d codebooks of %d x %d -> %d", codebooks,
           entries, dimensions, width);
  trial_check(state, &embed.trial, count, lengths);
  free(embed.tables);
  free(embed.projection);
  free(embed.bias);
}

#endif
