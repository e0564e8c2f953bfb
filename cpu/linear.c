/*
 * Products with a weight matrix, and what is built on them: embedding and RMS norm beside it.
 *
 * A matrix [n, k] is cut into column tiles of at most max_columns outputs, each reordered once. The work
 * is row tiles x column tiles; one thread computes a tile into its scratch (a few hundred KiB, second
 * cache) and applies the epilogue from there. Measured on two Zen 4 cores (docs/performance.md): 192
 * rows by 320 columns by k = 1280 runs at 98 % of the processor's rate in both precisions, and wider
 * tiles gain nothing. A fused epilogue inside oneDNN was rejected: gated GELU needs two columns at once.
 */
#include <stdlib.h>
#include <string.h>

#include "cpu/internal.h"

enum { max_columns = 320 };

void cpu_linear_free(struct cpu_linear *linear) {
  if (!linear) {
    return;
  }
  if (linear->product) {
    for (int t = 0; t < linear->tiles; t++) {
      onednn_product_free(linear->product[t]);
    }
  }
  free(linear->product);
  free(linear->bias);
  free(linear);
}

/* The fewest equal tiles of at most max_columns; a width with no good divisor stays whole. */
static int choose_tiles(int n) {
  int least = (n + max_columns - 1) / max_columns;
  for (int tiles = least; tiles <= 4 * least && tiles <= n; tiles++) {
    if (n % tiles == 0 && (n / tiles) % 16 == 0) {
      return tiles;
    }
  }
  return 1;
}

/* What a tile may read beyond the last row, as cpu_row_slack promises. */
static int check_slack(int k, struct vamp_error *error) {
  if ((size_t)k * sizeof(float) * ONEDNN_ROW_STEP > cpu_row_slack) {
    return vamp_fail(error, VAMP_UNSUPPORTED, "a matrix of %d columns is wider than the CPU backend takes",
                     k);
  }
  return 0;
}

int cpu_linear_create(struct vamp_device *base, int n, int k, bool gated, const float *weight,
                      const float *bias, struct vamp_weight **out, struct vamp_error *error) {
  struct cpu_device *device = cpu_device(base);
  int status = check_slack(k, error);
  if (status) {
    return status;
  }
  struct cpu_linear *l = calloc(1, sizeof *l);
  float *rows = NULL;
  status = VAMP_MEMORY;
  if (!l) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  l->base.kind = CPU_LINEAR;
  l->n = n;
  l->k = k;
  l->gated = gated;
  l->tiles = gated ? choose_tiles(n / 2) : choose_tiles(n);
  l->tile_n = n / l->tiles;
  if (gated && l->tile_n > max_columns && (l->tile_n / 2) % 32 == 0) {
    l->tiles *= 2;
    l->tile_n /= 2;
  }
  l->product = calloc((size_t)l->tiles, sizeof *l->product);
  l->bias = bias ? malloc(sizeof *l->bias * (size_t)n) : NULL;
  rows = gated ? malloc(sizeof *rows * (size_t)l->tile_n * (size_t)k) : NULL;
  if (!l->product || (bias && !l->bias) || (gated && !rows)) {
    vamp_fail(error, VAMP_MEMORY, "out of memory");
    goto err;
  }
  for (int t = 0; t < l->tiles; t++) {
    const float *tile = weight + (size_t)t * (size_t)l->tile_n * (size_t)k;
    if (gated) {
      int half = l->tile_n / 2;
      for (int part = 0; part < 2; part++) {
        size_t first = (size_t)part * (size_t)(n / 2) + (size_t)t * (size_t)half;
        size_t at = (size_t)part * (size_t)half;
        memcpy(rows + at * (size_t)k, weight + first * (size_t)k, sizeof *rows * (size_t)half * (size_t)k);
        if (bias) {
          memcpy(l->bias + (size_t)t * (size_t)l->tile_n + at, bias + first, sizeof *bias * (size_t)half);
        }
      }
      tile = rows;
    }
    status = onednn_product_create(device->onednn, cpu_bf16(device), l->tile_n, k, tile, (size_t)k,
                                   &l->product[t], error);
    if (status) {
      goto err;
    }
  }
  if (bias && !gated) {
    memcpy(l->bias, bias, sizeof *bias * (size_t)n);
  }
  free(rows);
  *out = &l->base;
  return 0;
err:
  free(rows);
  cpu_linear_free(l);
  return status;
}

size_t cpu_linear_scratch(const struct cpu_device *device) {
  return cpu_carved(onednn_scratch_size(device->onednn));
}

int cpu_linear_prepare(const struct cpu_linear *linear, int rows, struct vamp_error *error) {
  return onednn_product_prepare(linear->product[0], onednn_row_class(rows), error);
}

int cpu_linear_tile(const struct cpu_linear *linear, int tile, int rows, const void *in, float *y,
                    void *pad) {
  return onednn_product_run(linear->product[tile], onednn_row_class(rows), in, y, pad);
}

static void finish_tile(const struct cpu_device *device, const struct cpu_linear *l,
                        enum vamp_epilogue epilogue, int column, const struct cpu_tile *tile, const float *y,
                        void *out) {
  const struct simd *simd = device->simd;
  bool bf16 = cpu_bf16(device);
  const float *bias = l->bias ? l->bias + (size_t)column * (size_t)l->tile_n : NULL;
  size_t width = (size_t)(epilogue == VAMP_GATED_GELU ? l->n / 2 : l->n);
  size_t step = (size_t)(epilogue == VAMP_GATED_GELU ? l->tile_n / 2 : l->tile_n);
  size_t element = epilogue == VAMP_STORE || epilogue == VAMP_GATED_GELU ? device->base.act_size : 4;
  void *to = (char *)out + ((size_t)tile->first * width + (size_t)column * step) * element;
  switch (epilogue) {
  case VAMP_STORE:
  case VAMP_STORE_F32:
    simd->store(y, tile->rows, l->tile_n, bias, bf16 && epilogue == VAMP_STORE, to, width);
    break;
  case VAMP_ADD:
    simd->add(y, tile->rows, l->tile_n, bias, to, width);
    break;
  case VAMP_GATED_GELU:
    simd->gated_gelu(y, tile->rows, l->tile_n / 2, bias, bf16, to, width);
    break;
  }
}

struct linear_job {
  const struct cpu_device *device;
  const struct cpu_linear *linear;
  enum vamp_epilogue epilogue;
  const struct cpu_tile *tiles;
  int64_t count;
  const char *in;
  void *out;
};

/* Item: column tile * count + row tile, so that neighbours in time share the weights in the cache. */
static int linear_item(void *context, int64_t item, int thread) {
  const struct linear_job *j = context;
  const struct cpu_linear *l = j->linear;
  const struct cpu_tile *tile = &j->tiles[item % j->count];
  int column = (int)(item / j->count);
  size_t row = j->device->base.act_size * (size_t)l->k;
  char *at = cpu_scratch(j->device, thread);
  float *y = cpu_carve(&at, sizeof(float) * ONEDNN_MAX_ROWS * (size_t)l->tile_n);
  int status = cpu_linear_tile(l, column, tile->rows, j->in + (size_t)tile->first * row, y, at);
  if (!status) {
    finish_tile(j->device, l, j->epilogue, column, tile, y, j->out);
  }
  return status;
}

int cpu_linear(struct vamp_device *base, const struct vamp_weight *linear, enum vamp_epilogue epilogue,
               const struct vamp_packing *packing, const void *in, void *out) {
  struct cpu_device *device = cpu_device(base);
  const struct cpu_linear *l = (const struct cpu_linear *)linear;
  struct cpu_tile *tiles;
  int64_t count = cpu_tiles(packing, ONEDNN_MAX_ROWS, &tiles);
  if (count < 0) {
    return VAMP_MEMORY;
  }
  int status = 0;
  for (int64_t t = 0; t < count && !status; t++) {
    status = cpu_linear_prepare(l, tiles[t].rows, NULL);
  }
  size_t result = cpu_carved(sizeof(float) * ONEDNN_MAX_ROWS * (size_t)l->tile_n);
  if (!status) {
    status = cpu_scratch_reserve(device, result + cpu_linear_scratch(device));
  }
  if (!status) {
    struct linear_job j = {device, l, epilogue, tiles, count, in, out};
    status = cpu_pool_run(device->pool, count * l->tiles, linear_item, &j);
  }
  free(tiles);
  return status;
}

/* ---- embedding ------------------------------------------------------------------------------------ */

void cpu_embedding_free(struct cpu_embedding *embedding) {
  if (!embedding) {
    return;
  }
  cpu_linear_free(embedding->projection);
  free(embedding->tables);
  free(embedding);
}

int cpu_embedding_create(struct vamp_device *device, int codebooks, int entries, int dimensions, int width,
                         const float *tables, const float *projection, const float *bias,
                         struct vamp_weight **embedding, struct vamp_error *error) {
  struct cpu_embedding *e = calloc(1, sizeof *e);
  if (!e) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  size_t bytes = sizeof(float) * (size_t)codebooks * (size_t)entries * (size_t)dimensions;
  *e = (struct cpu_embedding){.base.kind = CPU_EMBEDDING,
                              .codebooks = codebooks,
                              .entries = entries,
                              .dimensions = dimensions,
                              .width = width};
  e->tables = malloc(bytes);
  int status = e->tables ? 0 : vamp_fail(error, VAMP_MEMORY, "out of memory");
  struct vamp_weight *linear = NULL;
  if (!status) {
    memcpy(e->tables, tables, bytes);
    status =
        cpu_linear_create(device, width, codebooks * dimensions, false, projection, bias, &linear, error);
  }
  if (status) {
    cpu_embedding_free(e);
    return status;
  }
  e->projection = (struct cpu_linear *)linear;
  *embedding = &e->base;
  return 0;
}

int cpu_embed(struct vamp_device *base, const struct vamp_weight *embedding,
              const struct vamp_packing *packing, const struct vamp_sequence *sequences, float *x) {
  struct cpu_device *device = cpu_device(base);
  const struct cpu_embedding *e = (const struct cpu_embedding *)embedding;
  size_t k = (size_t)e->codebooks * (size_t)e->dimensions, row = device->base.act_size * k;
  int64_t rows = packing->offsets[packing->count];
  char *gathered = cpu_allocate(row * (size_t)rows + cpu_row_slack);
  float *one = malloc(sizeof *one * k);
  int status = VAMP_MEMORY;
  if (gathered && one) {
    for (int s = 0; s < packing->count; s++) {
      const int32_t *token = sequences[s].tokens;
      for (int64_t r = packing->offsets[s]; r < packing->offsets[s + 1]; r++) {
        for (int c = 0; c < e->codebooks; c++) {
          const float *from =
              e->tables + ((size_t)c * (size_t)e->entries + (size_t)*token++) * (size_t)e->dimensions;
          memcpy(one + (size_t)c * (size_t)e->dimensions, from, sizeof *one * (size_t)e->dimensions);
        }
        device->simd->to_act(one, k, cpu_bf16(device), gathered + (size_t)r * row);
      }
    }
    status = cpu_linear(base, &e->projection->base, VAMP_STORE_F32, packing, gathered, x);
  }
  free(one);
  free(gathered);
  return status;
}

struct norm_job {
  const struct cpu_device *device;
  const float *weight, *x;
  char *out;
  int64_t rows;
  int width;
};

enum { norm_rows = 16 };

static int norm_item(void *context, int64_t item, int thread) {
  (void)thread;
  const struct norm_job *j = context;
  int64_t first = item * norm_rows;
  int rows = (int)(j->rows - first < norm_rows ? j->rows - first : norm_rows);
  size_t at = (size_t)first * (size_t)j->width;
  j->device->simd->rms_norm(j->x + at, j->weight, rows, j->width, cpu_bf16(j->device),
                            j->out + at * j->device->base.act_size);
  return 0;
}

int cpu_rms_norm(struct vamp_device *base, const struct vamp_weight *weight, int64_t rows, int width,
                 const float *x, void *out) {
  struct cpu_device *device = cpu_device(base);
  struct norm_job j = {device, ((const struct cpu_vector *)weight)->values, x, out, rows, width};
  return cpu_pool_run(device->pool, (rows + norm_rows - 1) / norm_rows, norm_item, &j);
}
