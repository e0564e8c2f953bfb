/*
 * What the daemon counts, and its text for Prometheus (exposition format 0.0.4).
 *
 * Any thread; the counting functions take a lock for some nanoseconds.
 */
#ifndef VAMPD_METRICS_H
#define VAMPD_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "server/config/options.h"
#include "vamp/generate.h"

struct vampd_metrics;

int vampd_metrics_create(struct vampd_metrics **metrics, struct vamp_error *error);
void vampd_metrics_free(struct vampd_metrics *metrics); /* NULL is fine */

/* A request was answered, or its client left. `route`: the path as the table of routes has it, "" where there
 * is no such path; must be a literal. */
void vampd_metrics_request(struct vampd_metrics *metrics, const char *route, int status, double seconds);

/* So many devices run turns, VAMPD_MAX_DEVICES at most; 1 until this is called. */
void vampd_metrics_devices(struct vampd_metrics *metrics, int devices);

/* A turn of the batch loop ran on a device, by its number from 0. */
void vampd_metrics_turn(struct vampd_metrics *metrics, int device, const struct vamp_loop_turn *turn,
                        double seconds);

enum vampd_ending { VAMPD_ENDING_DONE, VAMPD_ENDING_FAILED, VAMPD_ENDING_CANCELLED };
/* A generation ended, durable or not; `result` NULL unless DONE. `seconds`: from submission; 0 where it was
 * never submitted, or that is not known, and then it is none of vampd_job_seconds. */
void vampd_metrics_job(struct vampd_metrics *metrics, enum vampd_ending ending, double seconds,
                       const struct vamp_result *result, int sample_rate);

/* Work that one device does in a second, in frames of one coarse step: an average over the last turns. 0
 * before the first. */
double vampd_metrics_rate(struct vampd_metrics *metrics);

/* What is known elsewhere and shown beside it. */
struct vampd_gauges {
  int jobs_waiting, jobs_running; /* durable */
  int requests;                   /* being worked on, on their connection */
  int64_t store_bytes, store_free_bytes, store_jobs;
  int connections;
};

/* The whole text, malloc'd; NULL when out of memory. */
char *vampd_metrics_text(struct vampd_metrics *metrics, const struct vampd_gauges *gauges, size_t *size);

#endif
