/*
 * Fuzzing what a user's parameters go through, from JSON to a mask that is built and described: any JSON at
 * all must be accepted or refused with a reason, in bounded time and memory.
 *
 * The first byte chooses a number of frames, the rest is JSON. The input is copied into memory of its exact
 * size, so that the sanitizers see a read past its end.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vamp/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

/* An accepted request must give a mask of the right size, which can be described. */
static void build(const struct vamp_request *request, int frames, const struct vamp_model_config *config) {
  struct vamp_variation variation = {0};
  struct vamp_error error = {0};
  int status = vamp_variation_prepare_frames(request, frames, config, &variation, &error);
  if (status) {
    if (error.status != status || error.message[0] == '\0') {
      abort();
    }
    return;
  }
  for (int pass = 0; pass < vamp_mask_plan_passes(variation.plan); pass++) {
    const struct vamp_mask *mask = vamp_mask_plan_mask(variation.plan, pass);
    if (mask->frames != frames || mask->codebooks != config->codec.n_codebooks) {
      abort();
    }
    for (int i = 0; i < mask->frames * mask->codebooks; i++) {
      if (mask->data[i] > 1) {
        abort();
      }
    }
  }
  json_t *document = vamp_variation_mask_json(&variation, NULL);
  if (!document) {
    abort();
  }
  json_decref(document);
  vamp_variation_free(&variation);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
  struct vamp_model_config config;
  struct vamp_request request = {0};
  struct vamp_error error = {0};
  if (size < 2 || vamp_config_named("official", &config, &error)) {
    return 0;
  }
  int frames = 1 + input[0];
  char *text = malloc(size - 1);
  if (!text) {
    return 0;
  }
  memcpy(text, input + 1, size - 1);
  json_t *params = json_loadb(text, size - 1, JSON_REJECT_DUPLICATES, NULL);
  int status = params ? vamp_request_parse(params, &request, &error) : 0;
  if (status && (error.status != status || error.message[0] == '\0')) {
    abort();
  }
  if (params && !status) {
    build(&request, frames, &config);
  }
  vamp_request_free(&request);
  json_decref(params);
  free(text);
  return 0;
}
