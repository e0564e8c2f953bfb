/* What paths and queries ask for: see lookup.h. */
#include "server/api/lookup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *vampd_lookup_owner(const struct vampd_exchange *exchange) {
  return vampd_access_guarded(exchange->daemon->access) ? vampd_caller_name(exchange->caller) : NULL;
}

int vampd_refuse_lookup(struct vampd_exchange *exchange, const char *what, const struct vamp_error *error) {
  if (error->status == VAMP_INVALID) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_NOT_FOUND, NULL,
                         "There is no such %s: it was never there, or it has been forgotten.", what);
  } else {
    vampd_answer_error(&exchange->answer, error, VAMPD_PROBLEM_INTERNAL);
  }
  return error->status;
}

int vampd_lookup_job(struct vampd_exchange *exchange, struct vampd_store_job *job) {
  struct vamp_error error = {0};
  int status =
      vampd_store_job(exchange->daemon->store, exchange->target, vampd_lookup_owner(exchange), job, &error);
  return status == VAMP_OK ? status : vampd_refuse_lookup(exchange, "job", &error);
}

int vampd_lookup_sweep(struct vampd_exchange *exchange, struct vampd_store_sweep *sweep) {
  struct vamp_error error = {0};
  int status = vampd_store_sweep(exchange->daemon->store, exchange->target, vampd_lookup_owner(exchange),
                                 sweep, &error);
  return status == VAMP_OK ? status : vampd_refuse_lookup(exchange, "sweep", &error);
}

int vampd_lookup_result(struct vampd_exchange *exchange, struct vampd_store_job *job) {
  int status = vampd_lookup_job(exchange, job);
  if (status != VAMP_OK || job->state == VAMPD_STATE_DONE) {
    return status;
  }
  if (job->state == VAMPD_STATE_QUEUED) {
    vampd_answer_problem(
        &exchange->answer, VAMPD_PROBLEM_NOT_FINISHED, NULL,
        "The job is not finished; GET /v1/jobs/%s says how far it is, and /events tells when "
        "it is done.",
        job->id);
  } else {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_NOT_FOUND, NULL,
                         "The job %s, so there is no result.",
                         job->state == VAMPD_STATE_FAILED ? "failed" : "was cancelled");
  }
  return VAMP_INVALID;
}

int vampd_refuse_query(struct vampd_exchange *exchange, const char *name, const char *detail) {
  char pointer[32];
  snprintf(pointer, sizeof pointer, "/query/%s", name);
  vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_INVALID_FIELD, pointer, "%s", detail);
  return VAMP_INVALID;
}

int vampd_query_number(struct vampd_exchange *exchange, const char *name, int64_t most, int64_t missing,
                       int64_t *number) {
  const char *text = vampd_exchange_query(exchange, name);
  *number = missing;
  if (!text) {
    return VAMP_OK;
  }
  size_t digits = strspn(text, "0123456789");
  long long value = strtoll(text, NULL, 10);
  if (digits == 0 || digits > 18 || text[digits] != '\0' || value < 1 || value > most) {
    char detail[96];
    snprintf(detail, sizeof detail, "\"%s\" must be a whole number from 1 to %lld.", name, (long long)most);
    return vampd_refuse_query(exchange, name, detail);
  }
  *number = value;
  return VAMP_OK;
}
