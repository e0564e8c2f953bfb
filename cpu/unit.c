/*
 * Residual units: two convolutions and their snakes over one tile at a time, which never leaves the cache
 * between them (see conv.c). The first computes the rows of context that the second needs as well.
 */
#include <stdlib.h>
#include <string.h>

#include "cpu/tile.h"

void cpu_unit_free(struct cpu_unit *unit) {
  if (!unit) {
    return;
  }
  cpu_conv_free(unit->first);
  cpu_conv_free(unit->second);
  free(unit->alpha1);
  free(unit->alpha2);
  free(unit);
}

int cpu_unit_create(struct vamp_device *device, const struct vamp_unit_shape *shape,
                    const struct vamp_unit_weights *weights, struct vamp_weight **unit,
                    struct vamp_error *error) {
  struct cpu_unit *u = calloc(1, sizeof *u);
  if (!u) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  u->base.kind = CPU_UNIT;
  int rows = tile_output_rows(shape->channels), channels = shape->channels;
  struct vamp_conv_shape first = {.in_channels = channels,
                                  .out_channels = channels,
                                  .kernel = shape->kernel1,
                                  .stride = 1,
                                  .dilation = shape->dilation1,
                                  .padding = (shape->kernel1 - 1) * shape->dilation1 / 2};
  struct vamp_conv_shape second = {.in_channels = channels,
                                   .out_channels = channels,
                                   .kernel = shape->kernel2,
                                   .stride = 1,
                                   .dilation = 1,
                                   .padding = (shape->kernel2 - 1) / 2};
  int status = cpu_vector_make(weights->alpha1, (size_t)channels, &u->alpha1, error);
  if (!status) {
    status = cpu_vector_make(weights->alpha2, (size_t)channels, &u->alpha2, error);
  }
  if (!status) {
    /* The first convolution also makes the context that the second needs. */
    status = cpu_conv_make(device, &first, rows + shape->kernel2 - 1, weights->weight1, weights->bias1,
                           &u->first, error);
  }
  if (!status) {
    status = cpu_conv_make(device, &second, rows, weights->weight2, weights->bias2, &u->second, error);
  }
  if (status) {
    cpu_unit_free(u);
    return status;
  }
  *unit = &u->base;
  return 0;
}

struct unit_job {
  const struct cpu_device *device;
  const struct cpu_vector *alpha1, *alpha2;
  const struct cpu_conv *first, *second;
  const struct vamp_packing *packing;
  float scale;
  bool accumulate;
  const float *in;
  float *out;
  const struct cpu_tile *tiles;
};

/* Zeroes rows of the hidden signal that lie outside the sequence: the second convolution pads with
 * zeros, while the first has computed something there. */
static void outside(int64_t from, int rows, int64_t length, int *before, int *after) {
  *before = from < 0 ? (int)(-from < rows ? -from : rows) : 0;
  *after = from + rows > length ? (int)(from + rows - length < rows ? from + rows - length : rows) : 0;
}

static int unit_tile_rows(const struct unit_job *j, const struct cpu_tile *tile, char *at) {
  const struct vamp_conv_shape *s1 = &j->first->shape, *s2 = &j->second->shape;
  int channels = s1->in_channels, rows = j->second->rows;
  int hidden = rows + (s2->kernel - 1) * s2->dilation, need = hidden + (s1->kernel - 1) * s1->dilation;
  size_t width = (size_t)channels, act = j->device->base.act_size;
  int64_t begin = j->packing->offsets[tile->sequence];
  int64_t length = j->packing->offsets[tile->sequence + 1] - begin;
  int64_t first = tile->first - begin;
  const float *sequence = j->in + (size_t)begin * width;
  char *x = cpu_carve(&at, act * (size_t)need * width);
  float *y = cpu_carve(&at, sizeof *y * (size_t)hidden * width);
  tile_fetch_rows(j->device, sequence, length, channels, j->alpha1, first - s2->padding - s1->padding, need,
                  x);
  int status = onednn_conv_run(j->first->tile, x, y, at);
  int before, after;
  outside(first - s2->padding, hidden, length, &before, &after);
  j->device->simd->snake(y, hidden, channels, j->alpha2->values, j->alpha2->inverse, cpu_bf16(j->device), x);
  memset(x, 0, act * (size_t)before * width);
  memset(x + act * (size_t)(hidden - after) * width, 0, act * (size_t)after * width);
  if (!status) {
    status = onednn_conv_run(j->second->tile, x, y, at);
  }
  size_t start = (size_t)tile->first * width;
  j->device->simd->residual(j->in + start, y, (size_t)tile->rows * width, j->scale, j->accumulate,
                            j->out + start);
  return status;
}

static int unit_tile_channels(const struct unit_job *j, const struct cpu_tile *tile, char *at) {
  const struct vamp_conv_shape *s1 = &j->first->shape, *s2 = &j->second->shape;
  const struct simd *simd = j->device->simd;
  int channels = s1->in_channels, rows = tile->rows;
  int hidden = rows + (s2->kernel - 1) * s2->dilation, need = hidden + (s1->kernel - 1) * s1->dilation;
  size_t width = (size_t)channels, stride = tile_channel_stride(need);
  int64_t begin = j->packing->offsets[tile->sequence];
  int64_t length = j->packing->offsets[tile->sequence + 1] - begin;
  int64_t first = tile->first - begin;
  float *x = cpu_carve(&at, sizeof *x * stride * width + 4096);
  float *h = cpu_carve(&at, sizeof *h * stride * width + 4096);
  float *y = cpu_carve(&at, sizeof *y * (size_t)j->second->rows * width);
  tile_fetch_channels(j->device, j->in + (size_t)begin * width, length, channels, j->alpha1,
                      first - s2->padding - s1->padding, need, x, stride);
  simd->conv_channels(x, stride, channels, j->first->weight, j->first->bias, channels, s1->kernel,
                      s1->dilation, hidden, h, stride);
  simd->snake_channels(h, channels, hidden, stride, j->alpha2->values, j->alpha2->inverse);
  int before, after;
  outside(first - s2->padding, hidden, length, &before, &after);
  for (int c = 0; c < channels; c++) {
    memset(h + (size_t)c * stride, 0, sizeof *h * (size_t)before);
    memset(h + (size_t)c * stride + (hidden - after), 0, sizeof *h * (size_t)after);
  }
  simd->conv_channels(h, stride, channels, j->second->weight, j->second->bias, channels, s2->kernel,
                      s2->dilation, rows, x, stride);
  tile_channels_to_rows(x, stride, channels, rows, y);
  size_t start = (size_t)tile->first * width;
  simd->residual(j->in + start, y, (size_t)rows * width, j->scale, j->accumulate, j->out + start);
  return 0;
}

static int unit_item(void *context, int64_t item, int thread) {
  const struct unit_job *j = context;
  char *at = cpu_scratch(j->device, thread);
  return j->first->way == CPU_CONV_TILE ? unit_tile_rows(j, &j->tiles[item], at)
                                        : unit_tile_channels(j, &j->tiles[item], at);
}

int cpu_residual_unit(struct vamp_device *base, const struct vamp_weight *unit,
                      const struct vamp_packing *packing, float scale, bool accumulate, const float *in,
                      float *out) {
  struct cpu_device *device = cpu_device(base);
  const struct cpu_unit *u = (const struct cpu_unit *)unit;
  size_t width = (size_t)u->first->shape.in_channels;
  int rows = u->second->rows, hidden = u->first->rows;
  int need = hidden + (u->first->shape.kernel - 1) * u->first->shape.dilation;
  bool rows_way = u->first->way == CPU_CONV_TILE;
  struct cpu_tile *tiles;
  int64_t count = cpu_tiles(packing, rows, &tiles);
  if (count < 0) {
    return VAMP_MEMORY;
  }
  struct unit_job j = {device, u->alpha1,  u->alpha2, u->first, u->second, packing,
                       scale,  accumulate, in,        out,      tiles};
  size_t bytes = rows_way ? cpu_carved(base->act_size * (size_t)need * width) +
                                cpu_carved(sizeof(float) * (size_t)hidden * width) +
                                cpu_carved(onednn_scratch_size(device->onednn))
                          : 2 * cpu_carved(sizeof(float) * tile_channel_stride(need) * width + 4096) +
                                cpu_carved(sizeof(float) * (size_t)rows * width);
  int status = cpu_scratch_reserve(device, bytes);
  if (!status) {
    status = cpu_pool_run(device->pool, count, unit_item, &j);
  }
  free(tiles);
  return status;
}
