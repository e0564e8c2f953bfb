/*
 * One request for a variation, as it comes from a user: parameters in JSON, a clip, and what goes back.
 * The command line and the daemon both speak through this room, so that the same parameters mean the
 * same thing in both.
 *
 *   parse:   JSON -> vamp_request                            (any thread)
 *   prepare: audio file -> clip, mask plan, vamp_job         (any thread; the slow part before the device)
 *   finish:  vamp_result -> samples at the input's loudness, mask JSON, picture   (any thread)
 */
#ifndef VAMP_REQUEST_H
#define VAMP_REQUEST_H

#include <jansson.h>

#include "vamp/audio.h"
#include "vamp/generate.h"
#include "vamp/mask.h"

#define VAMP_SEED_MAX ((uint64_t)9007199254740991) /* 2^53 - 1: what JSON numbers carry exactly */

/* {
 *   "preset": NAME | "mask": {...},      vamp/mask.h; both: the preset with the mask's fields over it
 *   "sampling": {"temperature", "mask_temperature", "coarse_steps", "fine_steps", "sample_cutoff",
 *                "top_k", "top_p", "typical_mass", "typical_min_tokens", "greedy"},
 *   "seed": 0 .. 2^53-1,                 random where missing
 *   "model": NAME,                       the loaded one where missing
 *   "format": "wav" | "wav24" | "wavfloat" | "flac" | "ogg"
 * } */
struct vamp_request {
  struct vamp_mask_spec *mask;
  struct vamp_sampling sampling; /* its seed is the request's */
  char model[64];                /* "" where not given */
  enum vamp_audio_format format;
};

/* Unknown fields, wrong types and values out of range are VAMP_INVALID with a JSON pointer;
 * "typical_min_tokens" is at least 1, "temperature" at least 0.001. That a named model is the loaded one and
 * that top_k is within its vocabulary is checked by vamp_variation_prepare. `params` NULL or {} gives the
 * defaults. */
int vamp_request_parse(const json_t *params, struct vamp_request *request, struct vamp_error *error);
void vamp_request_free(struct vamp_request *request); /* fine on a zeroed struct */

/* A request with its audio, ready for the batch loop. */
struct vamp_variation {
  struct vamp_clip clip;
  struct vamp_mask_plan *plan;
  struct vamp_sampling sampling;
  int sample_rate, hop_length, codebooks;
};

/* Resamples, normalises and builds the masks. `audio` is not kept. */
int vamp_variation_prepare(const struct vamp_request *request, const struct vamp_audio *audio,
                           const struct vamp_model_config *config, struct vamp_variation *variation,
                           struct vamp_error *error);
/* The masks alone, for a bare number of frames: no clip, so it cannot become a job. VAMP_INVALID where a
 * pattern wants to listen. */
int vamp_variation_prepare_frames(const struct vamp_request *request, int64_t frames,
                                  const struct vamp_model_config *config, struct vamp_variation *variation,
                                  struct vamp_error *error);
/* Whether a request fits the clip of a variation: as vamp_variation_prepare, without its result. */
int vamp_variation_check(const struct vamp_request *request, const struct vamp_variation *variation,
                         const struct vamp_model_config *config, struct vamp_error *error);
void vamp_variation_free(struct vamp_variation *variation); /* fine on a zeroed struct */

/* The job for vamp_loop_submit; borrows from `variation`. client and user are the caller's to set. */
void vamp_variation_job(const struct vamp_variation *variation, struct vamp_job *job);

/* Frees the clip's samples, the bulk of a variation's memory: for use once vamp_loop_submit has copied
 * them. Everything below still works. */
void vamp_variation_forget_samples(struct vamp_variation *variation);

/* Brings result->samples to the input's loudness, in place. */
void vamp_variation_finish(const struct vamp_variation *variation, struct vamp_result *result);

/* The whole mask document: {"seed", "passes": [mask JSON of each pass], ...the last pass's densities
 * at the top level as "density"}, with outcomes where result is not NULL. New reference. */
json_t *vamp_variation_mask_json(const struct vamp_variation *variation, const struct vamp_result *result);

/* The picture of the last pass. */
int vamp_variation_picture(const struct vamp_variation *variation, const struct vamp_result *result,
                           enum vamp_picture_format format, void **data, size_t *size,
                           struct vamp_error *error);

#endif
