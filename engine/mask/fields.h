/*
 * Reading a JSON object strictly.
 *
 * A mask spec comes from strangers and from people who mistype: a field that is silently ignored costs
 * them an hour. So every object is read through this reader, which knows which fields were asked for and
 * refuses all others, and which names the offending field by its JSON pointer (RFC 6901).
 *
 * The first failure sticks: later reads leave their values alone, and vamp_mask_fields_finish() returns
 * it. So a parser is a list of reads with one check at its end.
 */
#ifndef VAMP_MASK_FIELDS_H
#define VAMP_MASK_FIELDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "vamp/error.h"

#define VAMP_MASK_POINTER_SIZE 128 /* as vamp_error.field */
#define VAMP_MASK_QUOTE_SIZE 68
#define VAMP_MASK_FIELDS_MAX 24

/* out = base / token, the token escaped; one too long is cut at a character's boundary. */
void vamp_mask_pointer_join(char out[VAMP_MASK_POINTER_SIZE], const char *base, const char *token);
void vamp_mask_pointer_index(char out[VAMP_MASK_POINTER_SIZE], const char *base, int index);

/* A user's string for a message: in double quotes, long ones cut at a character's boundary. */
void vamp_mask_quote(char out[VAMP_MASK_QUOTE_SIZE], const char *text);

struct vamp_mask_fields {
  const json_t *object;
  const char *pointer; /* of the object; borrowed */
  struct vamp_error *error;
  int status; /* 0, or the first failure */
  int asked_count;
  const char *asked[VAMP_MASK_FIELDS_MAX];
};

/* Begins to read `value`, which must be an object. */
void vamp_mask_fields_open(struct vamp_mask_fields *fields, const json_t *value, const char *pointer,
                           struct vamp_error *error);

/* The raw value of a field, or NULL where it is missing. */
const json_t *vamp_mask_fields_value(struct vamp_mask_fields *fields, const char *name);

/* Each leaves *value alone where the field is missing, and returns whether it was there. Numbers with no
 * fractional part, such as 7.0, are integers. */
bool vamp_mask_fields_integer(struct vamp_mask_fields *fields, const char *name, int64_t least, int64_t most,
                              int64_t *value);
bool vamp_mask_fields_number(struct vamp_mask_fields *fields, const char *name, double least, double most,
                             double *value);
/* One of the strings of `choices`, which ends with NULL; *value is its index. */
bool vamp_mask_fields_choice(struct vamp_mask_fields *fields, const char *name, const char *const *choices,
                             int *value);

/* true or false. */
bool vamp_mask_fields_boolean(struct vamp_mask_fields *fields, const char *name, bool *value);

/* Records a failure at field `name`, or at the object itself where `name` is NULL. Returns the status in
 * effect. */
int vamp_mask_fields_fail(struct vamp_mask_fields *fields, int status, const char *name, const char *format,
                          ...) __attribute__((format(printf, 4, 5)));

/* Refuses fields that nobody asked for; returns 0 or the first failure. */
int vamp_mask_fields_finish(struct vamp_mask_fields *fields);

/* The integer that a JSON number stands for; false where it is none. */
bool vamp_mask_json_integer(const json_t *value, int64_t *integer);

#endif
