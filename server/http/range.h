/*
 * Byte ranges (RFC 9110, section 14): pure functions, any thread.
 */
#ifndef VAMPD_RANGE_H
#define VAMPD_RANGE_H

#include <stdbool.h>
#include <stdint.h>

enum vampd_range {
  VAMPD_RANGE_WHOLE,         /* no range, one that is not understood, or several: the answer is everything */
  VAMPD_RANGE_PART,          /* first .. last, both within the body */
  VAMPD_RANGE_UNSATISFIABLE, /* 416 */
};

/* What the header `range` ("bytes=0-499", "bytes=500-", "bytes=-500") asks for of a body of `size` bytes.
 * NULL is no header. Several ranges in one header are answered with the whole body, as the RFC permits. */
enum vampd_range vampd_range_parse(const char *range, int64_t size, int64_t *first, int64_t *last);

/* Whether an entity tag (quoted, strong) is in a list as If-None-Match has it: weak comparison; "*" is any.
 */
bool vampd_etag_matches(const char *list, const char *etag);

#endif
