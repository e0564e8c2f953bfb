/*
 * What a sweep adds up to: a table of its points, as JSON and as CSV, and an archive of all there is.
 *
 * Any thread that may block.
 */
#ifndef VAMPD_SWEEP_H
#define VAMPD_SWEEP_H

#include <jansson.h>

#include "server/decode/decode.h"
#include "server/jobs/live.h"
#include "server/store/store.h"
#include "vamp/config.h"

/* A sweep with its jobs, as the store has them. */
struct vampd_sweep {
  struct vampd_store_sweep row;
  struct vampd_store_job *jobs; /* [count], by point */
  int count;
};

/* Reads the jobs; takes over `row` also where it fails. */
int vampd_sweep_read(struct vampd_store *store, struct vampd_store_sweep *row, struct vampd_sweep *sweep,
                     struct vamp_error *error);
void vampd_sweep_free(struct vampd_sweep *sweep); /* fine on a zeroed struct */

bool vampd_sweep_finished(const struct vampd_sweep *sweep);

/* The sweep as it is answered (proto/openapi.yaml, "Sweep"); `house` is for one that is not finished. Where
 * it is to be `brief`, its jobs need not have been read: it is without points, and a grid that is long is {}.
 */
json_t *vampd_sweep_document(const struct vampd_sweep *sweep, struct vampd_house *house, double rate,
                             bool brief);

/* One line for each point: its values, its state, densities, changes and measures. RFC 4180. malloc'd. */
int vampd_sweep_csv(const struct vampd_sweep *sweep, char **text, size_t *size, struct vamp_error *error);

/* Opens the archive of a finished sweep, which is made where nobody has asked for it yet: sweep.json,
 * sweep.csv, the input, and for each point that is done point-0000.wav and point-0000.mask.png. Asks
 * `given_up` before each of them; VAMP_CANCELLED where it says so. */
int vampd_sweep_archive(struct vampd_store *store, struct vampd_decoder *decoder,
                        const struct vampd_sweep *sweep, bool (*given_up)(void *user), void *user, int *file,
                        int64_t *size, struct vamp_error *error);

#endif
