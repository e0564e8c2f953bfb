/*
 * multipart/form-data (RFC 7578, in the framing of RFC 2046 section 5.1), over a body that is in memory.
 *
 * Pure functions; any thread.
 */
#ifndef VAMPD_MULTIPART_H
#define VAMPD_MULTIPART_H

#include <stddef.h>

#include "vamp/error.h"

#define VAMPD_MULTIPART_MAX_PARTS 66
#define VAMPD_MULTIPART_MAX_HEADER 4096 /* bytes of one part's header lines */

/* One part. Everything but the names points into the body. */
struct vampd_part {
  char name[64];
  char filename[128]; /* "" where there is none, or a longer one */
  const char *data;
  size_t size;
};

/* Splits `body` at the boundary that `content_type` names. VAMP_INVALID where the framing is broken or
 * the last boundary is missing (a truncated upload), VAMP_LIMIT where there are too many parts. */
int vampd_multipart_parse(const char *content_type, const char *body, size_t size,
                          struct vampd_part parts[VAMPD_MULTIPART_MAX_PARTS], int *count,
                          struct vamp_error *error);

#endif
