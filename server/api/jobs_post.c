/*
 * POST /v1/jobs: clips and parameters in, 202 and jobs out; the jobs outlive the connection and the daemon.
 *
 * All that can be wrong is found before anything is accepted: every clip is decoded and its masks are built,
 * as for POST /v1/vamp. Then clips and parameters go to the store, all or none, and what was computed is
 * thrown away: a job may wait for hours, and until its turn it should hold no memory.
 */
#include <stdlib.h>
#include <string.h>

#include "server/api/accept.h"
#include "server/api/input.h"
#include "server/http/router.h"
#include "server/jobs/document.h"
#include "vamp/request.h"

#define MAX_JOBS 256 /* of one request */

/* Decodes and prepares clip after clip, and notes what the store has to know of each. */
static int examine(struct vampd_exchange *exchange, const struct vampd_device_facts *facts,
                   const struct vampd_input *input, const struct vamp_request *request,
                   struct vampd_acceptance *acceptance) {
  int status = VAMP_OK;
  for (int i = 0; i < input->clip_count && status == VAMP_OK; i++) {
    struct vamp_variation variation = {0};
    struct vamp_error error = {0};
    status = vampd_input_variation(exchange, facts, input, i, request, &variation);
    if (status != VAMP_OK) {
      break;
    }
    status = vampd_acceptance_clip(acceptance, &input->clips[i], &variation, &error);
    if (status != VAMP_OK) {
      vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INVALID_FIELD);
    }
    vamp_variation_free(&variation);
  }
  return status;
}

/* One job for every clip and variation; variation i has the seed `seed` + i. */
static int make_jobs(struct vampd_exchange *exchange, const struct vampd_input *input,
                     const struct vamp_request *request, struct vampd_acceptance *acceptance) {
  struct vamp_error error = {0};
  int status = VAMP_OK;
  for (int clip = 0; clip < input->clip_count; clip++) {
    for (int i = 0; i < input->variations && status == VAMP_OK; i++) {
      json_t *params = json_copy(input->params);
      uint64_t seed = (request->sampling.seed + (uint64_t)i) & VAMP_SEED_MAX;
      status = vampd_acceptance_seed(params, seed, &error);
      if (status == VAMP_OK) {
        status = vampd_acceptance_job(acceptance, clip, params, NULL, &error);
      }
      json_decref(params);
    }
  }
  if (status != VAMP_OK) {
    vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INTERNAL);
  }
  return status;
}

static void answer(struct vampd_exchange *exchange, const struct vampd_acceptance *acceptance) {
  json_t *jobs = json_array();
  for (int i = 0; i < acceptance->job_count; i++) {
    json_t *job = vampd_live_document(exchange->daemon, &acceptance->jobs[i]);
    vampd_job_shorten(job, &acceptance->jobs[i]);
    json_array_append_new(jobs, job);
  }
  vampd_answer_json(&exchange->answer, 202, json_pack("{s:o}", "jobs", jobs));
  vampd_answer_header(&exchange->answer, "Location", "/v1/jobs/%s", acceptance->jobs[0].id);
}

static int accept_jobs(struct vampd_exchange *exchange, const struct vampd_device_facts *facts,
                       struct vampd_input *input, struct vampd_acceptance *acceptance) {
  struct vamp_request request = {0};
  int status = vampd_input_read(exchange, VAMPD_TAKES_CLIPS | VAMPD_TAKES_VARIATIONS, input);
  if (status == VAMP_OK) {
    status = vampd_input_parse(exchange, input->params, &request);
  }
  if (status == VAMP_OK && input->clip_count == 0) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_INVALID_FIELD, "/audio",
                         "There is no audio: send files as parts \"audio\", or base64 as \"audio\".");
    status = VAMP_INVALID;
  }
  if (status == VAMP_OK && input->clip_count * input->variations > MAX_JOBS) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_INVALID_FIELD, "/variations",
                         "These are %d jobs; at most %d can be asked for at once.",
                         input->clip_count * input->variations, MAX_JOBS);
    status = VAMP_INVALID;
  }
  if (status == VAMP_OK) {
    status = vampd_acceptance_begin(exchange, facts, input->clip_count, input->clip_count * input->variations,
                                    acceptance);
  }
  if (status == VAMP_OK) {
    status = examine(exchange, facts, input, &request, acceptance);
  }
  if (status == VAMP_OK) {
    status = make_jobs(exchange, input, &request, acceptance);
  }
  vamp_request_free(&request);
  return status == VAMP_OK ? vampd_acceptance_commit(exchange, acceptance) : status;
}

void vampd_handle_jobs_post(struct vampd_exchange *exchange) {
  const struct vampd_device_facts *facts = vampd_exchange_begin(exchange);
  struct vampd_input input = {0};
  struct vampd_acceptance acceptance = {0};
  if (facts && accept_jobs(exchange, facts, &input, &acceptance) == VAMP_OK) {
    answer(exchange, &acceptance);
  }
  vampd_acceptance_end(&acceptance);
  vampd_input_free(&input);
  vampd_exchange_finish(exchange);
}
