/*
 * What a finished job leaves behind: a few files and a summary in JSON.
 *
 *   audio.wav     the samples as the model made them, 32 bit float: every other format is made from it
 *   mask.json     the mask document (docs/masks.md)
 *   tokens.npy    int32 [codebooks, frames], after the last pass
 *   picture.npy   float32 [4, codebooks, frames] of the last pass: tokens before, tokens after, step at which
 * each was fixed (-1: kept), confidence; with the clip, the job's parameters and the facts of the model that
 * mask.json tells it is all that a picture needs
 *
 * made when somebody asks for them, and then kept:
 *
 *   audio-16.wav, audio-24.wav, audio.flac, audio.ogg, mask.png, mask.svg
 *
 * Any thread that may block.
 */
#ifndef VAMPD_RESULT_H
#define VAMPD_RESULT_H

#include <jansson.h>

#include "server/decode/decode.h"
#include "server/jobs/device.h"
#include "server/jobs/job.h"
#include "server/store/store.h"

#define VAMPD_RESULT_FILES 4

struct vampd_result {
  char *
      summary; /* {"model", "backend", "precision", "samples", "timings", "density", "changed", "measures"} */
  struct vampd_store_file files[VAMPD_RESULT_FILES];
  void *owned[VAMPD_RESULT_FILES]; /* the same bytes, to be freed */
};

/* From the outcome of a job that is VAMP_OK. `measure`: compares with the clip, whose samples were kept. */
int vampd_result_make(const struct vampd_outcome *outcome, const struct vampd_device_facts *facts,
                      bool measure, struct vampd_result *result, struct vamp_error *error);
void vampd_result_free(struct vampd_result *result); /* fine on a zeroed struct */

/* Seconds of wall time as {"queued", "encode", "coarse", "fine", "decode", "total"}. */
json_t *vampd_result_timings(const struct vamp_result *result, double total);

/* Bytes on the disk that a job of so many samples and frames is expected to need in the end. */
int64_t vampd_result_reserve(size_t samples, int codebooks, int64_t frames);

/* Opens the audio of a finished job in a format; *file is the caller's to close. VAMP_INVALID where the job
 * is gone. */
int vampd_result_audio(struct vampd_store *store, const char *id, enum vamp_audio_format format, int *file,
                       int64_t *size, struct vamp_error *error);
/* The name of that file, which also tells two formats apart. */
const char *vampd_result_audio_name(enum vamp_audio_format format);

/* Whether a finished job has this file by now. */
bool vampd_result_is_kept(struct vampd_store *store, const char *id, const char *name);

/* "mask.png", "mask.svg". */
const char *vampd_result_picture_name(enum vamp_picture_format format);
/* Opens the picture of a finished job; draws it where nobody has asked for it yet, whatever model is loaded.
 */
int vampd_result_picture(struct vampd_store *store, struct vampd_decoder *decoder,
                         const struct vampd_store_job *job, enum vamp_picture_format format, int *file,
                         int64_t *size, struct vamp_error *error);

#endif
