/*
 * The body of a request: see input.h. Runs on a worker: finding a boundary in 64 MiB, or reading as much
 * base64, takes longer than an HTTP thread may.
 */
#include "server/api/input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/base64.h"
#include "server/http/json.h"
#include "server/http/multipart.h"
#include "server/http/negotiate.h"
#include "server/http/router.h"
#include "server/jobs/prepare.h"

static int refuse(struct vampd_exchange *exchange, const struct vamp_error *error,
                  enum vampd_problem otherwise) {
  vampd_answer_error(&exchange->answer, error, otherwise);
  return error->status;
}

/* What the decoders report knows nothing of the field that the bytes came in. */
static int refuse_at(struct vampd_exchange *exchange, const char *pointer, struct vamp_error *error,
                     enum vampd_problem otherwise) {
  snprintf(error->field, sizeof error->field, "%s", pointer);
  return refuse(exchange, error, otherwise);
}

static int refuse_field(struct vampd_exchange *exchange, const char *pointer, const char *detail) {
  vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_INVALID_FIELD, pointer, "%s", detail);
  return VAMP_INVALID;
}

static int refuse_memory(struct vampd_exchange *exchange) {
  vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_OUT_OF_MEMORY, NULL,
                       "Out of memory while reading the body.");
  return VAMP_MEMORY;
}

static int parse_params(struct vampd_exchange *exchange, const void *text, size_t size, const char *what,
                        json_t **params) {
  struct vamp_error error = {0};
  int status = vampd_json_parse(text, size, what, params, &error);
  if (status != VAMP_OK) {
    return refuse(exchange, &error, VAMPD_PROBLEM_INVALID_BODY);
  }
  if (!json_is_object(*params)) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_INVALID_BODY, NULL, "%s must be a JSON object.",
                         what);
    return VAMP_INVALID;
  }
  return VAMP_OK;
}

/* ---- multipart ----------------------------------------------------------------------------------------- */

static int refuse_part(struct vampd_exchange *exchange, const struct vampd_part *part, unsigned takes) {
  char pointer[sizeof part->name + 1];
  snprintf(pointer, sizeof pointer, "/%.63s", part->name);
  bool plain = strpbrk(part->name, "/~") == NULL;
  vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_INVALID_FIELD, plain ? pointer : NULL,
                       "Unknown part \"%s\"; known are %s and params.", part->name,
                       takes & VAMPD_TAKES_TOKENS ? "tokens" : "audio");
  return VAMP_INVALID;
}

static int take_tokens(struct vampd_exchange *exchange, const struct vampd_part *part,
                       struct vampd_input *input) {
  struct vamp_error error = {0};
  int status = vamp_array_read_memory(part->data, part->size, "tokens", &input->tokens, &error);
  return status == VAMP_OK ? status : refuse_at(exchange, "/tokens", &error, VAMPD_PROBLEM_INVALID_FIELD);
}

/* Sorts the parts into the input; *params is the one with the parameters, or NULL. */
static int take_parts(struct vampd_exchange *exchange, const struct vampd_part *parts, int count,
                      unsigned takes, struct vampd_input *input, const struct vampd_part **params) {
  bool wants_tokens = takes & VAMPD_TAKES_TOKENS;
  int most = takes & VAMPD_TAKES_CLIPS ? VAMPD_MAX_CLIPS : 1;
  input->clips = calloc(VAMPD_MAX_CLIPS, sizeof *input->clips);
  if (!input->clips) {
    return refuse_memory(exchange);
  }
  for (int i = 0; i < count; i++) {
    const struct vampd_part *part = &parts[i];
    bool is_params = strcmp(part->name, "params") == 0;
    bool is_audio = !wants_tokens && strcmp(part->name, "audio") == 0;
    bool is_tokens = wants_tokens && strcmp(part->name, "tokens") == 0;
    if ((is_audio && input->clip_count == most) || (is_params && *params) ||
        (is_tokens && input->tokens.data)) {
      return refuse_field(exchange,
                          is_audio    ? "/audio"
                          : is_params ? "/params"
                                      : "/tokens",
                          most > 1 && is_audio ? "There are more than 64 clips."
                                               : "This part is there twice.");
    }
    if (is_audio) {
      struct vampd_file *clip = &input->clips[input->clip_count++];
      *clip = (struct vampd_file){.data = part->data, .size = part->size};
      memcpy(clip->name, part->filename, sizeof clip->name);
    } else if (is_params) {
      *params = part;
    } else if (!is_tokens) {
      return refuse_part(exchange, part, takes);
    } else if (take_tokens(exchange, part, input) != VAMP_OK) {
      return VAMP_INVALID;
    }
  }
  return VAMP_OK;
}

static int read_multipart(struct vampd_exchange *exchange, unsigned takes, struct vampd_input *input) {
  struct vampd_part parts[VAMPD_MULTIPART_MAX_PARTS];
  const struct vampd_part *params = NULL;
  struct vamp_error error = {0};
  int count, status;
  status = vampd_multipart_parse(exchange->fields.content_type, exchange->body ? exchange->body : "",
                                 exchange->size, parts, &count, &error);
  if (status != VAMP_OK) {
    return refuse(exchange, &error, VAMPD_PROBLEM_INVALID_BODY);
  }
  status = take_parts(exchange, parts, count, takes, input, &params);
  if (status != VAMP_OK) {
    return status;
  }
  if (params) {
    return parse_params(exchange, params->data, params->size, "The part params", &input->params);
  }
  input->params = json_object();
  return input->params ? VAMP_OK : refuse_memory(exchange);
}

/* ---- JSON ------------------------------------------------------------------------------------------------
 */

static int decode_clip(struct vampd_exchange *exchange, const json_t *text, const char *pointer,
                       struct vampd_file *clip) {
  struct vamp_error error = {0};
  if (!json_is_string(text)) {
    return refuse_field(exchange, pointer, "Audio in JSON must be a string of base64.");
  }
  int status = vampd_base64_decode(json_string_value(text), json_string_length(text), &clip->decoded,
                                   &clip->size, &error);
  clip->data = clip->decoded;
  return status == VAMP_OK ? status : refuse_at(exchange, pointer, &error, VAMPD_PROBLEM_INVALID_FIELD);
}

static int take_json_clips(struct vampd_exchange *exchange, unsigned takes, struct vampd_input *input) {
  json_t *audio = json_object_get(input->params, "audio");
  bool list = (takes & VAMPD_TAKES_CLIPS) && json_is_array(audio);
  size_t count = !audio ? 0 : list ? json_array_size(audio) : 1;
  if (!audio || (takes & VAMPD_TAKES_TOKENS)) {
    return VAMP_OK;
  }
  if (count > VAMPD_MAX_CLIPS) {
    return refuse_field(exchange, "/audio", "There are more than 64 clips.");
  }
  input->clips = calloc(VAMPD_MAX_CLIPS, sizeof *input->clips);
  if (!input->clips) {
    return refuse_memory(exchange);
  }
  for (size_t i = 0; i < count; i++) {
    char pointer[32] = "/audio";
    if (list) {
      snprintf(pointer, sizeof pointer, "/audio/%zu", i);
    }
    const json_t *text = list ? json_array_get(audio, i) : audio;
    int status = decode_clip(exchange, text, pointer, &input->clips[i]);
    if (status != VAMP_OK) {
      return status;
    }
    input->clip_count++;
  }
  json_object_del(input->params, "audio");
  return VAMP_OK;
}

/* {"tokens": [[...], ...]}: rows are codebooks. */
static int take_json_tokens(struct vampd_exchange *exchange, struct vampd_input *input) {
  const json_t *rows = json_object_get(input->params, "tokens");
  size_t codebooks = json_array_size(rows), frames = json_array_size(json_array_get(rows, 0));
  if (!rows) {
    return VAMP_OK;
  }
  if (codebooks > VAMP_MASK_MAX_CODEBOOKS) {
    return refuse_field(exchange, "/tokens", "No model has so many codebooks.");
  }
  int32_t *data = codebooks && frames ? malloc(codebooks * frames * sizeof *data) : NULL;
  if (codebooks && frames && !data) {
    return refuse_memory(exchange);
  }
  bool right = data != NULL;
  for (size_t c = 0; c < codebooks && right; c++) {
    const json_t *row = json_array_get(rows, c);
    right = json_array_size(row) == frames;
    for (size_t t = 0; t < frames && right; t++) {
      const json_t *token = json_array_get(row, t);
      right =
          json_is_integer(token) && json_integer_value(token) >= 0 && json_integer_value(token) <= INT32_MAX;
      data[c * frames + t] = (int32_t)json_integer_value(token);
    }
  }
  if (!right) {
    free(data);
    return refuse_field(exchange, "/tokens",
                        "Tokens are an array of one array for each codebook, all of the same length, of "
                        "whole numbers.");
  }
  input->tokens = (struct vamp_array){VAMP_I32, 2, {codebooks, frames}, data};
  json_object_del(input->params, "tokens");
  return VAMP_OK;
}

static int read_json(struct vampd_exchange *exchange, unsigned takes, struct vampd_input *input) {
  int status = parse_params(exchange, exchange->body ? exchange->body : "", exchange->size, "The body",
                            &input->params);
  vampd_exchange_drop_body(exchange);
  if (status == VAMP_OK) {
    status = take_json_clips(exchange, takes, input);
  }
  if (status == VAMP_OK && (takes & VAMPD_TAKES_TOKENS)) {
    status = take_json_tokens(exchange, input);
  }
  return status;
}

/* ---- the daemon's own parameters
 * ---------------------------------------------------------------------------- */

static int take_picture(struct vampd_exchange *exchange, struct vampd_input *input) {
  const json_t *picture = json_object_get(input->params, "picture");
  const char *name = picture && json_is_string(picture) ? json_string_value(picture) : "";
  if (picture && strcmp(name, "png") != 0 && strcmp(name, "svg") != 0) {
    return refuse_field(exchange, "/picture", "/picture must be \"png\" or \"svg\".");
  }
  if (picture) {
    input->picture = strcmp(name, "png") == 0 ? VAMPD_PICTURE_PNG : VAMPD_PICTURE_SVG;
    json_object_del(input->params, "picture");
  }
  return VAMP_OK;
}

/* A whole number of the parameters, which is removed; `missing` where it is not there. */
static int take_number(struct vampd_exchange *exchange, struct vampd_input *input, const char *name,
                       int64_t most, int64_t missing, int64_t *number) {
  const json_t *value = json_object_get(input->params, name);
  *number = missing;
  if (!value) {
    return VAMP_OK;
  }
  if (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > most) {
    char pointer[32];
    snprintf(pointer, sizeof pointer, "/%s", name);
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_INVALID_FIELD, pointer,
                         "%s must be a whole number from 1 to %lld.", pointer, (long long)most);
    return VAMP_INVALID;
  }
  *number = json_integer_value(value);
  json_object_del(input->params, name);
  return VAMP_OK;
}

/* The frames that a clip of --max-seconds would have. */
static int64_t max_frames(struct vampd_exchange *exchange) {
  const struct vampd_device_facts *facts = vampd_device_facts(exchange->daemon->device);
  if (!facts) {
    return 1;
  }
  const struct vamp_codec_config *codec = &facts->model.codec;
  return (int64_t)exchange->settings->options.max_seconds * codec->sample_rate / codec->hop_length + 1;
}

static int take_grid(struct vampd_exchange *exchange, struct vampd_input *input) {
  json_t *grid = json_object_get(input->params, "grid");
  if (!json_is_object(grid)) {
    return refuse_field(exchange, "/grid",
                        "A sweep needs a \"grid\": an object of parameters, each with an array of values.");
  }
  input->grid = json_incref(grid);
  json_object_del(input->params, "grid");
  return VAMP_OK;
}

int vampd_input_read(struct vampd_exchange *exchange, unsigned takes, struct vampd_input *input) {
  bool multipart = vampd_media_type_is(exchange->fields.content_type, "multipart/form-data");
  int64_t variations = 1;
  int status = multipart ? read_multipart(exchange, takes, input) : read_json(exchange, takes, input);
  if (status == VAMP_OK && (takes & VAMPD_TAKES_PICTURE)) {
    status = take_picture(exchange, input);
  }
  if (status == VAMP_OK && (takes & VAMPD_TAKES_FRAMES)) {
    status = take_number(exchange, input, "frames", max_frames(exchange), 0, &input->frames);
  }
  if (status == VAMP_OK && (takes & VAMPD_TAKES_VARIATIONS)) {
    status = take_number(exchange, input, "variations", VAMPD_MAX_VARIATIONS, 1, &variations);
  }
  if (status == VAMP_OK && (takes & VAMPD_TAKES_GRID)) {
    status = take_grid(exchange, input);
  }
  input->variations = (int)variations;
  input->format_given = json_object_get(input->params, "format") != NULL;
  return status;
}

int vampd_input_parse(struct vampd_exchange *exchange, const json_t *params, struct vamp_request *request) {
  struct vamp_error error = {0};
  int status = vamp_request_parse(params, request, &error);
  return status == VAMP_OK ? status : refuse(exchange, &error, VAMPD_PROBLEM_INVALID_FIELD);
}

static void drop_clips(struct vampd_input *input) {
  for (int i = 0; i < input->clip_count; i++) {
    free(input->clips[i].decoded);
  }
  free(input->clips);
  input->clips = NULL;
  input->clip_count = 0;
}

static int decode(struct vampd_exchange *exchange, const struct vampd_input *input, int index,
                  struct vamp_audio *audio) {
  struct vamp_audio_limits limits = vampd_prepare_limits(exchange->settings->options.max_seconds);
  if (index >= input->clip_count) {
    return refuse_field(exchange, "/audio",
                        "There is no audio: send a file as the part \"audio\", or base64 as \"audio\".");
  }
  const struct vampd_file *clip = &input->clips[index];
  struct vamp_error error = {0};
  char pointer[32] = "/audio";
  if (input->clip_count > 1) {
    snprintf(pointer, sizeof pointer, "/audio/%d", index);
  }
  int status =
      vampd_decoder_read(exchange->daemon->decoder, clip->data, clip->size, "audio", &limits, audio, &error);
  return status == VAMP_OK ? status : refuse_at(exchange, pointer, &error, VAMPD_PROBLEM_INVALID_AUDIO);
}

/* Takes over the audio. */
static int prepare(struct vampd_exchange *exchange, const struct vampd_device_facts *facts,
                   struct vamp_audio *audio, const struct vamp_request *request,
                   struct vamp_variation *variation) {
  struct vamp_error error = {0};
  int status = vamp_variation_prepare(request, audio, &facts->model, variation, &error);
  vamp_audio_free(audio);
  return status == VAMP_OK ? status : refuse(exchange, &error, VAMPD_PROBLEM_INVALID_FIELD);
}

int vampd_input_variation(struct vampd_exchange *exchange, const struct vampd_device_facts *facts,
                          const struct vampd_input *input, int index, const struct vamp_request *request,
                          struct vamp_variation *variation) {
  struct vamp_audio audio = {0};
  int status = decode(exchange, input, index, &audio);
  return status == VAMP_OK ? prepare(exchange, facts, &audio, request, variation) : status;
}

int vampd_input_variation_once(struct vampd_exchange *exchange, const struct vampd_device_facts *facts,
                               struct vampd_input *input, const struct vamp_request *request,
                               struct vamp_variation *variation) {
  struct vamp_audio audio = {0};
  int status = decode(exchange, input, 0, &audio);
  if (status != VAMP_OK) {
    return status;
  }
  drop_clips(input);
  vampd_exchange_drop_body(exchange);
  return prepare(exchange, facts, &audio, request, variation);
}

int vampd_input_choose(struct vampd_exchange *exchange, const struct vampd_input *input,
                       const struct vamp_request *request, enum vamp_audio_format *format, int *other) {
  enum { AUDIO = 3, MAX_OFFERS = 8 };
  static const enum vamp_audio_format FORMATS[AUDIO] = {VAMP_AUDIO_WAV16, VAMP_AUDIO_FLAC, VAMP_AUDIO_OGG};
  const char *const *offers = exchange->route->offers;
  const char *named[MAX_OFFERS] = {vamp_audio_format_media_type(request->format)};
  for (int i = 0; offers[AUDIO + i] && i < MAX_OFFERS - 2; i++) {
    named[1 + i] = offers[AUDIO + i];
  }
  int audio = input->format_given ? 1 : AUDIO;
  int chosen = vampd_negotiate(exchange->fields.accept, input->format_given ? named : offers);
  if (chosen < 0) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_NOT_ACCEPTABLE, "/format",
                         "The format asked for is %s, which the Accept header does not admit.", named[0]);
    return VAMP_INVALID;
  }
  *other = chosen < audio ? 0 : chosen - audio + 1;
  *format = input->format_given ? request->format : FORMATS[chosen < AUDIO ? chosen : 0];
  return VAMP_OK;
}

void vampd_input_free(struct vampd_input *input) {
  drop_clips(input);
  vamp_array_free(&input->tokens);
  json_decref(input->params);
  json_decref(input->grid);
  *input = (struct vampd_input){0};
}

static const struct {
  size_t offset;
  const char *bytes, *media_type;
} SIGNATURES[] = {{8, "WAVE", "audio/wav"},     {0, "fLaC", "audio/flac"}, {0, "OggS", "audio/ogg"},
                  {8, "AIFF", "audio/aiff"},    {8, "AIFC", "audio/aiff"}, {0, "ID3", "audio/mpeg"},
                  {0, "\xff\xfb", "audio/mpeg"}};
static const char UNKNOWN_AUDIO[] = "application/octet-stream";

const char *vampd_sniff_audio(const void *data, size_t size) {
  for (size_t i = 0; i < sizeof SIGNATURES / sizeof SIGNATURES[0]; i++) {
    size_t length = strlen(SIGNATURES[i].bytes);
    if (size >= SIGNATURES[i].offset + length &&
        memcmp((const char *)data + SIGNATURES[i].offset, SIGNATURES[i].bytes, length) == 0) {
      return SIGNATURES[i].media_type;
    }
  }
  return UNKNOWN_AUDIO;
}

const char *vampd_known_audio(const char *media_type) {
  for (size_t i = 0; i < sizeof SIGNATURES / sizeof SIGNATURES[0]; i++) {
    if (strcmp(SIGNATURES[i].media_type, media_type) == 0) {
      return SIGNATURES[i].media_type;
    }
  }
  return UNKNOWN_AUDIO;
}
