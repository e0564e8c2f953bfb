/*
 * A job: one variation on its way through the batch loop, whoever asked for it and however.
 *
 * It knows nothing of HTTP: an answer that waits on a connection is one listener to its end; a durable
 * store, an event stream or a sweep will be others.
 *
 *   create   from a prepared variation                                (any thread)
 *   submit   to the device; from then on `done` is called exactly once (any thread)
 *   done     on a worker thread, with the outcome and time to use it
 *   cancel   at any moment, any number of times                       (any thread)
 */
#ifndef VAMPD_JOB_H
#define VAMPD_JOB_H

#include "server/jobs/device.h"
#include "server/jobs/work.h"
#include "vamp/request.h"

struct vampd_job;

/* What `done` may look at. Owned by the job, valid until it is released. */
struct vampd_outcome {
  int status;                             /* VAMP_OK, VAMP_CANCELLED, or what went wrong */
  const struct vamp_error *error;         /* where status is not VAMP_OK */
  const struct vamp_variation *variation; /* without its samples */
  const struct vamp_result *result;       /* samples at the input's loudness; NULL unless VAMP_OK */
  double seconds;                         /* from submission to now */
};

/* Takes over `variation` (on success; the caller's struct is zeroed). The caller holds one reference. */
int vampd_job_create(struct vampd_device *device, struct vampd_work *work, struct vamp_variation *variation,
                     void (*done)(const struct vampd_outcome *outcome, void *user), void *user,
                     struct vampd_job **job, struct vamp_error *error);

/* On failure `done` is not called. Once. */
int vampd_job_submit(struct vampd_job *job, struct vamp_error *error);

/* The job leaves the loop at its next step and ends as VAMP_CANCELLED, unless it is done before. */
void vampd_job_cancel(struct vampd_job *job);

/* Gives one reference back. NULL is fine. */
void vampd_job_release(struct vampd_job *job);

/* For the device thread: an event of the loop, whose user is the job. */
void vampd_job_event(const struct vamp_event *event);

#endif
