/*
 * The table of what is served: proto/openapi.yaml, as code.
 *
 * A path may have one "{id}", which stands for an id as the store makes them; any other text there is a path
 * that does not exist. Likewise "{name}", which stands for the name of a file of the page (api/page.h).
 */
#ifndef VAMPD_ROUTER_H
#define VAMPD_ROUTER_H

#include <stdbool.h>

#include "server/store/store.h"

struct vampd_exchange;

enum vampd_route_kind {
  VAMPD_ROUTE_QUICK,  /* answered on the HTTP thread: looks at nothing that could wait */
  VAMPD_ROUTE_ERRAND, /* on the desk's threads: asks the store */
  VAMPD_ROUTE_CHORE,  /* the same, but it may take minutes: one after the other, on a thread of their own */
  VAMPD_ROUTE_WORK,   /* on a worker, with a body, and a place in the queue for as long as it takes */
};

struct vampd_route {
  const char *method, *path;
  void (*handle)(struct vampd_exchange *exchange);
  enum vampd_route_kind kind;
  bool open;                 /* needs no key */
  const char *const *offers; /* media types of a good answer, preferred first; NULL: not negotiated */
  const char *const *query;  /* names of the parameters it knows; NULL: none */
};

/* The route, or NULL; then `allowed` lists the methods that the path does answer to ("GET, HEAD"), and is
 * empty where there is no such path. HEAD is GET without the body. `id` gets what stands for {id}, or "".
 * Without `page` the paths of the page do not exist. */
const struct vampd_route *vampd_router_find(const char *method, const char *path, bool page,
                                            char id[VAMPD_ID_SIZE], char allowed[64]);

/* ---- the handlers -------------------------------------------------------------------------------------- */

void vampd_handle_vamp(struct vampd_exchange *exchange);   /* api/vamp.c */
void vampd_handle_masks(struct vampd_exchange *exchange);  /* api/masks.c */
void vampd_handle_tokens(struct vampd_exchange *exchange); /* api/codec.c */
void vampd_handle_audio(struct vampd_exchange *exchange);

void vampd_handle_jobs_post(struct vampd_exchange *exchange); /* api/jobs_post.c */
void vampd_handle_jobs(struct vampd_exchange *exchange);      /* api/jobs.c */
void vampd_handle_job(struct vampd_exchange *exchange);
void vampd_handle_job_delete(struct vampd_exchange *exchange);
void vampd_handle_job_events(struct vampd_exchange *exchange);
void vampd_handle_job_audio(struct vampd_exchange *exchange); /* api/results.c */
void vampd_handle_job_input(struct vampd_exchange *exchange);
void vampd_handle_job_mask(struct vampd_exchange *exchange);
void vampd_handle_job_mask_png(struct vampd_exchange *exchange);
void vampd_handle_job_mask_svg(struct vampd_exchange *exchange);
void vampd_handle_job_tokens(struct vampd_exchange *exchange);

void vampd_handle_sweeps_post(struct vampd_exchange *exchange); /* api/sweeps.c */
void vampd_handle_sweeps(struct vampd_exchange *exchange);
void vampd_handle_sweep(struct vampd_exchange *exchange);
void vampd_handle_sweep_delete(struct vampd_exchange *exchange);
void vampd_handle_sweep_table(struct vampd_exchange *exchange);
void vampd_handle_sweep_archive(struct vampd_exchange *exchange);

void vampd_handle_models(struct vampd_exchange *exchange); /* api/facts.c, down to here */
void vampd_handle_presets(struct vampd_exchange *exchange);
void vampd_handle_health(struct vampd_exchange *exchange);
void vampd_handle_ready(struct vampd_exchange *exchange);
void vampd_handle_metrics(struct vampd_exchange *exchange);
void vampd_handle_openapi(struct vampd_exchange *exchange);

void vampd_handle_page(struct vampd_exchange *exchange); /* api/page.c */

#endif
