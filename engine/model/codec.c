/*
 * See codec.h. The graph in the order of docs/model.md: loading asks for each layer's tensors by the
 * published names and hands them to the device; running is one function a direction.
 *
 * Signals are packed channels-last matrices; `struct level` is the packing at one sample rate of the
 * graph. Activations ping-pong between four buffers sized for the widest level.
 */
#include "engine/model/codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UNITS = 3, CHAINS = 3, NAME = 128 };

static const int encoder_dilations[UNITS] = {1, 3, 9};
static const int decoder_dilations[UNITS] = {1, 3, 5};
static const int chain_kernels[CHAINS] = {3, 7, 11};

struct conv_layer {
  struct vamp_conv_shape shape;
  struct vamp_weight *weight;
  struct vamp_weight *alpha; /* the snake before it, or NULL */
};

struct encoder_stage {
  struct vamp_weight *units[UNITS];
  struct conv_layer down;
};

struct decoder_stage {
  struct conv_layer up;
  struct vamp_weight *units[CHAINS][UNITS];
};

struct codec {
  struct vamp_codec_config config;
  struct vamp_device *device;
  struct conv_layer encoder_first, encoder_last, decoder_first, decoder_last;
  struct encoder_stage encoder[VAMP_MAX_RATES];
  struct decoder_stage decoder[VAMP_MAX_RATES];
  struct vamp_weight *quantizer;
  struct workspace_buffer signal[4], codes;
};

/* ---- loading -------------------------------------------------------------------------------------- */

static float *alpha_tensor(struct source *source, const char *prefix, int64_t channels) {
  char name[NAME + 8];
  const int64_t shape[3] = {1, channels, 1};
  snprintf(name, sizeof name, "%s.alpha", prefix);
  return source_tensor(source, name, 3, shape, 1.0f, 0.0f);
}

static float *bias_tensor(struct source *source, const char *prefix, int64_t channels) {
  char name[NAME + 8];
  snprintf(name, sizeof name, "%s.bias", prefix);
  return source_tensor(source, name, 1, &channels, 0.0f, 0.01f);
}

static void load_conv(struct codec *codec, struct source *source, const char *prefix,
                      const char *alpha_prefix, struct conv_layer *layer) {
  const struct vamp_conv_shape *s = &layer->shape;
  struct vamp_device *device = codec->device;
  int64_t first = s->transposed ? s->in_channels : s->out_channels;
  int64_t second = s->transposed ? s->out_channels : s->in_channels;
  float *alpha = alpha_prefix ? alpha_tensor(source, alpha_prefix, s->in_channels) : NULL;
  float *weight = source_conv(source, prefix, first, second, s->kernel);
  float *bias = bias_tensor(source, prefix, s->out_channels);
  if (!source->status && alpha) {
    source->status =
        device->ops->vector_create(device, alpha, (size_t)s->in_channels, &layer->alpha, source->error);
  }
  if (!source->status) {
    source->status = device->ops->conv_create(device, s, weight, bias, &layer->weight, source->error);
  }
  free(alpha);
  free(weight);
  free(bias);
}

/* prefix.N0 snake, prefix.N1 conv, prefix.N2 snake, prefix.N3 conv. */
static void load_unit(struct codec *codec, struct source *source, const char *prefix,
                      const struct vamp_unit_shape *shape, struct vamp_weight **unit) {
  struct vamp_device *device = codec->device;
  char name[4][NAME];
  for (int i = 0; i < 4; i++) {
    snprintf(name[i], sizeof name[i], "%s.%d", prefix, i);
  }
  float *alpha1 = alpha_tensor(source, name[0], shape->channels);
  float *weight1 = source_conv(source, name[1], shape->channels, shape->channels, shape->kernel1);
  float *bias1 = bias_tensor(source, name[1], shape->channels);
  float *alpha2 = alpha_tensor(source, name[2], shape->channels);
  float *weight2 = source_conv(source, name[3], shape->channels, shape->channels, shape->kernel2);
  float *bias2 = bias_tensor(source, name[3], shape->channels);
  if (!source->status) {
    struct vamp_unit_weights weights = {alpha1, weight1, bias1, alpha2, weight2, bias2};
    source->status = device->ops->unit_create(device, shape, &weights, unit, source->error);
  }
  free(alpha1);
  free(weight1);
  free(bias1);
  free(alpha2);
  free(weight2);
  free(bias2);
}

static void load_encoder(struct codec *codec, struct source *source) {
  const struct vamp_codec_config *config = &codec->config;
  char name[NAME], snake[NAME];
  int channels = config->encoder_dim, rates = config->encoder_rate_count;
  codec->encoder_first.shape = (struct vamp_conv_shape){1, channels, 7, 1, 1, 3, false};
  load_conv(codec, source, "encoder.block.0", NULL, &codec->encoder_first);
  for (int s = 0; s < rates; s++, channels *= 2) {
    int stride = config->encoder_rates[s];
    for (int u = 0; u < UNITS; u++) {
      struct vamp_unit_shape shape = {channels, 7, encoder_dilations[u], 1};
      snprintf(name, sizeof name, "encoder.block.%d.block.%d.block", s + 1, u);
      load_unit(codec, source, name, &shape, &codec->encoder[s].units[u]);
    }
    codec->encoder[s].down.shape =
        (struct vamp_conv_shape){channels, 2 * channels, 2 * stride, stride, 1, stride / 2, false};
    snprintf(snake, sizeof snake, "encoder.block.%d.block.%d", s + 1, UNITS);
    snprintf(name, sizeof name, "encoder.block.%d.block.%d", s + 1, UNITS + 1);
    load_conv(codec, source, name, snake, &codec->encoder[s].down);
  }
  snprintf(snake, sizeof snake, "encoder.block.%d", rates + 1);
  snprintf(name, sizeof name, "encoder.block.%d", rates + 2);
  codec->encoder_last.shape = (struct vamp_conv_shape){channels, channels, 3, 1, 1, 1, false};
  load_conv(codec, source, name, snake, &codec->encoder_last);
}

static void load_decoder(struct codec *codec, struct source *source) {
  const struct vamp_codec_config *config = &codec->config;
  char name[NAME], snake[NAME];
  int channels = config->decoder_dim, rates = config->decoder_rate_count;
  codec->decoder_first.shape = (struct vamp_conv_shape){config->latent_dim, channels, 7, 1, 1, 3, false};
  load_conv(codec, source, "decoder.model.0", NULL, &codec->decoder_first);
  for (int s = 0; s < rates; s++, channels /= 2) {
    int stride = config->decoder_rates[s];
    codec->decoder[s].up.shape =
        (struct vamp_conv_shape){channels, channels / 2, 2 * stride, stride, 1, stride / 2, true};
    snprintf(snake, sizeof snake, "decoder.model.%d.block.0", s + 1);
    snprintf(name, sizeof name, "decoder.model.%d.block.1", s + 1);
    load_conv(codec, source, name, snake, &codec->decoder[s].up);
    for (int c = 0; c < CHAINS; c++) {
      for (int u = 0; u < UNITS; u++) {
        struct vamp_unit_shape shape = {channels / 2, chain_kernels[c], decoder_dilations[u],
                                        chain_kernels[c]};
        snprintf(name, sizeof name, "decoder.model.%d.block.2.mrf_blocks.%d.block.%d.layer", s + 1, c, u);
        load_unit(codec, source, name, &shape, &codec->decoder[s].units[c][u]);
      }
    }
  }
  snprintf(snake, sizeof snake, "decoder.model.%d", rates + 1);
  snprintf(name, sizeof name, "decoder.model.%d", rates + 2);
  codec->decoder_last.shape = (struct vamp_conv_shape){channels, 1, 7, 1, 1, 3, false};
  load_conv(codec, source, name, snake, &codec->decoder_last);
}

/* Reads one tensor of every codebook into one array [codebooks, each]. */
static float *gather(struct source *source, int codebooks, size_t each,
                     float *(*read)(struct source *, int, const struct vamp_codec_config *),
                     const struct vamp_codec_config *config) {
  float *all = malloc(sizeof *all * (size_t)codebooks * each);
  if (!all && !source->status) {
    source->status = vamp_fail(source->error, VAMP_MEMORY, "out of memory");
  }
  for (int c = 0; c < codebooks && !source->status; c++) {
    float *one = read(source, c, config);
    if (one) {
      memcpy(all + (size_t)c * each, one, sizeof *all * each);
    }
    free(one);
  }
  return all;
}

static float *read_in_weight(struct source *source, int c, const struct vamp_codec_config *config) {
  char name[NAME];
  snprintf(name, sizeof name, "quantizer.quantizers.%d.in_proj", c);
  return source_conv(source, name, config->codebook_dim, config->latent_dim, 1);
}

static float *read_in_bias(struct source *source, int c, const struct vamp_codec_config *config) {
  char name[NAME];
  snprintf(name, sizeof name, "quantizer.quantizers.%d.in_proj", c);
  return bias_tensor(source, name, config->codebook_dim);
}

static float *read_out_weight(struct source *source, int c, const struct vamp_codec_config *config) {
  char name[NAME];
  snprintf(name, sizeof name, "quantizer.quantizers.%d.out_proj", c);
  return source_conv(source, name, config->latent_dim, config->codebook_dim, 1);
}

static float *read_out_bias(struct source *source, int c, const struct vamp_codec_config *config) {
  char name[NAME];
  snprintf(name, sizeof name, "quantizer.quantizers.%d.out_proj", c);
  return bias_tensor(source, name, config->latent_dim);
}

static float *read_table(struct source *source, int c, const struct vamp_codec_config *config) {
  char name[NAME];
  const int64_t shape[2] = {config->codebook_size, config->codebook_dim};
  snprintf(name, sizeof name, "quantizer.quantizers.%d.codebook.weight", c);
  return source_tensor(source, name, 2, shape, 0.0f, 0.3f);
}

float *codec_tables(const struct vamp_codec_config *config, int codebooks, struct source *source) {
  return gather(source, codebooks, (size_t)config->codebook_size * (size_t)config->codebook_dim, read_table,
                config);
}

static void load_quantizer(struct codec *codec, struct source *source) {
  const struct vamp_codec_config *config = &codec->config;
  struct vamp_device *device = codec->device;
  size_t d = (size_t)config->codebook_dim, latent = (size_t)config->latent_dim;
  int n = config->n_codebooks;
  float *in_weight = gather(source, n, d * latent, read_in_weight, config);
  float *in_bias = gather(source, n, d, read_in_bias, config);
  float *out_weight = gather(source, n, d * latent, read_out_weight, config);
  float *out_bias = gather(source, n, latent, read_out_bias, config);
  float *table = codec_tables(config, n, source);
  if (!source->status) {
    source->status = device->ops->quantizer_create(device, n, config->codebook_size, config->codebook_dim,
                                                   config->latent_dim, in_weight, in_bias, table, out_weight,
                                                   out_bias, &codec->quantizer, source->error);
  }
  free(in_weight);
  free(in_bias);
  free(out_weight);
  free(out_bias);
  free(table);
}

/* An odd stride with padding s/2 gives a frame too few or a sample too many: no published codec has
 * one, and what it should mean is not written anywhere. */
static int check_rates(const struct vamp_codec_config *config, struct vamp_error *error) {
  int hop = 1;
  for (int s = 0; s < config->encoder_rate_count; s++) {
    hop *= config->encoder_rates[s];
    if (config->encoder_rates[s] % 2) {
      return vamp_fail(error, VAMP_UNSUPPORTED,
                       "encoder_rates: a stride of %d is odd; only even strides work",
                       config->encoder_rates[s]);
    }
  }
  for (int s = 0; s < config->decoder_rate_count; s++) {
    if (config->decoder_rates[s] % 2) {
      return vamp_fail(error, VAMP_UNSUPPORTED,
                       "decoder_rates: a stride of %d is odd; only even strides work",
                       config->decoder_rates[s]);
    }
  }
  if (hop != config->hop_length) {
    return vamp_fail(error, VAMP_INVALID,
                     "encoder_rates multiply to %d and decoder_rates to %d: they must agree", hop,
                     config->hop_length);
  }
  if (config->decoder_dim >> config->decoder_rate_count < 1) {
    return vamp_fail(error, VAMP_INVALID, "decoder_dim %d cannot be halved %d times", config->decoder_dim,
                     config->decoder_rate_count);
  }
  return 0;
}

int codec_load(const struct vamp_codec_config *config, struct source *source, struct vamp_device *device,
               struct codec **out) {
  int status = check_rates(config, source->error);
  if (status) {
    return status;
  }
  struct codec *codec = calloc(1, sizeof *codec);
  if (!codec) {
    return vamp_fail(source->error, VAMP_MEMORY, "out of memory");
  }
  codec->config = *config;
  codec->device = device;
  load_encoder(codec, source);
  load_quantizer(codec, source);
  load_decoder(codec, source);
  if (source->status) {
    codec_free(codec);
    return source->status;
  }
  *out = codec;
  return 0;
}

static void free_conv(struct vamp_device *device, struct conv_layer *layer) {
  device->ops->weight_free(device, layer->weight);
  device->ops->weight_free(device, layer->alpha);
}

void codec_free(struct codec *codec) {
  if (!codec) {
    return;
  }
  struct vamp_device *device = codec->device;
  free_conv(device, &codec->encoder_first);
  free_conv(device, &codec->encoder_last);
  free_conv(device, &codec->decoder_first);
  free_conv(device, &codec->decoder_last);
  for (int s = 0; s < VAMP_MAX_RATES; s++) {
    free_conv(device, &codec->encoder[s].down);
    free_conv(device, &codec->decoder[s].up);
    for (int u = 0; u < UNITS; u++) {
      device->ops->weight_free(device, codec->encoder[s].units[u]);
      for (int c = 0; c < CHAINS; c++) {
        device->ops->weight_free(device, codec->decoder[s].units[c][u]);
      }
    }
  }
  device->ops->weight_free(device, codec->quantizer);
  for (int b = 0; b < 4; b++) {
    workspace_free(device, &codec->signal[b]);
  }
  workspace_free(device, &codec->codes);
  free(codec);
}

/* ---- context -------------------------------------------------------------------------------------- */

int codec_encoder_context(const struct codec *codec) {
  const struct vamp_codec_config *config = &codec->config;
  int64_t reach = 3, step = 1; /* samples; samples a row at this level */
  for (int s = 0; s < config->encoder_rate_count; s++) {
    for (int u = 0; u < UNITS; u++) {
      reach += 3 * encoder_dilations[u] * step;
    }
    reach += 2 * config->encoder_rates[s] * step;
    step *= config->encoder_rates[s];
  }
  reach += step;
  return (int)(reach / config->hop_length) + 1;
}

int codec_decoder_context(const struct codec *codec) {
  const struct vamp_codec_config *config = &codec->config;
  int widest = chain_kernels[CHAINS - 1] / 2;
  int64_t step = config->hop_length, reach = 3 * step; /* samples a row; samples */
  for (int s = 0; s < config->decoder_rate_count; s++) {
    reach += 2 * step;
    step /= config->decoder_rates[s];
    for (int u = 0; u < UNITS; u++) {
      reach += widest * (decoder_dilations[u] + 1) * step;
    }
  }
  reach += 3;
  return (int)(reach / config->hop_length) + 1;
}

/* ---- running -------------------------------------------------------------------------------------- */

/* Packings of the level before and after a convolution. */
struct level {
  struct vamp_packing packing;
  int64_t *offsets;
};

static int level_make(struct level *level, int count, struct vamp_error *error) {
  level->offsets = malloc(sizeof *level->offsets * ((size_t)count + 1));
  if (!level->offsets) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  level->packing = (struct vamp_packing){count, level->offsets};
  level->offsets[0] = 0;
  return 0;
}

static int64_t level_rows(const struct level *level) {
  return level->offsets[level->packing.count];
}

/* Runs a convolution from `in` to `out`; `from` becomes the packing of the result. */
static int run_conv(struct codec *codec, const struct conv_layer *layer, bool apply_tanh, struct level *from,
                    struct level *to, const float *in, float *out) {
  for (int s = 0; s < from->packing.count; s++) {
    int64_t rows = from->offsets[s + 1] - from->offsets[s];
    to->offsets[s + 1] = to->offsets[s] + vamp_conv_rows(&layer->shape, rows);
  }
  struct vamp_device *device = codec->device;
  int status = device->ops->conv(device, layer->weight, layer->alpha, apply_tanh, &from->packing,
                                 &to->packing, in, out);
  struct level swap = *from;
  *from = *to;
  *to = swap;
  return status;
}

/* Floats of the widest level for one frame. */
static size_t widest_frame(const struct vamp_codec_config *config) {
  size_t widest = (size_t)config->latent_dim, channels = (size_t)config->encoder_dim;
  size_t rows = (size_t)config->hop_length;
  for (int s = 0; s < config->encoder_rate_count; s++) {
    widest = rows * channels > widest ? rows * channels : widest;
    rows /= (size_t)config->encoder_rates[s];
    channels *= 2;
  }
  channels = (size_t)config->decoder_dim;
  rows = 1;
  for (int s = 0; s < config->decoder_rate_count; s++) {
    widest = rows * channels > widest ? rows * channels : widest;
    rows *= (size_t)config->decoder_rates[s];
    channels /= 2;
    widest = rows * channels > widest ? rows * channels : widest;
  }
  return widest;
}

static int prepare(struct codec *codec, int count, const int64_t *frames, int buffers, int rows_per_frame,
                   struct level *from, struct level *to, int64_t *total, struct vamp_error *error) {
  int status = level_make(from, count, error);
  if (!status) {
    status = level_make(to, count, error);
  }
  if (status) {
    return status;
  }
  *total = 0;
  for (int s = 0; s < count; s++) {
    *total += frames[s];
    from->offsets[s + 1] = *total * rows_per_frame;
  }
  size_t bytes = sizeof(float) * widest_frame(&codec->config) * (size_t)*total;
  for (int b = 0; b < buffers && !status; b++) {
    status = workspace_reserve(codec->device, &codec->signal[b], bytes, error);
  }
  size_t codes = sizeof(int32_t) * (size_t)codec->config.n_codebooks * (size_t)*total;
  return status ? status : workspace_reserve(codec->device, &codec->codes, codes, error);
}

int codec_encode(struct codec *codec, int count, const int64_t *frames, const float *samples, int32_t *codes,
                 float *encoder_out, float *quantized, struct vamp_error *error) {
  struct vamp_device *device = codec->device;
  const struct vamp_operations *ops = device->ops;
  const struct vamp_codec_config *config = &codec->config;
  struct level from = {0}, to = {0};
  int64_t total;
  int status = prepare(codec, count, frames, 2, config->hop_length, &from, &to, &total, error);
  if (status) {
    goto done;
  }
  float *a = codec->signal[0].memory, *b = codec->signal[1].memory, *swap;
  status = ops->upload(device, a, samples, sizeof *samples * (size_t)level_rows(&from));
  if (!status) {
    status = run_conv(codec, &codec->encoder_first, false, &from, &to, a, b);
  }
  for (int s = 0; s < config->encoder_rate_count && !status; s++) {
    for (int u = 0; u < UNITS && !status; u++) {
      status = ops->residual_unit(device, codec->encoder[s].units[u], &from.packing, 1.0f, false, b, a);
      swap = a, a = b, b = swap;
    }
    if (!status) {
      status = run_conv(codec, &codec->encoder[s].down, false, &from, &to, b, a);
    }
    swap = a, a = b, b = swap;
  }
  if (!status) {
    status = run_conv(codec, &codec->encoder_last, false, &from, &to, b, a);
  }
  size_t latents = (size_t)total * (size_t)config->latent_dim;
  if (!status && encoder_out) {
    status = ops->download(device, encoder_out, a, sizeof *encoder_out * latents);
  }
  if (!status) {
    status = ops->quantize(device, codec->quantizer, total, a, codec->codes.memory, quantized ? b : NULL);
  }
  if (!status && quantized) {
    status = ops->download(device, quantized, b, sizeof *quantized * latents);
  }
  if (!status) {
    status = ops->download(device, codes, codec->codes.memory,
                           sizeof *codes * (size_t)total * (size_t)config->n_codebooks);
  }
  if (status) {
    vamp_fail(error, status, "encoding failed on the device");
  }
done:
  free(from.offsets);
  free(to.offsets);
  return status;
}

/* The mean of the chains: each runs x -> a -> b -> sum. */
static int run_chains(struct codec *codec, const struct decoder_stage *stage, const struct level *level,
                      const float *x, float *a, float *b, float *sum) {
  struct vamp_device *device = codec->device;
  int status = 0;
  for (int c = 0; c < CHAINS && !status; c++) {
    const float *in = x;
    for (int u = 0; u < UNITS && !status; u++) {
      bool last = u == UNITS - 1;
      float *out = last ? sum : (u % 2 ? b : a);
      status = device->ops->residual_unit(device, stage->units[c][u], &level->packing,
                                          last ? 1.0f / CHAINS : 1.0f, last && c > 0, in, out);
      in = out;
    }
  }
  return status;
}

int codec_decode(struct codec *codec, int count, const int64_t *frames, const int32_t *codes, float *samples,
                 float *latent, struct vamp_error *error) {
  struct vamp_device *device = codec->device;
  const struct vamp_operations *ops = device->ops;
  const struct vamp_codec_config *config = &codec->config;
  struct level from = {0}, to = {0};
  int64_t total;
  int status = prepare(codec, count, frames, 4, 1, &from, &to, &total, error);
  if (status) {
    goto done;
  }
  float *x = codec->signal[0].memory, *a = codec->signal[1].memory, *b = codec->signal[2].memory,
        *sum = codec->signal[3].memory;
  status = ops->upload(device, codec->codes.memory, codes,
                       sizeof *codes * (size_t)total * (size_t)config->n_codebooks);
  if (!status) {
    status = ops->dequantize(device, codec->quantizer, total, codec->codes.memory, a);
  }
  if (!status && latent) {
    status = ops->download(device, latent, a, sizeof *latent * (size_t)total * (size_t)config->latent_dim);
  }
  if (!status) {
    status = run_conv(codec, &codec->decoder_first, false, &from, &to, a, sum);
  }
  for (int s = 0; s < config->decoder_rate_count && !status; s++) {
    status = run_conv(codec, &codec->decoder[s].up, false, &from, &to, sum, x);
    if (!status) {
      status = run_chains(codec, &codec->decoder[s], &from, x, a, b, sum);
    }
  }
  if (!status) {
    status = run_conv(codec, &codec->decoder_last, true, &from, &to, sum, x);
  }
  if (!status) {
    status = ops->download(device, samples, x, sizeof *samples * (size_t)level_rows(&from));
  }
  if (status) {
    vamp_fail(error, status, "decoding failed on the device");
  }
done:
  free(from.offsets);
  free(to.offsets);
  return status;
}
