/*
 * POST /v1/vamp: a clip and parameters in, a variation out, on the same connection.
 *
 *   worker   take the body apart, parse, decode, prepare -> a job, tied to the client
 *   device   the batch loop
 *   worker   back to the input's loudness, write the file, the JSON or both -> the connection is resumed
 *
 * Nothing of it is stored: whoever hangs up has cancelled it. Who wants to come back for the result asks for
 * a job (jobs_post.c).
 *
 * Which audio type: `format`, where the parameters name one, and then the Accept header must admit it;
 * otherwise the Accept header chooses among WAV, FLAC and Ogg.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/api/describe.h"
#include "server/api/input.h"
#include "server/http/negotiate.h"
#include "server/http/router.h"
#include "server/jobs/result.h"

#define BOUNDARY                                                                                             \
  "vampd-variation" /* the parts are JSON, and a file whose length is nobody's guess: see mix() */

/* Body -> variation, and what becomes of it. On failure the exchange has its answer. */
static int prepare(struct vampd_exchange *exchange, const struct vampd_device_facts *facts,
                   struct vamp_variation *variation) {
  struct vampd_input input = {0};
  struct vamp_request request = {0};
  struct vampd_output *output = &exchange->output;
  int shape = VAMPD_SHAPE_FILE; /* the route offers JSON and mixed behind the audio types, in this order */
  int status = vampd_input_read(exchange, VAMPD_TAKES_PICTURE, &input);
  if (status == VAMP_OK) {
    status = vampd_input_parse(exchange, input.params, &request);
  }
  if (status == VAMP_OK) {
    status = vampd_input_choose(exchange, &input, &request, &output->format, &shape);
  }
  if (status == VAMP_OK) {
    output->shape = (enum vampd_shape)shape;
    output->picture = input.picture;
    status = vampd_input_variation_once(exchange, facts, &input, &request, variation);
  }
  vamp_request_free(&request);
  vampd_input_free(&input);
  return status;
}

static void add_result_headers(struct vampd_answer *answer, const struct vampd_outcome *outcome,
                               const json_t *mask) {
  const struct vamp_result *result = outcome->result;
  vampd_describe_headers(answer, mask);
  vampd_answer_header(answer, "Server-Timing",
                      "queued;dur=%.1f, encode;dur=%.1f, coarse;dur=%.1f, fine;dur=%.1f, decode;dur=%.1f",
                      result->seconds.queued * 1e3, result->seconds.encode * 1e3,
                      result->seconds.coarse * 1e3, result->seconds.fine * 1e3, result->seconds.decode * 1e3);
}

/* What is said of the audio, in the document: with the file in it, or with a pointer to the part that holds
 * it. */
static json_t *describe_audio(const struct vampd_outcome *outcome, const struct vampd_output *output,
                              const void *file, size_t size) {
  const char *media_type = vamp_audio_format_media_type(output->format);
  json_t *audio = output->shape == VAMPD_SHAPE_MIXED
                      ? json_pack("{s:s, s:s}", "media_type", media_type, "part", "audio")
                      : vampd_describe_bytes(media_type, file, size);
  json_t *about = json_pack("{s:s, s:i, s:i, s:I}", "format", vamp_audio_format_name(output->format),
                            "sample_rate", outcome->variation->sample_rate, "channels", 1, "samples",
                            (json_int_t)outcome->result->sample_count);
  if (!audio || !about || json_object_update(audio, about) != 0) {
    json_decref(audio);
    audio = NULL;
  }
  json_decref(about);
  return audio;
}

/* The document; `file` is the finished audio file. */
static int describe(struct vampd_exchange *exchange, const struct vampd_outcome *outcome, const json_t *mask,
                    const void *file, size_t size, json_t **document, struct vamp_error *error) {
  const struct vampd_device_facts *facts = vampd_device_facts(exchange->daemon->device);
  const struct vampd_output *output = &exchange->output;
  json_t *made =
      json_pack("{s:s, s:s, s:s, s:O, s:o, s:O, s:o}", "request_id", exchange->id, "job_id", exchange->id,
                "model", facts ? facts->model.name : "", "seed", json_object_get(mask, "seed"), "audio",
                describe_audio(outcome, output, file, size), "mask", mask, "timings",
                vampd_result_timings(outcome->result, outcome->seconds));
  if (!made) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while writing the answer.");
  }
  if (output->picture != VAMPD_PICTURE_NONE) {
    json_t *picture;
    int status =
        vampd_describe_picture(outcome->variation, outcome->result, output->picture, &picture, error);
    if (status != VAMP_OK || json_object_set_new(made, "picture", picture) != 0) {
      json_decref(made);
      return status != VAMP_OK ? status : vamp_fail(error, VAMP_MEMORY, "Out of memory.");
    }
  }
  *document = made;
  return VAMP_OK;
}

/* Document and file as multipart/mixed (RFC 2046, section 5.1.3). The boundary carries the request's id,
 * which no file can have foreseen. */
static int mix(struct vampd_exchange *exchange, json_t *document, const void *file, size_t size,
               struct vamp_error *error) {
  const char *media_type = vamp_audio_format_media_type(exchange->output.format);
  char *text = json_dumps(document, JSON_COMPACT | JSON_REAL_PRECISION(15));
  size_t length = text ? strlen(text) : 0, room = length + size + 1024;
  char *body = text ? malloc(room) : NULL;
  if (!body) {
    free(text);
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while writing the answer.");
  }
  size_t used = (size_t)snprintf(body, room, "--" BOUNDARY "-%s\r\nContent-Type: application/json\r\n\r\n",
                                 exchange->id);
  memcpy(body + used, text, length);
  used += length;
  used += (size_t)snprintf(body + used, room - used,
                           "\r\n--" BOUNDARY "-%s\r\nContent-Type: %s\r\nContent-Disposition: attachment; "
                           "name=\"audio\"; filename=\"variation.%s\"\r\n\r\n",
                           exchange->id, media_type, media_type + strlen("audio/"));
  memcpy(body + used, file, size);
  used += size;
  used += (size_t)snprintf(body + used, room - used, "\r\n--" BOUNDARY "-%s--\r\n", exchange->id);
  free(text);
  vampd_answer_bytes(&exchange->answer, 200, NULL, body, used);
  vampd_answer_header(&exchange->answer, "Content-Type", "multipart/mixed; boundary=" BOUNDARY "-%s",
                      exchange->id);
  return VAMP_OK;
}

static int answer_result(struct vampd_exchange *exchange, const struct vampd_outcome *outcome,
                         struct vamp_error *error) {
  const struct vampd_output *output = &exchange->output;
  const struct vamp_result *result = outcome->result;
  bool plain = output->shape == VAMPD_SHAPE_FILE;
  void *file = NULL;
  size_t size = 0;
  json_t *document = NULL;
  json_t *mask = vamp_variation_mask_json(outcome->variation, plain ? NULL : result);
  int status = mask ? VAMP_OK : vamp_fail(error, VAMP_MEMORY, "Out of memory while describing the mask.");
  if (status == VAMP_OK) {
    status = vamp_audio_write_memory(output->format, result->samples, result->sample_count,
                                     outcome->variation->sample_rate, &file, &size, error);
  }
  if (status == VAMP_OK && !plain) {
    status = describe(exchange, outcome, mask, file, size, &document, error);
  }
  if (status == VAMP_OK && output->shape == VAMPD_SHAPE_MIXED) {
    status = mix(exchange, document, file, size, error);
    json_decref(document);
  } else if (status == VAMP_OK && output->shape == VAMPD_SHAPE_JSON) {
    vampd_answer_json(&exchange->answer, 200, document);
  } else if (status == VAMP_OK) {
    vampd_answer_bytes(&exchange->answer, 200, vamp_audio_format_media_type(output->format), file, size);
    file = NULL;
  }
  if (status == VAMP_OK) {
    vampd_answer_header(&exchange->answer, "Vampd-Job-Id", "%s", exchange->id);
    add_result_headers(&exchange->answer, outcome, mask);
  }
  free(file);
  json_decref(mask);
  return status;
}

/* The job has ended: on a worker. */
static void job_done(const struct vampd_outcome *outcome, void *user) {
  struct vampd_exchange *exchange = user;
  struct vamp_error error = {0};
  enum vampd_ending ending = outcome->status == VAMP_OK          ? VAMPD_ENDING_DONE
                             : outcome->status == VAMP_CANCELLED ? VAMPD_ENDING_CANCELLED
                                                                 : VAMPD_ENDING_FAILED;
  vampd_metrics_job(exchange->daemon->metrics, ending, outcome->seconds, outcome->result,
                    outcome->variation->sample_rate);
  if (outcome->status != VAMP_OK) {
    vampd_answer_error(&exchange->answer, outcome->error, VAMPD_PROBLEM_INTERNAL);
  } else if (answer_result(exchange, outcome, &error) != VAMP_OK) {
    vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INTERNAL);
  }
  vampd_exchange_finish(exchange);
}

void vampd_handle_vamp(struct vampd_exchange *exchange) {
  const struct vampd_device_facts *facts = vampd_exchange_begin(exchange);
  struct vamp_variation variation = {0};
  struct vamp_error error = {0};
  bool ready = facts && prepare(exchange, facts, &variation) == VAMP_OK &&
               vampd_exchange_take_place(exchange, (double)variation.clip.count / variation.sample_rate);
  if (ready) {
    struct vampd_job_options options = {.task = VAMP_TASK_VARIATION, .done = job_done};
    if (vampd_exchange_run(exchange, &options, &variation, &error) == VAMP_OK) {
      return; /* the exchange is job_done's now */
    }
    vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INVALID_FIELD);
  }
  vamp_variation_free(&variation);
  vampd_exchange_finish(exchange);
}
