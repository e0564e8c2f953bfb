/*
 * Loading the codec: each layer's tensors by their published names, in the order of docs/model.md, handed
 * to the device as they come. See codec.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model/codec_graph.h"

enum { NAME = 128 };

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
static int check_rates(const struct source *source, const char *name, const int *rates, int count) {
  for (int s = 0; s < count; s++) {
    if (rates[s] % 2) {
      return vamp_fail(
          source->error, VAMP_UNSUPPORTED, "%s: %s: a stride of %d is odd; only even strides work",
          source->checkpoint ? vamp_checkpoint_name(source->checkpoint) : "codec", name, rates[s]);
    }
  }
  return 0;
}

int codec_load(const struct vamp_codec_config *config, struct source *source, struct vamp_device *device,
               struct codec **out) {
  int status = check_rates(source, "encoder_rates", config->encoder_rates, config->encoder_rate_count);
  if (!status) {
    status = check_rates(source, "decoder_rates", config->decoder_rates, config->decoder_rate_count);
  }
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
