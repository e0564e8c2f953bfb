/*
 * Accepting durable jobs, for POST /v1/jobs and POST /v1/sweeps: gathers inputs and jobs, and commits them to
 * limits, store and queue, all or none.
 *
 * On a worker. Functions that take the exchange have answered it where they fail; the others fill an error.
 */
#ifndef VAMPD_ACCEPT_H
#define VAMPD_ACCEPT_H

#include "server/api/input.h"
#include "server/store/store.h"

struct vampd_acceptance {
  const struct vampd_device_facts *facts;
  struct vampd_house *house;
  int places; /* kept in its queue for jobs that have not entered it */
  int clip_count, clip_room, job_count, job_room;
  struct vampd_store_input *clips; /* their bytes are lent */
  int64_t *clip_reserves;          /* bytes that a result takes */
  struct vampd_store_job *jobs;
  double *costs;
  struct vampd_store_sweep *sweep; /* NULL: none; lent */
  double audio_seconds;            /* of all jobs */
  int64_t reserve;
  size_t params; /* bytes, of all jobs */
};

/* Makes room, and takes places in the queue, which vampd_acceptance_end gives back where the jobs do not
 * come; 429 where it has none for so many. */
int vampd_acceptance_begin(struct vampd_exchange *exchange, const struct vampd_device_facts *facts, int clips,
                           int jobs, struct vampd_acceptance *acceptance);

/* Notes a clip and what its variation needs. */
int vampd_acceptance_clip(struct vampd_acceptance *acceptance, const struct vampd_file *file,
                          const struct vamp_variation *variation, struct vamp_error *error);

/* Writes a seed that was drawn into the parameters: a job must have the one that its other attempts have. */
int vampd_acceptance_seed(json_t *params, uint64_t seed, struct vamp_error *error);

/* Notes a job on clip number `clip`. `params` are complete, with their seed; `point` (may be NULL) is where
 * in a sweep's grid it stands. */
int vampd_acceptance_job(struct vampd_acceptance *acceptance, int clip, json_t *params, json_t *point,
                         struct vamp_error *error);

/* Asks the caller's limits, stores, and puts into the queue. */
int vampd_acceptance_commit(struct vampd_exchange *exchange, struct vampd_acceptance *acceptance);

void vampd_acceptance_end(struct vampd_acceptance *acceptance); /* fine on a zeroed struct */

/* A job as JSON with what is known of it now. */
json_t *vampd_live_document(struct vampd *daemon, const struct vampd_store_job *job);

#endif
