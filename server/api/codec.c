/*
 * POST /v1/tokens and POST /v1/audio: the codec alone, audio to tokens and tokens to audio.
 *
 * Tokens are [codebooks, frames], as a .npy file of int32 or as JSON. They are those of the clip at -24 LUFS,
 * as the model hears it; the header Vampd-Gain (and "gain" in JSON) is what the input was multiplied with, so
 * that whoever turns them into audio again can divide by it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/api/input.h"
#include "server/http/negotiate.h"
#include "server/http/router.h"
#include "vamp/array.h"

/* Hands a task to the device; the exchange is `done`'s from then on, or has its answer and is finished. */
static void run(struct vampd_exchange *exchange, struct vampd_job_options *options,
                struct vamp_variation *variation) {
  struct vamp_error error = {0};
  if (vampd_exchange_run(exchange, options, variation, &error) != VAMP_OK) {
    if (options->codes && error.field[0] == '\0') {
      snprintf(error.field, sizeof error.field, "/tokens");
    }
    vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INVALID_FIELD);
    vampd_exchange_finish(exchange);
  }
}

/* The codec has no parameters but, for audio, its format. */
static int check_parameters(struct vampd_exchange *exchange, const struct vampd_input *input, bool format) {
  const char *name;
  json_t *value;
  json_object_foreach(input->params, name, value) {
    if (format && strcmp(name, "format") == 0) {
      continue;
    }
    char pointer[80];
    snprintf(pointer, sizeof pointer, "/%.64s", name);
    pointer[1 + strcspn(pointer + 1, "/~")] = '\0';
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_INVALID_FIELD, pointer,
                         "Unknown field \"%s\": the codec alone knows %s.", name,
                         format ? "\"format\" and nothing else" : "no parameters");
    return VAMP_INVALID;
  }
  return VAMP_OK;
}

/* ---- audio -> tokens --------------------------------------------------------------------------------------
 */

static json_t *tokens_json(const struct vampd_outcome *outcome) {
  const struct vamp_result *result = outcome->result;
  const struct vamp_variation *variation = outcome->variation;
  json_t *rows = json_array();
  for (int c = 0; c < result->codebooks; c++) {
    json_t *row = json_array();
    for (int t = 0; t < result->frames; t++) {
      json_array_append_new(row, json_integer(result->codes[c * result->frames + t]));
    }
    json_array_append_new(rows, row);
  }
  return json_pack("{s:i, s:i, s:f, s:i, s:i, s:f, s:o}", "codebooks", result->codebooks, "frames",
                   result->frames, "frame_rate", (double)variation->sample_rate / variation->hop_length,
                   "sample_rate", variation->sample_rate, "hop_length", variation->hop_length, "gain",
                   variation->clip.gain, "tokens", rows);
}

static int answer_npy(struct vampd_answer *answer, const struct vamp_result *result,
                      struct vamp_error *error) {
  size_t shape[] = {(size_t)result->codebooks, (size_t)result->frames};
  void *bytes;
  size_t size;
  int status = vamp_array_write_memory(VAMP_I32, 2, shape, result->codes, &bytes, &size, error);
  if (status == VAMP_OK) {
    vampd_answer_bytes(answer, 200, "application/octet-stream", bytes, size);
    vampd_answer_header(answer, "Content-Disposition", "attachment; filename=\"tokens.npy\"");
  }
  return status;
}

static void encoded(const struct vampd_outcome *outcome, void *user) {
  struct vampd_exchange *exchange = user;
  struct vamp_error error = {0};
  if (outcome->status != VAMP_OK) {
    vampd_answer_error(&exchange->answer, outcome->error, VAMPD_PROBLEM_INTERNAL);
  } else if (vampd_negotiate(exchange->fields.accept, exchange->route->offers) == 1) {
    vampd_answer_json(&exchange->answer, 200, tokens_json(outcome));
  } else if (answer_npy(&exchange->answer, outcome->result, &error) != VAMP_OK) {
    vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INTERNAL);
  }
  if (exchange->answer.status == 200) {
    vampd_answer_header(&exchange->answer, "Vampd-Gain", "%.9g", outcome->variation->clip.gain);
  }
  vampd_exchange_finish(exchange);
}

void vampd_handle_tokens(struct vampd_exchange *exchange) {
  const struct vampd_device_facts *facts = vampd_exchange_begin(exchange);
  struct vampd_input input = {0};
  struct vamp_request request = {0};
  struct vamp_variation variation = {0};
  bool ready = facts && vampd_input_read(exchange, 0, &input) == VAMP_OK &&
               check_parameters(exchange, &input, false) == VAMP_OK &&
               vampd_input_parse(exchange, input.params, &request) == VAMP_OK &&
               vampd_input_variation_once(exchange, facts, &input, &request, &variation) == VAMP_OK &&
               vampd_exchange_take_place(exchange, (double)variation.clip.count / variation.sample_rate);
  vamp_request_free(&request);
  vampd_input_free(&input);
  if (ready) {
    struct vampd_job_options options = {.task = VAMP_TASK_ENCODE, .done = encoded};
    run(exchange, &options, &variation);
  } else {
    vampd_exchange_finish(exchange);
  }
  vamp_variation_free(&variation);
}

/* ---- tokens -> audio --------------------------------------------------------------------------------------
 */

static void decoded(const struct vampd_outcome *outcome, void *user) {
  struct vampd_exchange *exchange = user;
  const struct vampd_device_facts *facts = vampd_device_facts(exchange->daemon->device);
  struct vamp_error error = {0};
  void *file;
  size_t size;
  if (outcome->status != VAMP_OK || !facts) {
    vampd_answer_error(&exchange->answer, outcome->error, VAMPD_PROBLEM_INVALID_FIELD);
  } else if (vamp_audio_write_memory(exchange->output.format, outcome->result->samples,
                                     outcome->result->sample_count, facts->model.codec.sample_rate, &file,
                                     &size, &error) != VAMP_OK) {
    vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INTERNAL);
  } else {
    vampd_answer_bytes(&exchange->answer, 200, vamp_audio_format_media_type(exchange->output.format), file,
                       size);
  }
  vampd_exchange_finish(exchange);
}

/* There are tokens, and they have the shape that this model has. */
static int check_tokens(struct vampd_exchange *exchange, const struct vampd_device_facts *facts,
                        const struct vamp_array *tokens) {
  const struct vamp_codec_config *codec = &facts->model.codec;
  double seconds = exchange->settings->options.max_seconds;
  size_t most = (size_t)(seconds * codec->sample_rate / codec->hop_length) + 1;
  if (!tokens->data || tokens->dtype != VAMP_I32 || tokens->dimensions != 2) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_INVALID_FIELD, "/tokens",
                         "Send \"tokens\": an array of whole numbers [codebooks, frames], as .npy or JSON.");
    return VAMP_INVALID;
  }
  if (tokens->shape[0] != (size_t)codec->n_codebooks || tokens->shape[1] < 1) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_INVALID_FIELD, "/tokens",
                         "The tokens are %zu x %zu; this model has %d codebooks.", tokens->shape[0],
                         tokens->shape[1], codec->n_codebooks);
    return VAMP_INVALID;
  }
  if (tokens->shape[1] > most) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_TOO_LARGE, "/tokens",
                         "There are %zu frames; at most %zu are accepted.", tokens->shape[1], most);
    return VAMP_LIMIT;
  }
  return VAMP_OK;
}

static double seconds_of(const struct vampd_device_facts *facts, const struct vamp_array *tokens) {
  const struct vamp_codec_config *codec = &facts->model.codec;
  return (double)tokens->shape[1] * codec->hop_length / codec->sample_rate;
}

void vampd_handle_audio(struct vampd_exchange *exchange) {
  const struct vampd_device_facts *facts = vampd_exchange_begin(exchange);
  int other; /* the route offers nothing but audio */
  struct vampd_input input = {0};
  struct vamp_request request = {0};
  struct vamp_variation none = {0};
  bool ready = facts && vampd_input_read(exchange, VAMPD_TAKES_TOKENS, &input) == VAMP_OK &&
               check_parameters(exchange, &input, true) == VAMP_OK &&
               vampd_input_parse(exchange, input.params, &request) == VAMP_OK &&
               vampd_input_choose(exchange, &input, &request, &exchange->output.format, &other) == VAMP_OK &&
               check_tokens(exchange, facts, &input.tokens) == VAMP_OK &&
               vampd_exchange_take_place(exchange, seconds_of(facts, &input.tokens));
  vamp_request_free(&request);
  vampd_exchange_drop_body(exchange);
  if (ready) {
    struct vampd_job_options options = {.task = VAMP_TASK_DECODE,
                                        .codes = input.tokens.data,
                                        .codebooks = (int)input.tokens.shape[0],
                                        .frames = (int)input.tokens.shape[1],
                                        .done = decoded};
    run(exchange, &options, &none);
  } else {
    vampd_exchange_finish(exchange);
  }
  vampd_input_free(&input);
}
