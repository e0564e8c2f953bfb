/*
 * A model on a device: a codec and two transformers (docs/model.md), from a model folder
 * (model.json, codec.safetensors, coarse.safetensors, c2f.safetensors) or with random weights.
 *
 * A model belongs to the thread that uses its device.
 */
#ifndef VAMP_MODEL_H
#define VAMP_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vamp/backend.h"
#include "vamp/config.h"
#include "vamp/error.h"

struct vamp_model;

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

/* ---- on the device, packed: what the batch loop calls ------------------------------------------- */

/* Encodes clips of samples; clip s is samples[s] (host, counts[s] long) and becomes codes[s] (host,
 * [frames, codebooks]). Long clips are cut into segments with enough context that the seams do not
 * show. encoder_out (may be NULL, only with one clip): float [latent, frames]. */
int vamp_model_encode(struct vamp_model *model, int count, const float *const *samples,
                      const size_t *counts, int32_t *const *codes, float *encoder_out,
                      struct vamp_error *error);
/* codes[s] (host, [frames[s], codebooks]) -> samples[s] (host, [frames[s] * hop]). quantized (may be
 * NULL, only with one clip): float [latent, frames]. */
int vamp_model_decode(struct vamp_model *model, int count, const int32_t *const *codes,
                      const int64_t *frames, float *const *samples, float *quantized,
                      struct vamp_error *error);
/* One step of generation for a packed batch: embed, layers, predict, remask. */
int vamp_model_step(struct vamp_model *model, enum vamp_stage stage, const struct vamp_packing *packing,
                    const struct vamp_sequence *sequences, struct vamp_error *error);

#endif
