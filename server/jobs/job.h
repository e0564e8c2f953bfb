/*
 * A job on its way through the batch loop, whoever asked for it and however.
 *
 * It knows nothing of HTTP or of the store: an answer that waits on a connection is one listener to its end,
 * the runner of durable jobs (runner.h) another.
 *
 *   create   from a prepared variation                                (any thread)
 *   submit   to the device; from then on `done` is called exactly once (any thread)
 *   progress on the device thread, now and then
 *   done     on a worker thread, with the outcome and time to use it
 *   cancel   at any moment, any number of times                       (any thread)
 */
#ifndef VAMPD_JOB_H
#define VAMPD_JOB_H

#include "server/access/access.h"
#include "server/jobs/device.h"
#include "server/jobs/work.h"
#include "vamp/request.h"

struct vampd_job;

/* What `done` may look at. Owned by the job, valid until it is released. */
struct vampd_outcome {
  struct vampd_job *job;
  int status;                             /* VAMP_OK, VAMP_CANCELLED, or what went wrong */
  const struct vamp_error *error;         /* where status is not VAMP_OK */
  const struct vamp_variation *variation; /* without its samples, unless they were to be kept */
  const struct vamp_result *result;       /* samples at the input's loudness; NULL unless VAMP_OK */
  double seconds;                         /* from submission to now */
};

struct vampd_job_options {
  enum vamp_task task;   /* VARIATION, ENCODE, DECODE */
  const int32_t *codes;  /* [codebooks, frames]: DECODE, or a VARIATION whose clip is encoded already; lent
                          * until  vampd_job_submit returns */
  int codebooks, frames; /* of codes */
  bool keep_samples;     /* of the variation's clip, for whoever compares before and after */
  struct vampd_caller *caller; /* whose it is, for the fairness of turns; NULL: nobody's */
  /* May be NULL. On the device thread: must only pass it on. */
  void (*progress)(const struct vamp_event *event, void *user);
  void (*done)(const struct vampd_outcome *outcome, void *user);
  void *user;
};

/* Takes over `variation` (on success; the caller's struct is zeroed), which for DECODE may be an empty one.
 * The caller holds one reference. */
int vampd_job_create(struct vampd_device *device, struct vampd_work *work,
                     const struct vampd_job_options *options, struct vamp_variation *variation,
                     struct vampd_job **job, struct vamp_error *error);

/* On failure `done` is not called. Once. */
int vampd_job_submit(struct vampd_job *job, struct vamp_error *error);

/* The job leaves the loop at its next step and ends as VAMP_CANCELLED, unless it is done before. */
void vampd_job_cancel(struct vampd_job *job);

/* In `done`, or after a failed submission: the variation is the caller's again. */
void vampd_job_take_variation(struct vampd_job *job, struct vamp_variation *variation);

/* Gives one reference back. NULL is fine. */
void vampd_job_release(struct vampd_job *job);

/* For the device thread: an event of the loop, whose user is the job. */
void vampd_job_event(const struct vamp_event *event);

#endif
