/*
 * The jobs that are not finished: what runs, what waits, and in which order it comes to the device.
 *
 * The store (store.h) knows what has to outlive a restart; this knows what changes many times a second: a
 * job's state, its progress, its listeners. One mutex guards all of it, is held for microseconds, and never
 * while anything waits for a disk or a device.
 *
 * Order. The batch loop is fair among the jobs that are in it, but it holds a bounded number of them. So
 * which of those that wait goes next is a matter of fairness as well: one of the caller that has the fewest
 * in the loop for its priority, and of that caller the oldest. Who has none in the loop never waits for
 * others' to leave it.
 *
 * One clip, many jobs (variations, sweeps): it is encoded once. While the first of them has it encoded the
 * others wait; after that they start from its tokens.
 *
 * A job that was begun several times and never ended may be what ends the daemon. It waits a while, twice as
 * long each time, so that others get their turn in between; that it was only there at the time is as likely,
 * so it is tried many times before it is given up.
 */
#ifndef VAMPD_LIVE_H
#define VAMPD_LIVE_H

#include <pthread.h>
#include <stdbool.h>

#include "server/access/access.h"
#include "server/jobs/events.h"
#include "server/jobs/work.h"
#include "server/store/store.h"
#include "vamp/generate.h"

enum vampd_phase {
  VAMPD_PHASE_QUEUED,
  VAMPD_PHASE_PREPARING, /* audio is decoded, the mask is built */
  VAMPD_PHASE_ENCODING,
  VAMPD_PHASE_GENERATING,
  VAMPD_PHASE_DECODING,
};

/* "queued", "preparing", ... */
const char *vampd_phase_name(enum vampd_phase phase);

/* Of beginnings that came to no end. Each of more than VAMPD_FEW_ATTEMPTS of them doubles the time that a job
 * waits in the house of the next daemon; a job of VAMPD_MAX_ATTEMPTS is given up. */
#define VAMPD_FEW_ATTEMPTS 2
#define VAMPD_MAX_ATTEMPTS 100

struct vampd_house;
struct vampd_job;
struct vampd_queue;
struct vampd_runner;

/* An input that jobs in the house were made from. */
struct vampd_live_input {
  char id[VAMPD_ID_SIZE];
  int jobs;       /* in the house */
  bool encoding;  /* by one of them, on behalf of all */
  int32_t *codes; /* [codebooks, frames]; NULL until it is encoded; constant from then on */
  int codebooks, frames;
  struct vampd_live_input *next;
};

/* One job. Members are guarded by the house's lock, but for those that never change. */
struct vampd_live {
  struct vampd_task task;      /* first member: the runner's */
  struct vampd_runner *runner; /* while it is taken */
  struct vampd_house *house;
  /* Constant. */
  char id[VAMPD_ID_SIZE], sweep[VAMPD_ID_SIZE];
  int64_t number;
  struct vampd_caller *caller;
  double seconds; /* of the clip */
  double cost;    /* work for the device, see vamp_job_cost */
  struct vampd_live_input *input;
  /* Under the lock. */
  enum vampd_phase phase;
  int attempts;
  bool begun;   /* by this daemon: `attempts` counts it */
  int refusals; /* times that it had to go back for want of memory, or because the disk failed */
  float progress, committed;
  int step, steps;
  double not_before;     /* on vampd_now's clock: it waits for something to become better */
  bool cancelled;        /* by its owner */
  bool taken;            /* out of the queue: somebody is responsible for its end */
  bool encodes;          /* it has the clip encoded for all */
  struct vampd_job *job; /* in the loop; the reference is the house's */
  struct vampd_events events;
  struct vampd_live *next_same_hash, *next_in_queue, *previous_in_queue, *next_running;
  struct vampd_queue *queue;
};

struct vampd_house_limits {
  int running;            /* jobs on their way at once, of all callers */
  int preparing;          /* of them, on a worker: interactive requests stand in the same line */
  int devices;            /* that share the work; 0 stands for 1 */
  double running_seconds; /* of audio, of all; a caller who has none on its way may have one beyond both */
};

int vampd_house_create(const struct vampd_house_limits *limits, struct vampd_house **house,
                       struct vamp_error *error);
void vampd_house_free(struct vampd_house *house); /* NULL is fine; nobody may be inside */
void vampd_house_set_limits(struct vampd_house *house, const struct vampd_house_limits *limits);

void vampd_house_lock(struct vampd_house *house);
void vampd_house_unlock(struct vampd_house *house);

/* Keeps places in the queue for jobs that may be accepted: so many, where then at most `most` wait or have a
 * place, else none, and false. *queued and *running are what is there already. */
bool vampd_house_expect(struct vampd_house *house, int count, int most, int *queued, int *running);
/* So many of them do not come. */
void vampd_house_expect_no_more(struct vampd_house *house, int count);

/* Jobs that the store has accepted enter the queue, all at once: so that several on one clip are seen to be
 * several. `expected`: places were kept for them, which they take or, failing that, give up. VAMP_MEMORY:
 * some of them stay in the store, for the next start. */
int vampd_house_enter(struct vampd_house *house, const struct vampd_store_job *jobs, const double *costs,
                      int count, bool expected, struct vampd_caller *caller, struct vamp_error *error);

/* ---- under the lock ---------------------------------------------------------------------------------- */

struct vampd_live *vampd_house_find(struct vampd_house *house, const char *id);

/* The next job that may go, now PREPARING and the caller's to bring to an end; NULL where none may. */
struct vampd_live *vampd_house_take(struct vampd_house *house, double now);
/* Takes a queued job out of its queue, to end it; false where it is not queued (any more). */
bool vampd_house_take_queued(struct vampd_live *live);
/* Puts a job that was taken back to the head of its queue, not to be tried before a time. */
void vampd_house_put_back(struct vampd_live *live, double not_before);
/* The end: tells its listeners (`data` may be NULL: their streams just end), forgets and frees it. */
void vampd_house_leave(struct vampd_live *live, const char *event, json_t *data);

/* Notes and tells what has changed. */
void vampd_live_enter_phase(struct vampd_live *live, enum vampd_phase phase);
void vampd_live_progress(struct vampd_live *live, const struct vamp_event *event, double rate);

/* ---- takes the lock ------------------------------------------------------------------------------------ */

/* Whether it is there: false before it enters and once it is finished. */
bool vampd_house_has(struct vampd_house *house, const char *id);
/* The phase alone, for long lists: nobody is counted. QUEUED where it is not in the house. */
enum vampd_phase vampd_house_phase(struct vampd_house *house, const char *id);

void vampd_house_count(struct vampd_house *house, int *queued, int *running);

/* Cancels what is in the loop. */
void vampd_house_cancel_running(struct vampd_house *house);

/* Keeps streams from looking dead; ends them all. */
void vampd_house_keep_alive(struct vampd_house *house);
void vampd_house_end_streams(struct vampd_house *house);

#endif
