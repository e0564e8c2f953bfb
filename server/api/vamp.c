/*
 * POST /v1/vamp: a clip and parameters in, a variation out, on the same connection.
 *
 *   worker   take the body apart, parse, decode, prepare -> a job, tied to the client
 *   device   the batch loop
 *   worker   back to the input's loudness, write the file or the JSON -> the connection is resumed
 *
 * Which audio type: `format`, where the parameters name one, and then the Accept header must admit it;
 * otherwise the Accept header chooses among WAV, FLAC and Ogg.
 */
#include <stdlib.h>

#include "server/api/describe.h"
#include "server/api/input.h"
#include "server/http/negotiate.h"
#include "server/http/router.h"

static int choose_output(struct vampd_exchange *exchange, const struct vampd_input *input,
                         const struct vamp_request *request) {
  static const char *const ANY[] = {"audio/wav", "audio/flac", "audio/ogg", "application/json", NULL};
  static const enum vamp_audio_format FORMATS[] = {VAMP_AUDIO_WAV16, VAMP_AUDIO_FLAC, VAMP_AUDIO_OGG,
                                                   VAMP_AUDIO_WAV16};
  const char *const named[] = {vamp_audio_format_media_type(request->format), "application/json", NULL};
  int chosen = vampd_negotiate(exchange->accept, input->format_given ? named : ANY);
  if (chosen < 0) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_NOT_ACCEPTABLE, "/format",
                         "The format asked for is %s, which the Accept header does not admit.", named[0]);
    return VAMP_INVALID;
  }
  exchange->output = (struct vampd_output){
      .json = chosen == (input->format_given ? 1 : 3),
      .format = input->format_given ? request->format : FORMATS[chosen],
      .picture = input->picture,
  };
  return VAMP_OK;
}

/* Body -> variation. On failure the exchange has its answer. */
static int prepare(struct vampd_exchange *exchange, const struct vampd_device_facts *facts,
                   struct vamp_variation *variation) {
  struct vampd_input input = {0};
  struct vamp_request request = {0};
  struct vamp_audio audio = {0};
  struct vamp_error error = {0};
  int status = vampd_input_read(exchange, false, &input);
  if (status != VAMP_OK) {
    goto out;
  }
  status = vamp_request_parse(input.params, &request, &error);
  if (status != VAMP_OK) {
    vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INVALID_FIELD);
    goto out;
  }
  status = choose_output(exchange, &input, &request);
  if (status != VAMP_OK) {
    goto out;
  }
  if (!input.audio) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_INVALID_FIELD, "/audio",
                         "There is no audio: send a file as the part \"audio\", or base64 as \"audio\".");
    status = VAMP_INVALID;
    goto out;
  }
  status = vampd_input_decode(exchange, &input, &audio);
  if (status != VAMP_OK) {
    goto out;
  }
  status = vamp_variation_prepare(&request, &audio, &facts->model, variation, &error);
  if (status != VAMP_OK) {
    vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INVALID_FIELD);
  }
out:
  vamp_audio_free(&audio);
  vamp_request_free(&request);
  vampd_input_free(&input);
  return status;
}

static json_t *describe_timings(const struct vampd_outcome *outcome) {
  const struct vamp_result *result = outcome->result;
  return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "queued", result->seconds.queued, "encode",
                   result->seconds.encode, "coarse", result->seconds.coarse, "fine", result->seconds.fine,
                   "decode", result->seconds.decode, "total", outcome->seconds);
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

/* The JSON answer; `file` is the finished audio file. */
static int describe(struct vampd_exchange *exchange, const struct vampd_outcome *outcome, const json_t *mask,
                    const void *file, size_t size, json_t **document, struct vamp_error *error) {
  static const char *const FORMATS[] = {[VAMP_AUDIO_WAV16] = "wav",
                                        [VAMP_AUDIO_WAV24] = "wav24",
                                        [VAMP_AUDIO_WAV_FLOAT] = "wavfloat",
                                        [VAMP_AUDIO_FLAC] = "flac",
                                        [VAMP_AUDIO_OGG] = "ogg"};
  const struct vampd_device_facts *facts = vampd_device_facts(exchange->daemon->device);
  const struct vampd_output *output = &exchange->output;
  json_t *audio = vampd_describe_bytes(vamp_audio_format_media_type(output->format), file, size);
  json_t *about = json_pack("{s:s, s:i, s:i, s:I}", "format", FORMATS[output->format], "sample_rate",
                            outcome->variation->sample_rate, "channels", 1, "samples",
                            (json_int_t)outcome->result->sample_count);
  int failed = json_object_update(audio, about);
  json_decref(about);
  json_t *made = json_pack("{s:s, s:s, s:O, s:o, s:O, s:o}", "request_id", exchange->id, "model",
                           facts ? facts->model.name : "", "seed", json_object_get(mask, "seed"), "audio",
                           audio, "mask", mask, "timings", describe_timings(outcome));
  if (failed || !made) {
    json_decref(made);
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

static int answer_result(struct vampd_exchange *exchange, const struct vampd_outcome *outcome,
                         struct vamp_error *error) {
  const struct vampd_output *output = &exchange->output;
  const struct vamp_result *result = outcome->result;
  void *file = NULL;
  size_t size = 0;
  json_t *document = NULL;
  json_t *mask = vamp_variation_mask_json(outcome->variation, output->json ? result : NULL);
  int status = mask ? VAMP_OK : vamp_fail(error, VAMP_MEMORY, "Out of memory while describing the mask.");
  if (status == VAMP_OK) {
    status = vamp_audio_write_memory(output->format, result->samples, result->sample_count,
                                     outcome->variation->sample_rate, &file, &size, error);
  }
  if (status == VAMP_OK && output->json) {
    status = describe(exchange, outcome, mask, file, size, &document, error);
  }
  if (status == VAMP_OK && output->json) {
    vampd_answer_json(&exchange->answer, 200, document);
  } else if (status == VAMP_OK) {
    vampd_answer_bytes(&exchange->answer, 200, vamp_audio_format_media_type(output->format), file, size);
    file = NULL;
  }
  if (status == VAMP_OK) {
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
  if (outcome->status != VAMP_OK) {
    vampd_answer_error(&exchange->answer, outcome->error, VAMPD_PROBLEM_INTERNAL);
  } else if (answer_result(exchange, outcome, &error) != VAMP_OK) {
    vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INTERNAL);
  }
  vampd_exchange_finish(exchange);
}

void vampd_handle_vamp(struct vampd_exchange *exchange) {
  struct vampd *daemon = exchange->daemon;
  const struct vampd_device_facts *facts = vampd_device_facts(daemon->device);
  struct vamp_variation variation = {0};
  struct vamp_error error = {0};
  struct vampd_job *job;
  if (!facts || vampd_exchange_abandoned(exchange)) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_STOPPING, NULL, "The request was abandoned.");
    goto err;
  }
  if (prepare(exchange, facts, &variation) != VAMP_OK) {
    goto err;
  }
  int status = vampd_job_create(daemon->device, daemon->work, &variation, job_done, exchange, &job, &error);
  if (status == VAMP_OK) {
    vampd_exchange_attach(exchange, job);
    status = vampd_job_submit(job, &error);
  }
  if (status == VAMP_OK) {
    return; /* the exchange is job_done's now */
  }
  vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INVALID_FIELD);
err:
  vamp_variation_free(&variation);
  vampd_exchange_finish(exchange);
}
