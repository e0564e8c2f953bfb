/*
 * A model on a device: a codec and two transformers (docs/model.md), from a model folder
 * (model.json, codec.safetensors, coarse.safetensors, c2f.safetensors) or with random weights.
 *
 * A model belongs to the thread that uses its device.
 */
#ifndef VAMP_MODEL_H
#define VAMP_MODEL_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vamp/backend.h"
#include "vamp/config.h"
#include "vamp/error.h"

struct vamp_model;

/* Where a model is: `name` itself where it is a folder with a model.json, else, unless it has a slash, NAME
 * in models/ below the working folder, in ../models beside the program's folder (build/), or in
 * ../share/vampd/models (installed). VAMP_IO says where was looked. Any thread. */
int vamp_model_find(const char *name, char folder[PATH_MAX], struct vamp_error *error);

/* Loads and checks a folder. Every tensor's shape is checked against model.json; errors name the file
 * and the tensor. */
int vamp_model_open(const char *folder, struct vamp_device *device, struct vamp_model **model,
                    struct vamp_error *error);
/* The same graph with random weights (seeded), for benchmarks and tests. */
int vamp_model_random(const struct vamp_model_config *config, uint64_t seed, struct vamp_device *device,
                      struct vamp_model **model, struct vamp_error *error);
void vamp_model_free(struct vamp_model *model);

const struct vamp_model_config *vamp_model_config(const struct vamp_model *model);
struct vamp_device *vamp_model_device(const struct vamp_model *model);

/* Frames that n samples become: ceil(n / hop). */
int64_t vamp_model_frames(const struct vamp_model *model, size_t samples);

enum vamp_stage { VAMP_STAGE_COARSE, VAMP_STAGE_FINE };

/* ---- forward passes; host arrays in and out, for one sequence: vamp logits, tests -------------- */

/* codes [codebooks, frames] with the vocabulary size at masked places -> logits float
 * [predicted, frames, vocabulary]. */
int vamp_model_logits(struct vamp_model *model, enum vamp_stage stage, const int32_t *codes, int frames,
                      float *logits, struct vamp_error *error);

/* codes (host, [frames, codebooks]) of one clip, cut into segments as below; encoder_out and quantized
 * (host, [frames, latent]) may be NULL. frames = vamp_model_frames(sample_count). */
int vamp_model_encode(struct vamp_model *model, const float *samples, size_t sample_count, int32_t *codes,
                      float *encoder_out, float *quantized, struct vamp_error *error);
/* codes (host, [frames, codebooks]) -> samples (host, [frames * hop]); latent (host, [frames, latent])
 * may be NULL. */
int vamp_model_decode(struct vamp_model *model, const int32_t *codes, int64_t frames, float *samples,
                      float *latent, struct vamp_error *error);

/* ---- packed: what the batch loop calls ---------------------------------------------------------- */

/* The codec works on segments of at most vamp_device.codec_rows frames, each computed with as much
 * context on both sides as can reach into it, so that the seams do not show and memory is bounded. */
struct vamp_segment {
  int64_t first, frames; /* of the clip */
};

int vamp_model_segments(const struct vamp_model *model, int64_t frames);
struct vamp_segment vamp_model_segment(const struct vamp_model *model, int64_t frames, int index);
/* Frames that coding the segment costs, context included. */
int64_t vamp_model_segment_rows(const struct vamp_model *model, int64_t frames, struct vamp_segment segment);

/* One segment of one clip; encode reads samples and writes codes, decode the other way round. The arrays
 * are the whole clip's; only the segment's part is written. */
struct vamp_codec_work {
  struct vamp_segment segment;
  int64_t frames;      /* of the clip */
  float *samples;      /* host [sample_count]; decode: [frames * hop] */
  size_t sample_count; /* encode */
  int32_t *codes;      /* host [frames, codebooks] */
};

int vamp_model_encode_segments(struct vamp_model *model, int count, const struct vamp_codec_work *work,
                               struct vamp_error *error);
int vamp_model_decode_segments(struct vamp_model *model, int count, const struct vamp_codec_work *work,
                               struct vamp_error *error);

/* One step of generation for a packed batch: embed, layers, predict, remask. */
int vamp_model_step(struct vamp_model *model, enum vamp_stage stage, const struct vamp_packing *packing,
                    const struct vamp_sequence *sequences, struct vamp_error *error);

#endif
