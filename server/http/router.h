/*
 * The table of what is served: proto/openapi.yaml, as code.
 */
#ifndef VAMPD_ROUTER_H
#define VAMPD_ROUTER_H

#include <stdbool.h>

struct vampd_exchange;

struct vampd_route {
  const char *method, *path;
  void (*handle)(struct vampd_exchange *exchange);
  bool slow;                 /* runs on a worker, takes a place in the queue, has a body */
  const char *const *offers; /* media types of a good answer, preferred first; slow routes */
};

/* The route, or NULL; then *allowed lists the methods that the path does answer to ("GET, HEAD"), or is
 * NULL where there is no such path. HEAD is GET without the body. */
const struct vampd_route *vampd_router_find(const char *method, const char *path, const char **allowed);

/* ---- the handlers -------------------------------------------------------------------------------------- */

void vampd_handle_vamp(struct vampd_exchange *exchange);   /* endpoint_vamp.c */
void vampd_handle_masks(struct vampd_exchange *exchange);  /* endpoint_masks.c */
void vampd_handle_models(struct vampd_exchange *exchange); /* endpoint_facts.c, down to here */
void vampd_handle_presets(struct vampd_exchange *exchange);
void vampd_handle_health(struct vampd_exchange *exchange);
void vampd_handle_ready(struct vampd_exchange *exchange);
void vampd_handle_openapi(struct vampd_exchange *exchange);

#endif
