/* The table of what is served: see router.h. */
#include "server/http/router.h"

#include <stddef.h>
#include <string.h>

static const char *const VAMP_OFFERS[] = {"audio/wav", "audio/flac", "audio/ogg", "application/json", NULL};
static const char *const MASK_OFFERS[] = {"application/json", "image/png", "image/svg+xml", NULL};

static const struct vampd_route ROUTES[] = {
    {"POST", "/v1/vamp", vampd_handle_vamp, true, VAMP_OFFERS},
    {"POST", "/v1/masks", vampd_handle_masks, true, MASK_OFFERS},
    {"GET", "/v1/models", vampd_handle_models, false, NULL},
    {"GET", "/v1/presets", vampd_handle_presets, false, NULL},
    {"GET", "/healthz", vampd_handle_health, false, NULL},
    {"GET", "/readyz", vampd_handle_ready, false, NULL},
    {"GET", "/openapi.json", vampd_handle_openapi, false, NULL},
};

const struct vampd_route *vampd_router_find(const char *method, const char *path, const char **allowed) {
  const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
  *allowed = NULL;
  for (size_t i = 0; i < sizeof ROUTES / sizeof ROUTES[0]; i++) {
    if (strcmp(ROUTES[i].path, path) != 0) {
      continue;
    }
    if (strcmp(ROUTES[i].method, wanted) == 0) {
      return &ROUTES[i];
    }
    *allowed = strcmp(ROUTES[i].method, "GET") == 0 ? "GET, HEAD" : ROUTES[i].method;
  }
  return NULL;
}
