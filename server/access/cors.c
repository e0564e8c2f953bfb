/*
 * Cross-origin requests: see cors.h.
 *
 * Origins are compared as texts: a browser sends them in one form only (scheme and host in lower case, no
 * default port, no path), so a listed origin that has another form could never match and is refused when it
 * is read.
 */
#include "server/access/cors.h"

#include <stdlib.h>
#include <string.h>

#define MAX_ORIGIN 253 /* bytes: as long as a host's name may be */

static const char METHODS[] = "GET, HEAD, POST, DELETE";
/* With "*" in the place of this list Authorization would still have to be named. */
static const char REQUEST_HEADERS[] =
    "Authorization, Content-Type, Accept, Last-Event-ID, Range, If-Range, If-None-Match";
static const char EXPOSED_HEADERS[] =
    "Location, Retry-After, ETag, Accept-Ranges, Content-Range, Content-Disposition, Server-Timing, "
    "WWW-Authenticate, Vampd-Request-Id, Vampd-Job-Id, Vampd-Seed, Vampd-Density, Vampd-Density-Coarse, "
    "Vampd-Density-Codebooks";
static const char MAX_AGE[] = "7200"; /* seconds; the longest that browsers take */

struct vampd_cors {
  bool any; /* "*" */
  int count;
  char *origins[VAMPD_CORS_MAX_ORIGINS];
};

/* scheme "://" host [":" port], as a browser writes it. */
static bool is_origin(const char *text) {
  if (strcmp(text, "null") == 0) {
    return true;
  }
  const char *scheme_end = strstr(text, "://");
  size_t scheme = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789+-.");
  if (!scheme_end || scheme == 0 || scheme_end != text + scheme) {
    return false;
  }
  const char *host = scheme_end + 3;
  size_t length = host[0] == '[' ? strspn(host + 1, "0123456789abcdef:.") + 1
                                 : strspn(host, "abcdefghijklmnopqrstuvwxyz0123456789-._");
  bool closed = host[0] != '[' || host[length++] == ']';
  const char *rest = host + length;
  if (!closed || length == 0) {
    return false;
  }
  size_t port = rest[0] == ':' ? strspn(rest + 1, "0123456789") : 0;
  bool standard = (strncmp(text, "http:", 5) == 0 && strcmp(rest, ":80") == 0) ||
                  (strncmp(text, "https:", 6) == 0 && strcmp(rest, ":443") == 0);
  return rest[0] == '\0' || (rest[0] == ':' && port > 0 && rest[port + 1] == '\0' && !standard);
}

static int add_origin(struct vampd_cors *cors, const char *text, size_t length, struct vamp_error *error) {
  if (length == 1 && text[0] == '*') {
    cors->any = true;
    return VAMP_OK;
  }
  char *origin = length <= MAX_ORIGIN ? strndup(text, length) : NULL;
  if (length <= MAX_ORIGIN && !origin) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory.");
  }
  if (!origin || !is_origin(origin)) {
    free(origin);
    return vamp_fail(error, VAMP_INVALID,
                     "cors-origins: \"%.*s\" is no origin: it is like https://studio.example.org or "
                     "http://localhost:5173, without a path, or * for all.",
                     (int)(length < 100 ? length : 100), text);
  }
  if (cors->count == VAMPD_CORS_MAX_ORIGINS) {
    free(origin);
    return vamp_fail(error, VAMP_LIMIT, "cors-origins: there may be %d.", VAMPD_CORS_MAX_ORIGINS);
  }
  cors->origins[cors->count++] = origin;
  return VAMP_OK;
}

int vampd_cors_create(const char *list, struct vampd_cors **cors, struct vamp_error *error) {
  struct vampd_cors *made = calloc(1, sizeof *made);
  if (!made) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory.");
  }
  for (const char *at = list ? list : ""; *at;) {
    at += strspn(at, ", \t");
    size_t length = strcspn(at, ", \t");
    int status = length > 0 ? add_origin(made, at, length, error) : VAMP_OK;
    if (status != VAMP_OK) {
      vampd_cors_free(made);
      return status;
    }
    at += length;
  }
  *cors = made;
  return VAMP_OK;
}

void vampd_cors_free(struct vampd_cors *cors) {
  if (cors) {
    for (int i = 0; i < cors->count; i++) {
      free(cors->origins[i]);
    }
    free(cors);
  }
}

bool vampd_cors_allows(const struct vampd_cors *cors, const char *origin) {
  bool found = origin && cors->any;
  for (int i = 0; i < cors->count && origin && !found; i++) {
    found = strcmp(cors->origins[i], origin) == 0;
  }
  return found;
}

int vampd_cors_headers(const struct vampd_cors *cors, const char *origin, bool preflight,
                       struct vampd_cors_header headers[VAMPD_CORS_MAX_HEADERS]) {
  int count = 0;
  if (!cors->any && cors->count > 0) {
    headers[count++] = (struct vampd_cors_header){"Vary", "Origin"};
  }
  if (!vampd_cors_allows(cors, origin)) {
    return count;
  }
  headers[count++] = (struct vampd_cors_header){"Access-Control-Allow-Origin", cors->any ? "*" : origin};
  if (preflight) {
    headers[count++] = (struct vampd_cors_header){"Access-Control-Allow-Methods", METHODS};
    headers[count++] = (struct vampd_cors_header){"Access-Control-Allow-Headers", REQUEST_HEADERS};
    headers[count++] = (struct vampd_cors_header){"Access-Control-Max-Age", MAX_AGE};
  } else {
    headers[count++] = (struct vampd_cors_header){"Access-Control-Expose-Headers", EXPOSED_HEADERS};
  }
  return count;
}
