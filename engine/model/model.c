/*
 * A model on a device: loading the three parts, and the codec's segments. See vamp/model.h.
 */
#include "vamp/model.h"

#include <stdlib.h>
#include <string.h>

#include "engine/model/codec.h"
#include "engine/model/transformer.h"

struct vamp_model {
  struct vamp_model_config config;
  struct vamp_device *device;
  struct codec *codec;
  struct transformer *coarse, *fine;
};

/* ---- loading -------------------------------------------------------------------------------------- */

static int load_transformer(struct vamp_model *model, const char *folder, const char *part,
                            const struct vamp_transformer_config *config, const float *tables, uint64_t seed,
                            struct transformer **transformer, struct vamp_error *error) {
  struct source source = {.seed = seed, .error = error};
  int status = folder ? vamp_checkpoint_open(folder, part, &source.checkpoint, error) : 0;
  if (!status) {
    status = transformer_load(config, tables, &source, model->device, transformer);
  }
  vamp_checkpoint_close(source.checkpoint);
  return status;
}

/* folder NULL: random weights from `seed`. */
static int load(const struct vamp_model_config *config, const char *folder, uint64_t seed,
                struct vamp_device *device, struct vamp_model **out, struct vamp_error *error) {
  struct vamp_model *model = calloc(1, sizeof *model);
  if (!model) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  model->config = *config;
  model->device = device;
  float *tables = NULL;
  struct source source = {.seed = seed, .error = error};
  int status = folder ? vamp_checkpoint_open(folder, "codec", &source.checkpoint, error) : 0;
  if (!status) {
    status = codec_load(&model->config.codec, &source, device, &model->codec);
  }
  if (!status) {
    tables = codec_tables(&model->config.codec, model->config.codec.n_codebooks, &source);
    status = source.status;
  }
  vamp_checkpoint_close(source.checkpoint);
  if (!status) {
    status = load_transformer(model, folder, "coarse", &model->config.coarse, tables, seed + 1000,
                              &model->coarse, error);
  }
  if (!status) {
    status =
        load_transformer(model, folder, "c2f", &model->config.fine, tables, seed + 2000, &model->fine, error);
  }
  free(tables);
  if (status) {
    vamp_model_free(model);
    return status;
  }
  *out = model;
  return 0;
}

int vamp_model_open(const char *folder, struct vamp_device *device, struct vamp_model **model,
                    struct vamp_error *error) {
  struct vamp_model_config config;
  int status = vamp_config_read(folder, &config, error);
  return status ? status : load(&config, folder, 0, device, model, error);
}

int vamp_model_random(const struct vamp_model_config *config, uint64_t seed, struct vamp_device *device,
                      struct vamp_model **model, struct vamp_error *error) {
  struct vamp_model_config checked = *config;
  int status = vamp_config_check(&checked, error);
  return status ? status : load(&checked, NULL, seed, device, model, error);
}

void vamp_model_free(struct vamp_model *model) {
  if (!model) {
    return;
  }
  codec_free(model->codec);
  transformer_free(model->coarse);
  transformer_free(model->fine);
  free(model);
}

const struct vamp_model_config *vamp_model_config(const struct vamp_model *model) {
  return &model->config;
}

struct vamp_device *vamp_model_device(const struct vamp_model *model) {
  return model->device;
}

int64_t vamp_model_frames(const struct vamp_model *model, size_t samples) {
  size_t hop = (size_t)model->config.codec.hop_length;
  return (int64_t)(samples / hop + (samples % hop != 0));
}

/* ---- segments ------------------------------------------------------------------------------------- */

static int64_t codec_context(const struct vamp_model *model) {
  int encoder = codec_encoder_context(model->codec), decoder = codec_decoder_context(model->codec);
  return encoder > decoder ? encoder : decoder;
}

/* Frames a segment keeps: what is left of codec_rows beside the context. */
static int64_t segment_size(const struct vamp_model *model) {
  int64_t size = model->device->codec_rows - 2 * codec_context(model);
  return size > 64 ? size : 64;
}

int vamp_model_segments(const struct vamp_model *model, int64_t frames) {
  if (frames <= model->device->codec_rows) {
    return frames > 0;
  }
  return (int)((frames + segment_size(model) - 1) / segment_size(model));
}

struct vamp_segment vamp_model_segment(const struct vamp_model *model, int64_t frames, int index) {
  if (frames <= model->device->codec_rows) {
    return (struct vamp_segment){0, frames};
  }
  int64_t size = segment_size(model), first = index * size;
  return (struct vamp_segment){first, frames - first < size ? frames - first : size};
}

/* The segment with its context, clipped to the clip. */
static struct vamp_segment widened(const struct vamp_model *model, int64_t frames, struct vamp_segment kept) {
  int64_t context = codec_context(model);
  int64_t first = kept.first > context ? kept.first - context : 0;
  int64_t end = kept.first + kept.frames + context < frames ? kept.first + kept.frames + context : frames;
  return (struct vamp_segment){first, end - first};
}

int64_t vamp_model_segment_rows(const struct vamp_model *model, int64_t frames, struct vamp_segment segment) {
  return widened(model, frames, segment).frames;
}

/* Host copies of the widened segments, end to end. */
struct segment_batch {
  int64_t *frames; /* [count] */
  float *samples;  /* [total * hop] */
  int32_t *codes;  /* [total, codebooks] */
  int64_t total;
};

static void batch_free(struct segment_batch *batch) {
  free(batch->frames);
  free(batch->samples);
  free(batch->codes);
}

static int batch_make(const struct vamp_model *model, int count, const struct vamp_codec_work *work,
                      struct segment_batch *batch, struct vamp_error *error) {
  const struct vamp_codec_config *config = &model->config.codec;
  *batch = (struct segment_batch){.frames = malloc(sizeof(int64_t) * (size_t)count)};
  for (int i = 0; batch->frames && i < count; i++) {
    batch->frames[i] = widened(model, work[i].frames, work[i].segment).frames;
    batch->total += batch->frames[i];
  }
  batch->samples = calloc((size_t)batch->total * (size_t)config->hop_length + 1, sizeof(float));
  batch->codes = malloc(sizeof(int32_t) * ((size_t)batch->total * (size_t)config->n_codebooks + 1));
  if (!batch->frames || !batch->samples || !batch->codes) {
    batch_free(batch);
    return vamp_fail(error, VAMP_MEMORY, "out of memory for %lld frames of audio", (long long)batch->total);
  }
  return 0;
}

int vamp_model_encode_segments(struct vamp_model *model, int count, const struct vamp_codec_work *work,
                               struct vamp_error *error) {
  size_t hop = (size_t)model->config.codec.hop_length, codebooks = (size_t)model->config.codec.n_codebooks;
  struct segment_batch batch;
  int status = batch_make(model, count, work, &batch, error);
  if (status) {
    return status;
  }
  float *to = batch.samples;
  for (int i = 0; i < count; i++) {
    struct vamp_segment wide = widened(model, work[i].frames, work[i].segment);
    size_t first = (size_t)wide.first * hop, length = (size_t)wide.frames * hop;
    size_t have = work[i].sample_count > first ? work[i].sample_count - first : 0;
    memcpy(to, work[i].samples + first, sizeof *to * (have < length ? have : length));
    to += length;
  }
  status = codec_encode(model->codec, count, batch.frames, batch.samples, batch.codes, NULL, NULL, error);
  const int32_t *from = batch.codes;
  for (int i = 0; i < count && !status; i++) {
    struct vamp_segment wide = widened(model, work[i].frames, work[i].segment), kept = work[i].segment;
    memcpy(work[i].codes + (size_t)kept.first * codebooks,
           from + (size_t)(kept.first - wide.first) * codebooks,
           sizeof *from * (size_t)kept.frames * codebooks);
    from += (size_t)wide.frames * codebooks;
  }
  batch_free(&batch);
  return status;
}

int vamp_model_decode_segments(struct vamp_model *model, int count, const struct vamp_codec_work *work,
                               struct vamp_error *error) {
  size_t hop = (size_t)model->config.codec.hop_length, codebooks = (size_t)model->config.codec.n_codebooks;
  struct segment_batch batch;
  int status = batch_make(model, count, work, &batch, error);
  if (status) {
    return status;
  }
  int32_t *to = batch.codes;
  for (int i = 0; i < count; i++) {
    struct vamp_segment wide = widened(model, work[i].frames, work[i].segment);
    memcpy(to, work[i].codes + (size_t)wide.first * codebooks, sizeof *to * (size_t)wide.frames * codebooks);
    to += (size_t)wide.frames * codebooks;
  }
  status = codec_decode(model->codec, count, batch.frames, batch.codes, batch.samples, NULL, error);
  const float *from = batch.samples;
  for (int i = 0; i < count && !status; i++) {
    struct vamp_segment wide = widened(model, work[i].frames, work[i].segment), kept = work[i].segment;
    memcpy(work[i].samples + (size_t)kept.first * hop, from + (size_t)(kept.first - wide.first) * hop,
           sizeof *from * (size_t)kept.frames * hop);
    from += (size_t)wide.frames * hop;
  }
  batch_free(&batch);
  return status;
}

/* ---- one clip, on the host ------------------------------------------------------------------------ */

int vamp_model_encode(struct vamp_model *model, const float *samples, size_t sample_count, int32_t *codes,
                      float *encoder_out, float *quantized, struct vamp_error *error) {
  int64_t frames = vamp_model_frames(model, sample_count);
  if (frames == 0) {
    return vamp_fail(error, VAMP_INVALID, "there are no samples to encode");
  }
  if (encoder_out || quantized) {
    /* The whole latent is wanted: one piece, as the reference computes it. */
    if (frames > model->device->codec_rows) {
      return vamp_fail(error, VAMP_LIMIT, "the encoder's output can be had for at most %lld frames",
                       (long long)model->device->codec_rows);
    }
    size_t hop = (size_t)model->config.codec.hop_length;
    float *padded = calloc((size_t)frames * hop, sizeof *padded);
    if (!padded) {
      return vamp_fail(error, VAMP_MEMORY, "out of memory");
    }
    memcpy(padded, samples, sizeof *samples * sample_count);
    int status = codec_encode(model->codec, 1, &frames, padded, codes, encoder_out, quantized, error);
    free(padded);
    return status;
  }
  int status = 0;
  for (int i = 0; i < vamp_model_segments(model, frames) && !status; i++) {
    struct vamp_codec_work work = {.segment = vamp_model_segment(model, frames, i),
                                   .frames = frames,
                                   .samples = (float *)samples,
                                   .sample_count = sample_count,
                                   .codes = codes};
    status = vamp_model_encode_segments(model, 1, &work, error);
  }
  return status;
}

int vamp_model_decode(struct vamp_model *model, const int32_t *codes, int64_t frames, float *samples,
                      float *latent, struct vamp_error *error) {
  if (latent) {
    if (frames > model->device->codec_rows) {
      return vamp_fail(error, VAMP_LIMIT, "the latent can be had for at most %lld frames",
                       (long long)model->device->codec_rows);
    }
    return codec_decode(model->codec, 1, &frames, codes, samples, latent, error);
  }
  int status = 0;
  for (int i = 0; i < vamp_model_segments(model, frames) && !status; i++) {
    struct vamp_codec_work work = {.segment = vamp_model_segment(model, frames, i),
                                   .frames = frames,
                                   .samples = samples,
                                   .codes = (int32_t *)codes};
    status = vamp_model_decode_segments(model, 1, &work, error);
  }
  return status;
}

int vamp_model_logits(struct vamp_model *model, enum vamp_stage stage, const int32_t *codes, int frames,
                      float *logits, struct vamp_error *error) {
  bool coarse = stage == VAMP_STAGE_COARSE;
  const struct vamp_transformer_config *config = coarse ? &model->config.coarse : &model->config.fine;
  size_t codebooks = (size_t)config->n_codebooks, vocabulary = (size_t)config->vocab_size;
  size_t predicted = codebooks - (size_t)config->n_conditioning_codebooks, length = (size_t)frames;
  int32_t *tokens = malloc(sizeof *tokens * (codebooks * length + 1));
  float *rows = malloc(sizeof *rows * (predicted * vocabulary * length + 1));
  int status = tokens && rows ? 0 : vamp_fail(error, VAMP_MEMORY, "out of memory for the logits");
  if (!status) {
    for (size_t c = 0; c < codebooks; c++) {
      for (size_t t = 0; t < length; t++) {
        tokens[t * codebooks + c] = codes[c * length + t];
      }
    }
    status = transformer_logits(coarse ? model->coarse : model->fine, tokens, frames, rows, error);
  }
  for (size_t p = 0; p < predicted && !status; p++) {
    for (size_t t = 0; t < length; t++) {
      memcpy(logits + (p * length + t) * vocabulary, rows + (t * predicted + p) * vocabulary,
             sizeof *logits * vocabulary);
    }
  }
  free(tokens);
  free(rows);
  return status;
}

int vamp_model_step(struct vamp_model *model, enum vamp_stage stage, const struct vamp_packing *packing,
                    const struct vamp_sequence *sequences, struct vamp_error *error) {
  return transformer_step(stage == VAMP_STAGE_COARSE ? model->coarse : model->fine, packing, sequences,
                          error);
}
