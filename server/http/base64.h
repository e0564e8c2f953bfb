/*
 * Base64 (RFC 4648, section 4), strictly: the standard alphabet, padding required, no line breaks, no
 * bits set beyond the data. Anything else is an error, so that a string stands for exactly one sequence
 * of bytes.
 *
 * Pure functions; any thread.
 */
#ifndef VAMPD_BASE64_H
#define VAMPD_BASE64_H

#include <stddef.h>

#include "vamp/error.h"

/* *data is malloc'd (never NULL on success) and the caller's to free. VAMP_INVALID says at which
 * character the text is wrong. */
int vampd_base64_decode(const char *text, size_t length, void **data, size_t *size, struct vamp_error *error);

/* Returns a malloc'd, zero-terminated string of *length characters, or NULL when out of memory. */
char *vampd_base64_encode(const void *data, size_t size, size_t *length);

#endif
