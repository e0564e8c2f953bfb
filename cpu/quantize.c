/*
 * The residual vector quantiser (van den Oord et al. 2017; Zeghidour et al. 2021), both ways, in float
 * whatever the precision: a wrong token is worth more than the time. One row at a time stays in the first
 * cache with the 8-dimensional projections; the codebook search is one pass over a transposed table of
 * unit vectors: |z - c|^2 is least where z c - |c|^2 / 2 is largest.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/internal.h"

void cpu_quantizer_free(struct cpu_quantizer *quantizer) {
  if (!quantizer) {
    return;
  }
  free(quantizer->in_weight);
  free(quantizer->in_bias);
  free(quantizer->table);
  free(quantizer->directions);
  free(quantizer->half_squares);
  free(quantizer->out_weight);
  free(quantizer->out_bias);
  free(quantizer);
}

/* Rows of each table divided by their norm (at least 1e-12), [codebooks, dimensions, entries]. */
static void normalise(struct cpu_quantizer *q) {
  size_t entries = (size_t)q->entries, dimensions = (size_t)q->dimensions;
  for (size_t c = 0; c < (size_t)q->codebooks; c++) {
    for (size_t e = 0; e < entries; e++) {
      const float *row = q->table + (c * entries + e) * dimensions;
      float norm = 0;
      for (size_t d = 0; d < dimensions; d++) {
        norm += row[d] * row[d];
      }
      norm = fmaxf(sqrtf(norm), 1e-12f);
      float direction = 0;
      for (size_t d = 0; d < dimensions; d++) {
        q->directions[(c * dimensions + d) * entries + e] = row[d] / norm;
        direction += row[d] / norm * (row[d] / norm);
      }
      /* 1/2, up to rounding that must not decide, but for a row of zeros. */
      q->half_squares[c * entries + e] = direction > 0.5f ? 0.5f : direction / 2;
    }
  }
}

int cpu_quantizer_create(struct vamp_device *device, int codebooks, int entries, int dimensions, int width,
                         const float *in_weight, const float *in_bias, const float *table,
                         const float *out_weight, const float *out_bias, struct vamp_weight **quantizer,
                         struct vamp_error *error) {
  (void)device;
  struct cpu_quantizer *q = calloc(1, sizeof *q);
  if (!q) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  size_t c = (size_t)codebooks, d = (size_t)dimensions, e = (size_t)entries, w = (size_t)width;
  *q = (struct cpu_quantizer){.base.kind = CPU_QUANTIZER,
                              .codebooks = codebooks,
                              .entries = entries,
                              .dimensions = dimensions,
                              .width = width};
  q->in_weight = cpu_copy_floats(in_weight, c * d * w);
  q->in_bias = cpu_copy_floats(in_bias, c * d);
  q->table = cpu_copy_floats(table, c * e * d);
  q->directions = cpu_allocate(sizeof(float) * (c * d * e + 16));
  q->half_squares = cpu_allocate(sizeof(float) * (c * e + 16));
  q->out_weight = cpu_allocate(sizeof(float) * (c * d * w + 16));
  q->out_bias = cpu_copy_floats(out_bias, c * w);
  if (!q->in_weight || !q->in_bias || !q->table || !q->directions || !q->half_squares || !q->out_weight ||
      !q->out_bias) {
    cpu_quantizer_free(q);
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  normalise(q);
  for (size_t i = 0; i < c; i++) {
    for (size_t row = 0; row < w; row++) {
      for (size_t column = 0; column < d; column++) {
        q->out_weight[(i * d + column) * w + row] = out_weight[(i * w + row) * d + column];
      }
    }
  }
  *quantizer = &q->base;
  return 0;
}

/* out += sign * out_proj(table row of `code`). */
static void add_entry(const struct simd *simd, const struct cpu_quantizer *q, int codebook, int32_t code,
                      float sign, float *out) {
  size_t c = (size_t)codebook, d = (size_t)q->dimensions, w = (size_t)q->width;
  const float *row = q->table + (c * (size_t)q->entries + (size_t)code) * d;
  simd->axpy(sign, q->out_bias + c * w, q->width, out);
  for (size_t i = 0; i < d; i++) {
    simd->axpy(sign * row[i], q->out_weight + (c * d + i) * w, q->width, out);
  }
}

static int32_t search(const struct simd *simd, const struct cpu_quantizer *q, int codebook,
                      const float *residual, float *z) {
  size_t c = (size_t)codebook, d = (size_t)q->dimensions, w = (size_t)q->width;
  for (size_t i = 0; i < d; i++) {
    z[i] = simd->dot(q->in_weight + (c * d + i) * w, residual, q->width) + q->in_bias[c * d + i];
  }
  float norm = 0;
  for (size_t i = 0; i < d; i++) {
    norm += z[i] * z[i];
  }
  norm = fmaxf(sqrtf(norm), 1e-12f);
  for (size_t i = 0; i < d; i++) {
    z[i] /= norm;
  }
  return simd->nearest(z, q->directions + c * d * (size_t)q->entries,
                       q->half_squares + c * (size_t)q->entries, q->dimensions, q->entries);
}

struct quantize_job {
  const struct cpu_device *device;
  const struct cpu_quantizer *quantizer;
  float *latent;    /* [rows, width] */
  int32_t *codes;   /* [rows, codebooks] */
  float *quantized; /* [rows, width] or NULL */
};

/* Item: a row. */
static int quantize_row(void *context, int64_t row, int thread) {
  const struct quantize_job *j = context;
  const struct cpu_quantizer *q = j->quantizer;
  const struct simd *simd = j->device->simd;
  float *residual = j->latent + (size_t)row * (size_t)q->width;
  float *z = (float *)(void *)cpu_scratch(j->device, thread);
  float *sum = j->quantized ? j->quantized + (size_t)row * (size_t)q->width : NULL;
  if (sum) {
    memset(sum, 0, sizeof *sum * (size_t)q->width);
  }
  for (int c = 0; c < q->codebooks; c++) {
    int32_t code = search(simd, q, c, residual, z);
    j->codes[(size_t)row * (size_t)q->codebooks + (size_t)c] = code;
    add_entry(simd, q, c, code, -1.0f, residual);
    if (sum) {
      add_entry(simd, q, c, code, 1.0f, sum);
    }
  }
  return 0;
}

int cpu_quantize(struct vamp_device *base, const struct vamp_weight *quantizer, int64_t rows, float *latent,
                 int32_t *codes, float *quantized) {
  struct cpu_device *device = cpu_device(base);
  struct quantize_job j = {device, (const struct cpu_quantizer *)quantizer, latent, codes, quantized};
  int status = cpu_scratch_reserve(device, sizeof(float) * (size_t)j.quantizer->dimensions + 64);
  return status ? status : cpu_pool_run(device->pool, rows, quantize_row, &j);
}

struct dequantize_job {
  const struct cpu_device *device;
  const struct cpu_quantizer *quantizer;
  const int32_t *codes;
  float *latent;
};

static int dequantize_row(void *context, int64_t row, int thread) {
  (void)thread;
  const struct dequantize_job *j = context;
  const struct cpu_quantizer *q = j->quantizer;
  float *out = j->latent + (size_t)row * (size_t)q->width;
  memset(out, 0, sizeof *out * (size_t)q->width);
  for (int c = 0; c < q->codebooks; c++) {
    add_entry(j->device->simd, q, c, j->codes[(size_t)row * (size_t)q->codebooks + (size_t)c], 1.0f, out);
  }
  return 0;
}

int cpu_dequantize(struct vamp_device *base, const struct vamp_weight *quantizer, int64_t rows,
                   const int32_t *codes, float *latent) {
  struct cpu_device *device = cpu_device(base);
  struct dequantize_job j = {device, (const struct cpu_quantizer *)quantizer, codes, latent};
  return cpu_pool_run(device->pool, rows, dequantize_row, &j);
}
