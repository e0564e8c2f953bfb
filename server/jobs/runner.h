/*
 * The runner: brings durable jobs from the queue through the device into the store.
 *
 *   queue     -> take, in the order that live.h decides, as many as the device keeps busy with
 *   worker    read, decode, prepare; hand to the batch loop
 *   device    progress
 *   worker    files and summary into the store, the last event, and the next one is taken
 *
 * Nothing that was accepted is lost: until the store has the end of a job it stands there as queued, and a
 * daemon that is started again takes it up. What cannot be finished for want of memory or disk goes back to
 * the queue for a while; what was begun too often without an end (MAX_ATTEMPTS: it may be what kills the
 * daemon) is failed.
 */
#ifndef VAMPD_RUNNER_H
#define VAMPD_RUNNER_H

#include "server/access/access.h"
#include "server/decode/decode.h"
#include "server/jobs/device.h"
#include "server/jobs/live.h"
#include "server/metrics.h"
#include "server/store/store.h"

struct vampd_runner;

/* Everything is lent, and outlives the runner. */
struct vampd_runner_parts {
  struct vampd_store *store;
  struct vampd_house *house;
  struct vampd_work *work;
  struct vampd_device *device;
  struct vampd_decoder *decoder;
  struct vampd_metrics *metrics;
  struct vampd_access *access;
};

int vampd_runner_create(const struct vampd_runner_parts *parts, struct vampd_runner **runner,
                        struct vamp_error *error);
/* After vampd_runner_stop, and when no worker runs any more. NULL is fine. */
void vampd_runner_free(struct vampd_runner *runner);

/* The model is loaded: jobs that an earlier daemon left unfinished enter the queue, and work begins. */
int vampd_runner_begin(struct vampd_runner *runner, struct vamp_error *error);

/* Jobs that the store has just accepted take the places that were kept for them in the queue
 * (vampd_house_expect). `costs` as vamp_job_cost counts. Any thread. */
int vampd_runner_enter(struct vampd_runner *runner, const struct vampd_store_job *jobs, const double *costs,
                       int count, struct vampd_caller *caller, struct vamp_error *error);

/* Cancels jobs: those that have not begun at once, those that run at their next step. From the last to the
 * first, so none begins while the others are cancelled. Returns how many of them were in the house; the
 * others are finished, or were never there. Any thread that may block. */
int vampd_runner_cancel(struct vampd_runner *runner, const struct vampd_store_job *jobs, int count);

/* About once a second: jobs that waited for something to become better are tried again, listeners are kept
 * alive. */
void vampd_runner_tick(struct vampd_runner *runner);

/* Seconds until all that is in the house is done, at the device's speed; 0 where that is not known. */
double vampd_runner_backlog(struct vampd_runner *runner);

/* No job is taken from the queue any more. */
void vampd_runner_hold(struct vampd_runner *runner);
/* What runs is given up, to be run again by the next daemon. */
void vampd_runner_abandon(struct vampd_runner *runner);
/* Jobs on their way between queue and store. */
int vampd_runner_busy(struct vampd_runner *runner);

#endif
