/*
 * What the daemon can say without working: models, presets, health, the contract. On an HTTP thread.
 */
#include "server/embed.h"
#include "server/http/exchange.h"
#include "server/http/http.h"
#include "server/http/router.h"
#include "vamp/mask.h"

static json_t *describe_model(const struct vampd_settings *settings, const struct vampd_device_facts *facts) {
  const struct vamp_model_config *model = &facts->model;
  const struct vamp_codec_config *codec = &model->codec;
  json_t *value = json_pack("{s:o, s:o, s:o, s:s, s:o, s:s}", "name", json_string(model->name), "license",
                            json_string(model->license), "description", json_string(model->description),
                            "backend", facts->backend, "device", json_string(facts->description), "precision",
                            vamp_precision_name(facts->precision));
  json_t *numbers =
      json_pack("{s:i, s:i, s:f, s:i, s:i, s:i, s:i}", "sample_rate", codec->sample_rate, "hop_length",
                codec->hop_length, "frame_rate", (double)codec->sample_rate / codec->hop_length, "codebooks",
                codec->n_codebooks, "coarse_codebooks", model->coarse.n_codebooks, "codebook_size",
                codec->codebook_size, "max_seconds", settings->options.max_seconds);
  if (!value || !numbers || json_object_update(value, numbers) != 0) {
    json_decref(value);
    value = NULL;
  }
  json_decref(numbers);
  return value;
}

void vampd_handle_models(struct vampd_exchange *exchange) {
  const struct vampd_device_facts *facts = vampd_device_facts(exchange->daemon->device);
  json_t *models = json_array();
  if (facts) {
    json_array_append_new(models, describe_model(exchange->settings, facts));
  }
  vampd_answer_json(&exchange->answer, 200, json_pack("{s:o}", "models", models));
}

void vampd_handle_presets(struct vampd_exchange *exchange) {
  vampd_answer_json(&exchange->answer, 200, json_pack("{s:o}", "presets", vamp_mask_presets_json()));
}

void vampd_handle_health(struct vampd_exchange *exchange) {
  vampd_answer_json(&exchange->answer, 200,
                    json_pack("{s:s, s:s}", "status", "ok", "version", VAMPD_VERSION));
}

void vampd_handle_ready(struct vampd_exchange *exchange) {
  if (vampd_admission_closed(&exchange->daemon->admission)) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_STOPPING, NULL, "The daemon is stopping.");
  } else if (!exchange->daemon->ready) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_NOT_READY, NULL, "The model is not loaded.");
  } else {
    int queued, running;
    vampd_house_count(exchange->daemon->house, &queued, &running);
    int jobs = vampd_admission_jobs(&exchange->daemon->admission) + queued + running;
    vampd_answer_json(&exchange->answer, 200, json_pack("{s:s, s:i}", "status", "ready", "jobs", jobs));
  }
}

void vampd_handle_metrics(struct vampd_exchange *exchange) {
  struct vampd *daemon = exchange->daemon;
  struct vampd_store_usage usage = {0};
  struct vampd_gauges gauges = {.requests = vampd_admission_jobs(&daemon->admission),
                                .connections = vampd_http_connections(daemon)};
  size_t size;
  vampd_store_usage(daemon->store, &usage, NULL);
  vampd_house_count(daemon->house, &gauges.jobs_waiting, &gauges.jobs_running);
  gauges.store_bytes = usage.bytes;
  gauges.store_free_bytes = usage.free_bytes;
  gauges.store_jobs = usage.jobs;
  char *text = vampd_metrics_text(daemon->metrics, &gauges, &size);
  if (text) {
    vampd_answer_bytes(&exchange->answer, 200, "text/plain; version=0.0.4; charset=utf-8", text, size);
  } else {
    vampd_answer_json(&exchange->answer, 200, NULL);
  }
  vampd_exchange_finish(exchange);
}

VAMPD_EMBED(vampd_openapi, "proto/openapi.json");

void vampd_handle_openapi(struct vampd_exchange *exchange) {
  vampd_answer_bytes(&exchange->answer, 200, "application/json", (void *)vampd_openapi,
                     (size_t)(vampd_openapi_end - vampd_openapi));
  exchange->answer.borrowed = true;
}
