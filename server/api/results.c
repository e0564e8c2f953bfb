/*
 * What a job leaves: GET /v1/jobs/ID/audio, /input, /mask, /mask.png, /mask.svg, /tokens.
 *
 * All of them are files of the store, sent by the kernel, with ranges and entity tags: a result never
 * changes. Other audio formats and the pictures are made by the first who asks, on threads for just that: an
 * hour of Vorbis takes a minute, and who wants to know how far his job is must not wait for it.
 */
#include <stdio.h>
#include <string.h>

#include "server/api/input.h"
#include "server/api/lookup.h"
#include "server/http/router.h"
#include "server/jobs/document.h"
#include "server/jobs/result.h"

/* ---- sending ----------------------------------------------------------------------------------------------
 */

/* Sends an open file, or says why there is none. */
static void send_file(struct vampd_exchange *exchange, int status, int file, int64_t size,
                      const char *media_type, const char *name, const char *download,
                      const struct vamp_error *error) {
  char etag[64];
  if (status != VAMP_OK) {
    vampd_refuse_lookup(exchange, "result", error);
    return;
  }
  snprintf(etag, sizeof etag, "%s-%s", exchange->target, name);
  vampd_answer_file(&exchange->answer, media_type, file, (size_t)size, etag);
  vampd_answer_header(&exchange->answer, "Content-Disposition", "inline; filename=\"%s\"", download);
}

static int choose_format(struct vampd_exchange *exchange, const struct vampd_store_job *job,
                         enum vamp_audio_format *format) {
  const char *asked = vampd_exchange_query(exchange, "format");
  struct vamp_error error = {0};
  json_t *kept = asked ? NULL : vampd_stored_json(job->params);
  json_t *params = json_object_get(kept, "params");
  const char *name = asked ? asked : json_string_value(json_object_get(params, "format"));
  int status = vamp_audio_format_parse(name ? name : "wav", format, &error);
  json_decref(kept);
  if (status != VAMP_OK) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_INVALID_FIELD, "/query/format", "%s",
                         error.message);
  }
  return status;
}

/* ---- what may have to be made first ------------------------------------------------------------------- */

/* On the desk what is there is sent. What is not takes seconds, and the renderers come to the same function
 * again; then it may `make`. Each returns false where it would have to and may not. */

static void make(struct vampd_exchange *exchange, bool (*answer)(struct vampd_exchange *, bool)) {
  if (vampd_exchange_abandoned(exchange)) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_STOPPING, NULL, "The request was abandoned.");
  } else {
    answer(exchange, true);
  }
  vampd_exchange_finish(exchange);
}

static void send_or_make(struct vampd_exchange *exchange, bool (*answer)(struct vampd_exchange *, bool),
                         void (*later)(struct vampd_task *)) {
  if (answer(exchange, false)) {
    vampd_exchange_finish(exchange);
    return;
  }
  exchange->task.run = later;
  vampd_work_push(exchange->daemon->renderers, &exchange->task, false);
}

static bool answer_audio(struct vampd_exchange *exchange, bool may_make) {
  struct vampd_store *store = exchange->daemon->store;
  struct vampd_store_job job = {0};
  struct vamp_error error = {0};
  enum vamp_audio_format format;
  bool answered = true;
  if (vampd_lookup_result(exchange, &job) == VAMP_OK && choose_format(exchange, &job, &format) == VAMP_OK) {
    int file = -1;
    int64_t size = 0;
    const char *name = vampd_result_audio_name(format), *media_type = vamp_audio_format_media_type(format);
    char download[64];
    answered = may_make || vampd_result_is_kept(store, job.id, name);
    if (answered) {
      int status = vampd_result_audio(store, job.id, format, &file, &size, &error);
      snprintf(download, sizeof download, "variation-%s.%s", job.id, media_type + strlen("audio/"));
      send_file(exchange, status, file, size, media_type, name, download, &error);
    }
  }
  vampd_store_job_free(&job);
  return answered;
}

static void make_audio(struct vampd_task *task) {
  make((struct vampd_exchange *)task, answer_audio);
}

void vampd_handle_job_audio(struct vampd_exchange *exchange) {
  send_or_make(exchange, answer_audio, make_audio);
}

static bool answer_picture(struct vampd_exchange *exchange, enum vamp_picture_format format, bool may_make) {
  struct vampd *daemon = exchange->daemon;
  struct vampd_store_job job = {0};
  struct vamp_error error = {0};
  bool png = format == VAMP_PICTURE_PNG, answered = true;
  const char *name = vampd_result_picture_name(format);
  if (vampd_lookup_result(exchange, &job) == VAMP_OK) {
    int file = -1;
    int64_t size = 0;
    answered = may_make || vampd_result_is_kept(daemon->store, job.id, name);
    if (answered) {
      int status = vampd_result_picture(daemon->store, daemon->decoder, &job, format, &file, &size, &error);
      send_file(exchange, status, file, size, png ? "image/png" : "image/svg+xml", name, name, &error);
    }
  }
  vampd_store_job_free(&job);
  return answered;
}

static bool answer_png(struct vampd_exchange *exchange, bool may_make) {
  return answer_picture(exchange, VAMP_PICTURE_PNG, may_make);
}

static bool answer_svg(struct vampd_exchange *exchange, bool may_make) {
  return answer_picture(exchange, VAMP_PICTURE_SVG, may_make);
}

static void make_png(struct vampd_task *task) {
  make((struct vampd_exchange *)task, answer_png);
}

static void make_svg(struct vampd_task *task) {
  make((struct vampd_exchange *)task, answer_svg);
}

void vampd_handle_job_mask_png(struct vampd_exchange *exchange) {
  send_or_make(exchange, answer_png, make_png);
}

void vampd_handle_job_mask_svg(struct vampd_exchange *exchange) {
  send_or_make(exchange, answer_svg, make_svg);
}

/* ---- what is always there ----------------------------------------------------------------------------- */

/* A file that every finished job has. */
static void send_result_file(struct vampd_exchange *exchange, const char *name, const char *media_type) {
  struct vampd_store_job job = {0};
  struct vamp_error error = {0};
  if (vampd_lookup_result(exchange, &job) == VAMP_OK) {
    int64_t size = 0;
    int file = vampd_store_open_file(exchange->daemon->store, VAMPD_FOLDER_JOBS, job.id, name, &size, &error);
    send_file(exchange, file < 0 ? file : VAMP_OK, file, size, media_type, name, name, &error);
  }
  vampd_store_job_free(&job);
  vampd_exchange_finish(exchange);
}

void vampd_handle_job_mask(struct vampd_exchange *exchange) {
  send_result_file(exchange, "mask.json", "application/json");
}

void vampd_handle_job_tokens(struct vampd_exchange *exchange) {
  send_result_file(exchange, "tokens.npy", "application/octet-stream");
}

void vampd_handle_job_input(struct vampd_exchange *exchange) {
  struct vampd_store *store = exchange->daemon->store;
  struct vampd_store_job job = {0};
  struct vampd_store_input input;
  struct vamp_error error = {0};
  if (vampd_lookup_job(exchange, &job) == VAMP_OK) {
    int64_t size = 0;
    int file = -1;
    int status = vampd_store_input(store, job.input, &input, &error);
    if (status == VAMP_OK) {
      file = vampd_store_open_file(store, VAMPD_FOLDER_INPUTS, job.input, "clip", &size, &error);
      status = file < 0 ? file : VAMP_OK;
    }
    send_file(exchange, status, file, size, status == VAMP_OK ? vampd_known_audio(input.media_type) : NULL,
              "input", "input", &error);
  }
  vampd_store_job_free(&job);
  vampd_exchange_finish(exchange);
}
