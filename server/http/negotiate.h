/*
 * Which media type to answer with (RFC 9110, section 12.5.1) and which one was sent (section 8.3).
 *
 * Pure functions; any thread.
 */
#ifndef VAMPD_NEGOTIATE_H
#define VAMPD_NEGOTIATE_H

#include <stdbool.h>

/* The best of `offers` (a NULL-terminated list, most preferred first) for the header `accept`; its index,
 * or -1 where none is acceptable. NULL or an empty header accepts everything. "audio/x-wav",
 * "audio/wave" and "audio/vnd.wave" stand for "audio/wav". */
int vampd_negotiate(const char *accept, const char *const *offers);

/* Whether a Content-Type value is of this media type, whatever its parameters. */
bool vampd_media_type_is(const char *content_type, const char *media_type);

#endif
