/* Answers and problems: see answer.h. */
#include "server/http/answer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/http/json.h"
#include "server/http/stream.h"

static const struct {
  int status;
  const char *slug, *title;
} PROBLEMS[VAMPD_PROBLEM_COUNT] = {
    [VAMPD_PROBLEM_INVALID_FIELD] = {400, "invalid-field", "A field is not valid"},
    [VAMPD_PROBLEM_INVALID_BODY] = {400, "invalid-body", "The body cannot be read"},
    [VAMPD_PROBLEM_INVALID_AUDIO] = {400, "invalid-audio", "The audio cannot be read"},
    [VAMPD_PROBLEM_UNAUTHORIZED] = {401, "unauthorized", "A key is needed"},
    [VAMPD_PROBLEM_FORBIDDEN_ORIGIN] = {403, "forbidden-origin", "This web page may not ask"},
    [VAMPD_PROBLEM_NOT_FOUND] = {404, "not-found", "There is nothing here"},
    [VAMPD_PROBLEM_METHOD_NOT_ALLOWED] = {405, "method-not-allowed", "The method is not allowed here"},
    [VAMPD_PROBLEM_NOT_ACCEPTABLE] = {406, "not-acceptable", "No answer of an accepted type"},
    [VAMPD_PROBLEM_NOT_FINISHED] = {409, "not-finished", "It is not finished yet"},
    [VAMPD_PROBLEM_TOO_LARGE] = {413, "too-large", "Larger than a limit"},
    [VAMPD_PROBLEM_UNSUPPORTED_MEDIA_TYPE] = {415, "unsupported-media-type", "The body's type is unknown"},
    [VAMPD_PROBLEM_RANGE_NOT_SATISFIABLE] = {416, "range-not-satisfiable", "The range is beyond the end"},
    [VAMPD_PROBLEM_RATE_LIMITED] = {429, "rate-limited", "The key has had its share"},
    [VAMPD_PROBLEM_QUEUE_FULL] = {429, "queue-full", "The queue is full"},
    [VAMPD_PROBLEM_INTERNAL] = {500, "internal", "Something failed in the daemon"},
    [VAMPD_PROBLEM_NOT_READY] = {503, "not-ready", "The daemon is not ready"},
    [VAMPD_PROBLEM_STOPPING] = {503, "stopping", "The daemon is stopping"},
    [VAMPD_PROBLEM_DEVICE_FAILED] = {503, "device-failed", "The device failed"},
    [VAMPD_PROBLEM_OUT_OF_MEMORY] = {503, "out-of-memory", "The daemon is out of memory"},
    [VAMPD_PROBLEM_DISK_FULL] = {507, "disk-full", "The disk is full"},
};

/* What is said when not even the words for it can be allocated. */
static const char LAST_RESORT[] =
    "{\"type\": \"/problems/out-of-memory\", \"title\": \"The daemon is out of memory\", \"status\": 503}\n";

static void drop_body(struct vampd_answer *answer) {
  if (!answer->borrowed) {
    free(answer->body);
  }
  if (answer->is_file && answer->file >= 0) {
    close(answer->file);
  }
  if (answer->stream) {
    vampd_stream_end(answer->stream);
    vampd_stream_release(answer->stream);
  }
  answer->body = NULL;
  answer->is_file = false;
  answer->etag[0] = '\0';
  answer->stream = NULL;
  answer->size = 0;
  answer->borrowed = false;
}

static void put_json(struct vampd_answer *answer, int status, const char *media_type, json_t *value) {
  drop_body(answer);
  /* 9 digits keep every float32; compact, because masks and audio in base64 are long. */
  char *text = value ? json_dumps(value, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;
  json_decref(value);
  if (text) {
    answer->status = status;
    answer->media_type = media_type;
    answer->body = text;
    answer->size = strlen(text);
    return;
  }
  answer->status = 503;
  answer->media_type = "application/problem+json";
  answer->body = (void *)LAST_RESORT;
  answer->size = sizeof LAST_RESORT - 1;
  answer->borrowed = true;
}

static json_t *problem_json(enum vampd_problem problem, const char *pointer, const char *detail) {
  char type[64];
  snprintf(type, sizeof type, "/problems/%s", PROBLEMS[problem].slug);
  json_t *value = json_pack("{s:s, s:s, s:i, s:o}", "type", type, "title", PROBLEMS[problem].title, "status",
                            PROBLEMS[problem].status, "detail", vampd_json_text(detail));
  if (value && pointer && pointer[0] != '\0') {
    json_object_set_new(value, "pointer", vampd_json_text(pointer));
  }
  return value;
}

static void put_problem(struct vampd_answer *answer, enum vampd_problem problem, const char *pointer,
                        const char *detail) {
  answer->header_count = 0;
  put_json(answer, PROBLEMS[problem].status, "application/problem+json",
           problem_json(problem, pointer, detail));
}

void vampd_answer_problem(struct vampd_answer *answer, enum vampd_problem problem, const char *pointer,
                          const char *format, ...) {
  char detail[768];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(detail, sizeof detail, format, arguments);
  va_end(arguments);
  put_problem(answer, problem, pointer, detail);
}

static enum vampd_problem problem_of(const struct vamp_error *error, enum vampd_problem otherwise) {
  enum vampd_problem problem = VAMPD_PROBLEM_INTERNAL;
  switch (error->status) {
  case VAMP_INVALID:
  case VAMP_UNSUPPORTED:
    problem = error->field[0] != '\0' && otherwise == VAMPD_PROBLEM_INVALID_BODY ? VAMPD_PROBLEM_INVALID_FIELD
                                                                                 : otherwise;
    break;
  case VAMP_LIMIT:
    problem = VAMPD_PROBLEM_TOO_LARGE;
    break;
  case VAMP_MEMORY:
    problem = VAMPD_PROBLEM_OUT_OF_MEMORY;
    break;
  case VAMP_DEVICE:
    problem = VAMPD_PROBLEM_DEVICE_FAILED;
    break;
  case VAMP_BUSY:
    problem = VAMPD_PROBLEM_QUEUE_FULL;
    break;
  case VAMP_CANCELLED:
    problem = VAMPD_PROBLEM_STOPPING;
    break;
  case VAMP_SPACE:
    problem = VAMPD_PROBLEM_DISK_FULL;
    break;
  default:
    break;
  }
  return problem;
}

void vampd_answer_error(struct vampd_answer *answer, const struct vamp_error *error,
                        enum vampd_problem otherwise) {
  put_problem(answer, problem_of(error, otherwise), error->field, error->message);
}

json_t *vampd_problem_json(const struct vamp_error *error, enum vampd_problem otherwise) {
  return problem_json(problem_of(error, otherwise), error->field, error->message);
}

void vampd_answer_json(struct vampd_answer *answer, int status, json_t *value) {
  put_json(answer, status, "application/json", value);
}

void vampd_answer_bytes(struct vampd_answer *answer, int status, const char *media_type, void *body,
                        size_t size) {
  drop_body(answer);
  answer->status = status;
  answer->media_type = media_type;
  answer->body = body;
  answer->size = size;
}

void vampd_answer_file(struct vampd_answer *answer, const char *media_type, int file, size_t size,
                       const char *etag) {
  drop_body(answer);
  answer->status = 200;
  answer->media_type = media_type;
  answer->is_file = true;
  answer->file = file;
  answer->size = size;
  snprintf(answer->etag, sizeof answer->etag, "\"%s\"", etag);
}

void vampd_answer_stream(struct vampd_answer *answer, const char *media_type, struct vampd_stream *stream) {
  drop_body(answer);
  answer->status = 200;
  answer->media_type = media_type;
  answer->stream = stream;
}

void vampd_answer_header(struct vampd_answer *answer, const char *name, const char *format, ...) {
  if (answer->header_count == VAMPD_ANSWER_MAX_HEADERS) {
    return;
  }
  struct vampd_header *header = &answer->headers[answer->header_count++];
  header->name = name;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(header->value, sizeof header->value, format, arguments);
  va_end(arguments);
}

void vampd_answer_free(struct vampd_answer *answer) {
  drop_body(answer);
  *answer = (struct vampd_answer){0};
}
