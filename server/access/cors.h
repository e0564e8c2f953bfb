/*
 * Cross-origin requests (Fetch standard, "CORS protocol"): which web pages may use the daemon from a browser.
 *
 * The list is exact origins ("https://studio.example.org", "http://localhost:5173", also "null"), or "*" for
 * every page. A page is trusted with nothing but its own key: credentials of the browser (cookies) are never
 * allowed, because the daemon knows none.
 *
 * Immutable once made; any thread.
 */
#ifndef VAMPD_CORS_H
#define VAMPD_CORS_H

#include <stdbool.h>
#include <stddef.h>

#include "vamp/error.h"

#define VAMPD_CORS_MAX_ORIGINS 64
#define VAMPD_CORS_MAX_HEADERS 6

struct vampd_cors;

/* From a list with commas; NULL or "" gives one that allows nobody. VAMP_INVALID names what is not an
 * origin. */
int vampd_cors_create(const char *list, struct vampd_cors **cors, struct vamp_error *error);
void vampd_cors_free(struct vampd_cors *cors); /* NULL is fine */

/* Whether a page of that origin may read answers; false for NULL, a request that no browser's page sent. */
bool vampd_cors_allows(const struct vampd_cors *cors, const char *origin);

struct vampd_cors_header {
  const char *name, *value; /* literals, or `origin` itself */
};

/* The headers for the answer to a request with this Origin (NULL: none); `preflight` for OPTIONS with an
 * Access-Control-Request-Method. Returns how many. Whatever the origin, Vary is among them where the answer
 * depends on it, for the sake of caches. */
int vampd_cors_headers(const struct vampd_cors *cors, const char *origin, bool preflight,
                       struct vampd_cors_header headers[VAMPD_CORS_MAX_HEADERS]);

#endif
