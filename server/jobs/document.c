/* A job as JSON: see document.h. */
#include "server/jobs/document.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "server/http/json.h"
#include "vamp/request.h"

json_t *vampd_time_json(int64_t milliseconds) {
  if (milliseconds <= 0) {
    return json_null();
  }
  char text[64], whole[40];
  time_t seconds = (time_t)(milliseconds / 1000);
  struct tm parts;
  gmtime_r(&seconds, &parts);
  strftime(whole, sizeof whole, "%Y-%m-%dT%H:%M:%S", &parts);
  snprintf(text, sizeof text, "%s.%03dZ", whole, (int)(milliseconds % 1000));
  return json_string(text);
}

const char *vampd_job_state(const struct vampd_store_job *job, const struct vampd_live_facts *facts) {
  static const char *const NAMES[] = {"queued", "done", "failed", "cancelled"};
  return job->state == VAMPD_STATE_QUEUED && facts ? vampd_phase_name(facts->phase) : NAMES[job->state];
}

json_t *vampd_stored_json(const char *text) {
  json_t *value = text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
  return value ? value : json_null();
}

static json_t *links(const struct vampd_store_job *job) {
  static const char *const ALWAYS[][2] = {{"self", ""}, {"events", "/events"}, {"input", "/input"}};
  static const char *const DONE[][2] = {{"audio", "/audio"},
                                        {"mask", "/mask"},
                                        {"mask_png", "/mask.png"},
                                        {"mask_svg", "/mask.svg"},
                                        {"tokens", "/tokens"}};
  json_t *made = json_object();
  for (size_t i = 0; i < sizeof ALWAYS / sizeof ALWAYS[0]; i++) {
    json_object_set_new(made, ALWAYS[i][0], json_sprintf("/v1/jobs/%s%s", job->id, ALWAYS[i][1]));
  }
  for (size_t i = 0; job->state == VAMPD_STATE_DONE && i < sizeof DONE / sizeof DONE[0]; i++) {
    json_object_set_new(made, DONE[i][0], json_sprintf("/v1/jobs/%s%s", job->id, DONE[i][1]));
  }
  return made;
}

/* What is only there once the job is finished. */
static void add_outcome(json_t *document, const struct vampd_store_job *job) {
  static const char *const COPIED[] = {"timings", "density", "changed",  "measures",
                                       "model",   "backend", "precision"};
  json_t *outcome = vampd_stored_json(job->outcome);
  if (job->state == VAMPD_STATE_FAILED) {
    json_object_set(document, "problem", outcome);
  }
  for (size_t i = 0; job->state == VAMPD_STATE_DONE && i < sizeof COPIED / sizeof COPIED[0]; i++) {
    json_t *value = json_object_get(outcome, COPIED[i]);
    if (value) {
      json_object_set(document, COPIED[i], value);
    }
  }
  json_decref(outcome);
}

static void add_sweep(json_t *document, const struct vampd_store_job *job, json_t *params) {
  json_t *values = json_object_get(params, "point");
  json_t *sweep = json_pack("{s:s, s:i, s:O?}", "id", job->sweep, "point", job->point, "values", values);
  json_object_set_new(document, "sweep", sweep);
}

json_t *vampd_job_document(const struct vampd_store_job *job, const struct vampd_live_facts *facts,
                           double rate) {
  bool finished = job->state != VAMPD_STATE_QUEUED;
  json_t *stored_params = vampd_stored_json(job->params);
  json_t *params = json_object_get(stored_params, "params");
  double progress = job->state == VAMPD_STATE_DONE ? 1 : facts && !finished ? (double)facts->progress : 0;
  bool queued = !finished && facts && facts->place >= 0;
  json_t *document = json_pack(
      "{s:s, s:I, s:s, s:f, s:o, s:o, s:o, s:o, s:o, s:i, s:f, s:O?, s:O, s:o}", "id", job->id, "number",
      (json_int_t)job->number, "state", vampd_job_state(job, facts), "progress", progress, "place",
      queued ? json_integer(facts->place) : json_null(), "estimate_seconds",
      !finished && facts && rate > 0 ? json_real(facts->remaining / rate) : json_null(), "created",
      vampd_time_json(job->created), "started", vampd_time_json(job->started), "finished",
      vampd_time_json(job->finished), "attempts", job->attempts, "clip_seconds", job->seconds, "seed",
      json_object_get(params, "seed"), "params", params ? params : json_null(), "links", links(job));
  if (document && job->sweep[0] != '\0') {
    add_sweep(document, job, stored_params);
  }
  if (document && finished) {
    add_outcome(document, job);
  }
  json_decref(stored_params);
  return document;
}

void vampd_job_shorten(json_t *document, const struct vampd_store_job *job) {
  if (job->params && strlen(job->params) > VAMPD_LONG_JSON) {
    json_t *sweep = json_object_get(document, "sweep");
    json_object_set_new(document, "params", json_object());
    if (sweep) {
      json_object_set_new(sweep, "values", json_object());
    }
  }
}

double vampd_params_cost(const json_t *params, double seconds, const struct vamp_model_config *model) {
  size_t passes = json_array_size(json_object_get(json_object_get(params, "mask"), "passes"));
  struct vamp_request request = {0};
  double frames = seconds * model->codec.sample_rate / model->codec.hop_length;
  if (!params || vamp_request_parse(params, &request, NULL) != VAMP_OK) {
    vamp_sampling_defaults(&request.sampling);
  }
  double cost =
      vamp_job_cost(VAMP_TASK_VARIATION, (int64_t)frames + 1, passes ? (int)passes : 1, &request.sampling);
  vamp_request_free(&request);
  return cost;
}

double vampd_job_cost(const struct vampd_store_job *job, const struct vamp_model_config *model) {
  json_t *kept = vampd_stored_json(job->params);
  double cost = vampd_params_cost(json_object_get(kept, "params"), job->seconds, model);
  json_decref(kept);
  return cost;
}
