/*
 * The residual vector quantiser, both directions, always in float, for the tests of any backend.
 *
 * A code is right if no other row of the table is nearer than it by more than float's rounding. Each level's
 * check goes on from the remainder that the device's own code leaves, so that a near tie at one level does
 * not look like an error at the next. That rows give the same bits alone and among others, and on one thread
 * and two, is asked of the whole.
 */
#ifndef VAMP_TEST_TRIAL_QUANTIZE_H
#define VAMP_TEST_TRIAL_QUANTIZE_H

#include "tests/unit/cpu_reference.h"

struct quantizer {
  int codebooks, entries, dimensions, width;
  float *in_weight, *in_bias, *table, *out_weight, *out_bias;
};

static inline struct quantizer quantizer_make(int codebooks, int entries, int dimensions, int width) {
  size_t levels = (size_t)codebooks, matrix = (size_t)dimensions * (size_t)width;
  return (struct quantizer){
      .codebooks = codebooks,
      .entries = entries,
      .dimensions = dimensions,
      .width = width,
      .in_weight = random_weights(levels * matrix, width, 1),
      .in_bias = random_floats(levels * (size_t)dimensions, 0.2, 2),
      .table = random_floats(levels * (size_t)entries * (size_t)dimensions, 1, 3),
      .out_weight = random_weights(levels * matrix, 4 * dimensions, 4),
      .out_bias = random_floats(levels * (size_t)width, 0.1, 5),
  };
}

static inline void quantizer_free(struct quantizer *q) {
  free(q->in_weight);
  free(q->in_bias);
  free(q->table);
  free(q->out_weight);
  free(q->out_bias);
}

static inline struct vamp_weight *quantizer_create(const struct quantizer *q, struct vamp_device *device) {
  struct vamp_weight *weight = NULL;
  struct vamp_error error = {0};
  if (device->ops->quantizer_create(device, q->codebooks, q->entries, q->dimensions, q->width, q->in_weight,
                                    q->in_bias, q->table, q->out_weight, q->out_bias, &weight, &error)) {
    fail_msg("%s", error.message);
  }
  return weight;
}

/* ---- the reference ------------------------------------------------------------------------------ */

static const float *table_row(const struct quantizer *q, int level, int code) {
  return q->table + ((size_t)level * (size_t)q->entries + (size_t)code) * (size_t)q->dimensions;
}

static inline double length_of(const double *x, int count) {
  double square = 0;
  for (int i = 0; i < count; i++) {
    square += x[i] * x[i];
  }
  return fmax(sqrt(square), 1e-12);
}

/* Squared distance between the two vectors, each scaled to length 1. */
static inline double distance(const struct quantizer *q, const double *z, int level, int code) {
  const float *row = table_row(q, level, code);
  double c[64], sum = 0;
  for (int i = 0; i < q->dimensions; i++) {
    c[i] = (double)row[i];
  }
  double z_length = length_of(z, q->dimensions), c_length = length_of(c, q->dimensions);
  for (int i = 0; i < q->dimensions; i++) {
    sum += (z[i] / z_length - c[i] / c_length) * (z[i] / z_length - c[i] / c_length);
  }
  return sum;
}

/* What one code adds to the latent. */
static inline void add_code(const struct quantizer *q, int level, int code, double sign, double *latent) {
  const float *row = table_row(q, level, code);
  for (int w = 0; w < q->width; w++) {
    double value = (double)q->out_bias[level * q->width + w];
    for (int d = 0; d < q->dimensions; d++) {
      value += (double)row[d] * (double)q->out_weight[(level * q->width + w) * q->dimensions + d];
    }
    latent[w] += sign * value;
  }
}

/* The device's codes of one row are each the nearest; on a tie of equal rows, the first. */
static inline void check_codes(const struct quantizer *q, const char *name, const float *latent,
                               const int32_t *codes) {
  double *rest = taken(malloc(sizeof *rest * (size_t)q->width)), z[64];
  for (int w = 0; w < q->width; w++) {
    rest[w] = (double)latent[w];
  }
  for (int level = 0; level < q->codebooks; level++) {
    for (int d = 0; d < q->dimensions; d++) {
      z[d] = (double)q->in_bias[level * q->dimensions + d];
      for (int w = 0; w < q->width; w++) {
        z[d] += rest[w] * (double)q->in_weight[(level * q->dimensions + d) * q->width + w];
      }
    }
    int code = codes[level];
    if (code < 0 || code >= q->entries) {
      fail_msg("%s: level %d: code %d", name, level, code);
    }
    double chosen = distance(q, z, level, code);
    for (int other = 0; other < q->entries; other++) {
      double its = distance(q, z, level, other);
      bool same_row = memcmp(table_row(q, level, other), table_row(q, level, code),
                             sizeof(float) * (size_t)q->dimensions) == 0;
      if (its < chosen - 1e-5 || (same_row && other < code)) {
        fail_msg("%s: level %d: code %d at distance %.9g and not %d at %.9g", name, level, code, chosen,
                 other, its);
      }
    }
    add_code(q, level, code, -1, rest);
  }
  free(rest);
}

/* ---- quantize ----------------------------------------------------------------------------------- */

struct quantized {
  int32_t *codes;
  float *sum;
};

static inline struct quantized quantize(const struct quantizer *q, struct vamp_device *device,
                                        const struct vamp_weight *weight, int64_t rows, const float *latent,
                                        bool want_sum) {
  size_t latents = sizeof(float) * (size_t)(rows * q->width), codes = 4 * (size_t)(rows * q->codebooks);
  struct quantized got = {taken(malloc(codes + 1)), taken(malloc(latents + 1))};
  memset(got.codes, 0xFF, codes);
  memset(got.sum, 0xFF, latents);
  float *device_latent = device_array(device, latent, latents);
  int32_t *device_codes = device_array(device, got.codes, codes);
  float *device_sum = device_array(device, got.sum, latents);
  assert_int_equal(
      device->ops->quantize(device, weight, rows, device_latent, device_codes, want_sum ? device_sum : NULL),
      0);
  assert_int_equal(device->ops->download(device, got.codes, device_codes, codes), 0);
  assert_int_equal(device->ops->download(device, got.sum, device_sum, latents), 0);
  device->ops->release(device, device_latent);
  device->ops->release(device, device_codes);
  device->ops->release(device, device_sum);
  return got;
}

static inline void quantized_free(struct quantized *got) {
  free(got->codes);
  free(got->sum);
}

/* Rows [from, from + count) alone are what they were among all. */
static inline void check_rows_alone(const struct quantizer *q, const char *name, struct vamp_device *device,
                                    const struct vamp_weight *weight, const float *latent,
                                    const struct quantized *all, int64_t from, int64_t count) {
  struct quantized part = quantize(q, device, weight, count, latent + from * q->width, true);
  if (memcmp(part.codes, all->codes + from * q->codebooks, 4 * (size_t)(count * q->codebooks)) != 0 ||
      memcmp(part.sum, all->sum + from * q->width, 4 * (size_t)(count * q->width)) != 0) {
    fail_msg("%s: rows %d to %d are not the same alone", name, (int)from, (int)(from + count - 1));
  }
  quantized_free(&part);
}

/* The sum of the codes' vectors, in both directions; dequantize() of a row alone gives the same bits. */
static inline void check_sums(const struct quantizer *q, const char *name, struct vamp_device *device,
                              const struct vamp_weight *weight, int64_t rows, const struct quantized *got) {
  size_t count = (size_t)(rows * q->width);
  int32_t *codes = device_array(device, got->codes, 4 * (size_t)(rows * q->codebooks));
  float *device_latent = device_array(device, got->sum, 4 * count), *latent = taken(malloc(4 * (count + 1)));
  memset(latent, 0xFF, 4 * count);
  assert_int_equal(device->ops->upload(device, device_latent, latent, 4 * count), 0);
  assert_int_equal(device->ops->dequantize(device, weight, rows, codes, device_latent), 0);
  assert_int_equal(device->ops->download(device, latent, device_latent, 4 * count), 0);
  double *want = taken(malloc(sizeof *want * (size_t)q->width));
  for (int64_t r = 0; r < rows; r++) {
    memset(want, 0, sizeof *want * (size_t)q->width);
    for (int level = 0; level < q->codebooks; level++) {
      add_code(q, level, got->codes[r * q->codebooks + level], 1, want);
    }
    for (int w = 0; w < q->width; w++) {
      double there = (double)got->sum[r * q->width + w], back = (double)latent[r * q->width + w];
      if (!(fabs(there - want[w]) < 1e-5) || !(fabs(back - want[w]) < 1e-5)) {
        fail_msg("%s: row %d, channel %d: quantized %.9g, dequantized %.9g, and not %.9g", name, (int)r, w,
                 there, back, want[w]);
      }
    }
  }
  for (int64_t r = 0; r < rows; r += 7) {
    assert_int_equal(device->ops->dequantize(device, weight, 1, codes + r * q->codebooks, device_latent), 0);
    float alone[4096];
    assert_int_equal(device->ops->download(device, alone, device_latent, 4 * (size_t)q->width), 0);
    assert_memory_equal(alone, latent + r * q->width, 4 * (size_t)q->width);
  }
  free(want);
  free(latent);
  device->ops->release(device, codes);
  device->ops->release(device, device_latent);
}

static inline void check_quantizer(void **state, const struct quantizer *q, int64_t rows,
                                   const float *latent) {
  const struct devices *devices = *state;
  for (int i = 0; i < devices->count; i++) {
    const char *name = devices->setting[i].name;
    struct quantized first = {NULL, NULL};
    for (int t = 0; t < THREADS; t++) {
      struct vamp_device *device = devices->setting[i].device[t];
      struct vamp_weight *weight = quantizer_create(q, device);
      struct quantized got = quantize(q, device, weight, rows, latent, true);
      for (int64_t r = 0; r < rows && t == 0; r++) {
        check_codes(q, name, latent + r * q->width, got.codes + r * q->codebooks);
      }
      check_sums(q, name, device, weight, rows, &got);
      if (first.codes) {
        assert_memory_equal(first.codes, got.codes, 4 * (size_t)(rows * q->codebooks));
        assert_memory_equal(first.sum, got.sum, 4 * (size_t)(rows * q->width));
        quantized_free(&first);
      }
      if (rows > 2) {
        check_rows_alone(q, name, device, weight, latent, &got, 0, 1);
        check_rows_alone(q, name, device, weight, latent, &got, rows / 2, 1);
        check_rows_alone(q, name, device, weight, latent, &got, 1, rows - 2);
      }
      struct quantized silent = quantize(q, device, weight, rows, latent, false);
      assert_memory_equal(silent.codes, got.codes, 4 * (size_t)(rows * q->codebooks));
      quantized_free(&silent);
      device->ops->weight_free(device, weight);
      first = got;
    }
    quantized_free(&first);
  }
}

static inline void check_random(void **state, int codebooks, int entries, int dimensions, int width,
                                int64_t rows) {
  struct quantizer q = quantizer_make(codebooks, entries, dimensions, width);
  float *latent = random_floats((size_t)(rows * width), 1, 6);
  check_quantizer(state, &q, rows, latent);
  free(latent);
  quantizer_free(&q);
}

#endif
