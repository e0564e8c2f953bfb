/*
 * The body of a request, taken apart: parameters and audio, whether they came as multipart/form-data or
 * as one JSON document.
 *
 *   multipart   file part "audio", part "params" (a JSON object)
 *   JSON        {"audio": base64, ...parameters}
 */
#ifndef VAMPD_INPUT_H
#define VAMPD_INPUT_H

#include <jansson.h>
#include <stdint.h>

#include "server/http/exchange.h"
#include "vamp/audio.h"
#include "vamp/request.h"

struct vampd_input {
  json_t *params;    /* an object; owned */
  const void *audio; /* NULL where there is none; in the exchange's body or in `decoded` */
  size_t audio_size;
  void *decoded; /* owned */
  enum vampd_picture picture;
  int64_t frames; /* 0 where not given */
  bool format_given;
};

/* Takes the body apart and removes from `params` what is the daemon's own ("picture" and, where `masks`,
 * "frames"), so that what is left is vamp_request_parse's. On failure the exchange has its answer. */
int vampd_input_read(struct vampd_exchange *exchange, bool masks, struct vampd_input *input);

/* Decodes the audio, within the daemon's limits, and drops the body. Likewise. */
int vampd_input_decode(struct vampd_exchange *exchange, struct vampd_input *input, struct vamp_audio *audio);

void vampd_input_free(struct vampd_input *input);

#endif
