/*
 * The graph of both transformers (coarse and coarse-to-fine), on a device. docs/model.md.
 *
 * Belongs to the thread that uses the device.
 */
#ifndef VAMP_ENGINE_MODEL_TRANSFORMER_H
#define VAMP_ENGINE_MODEL_TRANSFORMER_H

#include "engine/model/source.h"
#include "engine/model/workspace.h"
#include "vamp/config.h"

struct transformer;

/* tables: the codec's codebooks, [n_codebooks, vocab_size, latent_dim]. */
int transformer_load(const struct vamp_transformer_config *config, const float *tables, struct source *source,
                     struct vamp_device *device, struct transformer **transformer);
void transformer_free(struct transformer *transformer);

/* One generation step of a packed batch: embed, layers, predict, remask. */
int transformer_step(struct transformer *transformer, const struct vamp_packing *packing,
                     const struct vamp_sequence *sequences, struct vamp_error *error);

/* Logits of one sequence of tokens (host, [frames, n_codebooks]): host float
 * [frames, predicted * vocabulary], channel = codebook * vocabulary + token. */
int transformer_logits(struct transformer *transformer, const int32_t *tokens, int frames, float *logits,
                       struct vamp_error *error);

#endif
