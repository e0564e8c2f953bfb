/*
 * multipart/form-data: see multipart.h.
 *
 *   --BOUNDARY CRLF  header lines CRLF CRLF  data CRLF  --BOUNDARY CRLF ... --BOUNDARY-- [anything]
 *
 * The body is already in memory and bounded, so a part is just a slice of it: no copy, no state machine.
 * libmicrohttpd's own post processor was the alternative; it works on the fly, but it hands a part out in
 * pieces that must be gathered again, and is silent about duplicate names and missing ends.
 *
 * A part's data ends at the first CRLF--BOUNDARY. The search is memmem, which is linear in glibc.
 */
#include "server/http/multipart.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define MAX_BOUNDARY 70 /* RFC 2046 section 5.1.1 */

static bool is_name_end(char character) {
  return character == ';' || character == '\0' || character == ' ' || character == '\t';
}

/* Reads parameter `name` of a header value ("form-data; name=\"audio\"; filename=x"), quoted or bare.
 * Returns false where it is missing or does not fit. Quotes protect ';', and '\' protects a character. */
static bool read_parameter(const char *value, const char *name, char *out, size_t size) {
  size_t name_length = strlen(name);
  while ((value = strchr(value, ';')) != NULL) {
    value += 1 + strspn(value + 1, " \t");
    bool found = strncasecmp(value, name, name_length) == 0 && value[name_length] == '=';
    value += strcspn(value, "=;");
    value += *value == '=';
    bool quoted = *value == '"';
    value += quoted;
    size_t length = 0;
    while (*value && (quoted ? *value != '"' : !is_name_end(*value))) {
      value += quoted && *value == '\\' && value[1] != '\0';
      if (length + 1 < size) {
        out[length] = *value;
      }
      length++;
      value++;
    }
    if (found) {
      out[length < size ? length : size - 1] = '\0';
      return length < size && length > 0 && (!quoted || *value == '"');
    }
    value += quoted && *value == '"';
  }
  return false;
}

/* Reads the header lines of a part, which `*at` points to, and leaves `*at` at the data. */
static int read_part_header(const char **at, const char *end, struct vampd_part *part,
                            struct vamp_error *error) {
  const char *header = *at;
  size_t room = (size_t)(end - header);
  size_t searched = room < VAMPD_MULTIPART_MAX_HEADER ? room : VAMPD_MULTIPART_MAX_HEADER;
  const char *stop = memmem(header, searched, "\r\n\r\n", 4);
  if (!stop) {
    return vamp_fail(error, VAMP_INVALID,
                     "A part of the multipart body has no end of its header within %d bytes.",
                     VAMPD_MULTIPART_MAX_HEADER);
  }
  char lines[VAMPD_MULTIPART_MAX_HEADER + 1];
  size_t length = (size_t)(stop - header);
  memcpy(lines, header, length);
  lines[length] = '\0';
  bool named = false;
  for (char *line = lines, *next; line && !named; line = next) {
    next = strstr(line, "\r\n");
    if (next) {
      *next = '\0';
      next += 2;
    }
    named = strncasecmp(line, "content-disposition:", 20) == 0 &&
            read_parameter(line + 20, "name", part->name, sizeof part->name);
    if (!named || !read_parameter(line + 20, "filename", part->filename, sizeof part->filename)) {
      part->filename[0] = '\0';
    }
  }
  if (!named) {
    return vamp_fail(error, VAMP_INVALID,
                     "A part of the multipart body has no name of 1 to %zu bytes in a Content-Disposition.",
                     sizeof part->name - 1);
  }
  *at = stop + 4;
  return VAMP_OK;
}

/* After a boundary: CRLF leads to the next part (1), "--" ends the body (0), anything else is broken. */
static int read_boundary_end(const char **at, const char *end, struct vamp_error *error) {
  if (end - *at >= 2 && memcmp(*at, "--", 2) == 0) {
    return 0;
  }
  while (*at < end && (**at == ' ' || **at == '\t')) {
    (*at)++;
  }
  if (end - *at >= 2 && memcmp(*at, "\r\n", 2) == 0) {
    *at += 2;
    return 1;
  }
  return vamp_fail(error, VAMP_INVALID, "The multipart body has a boundary that ends neither a part nor it.");
}

int vampd_multipart_parse(const char *content_type, const char *body, size_t size,
                          struct vampd_part parts[VAMPD_MULTIPART_MAX_PARTS], int *count,
                          struct vamp_error *error) {
  char delimiter[4 + MAX_BOUNDARY + 1] = "\r\n--";
  if (!read_parameter(content_type, "boundary", delimiter + 4, sizeof delimiter - 4)) {
    return vamp_fail(error, VAMP_INVALID,
                     "The Content-Type names no boundary of 1 to %d characters for the multipart body.",
                     MAX_BOUNDARY);
  }
  size_t length = strlen(delimiter);
  const char *end = body + size;
  /* The first boundary stands at the start (then without its CRLF) or after a preamble. */
  const char *at = NULL;
  if (size >= length - 2 && memcmp(body, delimiter + 2, length - 2) == 0) {
    at = body + length - 2;
  } else if (size > 0 && (at = memmem(body, size, delimiter, length)) != NULL) {
    at += length;
  }
  if (!at) {
    return vamp_fail(error, VAMP_INVALID, "The multipart body does not contain its boundary.");
  }
  *count = 0;
  int more;
  while ((more = read_boundary_end(&at, end, error)) > 0) {
    if (*count == VAMPD_MULTIPART_MAX_PARTS) {
      return vamp_fail(error, VAMP_LIMIT, "The multipart body has more than %d parts.",
                       VAMPD_MULTIPART_MAX_PARTS);
    }
    struct vampd_part *part = &parts[*count];
    int status = read_part_header(&at, end, part, error);
    if (status != VAMP_OK) {
      return status;
    }
    /* Empty data may follow the header directly with the boundary: its CRLF is then the header's last. */
    const char *search = at - 2;
    const char *stop = memmem(search, (size_t)(end - search), delimiter, length);
    if (!stop) {
      return vamp_fail(error, VAMP_INVALID,
                       "The multipart body ends within part \"%s\": was the upload cut off?", part->name);
    }
    part->data = at;
    part->size = stop > at ? (size_t)(stop - at) : 0;
    (*count)++;
    at = stop + length;
  }
  return more;
}
