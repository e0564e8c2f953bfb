/*
 * One request and its answer, on one connection.
 *
 * A handler finds the body complete and bounded. A quick one, on an HTTP thread, fills `answer` and
 * returns. A slow one runs on a worker while the connection is suspended: it fills `answer` and calls
 * vampd_exchange_finish, or gives a job to the device and lets the job's end do that.
 */
#ifndef VAMPD_EXCHANGE_H
#define VAMPD_EXCHANGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "server/daemon.h"
#include "server/http/answer.h"
#include "server/jobs/job.h"
#include "server/jobs/work.h"

struct MHD_Connection;
struct vampd_route;

enum vampd_picture { VAMPD_PICTURE_NONE, VAMPD_PICTURE_PNG, VAMPD_PICTURE_SVG };

/* In what form the client wants the result; set while preparing, read when the job is done. */
struct vampd_output {
  bool json;
  enum vamp_audio_format format;
  enum vampd_picture picture;
};

struct vampd_exchange {
  struct vampd_task task; /* first member: the task is the exchange */
  struct vampd *daemon;
  struct MHD_Connection *connection;
  struct vampd_peer *peer;
  const struct vampd_route *route; /* NULL where there is none */
  char id[17];                     /* Vampd-Request-Id: 16 hexadecimal digits */
  char method[16], path[96];       /* for the log; cut */
  char *content_type, *accept;     /* the headers; NULL where missing */
  double started;

  char *body;
  size_t size, capacity;
  size_t charged;  /* bytes of the answer that admission counts until it is sent */
  size_t received; /* also counts what was discarded */

  struct vampd_output output;
  struct vampd_job *job; /* under the watch's lock while waiting */
  bool abandoned;        /* likewise: the client hung up, or the daemon is out of patience */
  bool admitted;         /* has or had a place in the queue: its answer is waited for at the end */
  atomic_bool answered;  /* `answer` is complete and may be sent */
  struct vampd_answer answer;
  size_t sent; /* bytes of the answer's body, for the log */
};

/* ---- for handlers ------------------------------------------------------------------------------------ */

/* Frees the body: a waiting request should not hold what it no longer needs. */
void vampd_exchange_drop_body(struct vampd_exchange *exchange);

/* Ties a job to the client, so that it is cancelled should the client hang up; takes the reference. */
void vampd_exchange_attach(struct vampd_exchange *exchange, struct vampd_job *job);

/* Whether nobody waits for the result any more. */
bool vampd_exchange_abandoned(struct vampd_exchange *exchange);

/* The answer is complete: resumes the connection. The exchange may be gone when this returns. */
void vampd_exchange_finish(struct vampd_exchange *exchange);

/* ---- for the HTTP threads ------------------------------------------------------------------------------ */

/* The headers are here: finds the route and refuses at once what cannot be answered. NULL: no memory. */
struct vampd_exchange *vampd_exchange_create(struct vampd *daemon, struct MHD_Connection *connection,
                                             struct vampd_peer *peer, const char *method, const char *path);

/* Takes a piece of the body; false where the connection must be closed. */
bool vampd_exchange_receive(struct vampd_exchange *exchange, const char *data, size_t size);

/* The body is complete. Afterwards the exchange is answered, or suspended and somebody else's. */
void vampd_exchange_dispatch(struct vampd_exchange *exchange);

/* The connection is done with it. */
void vampd_exchange_free(struct vampd_exchange *exchange);

/* ---- for the watch: under its lock --------------------------------------------------------------------- */

/* Nobody waits for the result any more: the job is cancelled, now or as soon as there is one. */
void vampd_exchange_abandon(void *exchange);

#endif
