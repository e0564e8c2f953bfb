/*
 * What becomes of jobs: GET /v1/jobs, GET and DELETE /v1/jobs/ID, and their events.
 *
 * On the desk's threads: the store is asked, which may wait for a disk.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/api/accept.h"
#include "server/api/lookup.h"
#include "server/http/router.h"
#include "server/http/stream.h"
#include "server/jobs/document.h"
#include "server/jobs/outlook.h"
#include "server/jobs/runner.h"

#define DEFAULT_LIMIT 50
#define MAX_LIMIT 1000
/* Bytes of the parameters that are read for a page: a thousand bitmaps take a minute. */
#define MAX_TEXT ((size_t)2 << 20)

void vampd_handle_job(struct vampd_exchange *exchange) {
  struct vampd_store_job job = {0};
  if (vampd_lookup_job(exchange, &job) == VAMP_OK) {
    vampd_answer_json(&exchange->answer, 200, vampd_live_document(exchange->daemon, &job));
  }
  vampd_store_job_free(&job);
  vampd_exchange_finish(exchange);
}

/* ---- the list -------------------------------------------------------------------------------------------
 */

/* Jobs that run stand as queued in the store: for those states rows are looked at one by one. */
static int read_query(struct vampd_exchange *exchange, struct vampd_store_query *query, const char **state) {
  static const char *const STATES[] = {"queued",   "preparing", "encoding", "generating",
                                       "decoding", "done",      "failed",   "cancelled"};
  int64_t limit, before;
  int status = vampd_query_number(exchange, "limit", MAX_LIMIT, DEFAULT_LIMIT, &limit);
  if (status == VAMP_OK) {
    status = vampd_query_number(exchange, "before", INT64_MAX, 0, &before);
  }
  if (status != VAMP_OK) {
    return status;
  }
  *state = vampd_exchange_query(exchange, "state");
  int which = 0;
  while (*state && which < 8 && strcmp(STATES[which], *state) != 0) {
    which++;
  }
  if (*state && which == 8) {
    return vampd_refuse_query(
        exchange, "state",
        "\"state\" is one of queued, preparing, encoding, generating, decoding, done, failed, "
        "cancelled.");
  }
  const char *sweep = vampd_exchange_query(exchange, "sweep");
  if (sweep && !vampd_store_is_id(sweep)) {
    return vampd_refuse_query(exchange, "sweep", "\"sweep\" must be the id of a sweep.");
  }
  *query = (struct vampd_store_query){
      .owner = vampd_lookup_owner(exchange),
      .sweep = sweep,
      .any_state = *state == NULL,
      .state = which < 5 ? VAMPD_STATE_QUEUED : (enum vampd_state)(VAMPD_STATE_DONE + which - 5),
      .before = before,
      .limit = (int)limit,
      .text = MAX_TEXT,
  };
  return VAMP_OK;
}

/* Where the next page begins. */
static json_t *next_page(const struct vampd_exchange *exchange, int64_t before) {
  char text[256];
  int used = snprintf(text, sizeof text, "/v1/jobs?before=%lld", (long long)before);
  static const char *const KEPT[] = {"state", "sweep", "limit"};
  for (int i = 0; i < 3; i++) {
    const char *value = vampd_exchange_query(exchange, KEPT[i]);
    if (value) {
      used += snprintf(text + used, sizeof text - (size_t)used, "&%s=%s", KEPT[i], value);
    }
  }
  return json_string(text);
}

void vampd_handle_jobs(struct vampd_exchange *exchange) {
  struct vampd *daemon = exchange->daemon;
  struct vampd_store_query query;
  struct vampd_store_job *jobs = NULL;
  struct vamp_error error = {0};
  const char *state;
  size_t text = 0;
  int count = 0;
  if (read_query(exchange, &query, &state) != VAMP_OK) {
    vampd_exchange_finish(exchange);
    return;
  }
  if (vampd_store_list(daemon->store, &query, &jobs, &count, &error) != VAMP_OK) {
    vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INTERNAL);
    vampd_exchange_finish(exchange);
    return;
  }
  json_t *list = json_array(), *document = json_pack("{s:o}", "jobs", list);
  for (int i = 0; i < count; i++) {
    json_t *job = vampd_live_document(daemon, &jobs[i]);
    vampd_job_shorten(job, &jobs[i]);
    text += vampd_store_job_text(&jobs[i]);
    const char *found = json_string_value(json_object_get(job, "state"));
    if (!state || (found && strcmp(found, state) == 0)) {
      json_array_append(list, job);
    }
    json_decref(job);
  }
  if (count == query.limit || text >= query.text) {
    json_object_set_new(document, "next", next_page(exchange, jobs[count - 1].number));
  }
  for (int i = 0; i < count; i++) {
    vampd_store_job_free(&jobs[i]);
  }
  free(jobs);
  vampd_answer_json(&exchange->answer, 200, document);
  vampd_exchange_finish(exchange);
}

/* ---- the end, asked for -----------------------------------------------------------------------------------
 */

void vampd_handle_job_delete(struct vampd_exchange *exchange) {
  struct vampd *daemon = exchange->daemon;
  struct vampd_store_job job = {0};
  struct vamp_error error = {0};
  if (vampd_lookup_job(exchange, &job) != VAMP_OK) {
    vampd_exchange_finish(exchange);
    return;
  }
  if (job.state == VAMPD_STATE_QUEUED && vampd_runner_cancel(daemon->runner, &job, 1) > 0) {
    vampd_store_job_free(&job);
    if (vampd_lookup_job(exchange, &job) == VAMP_OK) {
      vampd_answer_json(&exchange->answer, 202, vampd_live_document(daemon, &job));
    }
  } else if (vampd_store_forget(daemon->store, job.id, &error) == VAMP_OK) {
    vampd_answer_bytes(&exchange->answer, 204, NULL, NULL, 0);
  } else if (error.status == VAMP_BUSY) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_NOT_FINISHED, NULL,
                         "The job has not entered the queue yet: ask again in a moment.");
  } else {
    /* VAMP_INVALID: it has been forgotten meanwhile */
    vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_NOT_FOUND);
  }
  vampd_store_job_free(&job);
  vampd_exchange_finish(exchange);
}

/* ---- events
 * ------------------------------------------------------------------------------------------------ */

/* The number of the last event that the client has seen; 0: none. */
static int64_t last_seen(const struct vampd_exchange *exchange) {
  const char *text = exchange->fields.last_event_id;
  text = text ? text : vampd_exchange_query(exchange, "last_event_id");
  long long seen = text ? strtoll(text, NULL, 10) : 0;
  return seen > 0 ? seen : 0;
}

/* Joins the listeners of a job in the house; false where it is not there. Takes over the writer's reference.
 */
static bool listen_live(struct vampd_exchange *exchange, struct vampd_stream *stream, int64_t seen) {
  struct vampd *daemon = exchange->daemon;
  double rate = vampd_metrics_rate(daemon->metrics);
  vampd_house_lock(daemon->house);
  struct vampd_live *live = vampd_house_find(daemon->house, exchange->target);
  if (live) {
    /* Of what was missed, the latest state says it all. */
    if (live->events.last > seen || seen == 0) {
      vampd_event_write(stream, live->events.last, live->steps > 0 ? "progress" : "state",
                        vampd_live_state_json(live, rate));
    }
    vampd_events_listen(&live->events, stream, NULL);
  }
  vampd_house_unlock(daemon->house);
  return live != NULL;
}

/* A job that is finished: its last event, unless that was seen. */
static void tell_end(struct vampd_exchange *exchange, struct vampd_stream *stream, int64_t seen) {
  struct vampd_store_job job = {0};
  if (vampd_lookup_job(exchange, &job) == VAMP_OK) {
    int64_t number = vampd_events_final(job.attempts);
    json_t *document = vampd_live_document(exchange->daemon, &job);
    if (job.state == VAMPD_STATE_QUEUED) {
      /* Between the store and the queue: the client asks again. */
      json_decref(document);
    } else if (seen >= number) {
      vampd_answer_bytes(&exchange->answer, 204, NULL, NULL, 0);
      json_decref(document);
    } else {
      vampd_job_shorten(document, &job);
      vampd_event_write(stream, number, vampd_job_state(&job, NULL), document);
    }
  }
  vampd_store_job_free(&job);
}

void vampd_handle_job_events(struct vampd_exchange *exchange) {
  static const char HELLO[] = "retry: 2000\n\n";
  struct vampd_store_job job = {0};
  int64_t seen = last_seen(exchange);
  struct vampd_stream *stream = NULL;
  if (vampd_admission_closed(&exchange->daemon->admission)) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_STOPPING, NULL, "The daemon is stopping.");
  } else if (vampd_lookup_job(exchange, &job) == VAMP_OK) {
    stream = vampd_stream_create();
    if (!stream) {
      vampd_answer_json(&exchange->answer, 200, NULL);
    }
  }
  vampd_store_job_free(&job);
  if (stream) {
    vampd_stream_write(stream, HELLO, sizeof HELLO - 1);
    vampd_answer_stream(&exchange->answer, "text/event-stream", stream);
    vampd_answer_header(&exchange->answer, "Cache-Control", "no-store");
    vampd_answer_header(&exchange->answer, "X-Accel-Buffering", "no");
    if (!listen_live(exchange, stream, seen)) {
      tell_end(exchange, stream, seen);
      vampd_stream_end(stream);
      vampd_stream_release(stream);
    }
  }
  vampd_exchange_finish(exchange);
}
