/*
 * Running the codec: one function a direction, in the order of docs/model.md. See codec.h.
 *
 * Signals are packed channels-last matrices; `struct level` is the packing at one sample rate of the
 * graph. Activations ping-pong between four buffers sized for the widest level.
 */
#include <stdlib.h>

#include "engine/model/codec_graph.h"

/* ---- context -------------------------------------------------------------------------------------- */

/* One because the division rounds down, one because a backend may read a little further than the taps do, as
 * long as what it reads there cancels (cpu/fastfir.h). */
enum { SPARE_FRAMES = 2 };

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
  return (int)(reach / config->hop_length) + SPARE_FRAMES;
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
  return (int)(reach / config->hop_length) + SPARE_FRAMES;
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
    vamp_fail(error, status, "encoding: %s", vamp_device_trouble(status));
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
    vamp_fail(error, status, "decoding: %s", vamp_device_trouble(status));
  }
done:
  free(from.offsets);
  free(to.offsets);
  return status;
}
