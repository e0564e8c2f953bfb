/*
 * Residual units: two convolutions and their snakes over one tile at a time, which never leaves the cache
 * between them (see conv.c). The first computes the rows of context that the second needs as well.
 */
#include <stdlib.h>
#include <string.h>

#include "cpu/fastfir.h"
#include "cpu/tile.h"

void cpu_unit_free(struct cpu_unit *unit) {
  if (!unit) {
    return;
  }
  cpu_conv_free(unit->first);
  cpu_conv_free(unit->second);
  fast_fir_free(unit->fast_first);
  fast_fir_free(unit->fast_second);
  free(unit->alpha1);
  free(unit->alpha2);
  free(unit);
}

static int make_conv(struct vamp_device *device, const struct vamp_conv_shape *shape, int rows,
                     const float *weight, const float *bias, struct cpu_conv **conv, struct fast_fir **fast,
                     struct vamp_error *error) {
  return fast_fir_pays(shape) ? fast_fir_create(cpu_device(device), shape, rows, weight, bias, fast, error)
                              : cpu_conv_make(device, shape, rows, weight, bias, conv, error);
}

int cpu_unit_create(struct vamp_device *device, const struct vamp_unit_shape *shape,
                    const struct vamp_unit_weights *weights, struct vamp_weight **unit,
                    struct vamp_error *error) {
  struct cpu_unit *u = calloc(1, sizeof *u);
  if (!u) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  int channels = shape->channels;
  u->base.kind = CPU_UNIT;
  u->shape1 = (struct vamp_conv_shape){.in_channels = channels,
                                       .out_channels = channels,
                                       .kernel = shape->kernel1,
                                       .stride = 1,
                                       .dilation = shape->dilation1,
                                       .padding = (shape->kernel1 - 1) * shape->dilation1 / 2};
  u->shape2 = (struct vamp_conv_shape){.in_channels = channels,
                                       .out_channels = channels,
                                       .kernel = shape->kernel2,
                                       .stride = 1,
                                       .dilation = 1,
                                       .padding = (shape->kernel2 - 1) / 2};
  /* The first convolution also makes the context that the second needs. */
  u->rows = tile_output_rows(channels);
  u->hidden = u->rows + shape->kernel2 - 1;
  if (fast_fir_pays(&u->shape1)) {
    u->hidden = fast_fir_rows(&u->shape1, u->hidden);
  }
  int status = cpu_vector_make(weights->alpha1, (size_t)channels, &u->alpha1, error);
  if (!status) {
    status = cpu_vector_make(weights->alpha2, (size_t)channels, &u->alpha2, error);
  }
  if (!status) {
    status = make_conv(device, &u->shape1, u->hidden, weights->weight1, weights->bias1, &u->first,
                       &u->fast_first, error);
  }
  if (!status) {
    status = make_conv(device, &u->shape2, u->rows, weights->weight2, weights->bias2, &u->second,
                       &u->fast_second, error);
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
  const struct cpu_unit *unit;
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
  const struct cpu_unit *u = j->unit;
  int channels = u->shape1.in_channels, hidden = u->hidden;
  int need = hidden + (u->shape1.kernel - 1) * u->shape1.dilation;
  size_t width = (size_t)channels;
  bool bf16 = cpu_bf16(j->device), narrow1 = bf16 && !u->fast_first, narrow2 = bf16 && !u->fast_second;
  int64_t begin = j->packing->offsets[tile->sequence];
  int64_t length = j->packing->offsets[tile->sequence + 1] - begin;
  int64_t first = tile->first - begin;
  char *x = cpu_carve(&at, sizeof(float) * (size_t)need * width);
  float *y = cpu_carve(&at, sizeof *y * (size_t)hidden * width);
  tile_fetch_rows(j->device, j->in + (size_t)begin * width, length, channels, u->alpha1,
                  first - u->shape2.padding - u->shape1.padding, need, narrow1, x);
  int status = u->fast_first ? fast_fir_run(j->device, u->fast_first, (float *)(void *)x, y, at)
                             : onednn_conv_run(u->first->tile, x, y, at);
  int before, after;
  size_t row = (narrow2 ? 2 : 4) * width;
  outside(first - u->shape2.padding, hidden, length, &before, &after);
  j->device->simd->snake(y, hidden, channels, u->alpha2->values, u->alpha2->inverse, narrow2, x);
  memset(x, 0, row * (size_t)before);
  memset(x + row * (size_t)(hidden - after), 0, row * (size_t)after);
  if (!status) {
    status = u->fast_second ? fast_fir_run(j->device, u->fast_second, (float *)(void *)x, y, at)
                            : onednn_conv_run(u->second->tile, x, y, at);
  }
  size_t start = (size_t)tile->first * width;
  j->device->simd->residual(j->in + start, y, (size_t)tile->rows * width, j->scale, j->accumulate,
                            j->out + start);
  return status;
}

static int unit_tile_channels(const struct unit_job *j, const struct cpu_tile *tile, char *at) {
  const struct cpu_unit *u = j->unit;
  const struct vamp_conv_shape *s1 = &u->shape1, *s2 = &u->shape2;
  const struct simd *simd = j->device->simd;
  int channels = s1->in_channels, rows = tile->rows;
  int hidden = rows + (s2->kernel - 1) * s2->dilation, need = hidden + (s1->kernel - 1) * s1->dilation;
  size_t width = (size_t)channels, stride = tile_channel_stride(need);
  int64_t begin = j->packing->offsets[tile->sequence];
  int64_t length = j->packing->offsets[tile->sequence + 1] - begin;
  int64_t first = tile->first - begin;
  float *x = cpu_carve(&at, sizeof *x * stride * width + 4096);
  float *h = cpu_carve(&at, sizeof *h * stride * width + 4096);
  float *y = cpu_carve(&at, sizeof *y * (size_t)u->rows * width);
  tile_fetch_channels(j->device, j->in + (size_t)begin * width, length, channels, u->alpha1,
                      first - s2->padding - s1->padding, need, x, stride);
  simd->conv_channels(x, stride, channels, u->first->weight, u->first->bias, channels, s1->kernel,
                      s1->dilation, hidden, h, stride);
  simd->snake_channels(h, channels, hidden, stride, u->alpha2->values, u->alpha2->inverse);
  int before, after;
  outside(first - s2->padding, hidden, length, &before, &after);
  for (int c = 0; c < channels; c++) {
    memset(h + (size_t)c * stride, 0, sizeof *h * (size_t)before);
    memset(h + (size_t)c * stride + (hidden - after), 0, sizeof *h * (size_t)after);
  }
  simd->conv_channels(h, stride, channels, u->second->weight, u->second->bias, channels, s2->kernel,
                      s2->dilation, rows, x, stride);
  tile_channels_to_rows(x, stride, channels, rows, y);
  size_t start = (size_t)tile->first * width;
  simd->residual(j->in + start, y, (size_t)rows * width, j->scale, j->accumulate, j->out + start);
  return 0;
}

static bool few_channels(const struct cpu_unit *u) {
  return u->first && u->first->way == CPU_CONV_CHANNELS;
}

static size_t unit_scratch(const struct cpu_device *device, const struct cpu_unit *u) {
  size_t width = (size_t)u->shape1.in_channels;
  int need = u->hidden + (u->shape1.kernel - 1) * u->shape1.dilation;
  if (few_channels(u)) {
    return 2 * cpu_carved(sizeof(float) * tile_channel_stride(need) * width + 4096) +
           cpu_carved(sizeof(float) * (size_t)u->rows * width);
  }
  size_t inner = cpu_carved(onednn_scratch_size(device->onednn));
  size_t fast1 = u->fast_first ? fast_fir_scratch(device, u->fast_first) : 0;
  size_t fast2 = u->fast_second ? fast_fir_scratch(device, u->fast_second) : 0;
  inner = fast1 > inner ? fast1 : inner;
  inner = fast2 > inner ? fast2 : inner;
  return cpu_carved(sizeof(float) * (size_t)need * width) +
         cpu_carved(sizeof(float) * (size_t)u->hidden * width) + inner;
}

static int unit_item(void *context, int64_t item, int thread) {
  const struct unit_job *j = context;
  char *at = cpu_scratch(j->device, thread);
  return few_channels(j->unit) ? unit_tile_channels(j, &j->tiles[item], at)
                               : unit_tile_rows(j, &j->tiles[item], at);
}

int cpu_residual_unit(struct vamp_device *base, const struct vamp_weight *unit,
                      const struct vamp_packing *packing, float scale, bool accumulate, const float *in,
                      float *out) {
  struct cpu_device *device = cpu_device(base);
  const struct cpu_unit *u = (const struct cpu_unit *)unit;
  struct cpu_tile *tiles;
  int64_t count = cpu_tiles(packing, u->rows, &tiles);
  if (count < 0) {
    return VAMP_MEMORY;
  }
  struct unit_job j = {device, u, packing, scale, accumulate, in, out, tiles};
  int status = cpu_scratch_reserve(device, unit_scratch(device, u));
  if (!status) {
    status = cpu_pool_run(device->pool, count, unit_item, &j);
  }
  free(tiles);
  return status;
}
