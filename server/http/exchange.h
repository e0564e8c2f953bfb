/*
 * One request and its answer, on one connection.
 *
 * A handler finds the body complete and bounded. A quick one (router.h), on an HTTP thread, fills `answer`
 * and returns. The others run on another thread while the connection is suspended: they fill `answer` and
 * call vampd_exchange_finish, or give a job to the device and let the job's end do that.
 */
#ifndef VAMPD_EXCHANGE_H
#define VAMPD_EXCHANGE_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "server/access/access.h"
#include "server/daemon.h"
#include "server/http/answer.h"
#include "server/jobs/job.h"
#include "server/jobs/work.h"
#include "server/store/store.h"

struct MHD_Connection;
struct vampd_route;

enum vampd_picture { VAMPD_PICTURE_NONE, VAMPD_PICTURE_PNG, VAMPD_PICTURE_SVG };

/* In what form the client wants the result; set while preparing, read when the job is done. */
enum vampd_shape { VAMPD_SHAPE_FILE, VAMPD_SHAPE_JSON, VAMPD_SHAPE_MIXED };
struct vampd_output {
  enum vampd_shape shape;
  enum vamp_audio_format format;
  enum vampd_picture picture;
};

/* The header fields that somebody looks at; NULL where missing. */
struct vampd_fields {
  char *content_type, *accept, *origin;
  char *range, *if_range, *if_none_match, *last_event_id;
};

struct vampd_exchange {
  struct vampd_task task; /* first member: the task is the exchange */
  struct vampd *daemon;
  struct MHD_Connection *connection;
  struct vampd_peer *peer;
  const struct vampd_route *route; /* NULL where there is none */
  struct vampd_caller *caller;     /* who asks; NULL on routes that are open to anyone */
  char id[VAMPD_ID_SIZE];          /* Vampd-Request-Id */
  char target[VAMPD_ID_SIZE];      /* the id in the path; "" where there is none */
  char method[16], path[96];       /* for the log; cut */
  struct vampd_fields fields;
  json_t *query; /* an object of strings */
  double started;

  char *body;
  size_t size, capacity;
  size_t charged;  /* bytes of the answer that admission counts until it is sent */
  size_t received; /* also counts what was discarded */

  const struct vampd_settings *settings; /* those in force when it came */
  struct vampd_output output;
  bool counted;                /* among its caller's jobs */
  double audio_seconds;        /* likewise */
  struct vampd_job *job;       /* under the watch's lock while waiting */
  struct vampd_stream *stream; /* likewise: the answer that is being sent; a reference */
  bool abandoned;              /* likewise: the client hung up, or the daemon is out of patience */
  bool ambiguous;              /* where its body ends: it is the connection's last */
  bool admitted;               /* has or had a place in the queue: its answer is waited for at the end */
  atomic_bool answered;        /* `answer` is complete and may be sent */
  struct vampd_answer answer;
  size_t sent; /* bytes of the answer's body, for the log */
};

/* ---- for handlers ------------------------------------------------------------------------------------ */

/* Frees the body: a waiting request should not hold what it no longer needs. */
void vampd_exchange_drop_body(struct vampd_exchange *exchange);

/* What the model is, to work with it; NULL where that is for nobody any more, and the exchange has its
 * answer. */
const struct vampd_device_facts *vampd_exchange_begin(struct vampd_exchange *exchange);

/* Hands a job to the device, tied to the client: it is cancelled should the client hang up. Sets the options'
 * caller and user, which is the exchange; takes over the variation. On failure the place it took is given
 * back. */
int vampd_exchange_run(struct vampd_exchange *exchange, struct vampd_job_options *options,
                       struct vamp_variation *variation, struct vamp_error *error);

/* Asks the caller's limits for so many jobs, as vampd_access_take_jobs. Where they say no, the exchange has
 * its answer. */
int vampd_exchange_take_jobs(struct vampd_exchange *exchange, int count, double audio_seconds);
/* The same for the one job that is the exchange itself: it counts until it is finished. */
bool vampd_exchange_take_place(struct vampd_exchange *exchange, double audio_seconds);

/* Whether nobody waits for the result any more. */
bool vampd_exchange_abandoned(struct vampd_exchange *exchange);

/* The answer is complete: resumes the connection. The exchange may be gone when this returns. */
void vampd_exchange_finish(struct vampd_exchange *exchange);

/* A parameter of the query, NULL where it is missing. */
const char *vampd_exchange_query(const struct vampd_exchange *exchange, const char *name);

/* ---- for the HTTP threads ------------------------------------------------------------------------------ */

/* The headers are here: finds the route and refuses at once what cannot be answered. NULL: no memory. */
struct vampd_exchange *vampd_exchange_create(struct vampd *daemon, struct MHD_Connection *connection,
                                             struct vampd_peer *peer, const char *method, const char *path);

/* Takes a piece of the body; false where the connection must be closed. */
bool vampd_exchange_receive(struct vampd_exchange *exchange, const char *data, size_t size);

/* The body is complete. Afterwards the exchange is answered, or suspended and somebody else's. */
void vampd_exchange_dispatch(struct vampd_exchange *exchange);

/* A stream is being sent: from now on it is broken should the client hang up. */
void vampd_exchange_streams(struct vampd_exchange *exchange, struct vampd_stream *stream);

/* The connection is done with it. */
void vampd_exchange_free(struct vampd_exchange *exchange);

/* ---- for the watch: under its lock --------------------------------------------------------------------- */

/* Nobody waits for the result any more: the job is cancelled, now or as soon as there is one; a stream
 * ends. */
void vampd_exchange_abandon(void *exchange);

#endif
