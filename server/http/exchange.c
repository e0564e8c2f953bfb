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

#include "server/http/negotiate.h"
#include "server/http/router.h"
#include "server/log.h"

#define FIRST_CAPACITY ((size_t)64 << 10)
#define MAX_DISCARD ((size_t)16 << 20) /* beyond the limit, of a body without a Content-Length */
#define SLOWEST_SENDER (64.0 * 1024)   /* bytes a second */
#define ACCEPTED_TYPES "multipart/form-data or application/json"

static size_t max_body(const struct vampd_exchange *exchange) {
  return (size_t)exchange->daemon->options.max_body_mb << 20;
}

static void refuse_too_large(struct vampd_exchange *exchange) {
  vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_TOO_LARGE, NULL,
                       "The body is larger than the limit of %d MiB (--max-body-mb).",
                       exchange->daemon->options.max_body_mb);
  exchange->answered = true;
}

static void refuse_full(struct vampd_exchange *exchange, const char *what) {
  vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_QUEUE_FULL, NULL, "%s Try again later.", what);
  exchange->answered = true;
}

static void refuse_unavailable(struct vampd_exchange *exchange, enum vampd_problem problem,
                               const char *detail) {
  vampd_answer_problem(&exchange->answer, problem, NULL, "%s", detail);
  exchange->answered = true;
}

static bool refuse_entry(struct vampd_exchange *exchange, enum vampd_entry entry) {
  if (entry == VAMPD_CLOSED) {
    refuse_unavailable(exchange, VAMPD_PROBLEM_STOPPING, "The daemon is stopping and takes no new work.");
  } else if (entry == VAMPD_FULL) {
    refuse_full(exchange, "The queue is full.");
  }
  return entry != VAMPD_ENTERED;
}

/* What can be said about a request for a slow route from its headers. */
static void check_slow(struct vampd_exchange *exchange) {
  const struct vampd_route *route = exchange->route;
  if (!vampd_media_type_is(exchange->content_type, "multipart/form-data") &&
      !vampd_media_type_is(exchange->content_type, "application/json")) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_UNSUPPORTED_MEDIA_TYPE, NULL,
                         "The body must be %s, as its Content-Type says.", ACCEPTED_TYPES);
    vampd_answer_header(&exchange->answer, "Accept-Post", "multipart/form-data, application/json");
    exchange->answered = true;
  } else if (vampd_negotiate(exchange->accept, route->offers) < 0) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_NOT_ACCEPTABLE, NULL,
                         "The Accept header admits none of the types this answers with; see docs/api.md.");
    exchange->answered = true;
  } else if (!refuse_entry(exchange, vampd_admission_look(&exchange->daemon->admission)) &&
             !vampd_device_facts(exchange->daemon->device)) {
    refuse_unavailable(exchange, VAMPD_PROBLEM_NOT_READY, "The model is still loading.");
  }
}

static void check(struct vampd_exchange *exchange, const char *method, const char *path) {
  const char *allowed;
  exchange->route = vampd_router_find(method, path, &allowed);
  if (!exchange->route && !allowed) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_NOT_FOUND, NULL,
                         "Nothing is served under this path; GET /openapi.json lists what is.");
    exchange->answered = true;
  } else if (!exchange->route) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_METHOD_NOT_ALLOWED, NULL,
                         "This path answers to %s.", allowed);
    vampd_answer_header(&exchange->answer, "Allow", "%s", allowed);
    exchange->answered = true;
  } else if (exchange->route->slow) {
    check_slow(exchange);
  }
}

static char *copy_header(struct MHD_Connection *connection, const char *name) {
  const char *value = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
  return value ? strdup(value) : NULL;
}

static void name_exchange(struct vampd_exchange *exchange) {
  uint64_t id = exchange->daemon->id_key + atomic_fetch_add(&exchange->daemon->id_count, 1);
  snprintf(exchange->id, sizeof exchange->id, "%016llx", (unsigned long long)id);
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
  name_exchange(exchange);
  snprintf(exchange->method, sizeof exchange->method, "%s", method);
  snprintf(exchange->path, sizeof exchange->path, "%s", path);
  exchange->content_type = copy_header(connection, "Content-Type");
  exchange->accept = copy_header(connection, "Accept");
  check(exchange, method, path);
  const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length");
  unsigned long long announced = length ? strtoull(length, NULL, 10) : max_body(exchange);
  if (announced > max_body(exchange)) {
    refuse_too_large(exchange);
  } else {
    bool has_body = exchange->route && exchange->route->slow;
    vampd_watch_receive(daemon->watch, peer, daemon->options.timeout + (double)announced / SLOWEST_SENDER,
                        has_body);
  }
  return exchange;
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
    refuse_full(exchange, "Too many large bodies are being received at once.");
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
  bool kept = !exchange->answered && exchange->route->slow && grow(exchange, size);
  if (!kept) {
    vampd_exchange_drop_body(exchange);
    return exchange->received <= max_body(exchange) + MAX_DISCARD;
  }
  memcpy(exchange->body + exchange->size, data, size);
  exchange->size += size;
  return true;
}

static void run_slow(struct vampd_task *task) {
  struct vampd_exchange *exchange = (struct vampd_exchange *)task;
  exchange->route->handle(exchange);
}

void vampd_exchange_dispatch(struct vampd_exchange *exchange) {
  struct vampd *daemon = exchange->daemon;
  if (!exchange->route->slow) {
    exchange->route->handle(exchange);
    exchange->answered = true;
    return;
  }
  if (refuse_entry(exchange, vampd_admission_enter(&daemon->admission))) {
    return;
  }
  exchange->admitted = true;
  atomic_fetch_add(&daemon->admitted, 1);
  exchange->task.run = run_slow;
  MHD_suspend_connection(exchange->connection);
  vampd_watch_wait(daemon->watch, exchange->peer, exchange);
  vampd_work_push(daemon->work, &exchange->task, false);
}

void vampd_exchange_attach(struct vampd_exchange *exchange, struct vampd_job *job) {
  vampd_watch_lock(exchange->daemon->watch);
  exchange->job = job;
  if (exchange->abandoned) {
    vampd_job_cancel(job);
  }
  vampd_watch_unlock(exchange->daemon->watch);
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
  double seconds = vampd_now() - exchange->started;
  exchange->charged = exchange->answer.borrowed ? 0 : exchange->answer.size;
  vampd_admission_charge(&daemon->admission, exchange->charged);
  exchange->answered = true;
  MHD_resume_connection(exchange->connection);
  /* The last word: once no job is left, every connection has been resumed. */
  vampd_admission_leave(&daemon->admission, seconds);
}

void vampd_exchange_abandon(void *context) {
  struct vampd_exchange *exchange = context;
  exchange->abandoned = true;
  if (exchange->job) {
    vampd_job_cancel(exchange->job);
  }
}

void vampd_exchange_free(struct vampd_exchange *exchange) {
  struct vampd *daemon = exchange->daemon;
  vampd_exchange_drop_body(exchange);
  vampd_admission_return(&daemon->admission, exchange->charged);
  vampd_answer_free(&exchange->answer);
  free(exchange->content_type);
  free(exchange->accept);
  if (exchange->admitted) {
    atomic_fetch_sub(&daemon->admitted, 1);
  }
  free(exchange);
}
