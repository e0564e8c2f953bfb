/*
 * The body of a request, taken apart: parameters and audio, whether they came as multipart/form-data or
 * as one JSON document.
 *
 *   multipart   file parts "audio" (or "tokens"), part "params" (a JSON object)
 *   JSON        {"audio": base64, ...parameters}
 *
 * What the daemon itself understands ("picture", "frames", "variations", "grid") is removed from the
 * parameters, so that what is left is vamp_request_parse's. Which of them an endpoint takes, it says; the
 * others are unknown fields.
 */
#ifndef VAMPD_INPUT_H
#define VAMPD_INPUT_H

#include <jansson.h>
#include <stdint.h>

#include "server/http/exchange.h"
#include "vamp/array.h"
#include "vamp/audio.h"
#include "vamp/request.h"

#define VAMPD_MAX_CLIPS 64
#define VAMPD_MAX_VARIATIONS 64

enum vampd_takes {
  VAMPD_TAKES_PICTURE = 1,
  VAMPD_TAKES_FRAMES = 2, /* instead of audio */
  VAMPD_TAKES_CLIPS = 4,  /* several */
  VAMPD_TAKES_VARIATIONS = 8,
  VAMPD_TAKES_GRID = 16,
  VAMPD_TAKES_TOKENS = 32, /* and no audio */
};

/* A file as it came; in the exchange's body, or in `decoded`. */
struct vampd_file {
  const void *data;
  size_t size;
  void *decoded; /* owned */
  char name[128];
};

struct vampd_input {
  json_t *params;           /* an object; owned */
  struct vampd_file *clips; /* [clip_count]; owned */
  int clip_count;
  struct vamp_array tokens; /* int32 [codebooks, frames] where there are any; owned */
  enum vampd_picture picture;
  int64_t frames; /* 0 where not given */
  int variations; /* 1 where not given */
  json_t *grid;   /* an object, or NULL; owned */
  bool format_given;
};

/* On failure the exchange has its answer, in each of these. */

/* Takes the body apart; `takes`: vampd_takes together. */
int vampd_input_read(struct vampd_exchange *exchange, unsigned takes, struct vampd_input *input);

/* vamp_request_parse. */
int vampd_input_parse(struct vampd_exchange *exchange, const json_t *params, struct vamp_request *request);

/* Decodes clip `index`, within the daemon's limits, and builds its masks. */
int vampd_input_variation(struct vampd_exchange *exchange, const struct vampd_device_facts *facts,
                          const struct vampd_input *input, int index, const struct vamp_request *request,
                          struct vamp_variation *variation);
/* The same for the only clip, whose bytes and body are dropped as soon as they are decoded. */
int vampd_input_variation_once(struct vampd_exchange *exchange, const struct vampd_device_facts *facts,
                               struct vampd_input *input, const struct vamp_request *request,
                               struct vamp_variation *variation);

/* What to answer with: the audio format that the parameters name, which the Accept header must then admit, or
 * the one that it prefers. The route offers WAV, FLAC and Ogg first; *other is the number of what is wanted
 * of the offers behind them, from 1, with audio in it; 0: the audio itself. */
int vampd_input_choose(struct vampd_exchange *exchange, const struct vampd_input *input,
                       const struct vamp_request *request, enum vamp_audio_format *format, int *other);

void vampd_input_free(struct vampd_input *input);

/* The media type of an audio file, from its first bytes; "application/octet-stream" where they say nothing.
 */
const char *vampd_sniff_audio(const void *data, size_t size);
/* A media type that vampd_sniff_audio gave once, as the literal that it was. */
const char *vampd_known_audio(const char *media_type);

#endif
