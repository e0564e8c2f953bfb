/*
 * The page for browsers: clients/web, the JavaScript client that it uses, and a clip to begin with, inside
 * the binary.
 *
 * Immutable; any thread.
 */
#ifndef VAMPD_PAGE_H
#define VAMPD_PAGE_H

#include <stddef.h>

struct vampd_page_file {
  const char *name; /* as in /web/NAME; of the page itself "" */
  const char *media_type;
  const unsigned char *bytes, *end;
};

/* The file of that name, or NULL. */
const struct vampd_page_file *vampd_page_find(const char *name);

#endif
