/*
 * One request and its answer: see exchange.h.
 *
 * Refusing. What can be refused on the headers alone is, but the client is still going to send its body,
 * and an answer followed by a closed socket may never be read: the kernel resets a connection that is
 * closed with unread data. So a body of acceptable size is received and thrown away, and the answer sent
 * after it. Only where the client waits for "100 Continue", or announces more than is accepted, the answer
 * goes out at once (http.c).
 *
 * Memory. A body grows as its bytes arrive, not as its Content-Length promises, and every growth is taken
 * out of a budget for all connections together.
 */
#include "server/http/exchange.h"

#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/check.h"
#include "server/http/router.h"
#include "server/http/stream.h"
#include "server/log.h"

#define FIRST_CAPACITY ((size_t)64 << 10)
#define MAX_DISCARD ((size_t)16 << 20) /* beyond the limit, of a body without a Content-Length */
#define SLOWEST_SENDER (64.0 * 1024)   /* bytes a second, beyond what --timeout allows in all */
#define LATE 1e-3                      /* seconds: the watch ends the connection at its next turn */

static size_t max_body(const struct vampd_exchange *exchange) {
  return (size_t)exchange->settings->options.max_body_mb << 20;
}

static void refuse_too_large(struct vampd_exchange *exchange) {
  vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_TOO_LARGE, NULL,
                       "The body is larger than the limit of %d MiB (--max-body-mb).",
                       exchange->settings->options.max_body_mb);
  exchange->answered = true;
}

static char *copy_header(struct MHD_Connection *connection, const char *name) {
  const char *value = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
  return value ? strdup(value) : NULL;
}

static void copy_fields(struct MHD_Connection *connection, struct vampd_fields *fields) {
  fields->content_type = copy_header(connection, "Content-Type");
  fields->accept = copy_header(connection, "Accept");
  fields->origin = copy_header(connection, "Origin");
  fields->range = copy_header(connection, "Range");
  fields->if_range = copy_header(connection, "If-Range");
  fields->if_none_match = copy_header(connection, "If-None-Match");
  fields->last_event_id = copy_header(connection, "Last-Event-ID");
}

static void free_fields(struct vampd_fields *fields) {
  free(fields->content_type);
  free(fields->accept);
  free(fields->origin);
  free(fields->range);
  free(fields->if_range);
  free(fields->if_none_match);
  free(fields->last_event_id);
}

static void name_exchange(struct vampd_exchange *exchange) {
  uint64_t id = exchange->daemon->id_key + atomic_fetch_add(&exchange->daemon->id_count, 1);
  snprintf(exchange->id, sizeof exchange->id, "%08x%016llx", exchange->daemon->id_salt,
           (unsigned long long)id);
}

/* What has come so far buys the time for more: however much a sender has announced, it may not dawdle over
 * it. */
static void watch_pace(struct vampd_exchange *exchange) {
  bool has_body = exchange->route && exchange->route->kind == VAMPD_ROUTE_WORK;
  double until =
      exchange->started + exchange->settings->options.timeout + (double)exchange->received / SLOWEST_SENDER;
  double left = until - vampd_now();
  vampd_watch_receive(exchange->daemon->watch, exchange->peer, left > 0 ? left : LATE, has_body);
}

struct vampd_exchange *vampd_exchange_create(struct vampd *daemon, struct MHD_Connection *connection,
                                             struct vampd_peer *peer, const char *method, const char *path) {
  struct vampd_exchange *exchange = calloc(1, sizeof *exchange);
  if (!exchange) {
    return NULL;
  }
  exchange->daemon = daemon;
  exchange->connection = connection;
  exchange->peer = peer;
  exchange->started = vampd_now();
  exchange->query = json_object();
  exchange->settings = vampd_configuration_acquire(daemon->configuration);
  name_exchange(exchange);
  snprintf(exchange->method, sizeof exchange->method, "%s", method);
  snprintf(exchange->path, sizeof exchange->path, "%s", path);
  copy_fields(connection, &exchange->fields);
  vampd_check_request(exchange, method, path);
  const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length");
  unsigned long long announced = length ? strtoull(length, NULL, 10) : max_body(exchange);
  if (announced > max_body(exchange)) {
    refuse_too_large(exchange);
  } else {
    watch_pace(exchange);
  }
  return exchange;
}

const char *vampd_exchange_query(const struct vampd_exchange *exchange, const char *name) {
  return json_string_value(json_object_get(exchange->query, name));
}

void vampd_exchange_drop_body(struct vampd_exchange *exchange) {
  free(exchange->body);
  vampd_admission_return(&exchange->daemon->admission, exchange->capacity);
  exchange->body = NULL;
  exchange->size = exchange->capacity = 0;
}

/* Makes room for `size` more bytes of the body; false where it was refused. */
static bool grow(struct vampd_exchange *exchange, size_t size) {
  size_t needed = exchange->size + size;
  if (needed > max_body(exchange)) {
    refuse_too_large(exchange);
    return false;
  }
  if (needed <= exchange->capacity) {
    return true;
  }
  size_t capacity = exchange->capacity ? exchange->capacity : FIRST_CAPACITY;
  while (capacity < needed) {
    capacity *= 2;
  }
  size_t more = capacity - exchange->capacity;
  if (!vampd_admission_reserve(&exchange->daemon->admission, more)) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_QUEUE_FULL, NULL,
                         "Too many large bodies are being received at once. Try again later.");
    exchange->answered = true;
    return false;
  }
  char *body = realloc(exchange->body, capacity);
  if (!body) {
    vampd_admission_return(&exchange->daemon->admission, more);
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_OUT_OF_MEMORY, NULL,
                         "Out of memory while receiving the body.");
    exchange->answered = true;
    return false;
  }
  exchange->body = body;
  exchange->capacity = capacity;
  return true;
}

bool vampd_exchange_receive(struct vampd_exchange *exchange, const char *data, size_t size) {
  exchange->received += size;
  watch_pace(exchange);
  bool kept = !exchange->answered && exchange->route->kind == VAMPD_ROUTE_WORK && grow(exchange, size);
  if (!kept) {
    vampd_exchange_drop_body(exchange);
    return exchange->received <= max_body(exchange) + MAX_DISCARD;
  }
  memcpy(exchange->body + exchange->size, data, size);
  exchange->size += size;
  return true;
}

static void run_handler(struct vampd_task *task) {
  struct vampd_exchange *exchange = (struct vampd_exchange *)task;
  exchange->route->handle(exchange);
}

void vampd_exchange_dispatch(struct vampd_exchange *exchange) {
  struct vampd *daemon = exchange->daemon;
  enum vampd_route_kind kind = exchange->route->kind;
  if (kind == VAMPD_ROUTE_QUICK) {
    exchange->route->handle(exchange);
    exchange->answered = true;
    return;
  }
  if (kind == VAMPD_ROUTE_WORK) {
    if (vampd_check_refuse_entry(exchange, vampd_admission_enter(&daemon->admission))) {
      return;
    }
    exchange->admitted = true;
    atomic_fetch_add(&daemon->admitted, 1);
  }
  atomic_fetch_add(&daemon->suspended, 1);
  exchange->task.run = run_handler;
  MHD_suspend_connection(exchange->connection);
  vampd_watch_wait(daemon->watch, exchange->peer, exchange);
  struct vampd_work *pool = kind == VAMPD_ROUTE_WORK     ? daemon->work
                            : kind == VAMPD_ROUTE_ERRAND ? daemon->desk
                                                         : daemon->chores;
  vampd_work_push(pool, &exchange->task, false);
}

static void attach(struct vampd_exchange *exchange, struct vampd_job *job) {
  vampd_watch_lock(exchange->daemon->watch);
  exchange->job = job;
  if (exchange->abandoned) {
    vampd_job_cancel(job);
  }
  vampd_watch_unlock(exchange->daemon->watch);
}

int vampd_exchange_take_jobs(struct vampd_exchange *exchange, int count, double audio_seconds) {
  struct vamp_error error = {0};
  int retry_after = 0;
  int status = vampd_access_take_jobs(exchange->caller, count, audio_seconds, &retry_after, &error);
  if (status != VAMP_OK) {
    vampd_answer_problem(&exchange->answer,
                         status == VAMP_BUSY ? VAMPD_PROBLEM_RATE_LIMITED : VAMPD_PROBLEM_TOO_LARGE, NULL,
                         "%s", error.message);
    exchange->answer.retry_after = retry_after;
  }
  return status;
}

bool vampd_exchange_take_place(struct vampd_exchange *exchange, double audio_seconds) {
  exchange->counted = vampd_exchange_take_jobs(exchange, 1, audio_seconds) == VAMP_OK;
  exchange->audio_seconds = audio_seconds;
  return exchange->counted;
}

/* It did not come to run after all: also its seconds of audio are given back. */
static void undo_place(struct vampd_exchange *exchange) {
  if (exchange->counted) {
    vampd_access_undo_jobs(exchange->caller, 1, exchange->audio_seconds);
    exchange->counted = false;
  }
}

int vampd_exchange_run(struct vampd_exchange *exchange, struct vampd_job_options *options,
                       struct vamp_variation *variation, struct vamp_error *error) {
  struct vampd *daemon = exchange->daemon;
  struct vampd_job *job;
  options->caller = exchange->caller;
  options->user = exchange;
  int status = vampd_job_create(daemon->device, daemon->work, options, variation, &job, error);
  if (status == VAMP_OK) {
    attach(exchange, job);
    status = vampd_job_submit(job, error);
  }
  if (status != VAMP_OK) {
    undo_place(exchange);
  }
  return status;
}

const struct vampd_device_facts *vampd_exchange_begin(struct vampd_exchange *exchange) {
  const struct vampd_device_facts *facts = vampd_device_facts(exchange->daemon->device);
  if (facts && !vampd_exchange_abandoned(exchange)) {
    return facts;
  }
  vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_STOPPING, NULL, "The request was abandoned.");
  return NULL;
}

bool vampd_exchange_abandoned(struct vampd_exchange *exchange) {
  vampd_watch_lock(exchange->daemon->watch);
  bool abandoned = exchange->abandoned;
  vampd_watch_unlock(exchange->daemon->watch);
  return abandoned;
}

void vampd_exchange_finish(struct vampd_exchange *exchange) {
  struct vampd *daemon = exchange->daemon;
  vampd_watch_wait(daemon->watch, exchange->peer, NULL);
  vampd_job_release(exchange->job);
  exchange->job = NULL;
  bool admitted = exchange->admitted;
  if (exchange->counted) {
    vampd_access_return_jobs(exchange->caller, 1);
  }
  const struct vampd_answer *answer = &exchange->answer;
  exchange->charged = answer->borrowed || answer->is_file ? 0 : answer->size;
  vampd_admission_charge(&daemon->admission, exchange->charged);
  exchange->answered = true;
  MHD_resume_connection(exchange->connection);
  /* The last word: once no job is left, every connection has been resumed. */
  if (admitted) {
    vampd_admission_leave(&daemon->admission);
  }
  atomic_fetch_sub(&daemon->suspended, 1);
}

void vampd_exchange_streams(struct vampd_exchange *exchange, struct vampd_stream *stream) {
  /* libmicrohttpd lets go of a response before it reports the request as completed: between the two only this
   * reference keeps what the watch may break. */
  vampd_stream_keep(stream);
  vampd_watch_lock(exchange->daemon->watch);
  exchange->stream = stream;
  atomic_fetch_add(&exchange->daemon->streams, 1);
  vampd_watch_unlock(exchange->daemon->watch);
  vampd_watch_wait(exchange->daemon->watch, exchange->peer, exchange);
}

void vampd_exchange_abandon(void *context) {
  struct vampd_exchange *exchange = context;
  exchange->abandoned = true;
  if (exchange->job) {
    vampd_job_cancel(exchange->job);
  }
  if (exchange->stream) {
    vampd_stream_break(exchange->stream);
  }
}

void vampd_exchange_free(struct vampd_exchange *exchange) {
  struct vampd *daemon = exchange->daemon;
  vampd_exchange_drop_body(exchange);
  vampd_admission_return(&daemon->admission, exchange->charged);
  vampd_answer_free(&exchange->answer);
  if (exchange->stream) {
    vampd_stream_release(exchange->stream);
  }
  free_fields(&exchange->fields);
  json_decref(exchange->query);
  vampd_settings_release(exchange->settings);
  if (exchange->admitted) {
    atomic_fetch_sub(&daemon->admitted, 1);
  }
  free(exchange);
}
