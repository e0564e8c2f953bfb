/*
 * Convolutions of the codec, channels last, cut along time.
 *
 * A tile of output rows is computed by one thread: the input rows it needs, with their context, pass
 * through snake into scratch (zeros where the sequence ends), and one call convolves them. Context is
 * computed twice at the seams of tiles; in return a residual unit reads its input once and writes its
 * output once, the two convolutions and the activations between them never leave the cache, and one
 * primitive a layer serves every length. Four ways, chosen by shape:
 *
 * - CHANNELS, few channels: our own kernel, channel-first, vectors along time. oneDNN's kernels put channels
 *   into lanes: measured 46 GFLOP/s for 4 channels, where this reaches several times that.
 * - TILE, everything else of stride 1: a oneDNN convolution of fixed size.
 * - GATHER, strided: each window is one run of the input, so rows are copied and multiplied.
 * - TRANSPOSED: one product gives all taps of all input rows; overlapping taps are added.
 */
#include <stdlib.h>
#include <string.h>

#include "cpu/tile.h"

void cpu_conv_free(struct cpu_conv *conv) {
  if (!conv) {
    return;
  }
  free(conv->weight);
  free(conv->bias);
  onednn_conv_free(conv->tile);
  cpu_linear_free(conv->linear);
  free(conv);
}

/* [out, in, kernel] -> [out, kernel * in], the order of channels in a window of rows; transposed:
 * [in, out, kernel] -> [kernel * out, in], all taps of an input row. */
static int conv_linear(struct vamp_device *device, struct cpu_conv *c, const float *weight,
                       struct vamp_error *error) {
  size_t in = (size_t)c->shape.in_channels, out = (size_t)c->shape.out_channels;
  size_t kernel = (size_t)c->shape.kernel;
  float *matrix = malloc(sizeof *matrix * in * out * kernel);
  if (!matrix) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory for a convolution's weights");
  }
  bool transposed = c->shape.transposed;
  for (size_t o = 0; o < out; o++) {
    for (size_t i = 0; i < in; i++) {
      for (size_t j = 0; j < kernel; j++) {
        if (transposed) {
          matrix[(j * out + o) * in + i] = weight[(i * out + o) * kernel + j];
        } else {
          matrix[(o * kernel + j) * in + i] = weight[(o * in + i) * kernel + j];
        }
      }
    }
  }
  struct vamp_weight *linear = NULL;
  int status =
      transposed
          ? cpu_linear_create(device, (int)(kernel * out), (int)in, false, matrix, NULL, &linear, error)
          : cpu_linear_create(device, (int)out, (int)(kernel * in), false, matrix, NULL, &linear, error);
  c->linear = (struct cpu_linear *)linear;
  free(matrix);
  return status;
}

int cpu_conv_make(struct vamp_device *base, const struct vamp_conv_shape *shape, int rows,
                  const float *weight, const float *bias, struct cpu_conv **conv, struct vamp_error *error) {
  struct cpu_device *device = cpu_device(base);
  struct cpu_conv *c = calloc(1, sizeof *c);
  int status = VAMP_MEMORY;
  if (!c) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  c->base.kind = CPU_CONV;
  c->shape = *shape;
  c->rows = rows;
  if (bias) {
    c->bias = cpu_copy_floats(bias, (size_t)shape->out_channels);
    if (!c->bias) {
      vamp_fail(error, VAMP_MEMORY, "out of memory");
      goto err;
    }
  }
  if (shape->transposed) {
    c->way = CPU_CONV_TRANSPOSED;
    status = conv_linear(base, c, weight, error);
  } else if (shape->stride > 1) {
    c->way = CPU_CONV_GATHER;
    status = conv_linear(base, c, weight, error);
  } else if ((shape->in_channels < TILE_FEW_CHANNELS || shape->out_channels < TILE_FEW_CHANNELS)) {
    c->way = CPU_CONV_CHANNELS;
    c->weight = cpu_copy_floats(weight, (size_t)shape->in_channels * (size_t)shape->out_channels *
                                            (size_t)shape->kernel);
    status = c->weight ? 0 : vamp_fail(error, VAMP_MEMORY, "out of memory");
  } else {
    c->way = CPU_CONV_TILE;
    status =
        onednn_conv_create(device->onednn, cpu_bf16(device), c->rows, shape->in_channels, shape->out_channels,
                           shape->kernel, shape->dilation, weight, bias, &c->tile, error);
  }
  if (status) {
    goto err;
  }
  *conv = c;
  return 0;
err:
  cpu_conv_free(c);
  return status;
}

int cpu_conv_create(struct vamp_device *device, const struct vamp_conv_shape *shape, const float *weight,
                    const float *bias, struct vamp_weight **conv, struct vamp_error *error) {
  struct cpu_conv *c;
  if (shape->transposed && shape->kernel > 64 * shape->stride) {
    return vamp_fail(error, VAMP_UNSUPPORTED,
                     "a transposed convolution of kernel %d at stride %d: at most %d", shape->kernel,
                     shape->stride, 64 * shape->stride);
  }
  int in = shape->in_channels, out = shape->out_channels;
  int rows = tile_output_rows(in > out ? in : out);
  int status = cpu_conv_make(device, shape, rows, weight, bias, &c, error);
  if (!status) {
    *conv = &c->base;
  }
  return status;
}

/* ---- plain convolutions --------------------------------------------------------------------------- */

struct conv_job {
  const struct cpu_device *device;
  const struct cpu_conv *conv;
  const struct cpu_vector *alpha;
  bool apply_tanh;
  const struct vamp_packing *from, *to;
  const float *in;
  float *out;
  const struct cpu_tile *tiles;
  int before; /* TRANSPOSED: rows before a tile that reach into it */
};

static int conv_tile(const struct conv_job *j, const struct cpu_tile *tile, char *at) {
  const struct cpu_conv *c = j->conv;
  const struct vamp_conv_shape *shape = &c->shape;
  size_t act = j->device->base.act_size;
  int in_channels = shape->in_channels, out_channels = shape->out_channels;
  int rows = c->rows, need = rows + (shape->kernel - 1) * shape->dilation;
  int64_t length = j->from->offsets[tile->sequence + 1] - j->from->offsets[tile->sequence];
  int64_t first = tile->first - j->to->offsets[tile->sequence];
  const float *sequence = j->in + (size_t)j->from->offsets[tile->sequence] * (size_t)in_channels;
  float *result = j->out + (size_t)tile->first * (size_t)out_channels;
  size_t count = (size_t)tile->rows * (size_t)out_channels;
  int status = 0;
  if (c->way == CPU_CONV_CHANNELS) {
    size_t in_stride = tile_channel_stride(need), out_stride = tile_channel_stride(rows);
    float *x = cpu_carve(&at, sizeof *x * in_stride * (size_t)in_channels + 4096);
    float *y = cpu_carve(&at, sizeof *y * out_stride * (size_t)out_channels);
    tile_fetch_channels(j->device, sequence, length, in_channels, j->alpha, first - shape->padding,
                        tile->rows + need - rows, x, in_stride);
    j->device->simd->conv_channels(x, in_stride, in_channels, c->weight, c->bias, out_channels, shape->kernel,
                                   shape->dilation, tile->rows, y, out_stride);
    tile_channels_to_rows(y, out_stride, out_channels, tile->rows, result);
  } else {
    void *x = cpu_carve(&at, act * (size_t)need * (size_t)in_channels);
    float *y = cpu_carve(&at, sizeof *y * (size_t)rows * (size_t)out_channels);
    tile_fetch_rows(j->device, sequence, length, in_channels, j->alpha, first - shape->padding, need,
                    cpu_bf16(j->device), x);
    status = onednn_conv_run(c->tile, x, y, at);
    memcpy(result, y, sizeof *y * count);
  }
  if (j->apply_tanh) {
    j->device->simd->tanh(result, count);
  }
  return status;
}

/* A strided convolution: window t is the rows t*stride - padding + tap*dilation of the activated input. */
static int gather_tile(const struct conv_job *j, const struct cpu_tile *tile, char *at) {
  const struct cpu_conv *c = j->conv;
  const struct vamp_conv_shape *shape = &c->shape;
  size_t row = j->device->base.act_size * (size_t)shape->in_channels, window = row * (size_t)shape->kernel;
  int64_t length = j->from->offsets[tile->sequence + 1] - j->from->offsets[tile->sequence];
  int64_t first = tile->first - j->to->offsets[tile->sequence];
  const float *sequence = j->in + (size_t)j->from->offsets[tile->sequence] * (size_t)shape->in_channels;
  int span = (shape->kernel - 1) * shape->dilation + 1, need = (tile->rows - 1) * shape->stride + span;
  char *x = cpu_carve(&at, row * (size_t)((ONEDNN_MAX_ROWS - 1) * shape->stride + span));
  char *windows = cpu_carve(&at, window * ONEDNN_MAX_ROWS);
  float *y = cpu_carve(&at, sizeof *y * ONEDNN_MAX_ROWS * (size_t)c->linear->tile_n);
  tile_fetch_rows(j->device, sequence, length, shape->in_channels, j->alpha,
                  first * shape->stride - shape->padding, need, cpu_bf16(j->device), x);
  /* Without dilation a window is one run of memory. */
  int runs = shape->dilation == 1 ? 1 : shape->kernel;
  size_t run = window / (size_t)runs;
  for (int r = 0; r < tile->rows; r++) {
    const char *begin = x + (size_t)r * (size_t)shape->stride * row;
    for (int tap = 0; tap < runs; tap++) {
      memcpy(windows + (size_t)r * window + (size_t)tap * run,
             begin + (size_t)tap * (size_t)shape->dilation * row, run);
    }
  }
  for (int t = 0; t < c->linear->tiles; t++) {
    int status = cpu_linear_tile(c->linear, t, tile->rows, windows, y, at);
    if (status) {
      return status;
    }
    int column = t * c->linear->tile_n;
    float *result = j->out + (size_t)tile->first * (size_t)shape->out_channels + column;
    j->device->simd->store(y, tile->rows, c->linear->tile_n, c->bias ? c->bias + column : NULL, false, result,
                           (size_t)shape->out_channels);
  }
  if (j->apply_tanh) {
    j->device->simd->tanh(j->out + (size_t)tile->first * (size_t)shape->out_channels,
                          (size_t)tile->rows * (size_t)shape->out_channels);
  }
  return 0;
}

/* A transposed convolution, cut by INPUT rows: out[i * stride + j - padding] += taps[i][j]. A tile owns
 * the output rows that begin in its input rows; the rows before it reach into them, so it computes
 * `before` more. */
static int transposed_tile(const struct conv_job *j, const struct cpu_tile *tile, char *at) {
  int before = j->before;
  const struct cpu_conv *c = j->conv;
  const struct vamp_conv_shape *shape = &c->shape;
  size_t in_channels = (size_t)shape->in_channels, out_channels = (size_t)shape->out_channels;
  int64_t length = j->from->offsets[tile->sequence + 1] - j->from->offsets[tile->sequence];
  int64_t out_length = j->to->offsets[tile->sequence + 1] - j->to->offsets[tile->sequence];
  int64_t first = tile->first - j->from->offsets[tile->sequence];
  const float *sequence = j->in + (size_t)j->from->offsets[tile->sequence] * in_channels;
  float *result = j->out + (size_t)j->to->offsets[tile->sequence] * out_channels;
  int rows = tile->rows + before;
  size_t taps_row = (size_t)c->linear->n;
  char *x = cpu_carve(&at, j->device->base.act_size * in_channels * ONEDNN_MAX_ROWS);
  float *y = cpu_carve(&at, sizeof *y * ONEDNN_MAX_ROWS * (size_t)c->linear->tile_n);
  float *taps = cpu_carve(&at, sizeof *taps * ONEDNN_MAX_ROWS * taps_row);
  tile_fetch_rows(j->device, sequence, length, shape->in_channels, j->alpha, first - before, rows,
                  cpu_bf16(j->device), x);
  for (int t = 0; t < c->linear->tiles; t++) {
    int status = cpu_linear_tile(c->linear, t, rows, x, y, at);
    if (status) {
      return status;
    }
    j->device->simd->store(y, rows, c->linear->tile_n, NULL, false,
                           taps + (size_t)t * (size_t)c->linear->tile_n, taps_row);
  }
  /* The last tile also owns what follows the last input row. */
  int64_t from = first * shape->stride - shape->padding, to = from + (int64_t)tile->rows * shape->stride;
  from = first == 0 ? 0 : from;
  to = first + tile->rows == length ? out_length : to;
  for (int64_t o = from < 0 ? 0 : from; o < to && o < out_length; o++) {
    float *out = result + (size_t)o * out_channels;
    int64_t position = o + shape->padding;
    if (c->bias) {
      memcpy(out, c->bias, sizeof *out * out_channels);
    } else {
      memset(out, 0, sizeof *out * out_channels);
    }
    for (int64_t i = position / shape->stride; i >= 0 && position - i * shape->stride < shape->kernel; i--) {
      if (i < length) {
        size_t tap = (size_t)(position - i * shape->stride);
        const float *add = taps + (size_t)(i - first + before) * taps_row + tap * out_channels;
        for (size_t n = 0; n < out_channels; n++) {
          out[n] += add[n];
        }
      }
    }
    if (j->apply_tanh) {
      j->device->simd->tanh(out, out_channels);
    }
  }
  return 0;
}

/* Scratch for one tile of any way. */
static size_t conv_scratch(const struct cpu_device *device, const struct cpu_conv *c) {
  const struct vamp_conv_shape *s = &c->shape;
  size_t in = (size_t)s->in_channels, out = (size_t)s->out_channels, act = device->base.act_size;
  int need = c->rows + (s->kernel - 1) * s->dilation;
  switch (c->way) {
  case CPU_CONV_CHANNELS:
    return cpu_carved(sizeof(float) * tile_channel_stride(need) * in + 4096) +
           cpu_carved(sizeof(float) * tile_channel_stride(c->rows) * out);
  case CPU_CONV_TILE:
    return cpu_carved(act * (size_t)need * in) + cpu_carved(sizeof(float) * (size_t)c->rows * out) +
           cpu_carved(onednn_scratch_size(device->onednn));
  case CPU_CONV_GATHER:
    return cpu_carved(act * in * (size_t)((ONEDNN_MAX_ROWS - 1) * s->stride + need - c->rows + 1)) +
           cpu_carved(act * in * (size_t)s->kernel * ONEDNN_MAX_ROWS) +
           cpu_carved(sizeof(float) * ONEDNN_MAX_ROWS * (size_t)c->linear->tile_n) +
           cpu_linear_scratch(device);
  case CPU_CONV_TRANSPOSED:
    break;
  }
  return cpu_carved(act * in * ONEDNN_MAX_ROWS) +
         cpu_carved(sizeof(float) * ONEDNN_MAX_ROWS * (size_t)c->linear->tile_n) +
         cpu_carved(sizeof(float) * ONEDNN_MAX_ROWS * (size_t)c->linear->n) + cpu_linear_scratch(device);
}

static int conv_item(void *context, int64_t item, int thread) {
  const struct conv_job *j = context;
  char *at = cpu_scratch(j->device, thread);
  switch (j->conv->way) {
  case CPU_CONV_TRANSPOSED:
    return transposed_tile(j, &j->tiles[item], at);
  case CPU_CONV_GATHER:
    return gather_tile(j, &j->tiles[item], at);
  case CPU_CONV_CHANNELS:
  case CPU_CONV_TILE:
    break;
  }
  return conv_tile(j, &j->tiles[item], at);
}

int cpu_conv(struct vamp_device *base, const struct vamp_weight *conv, const struct vamp_weight *alpha,
             bool apply_tanh, const struct vamp_packing *from, const struct vamp_packing *to, const float *in,
             float *out) {
  struct cpu_device *device = cpu_device(base);
  const struct cpu_conv *c = (const struct cpu_conv *)conv;
  bool transposed = c->way == CPU_CONV_TRANSPOSED;
  int before = transposed ? (c->shape.kernel + c->shape.stride - 1) / c->shape.stride : 0;
  int size = transposed ? ONEDNN_MAX_ROWS - before : c->way == CPU_CONV_GATHER ? ONEDNN_MAX_ROWS : c->rows;
  struct cpu_tile *tiles;
  int64_t count = cpu_tiles(transposed ? from : to, size, &tiles);
  if (count < 0) {
    return VAMP_MEMORY;
  }
  struct conv_job j = {device, c,     (const struct cpu_vector *)alpha, apply_tanh, from, to, in, out,
                       tiles,  before};
  int status = 0;
  bool product = transposed || c->way == CPU_CONV_GATHER;
  for (int64_t t = 0; t < count && !status && product; t++) {
    status = cpu_linear_prepare(c->linear, tiles[t].rows + before, NULL);
  }
  if (!status) {
    status = cpu_scratch_reserve(device, conv_scratch(device, c));
  }
  if (!status) {
    status = cpu_pool_run(device->pool, count, conv_item, &j);
  }
  free(tiles);
  return status;
}
