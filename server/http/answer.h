/*
 * What goes back to the client: a status, a body, a few headers. Problems are application/problem+json
 * (RFC 9457) with types that stay what they are once published.
 *
 * Any thread, one at a time per answer.
 */
#ifndef VAMPD_ANSWER_H
#define VAMPD_ANSWER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "vamp/error.h"

#define VAMPD_ANSWER_MAX_HEADERS 16

struct vampd_stream;

struct vampd_header {
  const char *name; /* a literal */
  char value[224];
};

struct vampd_answer {
  int status; /* HTTP; 0: not answered yet */
  const char *media_type;
  void *body; /* malloc'd, the answer's; or, where `borrowed`, one that outlives the daemon */
  size_t size;
  bool borrowed;
  /* Instead of a body: a file that never changes under its entity tag, so ranges of it can be asked for. */
  bool is_file;
  int file;      /* a descriptor, the answer's; its first `size` bytes are sent */
  char etag[64]; /* with its quotation marks; "" where there is none */
  /* Or a stream. */
  struct vampd_stream *stream;
  int retry_after; /* seconds; 0: what the queue says, on 429 and 503 */
  struct vampd_header headers[VAMPD_ANSWER_MAX_HEADERS];
  int header_count;
};

/* Every problem type; answer.c has its slug ("/problems/invalid-field"), title and HTTP status. */
enum vampd_problem {
  VAMPD_PROBLEM_INVALID_FIELD,
  VAMPD_PROBLEM_INVALID_BODY,
  VAMPD_PROBLEM_INVALID_AUDIO,
  VAMPD_PROBLEM_UNAUTHORIZED,
  VAMPD_PROBLEM_FORBIDDEN_ORIGIN,
  VAMPD_PROBLEM_NOT_FOUND,
  VAMPD_PROBLEM_METHOD_NOT_ALLOWED,
  VAMPD_PROBLEM_NOT_ACCEPTABLE,
  VAMPD_PROBLEM_NOT_FINISHED,
  VAMPD_PROBLEM_TOO_LARGE,
  VAMPD_PROBLEM_UNSUPPORTED_MEDIA_TYPE,
  VAMPD_PROBLEM_RANGE_NOT_SATISFIABLE,
  VAMPD_PROBLEM_QUEUE_FULL,
  VAMPD_PROBLEM_RATE_LIMITED,
  VAMPD_PROBLEM_INTERNAL,
  VAMPD_PROBLEM_NOT_READY,
  VAMPD_PROBLEM_STOPPING,
  VAMPD_PROBLEM_DEVICE_FAILED,
  VAMPD_PROBLEM_OUT_OF_MEMORY,
  VAMPD_PROBLEM_DISK_FULL,
  VAMPD_PROBLEM_COUNT,
};

/* Fills the answer with a problem. `pointer` (RFC 6901) may be NULL or "". A body that was there before is
 * freed. */
void vampd_answer_problem(struct vampd_answer *answer, enum vampd_problem problem, const char *pointer,
                          const char *format, ...) __attribute__((format(printf, 4, 5)));

/* The same from what a function of the engine reported; `otherwise` is the problem type for VAMP_INVALID. */
void vampd_answer_error(struct vampd_answer *answer, const struct vamp_error *error,
                        enum vampd_problem otherwise);

/* A problem as JSON, for documents that have one inside; from an error as above. New reference. */
json_t *vampd_problem_json(const struct vamp_error *error, enum vampd_problem otherwise);

/* Fills the answer with JSON; takes the reference. A NULL `value` becomes an out-of-memory problem. */
void vampd_answer_json(struct vampd_answer *answer, int status, json_t *value);

/* Takes over a malloc'd body. media_type must be a literal. */
void vampd_answer_bytes(struct vampd_answer *answer, int status, const char *media_type, void *body,
                        size_t size);

/* Takes over a descriptor. media_type must outlive the answer. */
void vampd_answer_file(struct vampd_answer *answer, const char *media_type, int file, size_t size,
                       const char *etag);

/* Takes over the connection's reference to a stream. */
void vampd_answer_stream(struct vampd_answer *answer, const char *media_type, struct vampd_stream *stream);

void vampd_answer_header(struct vampd_answer *answer, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

void vampd_answer_free(struct vampd_answer *answer);

#endif
