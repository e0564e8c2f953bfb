/*
 * Accept and Content-Type: see negotiate.h.
 *
 * For each offer the most specific range that matches it decides its weight (an exact one over one with a
 * star for the subtype, over one with two stars); the offer with the highest weight wins, the earlier one on
 * a tie. A range that cannot be read is skipped: a header we do not understand is no reason to refuse an
 * answer that another range in it admits.
 */
#include "server/http/negotiate.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_RANGE 128

struct range {
  char type[MAX_RANGE]; /* "audio/wav", "audio/" followed by a star, or two stars */
  double weight;        /* 0 .. 1 */
};

/* Names under which WAV goes, besides the one we use. */
static const char *canonical(const char *type) {
  static const char *const WAV[] = {"audio/x-wav", "audio/wave", "audio/vnd.wave"};
  for (size_t i = 0; i < sizeof WAV / sizeof WAV[0]; i++) {
    if (strcasecmp(type, WAV[i]) == 0) {
      return "audio/wav";
    }
  }
  return type;
}

/* Reads the range at `text`, which is `length` characters long: "type/subtype;q=0.5". */
static bool read_range(const char *text, size_t length, struct range *range) {
  char copy[MAX_RANGE];
  if (length >= sizeof copy) {
    return false;
  }
  memcpy(copy, text, length);
  copy[length] = '\0';
  char *rest = copy, *token = strsep(&rest, ";");
  token += strspn(token, " \t");
  token[strcspn(token, " \t")] = '\0';
  snprintf(range->type, sizeof range->type, "%s", canonical(token));
  range->weight = 1;
  while (rest) {
    token = strsep(&rest, ";");
    token += strspn(token, " \t");
    if (strncasecmp(token, "q=", 2) == 0) {
      char *end;
      range->weight = strtod(token + 2, &end);
      if (end == token + 2 || !(range->weight >= 0 && range->weight <= 1)) {
        return false;
      }
    }
  }
  return strchr(range->type, '/') != NULL;
}

/* How closely a range matches an offer: 0 not at all, 1 everything, 2 the type, 3 exactly. */
static int closeness(const char *range, const char *offer) {
  if (strcmp(range, "*/*") == 0) {
    return 1;
  }
  size_t type = strcspn(range, "/") + 1;
  if (strcmp(range + type, "*") == 0) {
    return strncasecmp(range, offer, type) == 0 ? 2 : 0;
  }
  return strcasecmp(range, offer) == 0 ? 3 : 0;
}

static double weight_of(const char *accept, const char *offer) {
  double weight = 0;
  int best = 0;
  while (*accept) {
    size_t length = strcspn(accept, ",");
    struct range range;
    if (read_range(accept, length, &range) && closeness(range.type, offer) > best) {
      best = closeness(range.type, offer);
      weight = range.weight;
    }
    accept += length + (accept[length] == ',');
  }
  return weight;
}

int vampd_negotiate(const char *accept, const char *const *offers) {
  if (!accept || accept[strspn(accept, " \t,")] == '\0') {
    return 0;
  }
  int chosen = -1;
  double highest = 0;
  for (int i = 0; offers[i]; i++) {
    double weight = weight_of(accept, offers[i]);
    if (weight > highest) {
      highest = weight;
      chosen = i;
    }
  }
  return chosen;
}

bool vampd_media_type_is(const char *content_type, const char *media_type) {
  if (!content_type) {
    return false;
  }
  content_type += strspn(content_type, " \t");
  size_t length = strcspn(content_type, " \t;");
  return length == strlen(media_type) && strncasecmp(content_type, media_type, length) == 0;
}
