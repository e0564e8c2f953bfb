/* What the files of engine/request share. */
#ifndef VAMP_REQUEST_INTERNAL_H
#define VAMP_REQUEST_INTERNAL_H

#include "vamp/request.h"

/* The largest integer that every JSON reader keeps exactly: 2^53 - 1 (RFC 8259, section 6). */

/* Reads the object "sampling" into `sampling`, which holds the defaults; `pointer` is where it stands. */
int vamp_sampling_parse(const json_t *object, const char *pointer, struct vamp_sampling *sampling,
                        struct vamp_error *error);

/* Whether "sampling" has a field of this name. */
bool vamp_sampling_has(const char *name);

/* The RFC 6901 pointer to member `name` of what `parent` points to; a long name is cut to what fits. */
void vamp_json_point(const char *parent, const char *name, char *pointer, size_t size);

/* A whole number from JSON: an integer, or a real without a fraction (12.0), as JSON Schema counts it. */
int vamp_json_whole(const json_t *value, const char *pointer, int64_t minimum, int64_t maximum, int64_t *out,
                    struct vamp_error *error);

#endif
