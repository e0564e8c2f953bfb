/*
 * From the id in a path to what the store has, for whoever may see it.
 *
 * On threads that may block. On failure the exchange has its answer.
 */
#ifndef VAMPD_LOOKUP_H
#define VAMPD_LOOKUP_H

#include "server/http/exchange.h"

/* The owner whose jobs the exchange's caller sees: its own, or NULL, all, where no key is needed. */
const char *vampd_lookup_owner(const struct vampd_exchange *exchange);

/* The job or sweep that the path names; 404 where there is none of this caller's. */
int vampd_lookup_job(struct vampd_exchange *exchange, struct vampd_store_job *job);
int vampd_lookup_sweep(struct vampd_exchange *exchange, struct vampd_store_sweep *sweep);

/* The same, and it must be done: 409 while it is not finished, 404 where it ended without a result. */
int vampd_lookup_result(struct vampd_exchange *exchange, struct vampd_store_job *job);

/* A whole number of the query, from 1 to `most`; `missing` where it is not there. */
int vampd_query_number(struct vampd_exchange *exchange, const char *name, int64_t most, int64_t missing,
                       int64_t *number);

#endif
