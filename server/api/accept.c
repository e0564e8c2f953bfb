/* Accepting durable jobs: see accept.h. */
#include "server/api/accept.h"

#include <stdlib.h>
#include <string.h>

#include "server/jobs/document.h"
#include "server/jobs/result.h"
#include "server/jobs/runner.h"
#include "server/log.h"

/* Bytes of parameters that are kept. They take some hundred, unless there is a bitmap in them, which every
 * point of a sweep would repeat. */
#define MAX_PARAMS ((size_t)256 << 10)       /* of a job */
#define MAX_PARAMS_IN_ALL ((size_t)16 << 20) /* of a request */

static int refuse(struct vampd_exchange *exchange, const struct vamp_error *error) {
  vampd_answer_error(&exchange->answer, error, VAMPD_PROBLEM_INTERNAL);
  return error->status;
}

/* Takes places in the queue for so many more. */
static int take_places(struct vampd_exchange *exchange, int jobs) {
  struct vampd *daemon = exchange->daemon;
  int queued, running, most = exchange->settings->options.max_jobs_queued;
  if (vampd_house_expect(daemon->house, jobs, most, &queued, &running)) {
    return VAMP_OK;
  }
  if (jobs > most) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_TOO_LARGE, NULL,
                         "These are %d jobs; at most %d can wait at once (--max-jobs-queued).", jobs, most);
    return VAMP_LIMIT;
  }
  vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_QUEUE_FULL, NULL,
                       "%d jobs are waiting, and %d more would be too many. Try again later.", queued, jobs);
  /* When there is room again: after as many of those that wait as are too many. */
  double seconds = vampd_runner_backlog(daemon->runner) * (queued + jobs - most) / (queued + running + 1);
  exchange->answer.retry_after = seconds < 1 ? 1 : seconds > 3600 ? 3600 : (int)(seconds + 0.999);
  return VAMP_BUSY;
}

int vampd_acceptance_begin(struct vampd_exchange *exchange, const struct vampd_device_facts *facts, int clips,
                           int jobs, struct vampd_acceptance *acceptance) {
  struct vamp_error error = {0};
  int status = take_places(exchange, jobs);
  if (status != VAMP_OK) {
    return status;
  }
  *acceptance = (struct vampd_acceptance){
      .facts = facts, .house = exchange->daemon->house, .places = jobs, .clip_room = clips, .job_room = jobs};
  acceptance->clips = calloc((size_t)clips, sizeof *acceptance->clips);
  acceptance->clip_reserves = calloc((size_t)clips, sizeof *acceptance->clip_reserves);
  acceptance->jobs = calloc((size_t)jobs, sizeof *acceptance->jobs);
  acceptance->costs = calloc((size_t)jobs, sizeof *acceptance->costs);
  if (!acceptance->clips || !acceptance->clip_reserves || !acceptance->jobs || !acceptance->costs) {
    vamp_fail(&error, VAMP_MEMORY, "Out of memory while accepting %d jobs.", jobs);
    return refuse(exchange, &error);
  }
  return VAMP_OK;
}

void vampd_acceptance_end(struct vampd_acceptance *acceptance) {
  for (int i = 0; i < acceptance->job_count; i++) {
    vampd_store_job_free(&acceptance->jobs[i]);
  }
  if (acceptance->places > 0) {
    vampd_house_expect_no_more(acceptance->house, acceptance->places);
  }
  free(acceptance->clips);
  free(acceptance->clip_reserves);
  free(acceptance->jobs);
  free(acceptance->costs);
  *acceptance = (struct vampd_acceptance){0};
}

int vampd_acceptance_clip(struct vampd_acceptance *acceptance, const struct vampd_file *file,
                          const struct vamp_variation *variation, struct vamp_error *error) {
  int index = acceptance->clip_count;
  struct vampd_store_input *clip = &acceptance->clips[index];
  int status = vampd_store_new_id(clip->id, error);
  if (status != VAMP_OK) {
    return status;
  }
  int frames = vamp_mask_plan_mask(variation->plan, 0)->frames;
  clip->seconds = (double)variation->clip.count / variation->sample_rate;
  clip->bytes = file->data;
  clip->size = file->size;
  memcpy(clip->name, file->name, sizeof clip->name);
  strncpy(clip->media_type, vampd_sniff_audio(file->data, file->size), sizeof clip->media_type - 1);
  acceptance->clip_reserves[index] =
      vampd_result_reserve(variation->clip.count, variation->codebooks, frames);
  acceptance->clip_count++;
  return VAMP_OK;
}

int vampd_acceptance_job(struct vampd_acceptance *acceptance, int clip, json_t *params, json_t *point,
                         struct vamp_error *error) {
  struct vampd_store_job *job = &acceptance->jobs[acceptance->job_count];
  const struct vampd_store_input *input = &acceptance->clips[clip];
  int status = vampd_store_new_id(job->id, error);
  if (status != VAMP_OK) {
    return status;
  }
  json_object_set_new(params, "model", json_string(acceptance->facts->model.name));
  if (!json_object_get(params, "format")) {
    json_object_set_new(params, "format", json_string("wav"));
  }
  json_t *kept = json_pack("{s:O, s:O*}", "params", params, "point", point);
  job->params = kept ? json_dumps(kept, JSON_COMPACT) : NULL;
  json_decref(kept);
  if (!job->params) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while accepting a job.");
  }
  size_t length = strlen(job->params);
  acceptance->params += length;
  acceptance->job_count++; /* from here on it is vampd_acceptance_end's */
  if (length > MAX_PARAMS || acceptance->params > MAX_PARAMS_IN_ALL) {
    return vamp_fail(
        error, VAMP_LIMIT,
        "The parameters are too long to be kept: at most %zu KiB for a job and %zu MiB for all of "
        "a request. A bitmap is shorter as run lengths.",
        MAX_PARAMS >> 10, MAX_PARAMS_IN_ALL >> 20);
  }
  memcpy(job->input, input->id, sizeof job->input);
  job->seconds = input->seconds;
  job->point = acceptance->job_count - 1;
  acceptance->costs[job->point] = vampd_params_cost(params, input->seconds, &acceptance->facts->model);
  acceptance->audio_seconds += input->seconds;
  acceptance->reserve += acceptance->clip_reserves[clip];
  return VAMP_OK;
}

int vampd_acceptance_commit(struct vampd_exchange *exchange, struct vampd_acceptance *acceptance) {
  struct vampd *daemon = exchange->daemon;
  struct vamp_error error = {0};
  int count = acceptance->job_count;
  int status = vampd_exchange_take_jobs(exchange, count, acceptance->audio_seconds);
  if (status != VAMP_OK) {
    return status;
  }
  for (int i = 0; i < count; i++) {
    struct vampd_store_job *job = &acceptance->jobs[i];
    strncpy(job->owner, vampd_caller_name(exchange->caller), sizeof job->owner - 1);
    if (acceptance->sweep) {
      memcpy(job->sweep, acceptance->sweep->id, sizeof job->sweep);
    }
  }
  status = vampd_store_accept(daemon->store, acceptance->clips, acceptance->clip_count, acceptance->jobs,
                              count, acceptance->sweep, acceptance->reserve, &error);
  if (status != VAMP_OK) {
    vampd_access_undo_jobs(exchange->caller, count, acceptance->audio_seconds);
    return refuse(exchange, &error);
  }
  /* From here on they are accepted: what cannot enter the queue now enters it at the next start. */
  acceptance->places -= count;
  if (vampd_runner_enter(daemon->runner, acceptance->jobs, acceptance->costs, count, exchange->caller,
                         &error) != VAMP_OK) {
    vampd_log("error: accepted jobs wait for a restart: %s", error.message);
  }
  return VAMP_OK;
}

int vampd_acceptance_seed(json_t *params, uint64_t seed, struct vamp_error *error) {
  return json_object_set_new(params, "seed", json_integer((json_int_t)seed)) == 0
             ? VAMP_OK
             : vamp_fail(error, VAMP_MEMORY, "Out of memory while accepting the jobs.");
}

json_t *vampd_live_document(struct vampd *daemon, const struct vampd_store_job *job) {
  struct vampd_live_facts facts;
  bool live = job->state == VAMPD_STATE_QUEUED && vampd_house_facts(daemon->house, job->id, &facts);
  return vampd_job_document(job, live ? &facts : NULL, vampd_metrics_rate(daemon->metrics));
}
