/* See prepare.h. */
#include "server/jobs/prepare.h"

#include <stdlib.h>
#include <string.h>

#include "server/http/json.h"

/* Samples of one decoded clip, all channels together: 2^27 floats are 512 MiB, ten minutes of stereo at
 * 96 kHz. Each worker holds at most one. */
#define MAX_SAMPLES ((size_t)1 << 27)
#define MAX_INPUT_BYTES ((size_t)1 << 30) /* more than a body can have */

struct vamp_audio_limits vampd_prepare_limits(double max_seconds) {
  struct vamp_audio_limits limits = vamp_audio_default_limits();
  limits.max_seconds = max_seconds;
  limits.max_samples = limits.max_samples < MAX_SAMPLES ? limits.max_samples : MAX_SAMPLES;
  return limits;
}

/* Stored are the parameters as they were accepted, and beside them what only we look at. */
static int parse(const char *text, struct vamp_request *request, struct vamp_error *error) {
  json_t *params = NULL;
  int status = vampd_json_parse(text, strlen(text), "The stored parameters", &params, error);
  if (status == VAMP_OK) {
    status = vamp_request_parse(json_object_get(params, "params"), request, error);
  }
  json_decref(params);
  return status;
}

int vampd_prepare(struct vampd_store *store, struct vampd_decoder *decoder,
                  const struct vamp_model_config *model, const struct vampd_store_job *job,
                  struct vamp_variation *variation, struct vamp_error *error) {
  struct vamp_request request = {0};
  struct vamp_audio audio = {0};
  void *bytes = NULL;
  size_t size = 0;
  /* The clip was within the limits when it was accepted, whatever they are now. */
  struct vamp_audio_limits limits = vampd_prepare_limits(job->seconds + 1);
  int status = parse(job->params, &request, error);
  if (status == VAMP_OK) {
    status = vampd_store_read_file(store, VAMPD_FOLDER_INPUTS, job->input, "clip", MAX_INPUT_BYTES, &bytes,
                                   &size, error);
  }
  if (status == VAMP_OK) {
    status = vampd_decoder_read(decoder, bytes, size, "audio", &limits, &audio, error);
  }
  free(bytes);
  if (status == VAMP_OK) {
    status = vamp_variation_prepare(&request, &audio, model, variation, error);
  }
  vamp_audio_free(&audio);
  vamp_request_free(&request);
  return status;
}
