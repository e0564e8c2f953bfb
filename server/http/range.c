/* Byte ranges and entity tags: see range.h. */
#include "server/http/range.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#define TOO_LARGE (INT64_MAX / 16)

/* Digits at *text, which moves behind them; -1 where there are none. What is too large to count is TOO_LARGE.
 */
static int64_t read_number(const char **text) {
  int64_t number = -1;
  for (; isdigit((unsigned char)**text); ++*text) {
    number = number < 0 ? 0 : number;
    number = number >= TOO_LARGE / 10 ? TOO_LARGE : 10 * number + (**text - '0');
  }
  return number;
}

static const char *skip_blank(const char *text) {
  return text + strspn(text, " \t");
}

enum vampd_range vampd_range_parse(const char *range, int64_t size, int64_t *first, int64_t *last) {
  if (!range || strncasecmp(range, "bytes=", 6) != 0) {
    return VAMPD_RANGE_WHOLE;
  }
  const char *at = skip_blank(range + 6);
  int64_t from = read_number(&at);
  if (*at++ != '-') {
    return VAMPD_RANGE_WHOLE;
  }
  int64_t to = read_number(&at);
  bool malformed = *skip_blank(at) != '\0' || (from < 0 && to < 0) || (from >= 0 && to >= 0 && to < from);
  if (malformed) {
    return VAMPD_RANGE_WHOLE;
  }
  if (from < 0) { /* the last `to` bytes */
    if (to == 0 || size == 0) {
      return VAMPD_RANGE_UNSATISFIABLE;
    }
    from = to >= size ? 0 : size - to;
    to = size - 1;
  }
  if (from >= size) {
    return VAMPD_RANGE_UNSATISFIABLE;
  }
  *first = from;
  *last = to < 0 || to >= size ? size - 1 : to;
  return VAMPD_RANGE_PART;
}

bool vampd_etag_matches(const char *list, const char *etag) {
  size_t length = strlen(etag);
  for (const char *at = list; at && *at;) {
    at += strspn(at, " \t,");
    if (*at == '*') {
      return true;
    }
    if (strncmp(at, "W/", 2) == 0) {
      at += 2;
    }
    if (*at != '"') {
      return false;
    }
    const char *end = strchr(at + 1, '"');
    if (!end) {
      return false;
    }
    if ((size_t)(end + 1 - at) == length && strncmp(at, etag, length) == 0) {
      return true;
    }
    at = end + 1;
  }
  return false;
}
