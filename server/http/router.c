/* The table of what is served: see router.h. */
#include "server/http/router.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "server/api/page.h"

static const char *const VAMP_OFFERS[] = {"audio/wav",        "audio/flac",      "audio/ogg",
                                          "application/json", "multipart/mixed", NULL};
static const char *const MASK_OFFERS[] = {"application/json", "image/png", "image/svg+xml", NULL};
static const char *const TOKENS_OFFERS[] = {"application/octet-stream", "application/json", NULL};
static const char *const AUDIO_OFFERS[] = {"audio/wav", "audio/flac", "audio/ogg", NULL};
static const char *const JSON_OFFERS[] = {"application/json", NULL};
static const char *const JOBS_QUERY[] = {"state", "sweep", "limit", "before", NULL};
static const char *const SWEEPS_QUERY[] = {"limit", "before", NULL};
static const char *const FORMAT_QUERY[] = {"format", NULL};
static const char *const EVENTS_QUERY[] = {"last_event_id", NULL};

#define WORK VAMPD_ROUTE_WORK
#define ERRAND VAMPD_ROUTE_ERRAND
#define CHORE VAMPD_ROUTE_CHORE
#define QUICK VAMPD_ROUTE_QUICK

static const struct vampd_route ROUTES[] = {
    {"POST", "/v1/vamp", vampd_handle_vamp, WORK, false, VAMP_OFFERS, NULL},
    {"POST", "/v1/masks", vampd_handle_masks, WORK, false, MASK_OFFERS, NULL},
    {"POST", "/v1/tokens", vampd_handle_tokens, WORK, false, TOKENS_OFFERS, NULL},
    {"POST", "/v1/audio", vampd_handle_audio, WORK, false, AUDIO_OFFERS, NULL},
    {"POST", "/v1/jobs", vampd_handle_jobs_post, WORK, false, JSON_OFFERS, NULL},
    {"GET", "/v1/jobs", vampd_handle_jobs, ERRAND, false, NULL, JOBS_QUERY},
    {"GET", "/v1/jobs/{id}", vampd_handle_job, ERRAND, false, NULL, NULL},
    {"DELETE", "/v1/jobs/{id}", vampd_handle_job_delete, ERRAND, false, NULL, NULL},
    {"GET", "/v1/jobs/{id}/events", vampd_handle_job_events, ERRAND, false, NULL, EVENTS_QUERY},
    {"GET", "/v1/jobs/{id}/audio", vampd_handle_job_audio, ERRAND, false, NULL, FORMAT_QUERY},
    {"GET", "/v1/jobs/{id}/input", vampd_handle_job_input, ERRAND, false, NULL, NULL},
    {"GET", "/v1/jobs/{id}/mask", vampd_handle_job_mask, ERRAND, false, NULL, NULL},
    {"GET", "/v1/jobs/{id}/mask.png", vampd_handle_job_mask_png, ERRAND, false, NULL, NULL},
    {"GET", "/v1/jobs/{id}/mask.svg", vampd_handle_job_mask_svg, ERRAND, false, NULL, NULL},
    {"GET", "/v1/jobs/{id}/tokens", vampd_handle_job_tokens, ERRAND, false, NULL, NULL},
    {"POST", "/v1/sweeps", vampd_handle_sweeps_post, WORK, false, JSON_OFFERS, NULL},
    {"GET", "/v1/sweeps", vampd_handle_sweeps, ERRAND, false, NULL, SWEEPS_QUERY},
    {"GET", "/v1/sweeps/{id}", vampd_handle_sweep, ERRAND, false, NULL, NULL},
    {"DELETE", "/v1/sweeps/{id}", vampd_handle_sweep_delete, ERRAND, false, NULL, NULL},
    {"GET", "/v1/sweeps/{id}/table.csv", vampd_handle_sweep_table, ERRAND, false, NULL, NULL},
    {"GET", "/v1/sweeps/{id}/archive.zip", vampd_handle_sweep_archive, CHORE, false, NULL, NULL},
    {"GET", "/v1/models", vampd_handle_models, QUICK, false, NULL, NULL},
    {"GET", "/v1/presets", vampd_handle_presets, QUICK, false, NULL, NULL},
    {"GET", "/metrics", vampd_handle_metrics, ERRAND, false, NULL, NULL},
    {"GET", "/healthz", vampd_handle_health, QUICK, true, NULL, NULL},
    {"GET", "/readyz", vampd_handle_ready, QUICK, true, NULL, NULL},
    {"GET", "/openapi.json", vampd_handle_openapi, QUICK, true, NULL, NULL},
    {"GET", "/", vampd_handle_page, QUICK, true, NULL, NULL},
    {"GET", "/web/{name}", vampd_handle_page, QUICK, true, NULL, NULL},
};

/* Whether a path is of this form; `id` gets what stands for {id}. */
static bool path_matches(const char *form, const char *path, char id[VAMPD_ID_SIZE]) {
  const char *hole = strstr(form, "{id}"), *name = strstr(form, "{name}");
  id[0] = '\0';
  if (name) {
    size_t before = (size_t)(name - form);
    return strncmp(form, path, before) == 0 && path[before] != '\0' && vampd_page_find(path + before);
  }
  if (!hole) {
    return strcmp(form, path) == 0;
  }
  size_t before = (size_t)(hole - form);
  if (strncmp(form, path, before) != 0 || strlen(path) < before + VAMPD_ID_LENGTH ||
      strcmp(hole + strlen("{id}"), path + before + VAMPD_ID_LENGTH) != 0) {
    return false;
  }
  char found[VAMPD_ID_SIZE] = "";
  memcpy(found, path + before, VAMPD_ID_LENGTH);
  if (!vampd_store_is_id(found)) {
    return false;
  }
  memcpy(id, found, sizeof found);
  return true;
}

const struct vampd_route *vampd_router_find(const char *method, const char *path, bool page,
                                            char id[VAMPD_ID_SIZE], char allowed[64]) {
  const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
  size_t used = 0;
  allowed[0] = '\0';
  for (size_t i = 0; i < sizeof ROUTES / sizeof ROUTES[0]; i++) {
    if ((!page && ROUTES[i].handle == vampd_handle_page) || !path_matches(ROUTES[i].path, path, id)) {
      continue;
    }
    if (strcmp(ROUTES[i].method, wanted) == 0) {
      return &ROUTES[i];
    }
    const char *name = strcmp(ROUTES[i].method, "GET") == 0 ? "GET, HEAD" : ROUTES[i].method;
    used += (size_t)snprintf(allowed + used, 64 - used, "%s%s", used ? ", " : "", name);
  }
  id[0] = '\0';
  return NULL;
}
