/*
 * The codec's graph: audio -> latent -> codes -> latent -> audio, on a device. docs/model.md, "Codec".
 *
 * Belongs to the thread that uses the device.
 */
#ifndef VAMP_ENGINE_MODEL_CODEC_H
#define VAMP_ENGINE_MODEL_CODEC_H

#include "engine/model/source.h"
#include "engine/model/workspace.h"
#include "vamp/config.h"

struct codec;

int codec_load(const struct vamp_codec_config *config, struct source *source, struct vamp_device *device,
               struct codec **codec);
void codec_free(struct codec *codec);

/* The codec's own codebooks, [codebooks, entries, dimensions]: the transformers embed with them. */
float *codec_tables(const struct vamp_codec_config *config, int codebooks, struct source *source);

/* Frames of context on each side beyond which nothing can change a frame. */
int codec_encoder_context(const struct codec *codec);
int codec_decoder_context(const struct codec *codec);

/* Packed sequences of frames[s] * hop samples (host, one after the other) -> codes (host,
 * [sum of frames, codebooks]). encoder_out and quantized (host, [sum of frames, latent]) may be NULL. */
int codec_encode(struct codec *codec, int count, const int64_t *frames, const float *samples, int32_t *codes,
                 float *encoder_out, float *quantized, struct vamp_error *error);
/* codes (host, [sum of frames, codebooks]) -> samples (host, sum of frames * hop). latent (host,
 * [sum of frames, latent]) may be NULL. */
int codec_decode(struct codec *codec, int count, const int64_t *frames, const int32_t *codes, float *samples,
                 float *latent, struct vamp_error *error);

#endif
