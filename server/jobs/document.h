/*
 * A job as JSON, as it is answered, listed, and sent with its last event: proto/openapi.yaml, "Job".
 *
 * Any thread.
 */
#ifndef VAMPD_DOCUMENT_H
#define VAMPD_DOCUMENT_H

#include <jansson.h>

#include "server/jobs/outlook.h"
#include "server/store/store.h"
#include "vamp/config.h"

#define VAMPD_LONG_JSON ((size_t)8 << 10) /* bytes; an event has to fit VAMPD_STREAM_CAPACITY */

/* From the store's row and, where the job is in the house, what is known there (NULL otherwise). `rate`: the
 * device's work a second, 0 where unknown. New reference; NULL when out of memory. */
json_t *vampd_job_document(const struct vampd_store_job *job, const struct vampd_live_facts *facts,
                           double rate);

/* For lists and events, which are bounded: parameters that are long (bitmaps) become {}. */
void vampd_job_shorten(json_t *document, const struct vampd_store_job *job);

/* "queued" .. "cancelled". */
const char *vampd_job_state(const struct vampd_store_job *job, const struct vampd_live_facts *facts);

/* RFC 3339 in UTC with milliseconds, of milliseconds since 1970; null for 0. New reference. */
json_t *vampd_time_json(int64_t milliseconds);

/* What the store keeps as text: params (an object {"params", "point"}), outcome, grid. null where it is none.
 * New reference. */
json_t *vampd_stored_json(const char *text);

/* The work of a job on a clip of so many seconds, from its parameters; from what the store keeps of it. */
double vampd_params_cost(const json_t *params, double seconds, const struct vamp_model_config *model);
double vampd_job_cost(const struct vampd_store_job *job, const struct vamp_model_config *model);

#endif
