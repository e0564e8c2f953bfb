/*
 * From the id in a path, and the parameters in a query, to what is meant by them: what the store has, for
 * whoever may see it.
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

/* Answers for what the store did not find (VAMP_INVALID: 404, "no such WHAT") or could not read. Returns its
 * status. */
int vampd_refuse_lookup(struct vampd_exchange *exchange, const char *what, const struct vamp_error *error);

/* Answers that a parameter of the query is wrong: VAMP_INVALID. */
int vampd_refuse_query(struct vampd_exchange *exchange, const char *name, const char *detail);

/* A whole number of the query, from 1 to `most`; `missing` where it is not there. */
int vampd_query_number(struct vampd_exchange *exchange, const char *name, int64_t most, int64_t missing,
                       int64_t *number);

#endif
