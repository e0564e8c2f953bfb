/*
 * The batch loop: the one way to the device.
 *
 * Jobs are submitted from any thread; ONE thread owns the loop's device and calls vamp_loop_step() as
 * long as there is work. At each turn the loop takes every sequence that wants the same stage, packs
 * them end to end, runs one forward, samples, remasks, and lets finished ones leave and new ones join.
 * Results come out as events.
 *
 * Promise: a job's result depends on model, input, parameters, seed, backend and precision alone, never
 * on what else is in the batch.
 */
#ifndef VAMP_GENERATE_H
#define VAMP_GENERATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vamp/error.h"
#include "vamp/mask.h"
#include "vamp/model.h"

/* docs/model.md, "Generation". */
struct vamp_sampling {
  int coarse_steps;       /* 1 .. 256; default 12 */
  int fine_steps;         /* 1 .. 256; default 2 */
  float temperature;      /* > 0 .. 10; default 1 */
  float mask_temperature; /* 0 .. 1000; default 10.5 */
  float sample_cutoff;    /* 0 .. 1; default 1: sample while step/steps <= cutoff, argmax after */
  int top_k;              /* 0 (off) .. vocabulary */
  float top_p;            /* 0 < p <= 1; 1: off */
  float typical_mass;     /* 0 (off) .. 1 */
  int typical_min_tokens; /* default 64 */
  bool greedy;            /* argmax at every step, no noise on the mask */
  uint64_t seed;          /* 0 .. 2^53 - 1 */
};

void vamp_sampling_defaults(struct vamp_sampling *sampling);

/* Positions that stay masked after step `step` (0-based) of `steps`, of `total` masked at the start and
 * `now` masked before the step. All in fp32, as the published implementation does. */
int32_t vamp_schedule_keep_masked(int step, int steps, int32_t total, int32_t now);

enum vamp_task {
  VAMP_TASK_VARIATION, /* samples (or codes) -> encode -> passes of (coarse, fine) -> decode -> samples */
  VAMP_TASK_ENCODE,    /* samples -> codes */
  VAMP_TASK_DECODE,    /* codes -> samples */
  VAMP_TASK_COARSE,    /* codes [coarse codebooks, frames] + one mask -> codes: one sequence, as it is */
  VAMP_TASK_FINE,      /* codes [codebooks, frames] + one mask -> codes: one sequence, as it is */
};

/* What to do. Everything is copied on submission. */
struct vamp_job {
  enum vamp_task task;
  const float *samples; /* [sample_count] mono at the model's rate; VARIATION, ENCODE */
  size_t sample_count;
  /* [codebooks, frames]; DECODE, COARSE, FINE, and VARIATION of a clip that has been encoded before: then
   * `samples` is NULL, `sample_count` that of the clip, and the result is the same to the bit. */
  const int32_t *codes;
  int codebooks;
  int frames;
  int passes; /* 1 .. VAMP_MASK_MAX_PASSES; VARIATION. COARSE and FINE take one */
  struct vamp_mask masks[VAMP_MASK_MAX_PASSES]; /* each [codebooks, frames of the clip] */
  struct vamp_sampling sampling;
  uint32_t client; /* for fairness: turns are dealt between clients first, then between their jobs */
  float weight;    /* of the client, > 0: twice the weight, twice the share; 0 stands for 1 */
  void *user;      /* handed back with every event */
};

/* The work of a job in the unit of vamp_loop_turn.cost, frames of one coarse step. `passes` counts for
 * VARIATION alone. */
double vamp_job_cost(enum vamp_task task, int64_t frames, int passes, const struct vamp_sampling *sampling);

/* What came of it; owned by whoever took the event, freed by vamp_result_free. */
struct vamp_result {
  int codebooks, frames;
  int passes;
  int32_t *codes_before;                         /* [codebooks, frames] */
  int32_t *codes;                                /* [codebooks, frames] after the last pass */
  int32_t *pass_before[VAMP_MASK_MAX_PASSES];    /* [codebooks, frames] what pass p started from */
  int32_t *pass_after[VAMP_MASK_MAX_PASSES];     /* [codebooks, frames] */
  int32_t *committed_step[VAMP_MASK_MAX_PASSES]; /* [codebooks, frames]; -1 where kept */
  float *confidence[VAMP_MASK_MAX_PASSES];       /* [codebooks, frames]; 1 where kept */
  float *samples;                                /* [sample_count]; NULL for ENCODE, COARSE, FINE */
  size_t sample_count;                           /* VARIATION: exactly that of the input */
  struct {
    double queued, encode, coarse, fine, decode; /* seconds of wall time spent in each */
  } seconds;
};

void vamp_result_free(struct vamp_result *result); /* NULL is fine */

enum vamp_event_type { VAMP_EVENT_PROGRESS, VAMP_EVENT_DONE, VAMP_EVENT_FAILED, VAMP_EVENT_CANCELLED };
enum vamp_phase { VAMP_QUEUED, VAMP_ENCODING, VAMP_COARSE, VAMP_FINE, VAMP_DECODING, VAMP_FINISHED };

struct vamp_event {
  enum vamp_event_type type;
  uint64_t job;
  void *user;
  enum vamp_phase phase;
  float progress;             /* 0 .. 1 over the whole job */
  int step, steps;            /* COARSE, FINE: steps done by the chunk furthest behind, and all; else 0 */
  float committed;            /* COARSE, FINE: share of this stage's masked tokens that are fixed; else 0 */
  struct vamp_result *result; /* DONE: the receiver's */
  struct vamp_error error;    /* FAILED */
};

struct vamp_loop;

struct vamp_loop_limits {
  int max_jobs;            /* queued and running; default 1024 */
  int64_t max_frames;      /* of one job; default 60,000 (17 minutes) */
  int64_t max_held_frames; /* of all jobs together, bounds memory; default 2,000,000 */
};

/* The loop uses `model` (and its device) from the thread that calls vamp_loop_step, and does not own it.
 * limits may be NULL. */
int vamp_loop_create(struct vamp_model *model, const struct vamp_loop_limits *limits, struct vamp_loop **loop,
                     struct vamp_error *error);
/* Cancels and forgets whatever is left. No other thread may be inside the loop. */
void vamp_loop_free(struct vamp_loop *loop);

/* Any thread. VAMP_INVALID, VAMP_LIMIT, VAMP_MEMORY, or VAMP_BUSY where the queue is full. */
int vamp_loop_submit(struct vamp_loop *loop, const struct vamp_job *job, uint64_t *id,
                     struct vamp_error *error);
/* Any thread. The job leaves at the next step with a CANCELLED event; unknown ids are ignored. */
void vamp_loop_cancel(struct vamp_loop *loop, uint64_t id);

/* Loop thread. One turn: returns 1 where work was done, 0 where there was none, negative where the
 * device is lost (every job then has failed). */
int vamp_loop_step(struct vamp_loop *loop, struct vamp_error *error);
/* Loop thread. Sleeps until there is work, vamp_loop_wake was called, or `seconds` passed. */
void vamp_loop_wait(struct vamp_loop *loop, double seconds);
/* Any thread. */
void vamp_loop_wake(struct vamp_loop *loop);

/* What the last turn of vamp_loop_step ran, for whoever measures. */
struct vamp_loop_turn {
  enum vamp_phase phase;
  int sequences;
  int64_t rows; /* positions: frames of all sequences */
  double cost;  /* rows, in frames of one coarse step */
};

/* Loop thread. */
void vamp_loop_last_turn(const struct vamp_loop *loop, struct vamp_loop_turn *turn);

/* Loop thread. Takes the oldest event: 1, or 0 where there is none. */
int vamp_loop_next_event(struct vamp_loop *loop, struct vamp_event *event);

/* Any thread: jobs submitted and not finished. */
int vamp_loop_jobs(struct vamp_loop *loop);
/* Any thread: what is left to do of them, as vamp_job_cost counts. For choosing among several loops. */
double vamp_loop_work(struct vamp_loop *loop);

#endif
