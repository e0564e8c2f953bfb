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

/* Samples of one decoded clip, all channels together: 2^27 floats are 512 MiB, ten minutes of stereo at
 * 96 kHz. Each worker holds at most one. */
#define MAX_SAMPLES ((size_t)1 << 27)

static int refuse(struct vampd_exchange *exchange, const struct vamp_error *error,
                  enum vampd_problem otherwise) {
  vampd_answer_error(&exchange->answer, error, otherwise);
  return error->status;
}

/* What the decoders report knows nothing of the field that the bytes came in. */
static int refuse_audio(struct vampd_exchange *exchange, struct vamp_error *error,
                        enum vampd_problem otherwise) {
  snprintf(error->field, sizeof error->field, "/audio");
  return refuse(exchange, error, otherwise);
}

static int refuse_field(struct vampd_exchange *exchange, const char *pointer, const char *detail) {
  vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_INVALID_FIELD, pointer, "%s", detail);
  return VAMP_INVALID;
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

static int read_multipart(struct vampd_exchange *exchange, struct vampd_input *input) {
  struct vampd_part parts[VAMPD_MULTIPART_MAX_PARTS];
  struct vamp_error error = {0};
  int count, status;
  status = vampd_multipart_parse(exchange->content_type, exchange->body ? exchange->body : "", exchange->size,
                                 parts, &count, &error);
  if (status != VAMP_OK) {
    return refuse(exchange, &error, VAMPD_PROBLEM_INVALID_BODY);
  }
  const struct vampd_part *params = NULL;
  for (int i = 0; i < count; i++) {
    bool is_audio = strcmp(parts[i].name, "audio") == 0, is_params = strcmp(parts[i].name, "params") == 0;
    if ((is_audio && input->audio) || (is_params && params)) {
      return refuse_field(exchange, is_audio ? "/audio" : "/params", "This part is there twice.");
    }
    if (is_audio) {
      input->audio = parts[i].data;
      input->audio_size = parts[i].size;
    } else if (is_params) {
      params = &parts[i];
    } else {
      char pointer[sizeof parts[i].name + 1];
      snprintf(pointer, sizeof pointer, "/%.63s", parts[i].name);
      bool plain = strpbrk(parts[i].name, "/~") == NULL;
      vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_INVALID_FIELD, plain ? pointer : NULL,
                           "Unknown part \"%s\"; known are audio and params.", parts[i].name);
      return VAMP_INVALID;
    }
  }
  if (!params) {
    input->params = json_object();
    status = input->params ? VAMP_OK : vamp_fail(&error, VAMP_MEMORY, "Out of memory.");
    return status == VAMP_OK ? status : refuse(exchange, &error, VAMPD_PROBLEM_INTERNAL);
  }
  return parse_params(exchange, params->data, params->size, "The part params", &input->params);
}

static int read_json(struct vampd_exchange *exchange, struct vampd_input *input) {
  int status = parse_params(exchange, exchange->body ? exchange->body : "", exchange->size, "The body",
                            &input->params);
  vampd_exchange_drop_body(exchange);
  const json_t *audio = json_object_get(input->params, "audio");
  if (status != VAMP_OK || !audio) {
    return status;
  }
  if (!json_is_string(audio)) {
    return refuse_field(exchange, "/audio", "/audio must be a string of base64.");
  }
  struct vamp_error error = {0};
  status = vampd_base64_decode(json_string_value(audio), json_string_length(audio), &input->decoded,
                               &input->audio_size, &error);
  json_object_del(input->params, "audio");
  if (status != VAMP_OK) {
    return refuse_audio(exchange, &error, VAMPD_PROBLEM_INVALID_FIELD);
  }
  input->audio = input->decoded;
  return VAMP_OK;
}

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

/* The frames that a clip of --max-seconds would have. */
static int64_t max_frames(struct vampd_exchange *exchange) {
  const struct vampd_device_facts *facts = vampd_device_facts(exchange->daemon->device);
  if (!facts) {
    return 1;
  }
  const struct vamp_codec_config *codec = &facts->model.codec;
  return (int64_t)exchange->daemon->options.max_seconds * codec->sample_rate / codec->hop_length + 1;
}

static int take_frames(struct vampd_exchange *exchange, struct vampd_input *input) {
  const json_t *frames = json_object_get(input->params, "frames");
  if (!frames) {
    return VAMP_OK;
  }
  int64_t most = max_frames(exchange);
  if (!json_is_integer(frames) || json_integer_value(frames) < 1 || json_integer_value(frames) > most) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_INVALID_FIELD, "/frames",
                         "/frames must be a whole number from 1 to %lld.", (long long)most);
    return VAMP_INVALID;
  }
  input->frames = json_integer_value(frames);
  json_object_del(input->params, "frames");
  return VAMP_OK;
}

int vampd_input_read(struct vampd_exchange *exchange, bool masks, struct vampd_input *input) {
  bool multipart = vampd_media_type_is(exchange->content_type, "multipart/form-data");
  int status = multipart ? read_multipart(exchange, input) : read_json(exchange, input);
  if (status == VAMP_OK) {
    status = take_picture(exchange, input);
  }
  if (status == VAMP_OK && masks) {
    status = take_frames(exchange, input);
  }
  input->format_given = json_object_get(input->params, "format") != NULL;
  return status;
}

int vampd_input_decode(struct vampd_exchange *exchange, struct vampd_input *input, struct vamp_audio *audio) {
  struct vamp_audio_limits limits = vamp_audio_default_limits();
  limits.max_seconds = exchange->daemon->options.max_seconds;
  limits.max_samples = limits.max_samples < MAX_SAMPLES ? limits.max_samples : MAX_SAMPLES;
  struct vamp_error error = {0};
  int status = vamp_audio_read_memory(input->audio, input->audio_size, "audio", &limits, audio, &error);
  free(input->decoded);
  input->decoded = NULL;
  input->audio = NULL;
  vampd_exchange_drop_body(exchange);
  if (status != VAMP_OK) {
    return refuse_audio(exchange, &error, VAMPD_PROBLEM_INVALID_AUDIO);
  }
  return VAMP_OK;
}

void vampd_input_free(struct vampd_input *input) {
  json_decref(input->params);
  free(input->decoded);
  *input = (struct vampd_input){0};
}
