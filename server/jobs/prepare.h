/*
 * From what the store keeps of a job back to what the batch loop takes: the clip, the mask, the sampling.
 *
 * The same parameters and the same bytes give the same variation at any time, so nothing but those two is
 * stored. Any thread that may block.
 */
#ifndef VAMPD_PREPARE_H
#define VAMPD_PREPARE_H

#include "server/decode/decode.h"
#include "server/store/store.h"
#include "vamp/request.h"

/* `variation` is the caller's to free. VAMP_INVALID where the job names a model that is not loaded (any
 * more). */
int vampd_prepare(struct vampd_store *store, struct vampd_decoder *decoder,
                  const struct vamp_model_config *model, const struct vampd_store_job *job,
                  struct vamp_variation *variation, struct vamp_error *error);

/* What a clip may be, for a daemon whose clips are at most so long. */
struct vamp_audio_limits vampd_prepare_limits(double max_seconds);

#endif
