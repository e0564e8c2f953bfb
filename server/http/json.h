/*
 * JSON from strangers: jansson's parser behind bounds on what parsing costs.
 *
 * Any thread.
 */
#ifndef VAMPD_JSON_H
#define VAMPD_JSON_H

#include <jansson.h>
#include <stddef.h>

#include "vamp/error.h"

#define VAMPD_JSON_MAX_DEPTH 32        /* nesting of objects and arrays */
#define VAMPD_JSON_MAX_CONTAINERS 4096 /* objects and arrays in all */
#define VAMPD_JSON_MAX_VALUES 4000000  /* values in all: a caller's own mask bitmap is an array */

/* Parses one JSON text (UTF-8, no duplicate names). `what` is what error messages call it.
 * VAMP_INVALID with line and column where it is not JSON; VAMP_LIMIT where it is over a bound. *value is
 * a new reference. */
int vampd_json_parse(const void *text, size_t size, const char *what, json_t **value,
                     struct vamp_error *error);

/* A new JSON string; where the text is not UTF-8 (a message cut in the middle of a character), what is not
 * ASCII becomes '?'. */
json_t *vampd_json_text(const char *text);

#endif
