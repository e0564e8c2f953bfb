/*
 * The header of a .npy file: a Python dictionary in text, with the three keys that numpy.lib.format
 * prescribes. Only what such a header can contain is understood (strings, True and False, tuples of whole
 * numbers), each key once, in any order; there is nothing here that could evaluate anything.
 */
#include <stdint.h>
#include <string.h>

#include "engine/array/internal.h"

struct cursor {
  const char *at, *end;
};

static void skip_space(struct cursor *cursor) {
  while (cursor->at < cursor->end && (*cursor->at == ' ' || *cursor->at == '\n' || *cursor->at == '\t')) {
    cursor->at++;
  }
}

/* Takes `expected` where it comes next. */
static bool take(struct cursor *cursor, const char *expected) {
  skip_space(cursor);
  size_t length = strlen(expected);
  if ((size_t)(cursor->end - cursor->at) < length || memcmp(cursor->at, expected, length) != 0) {
    return false;
  }
  cursor->at += length;
  return true;
}

/* A quoted string without escapes, shorter than `size`. */
static bool take_string(struct cursor *cursor, char *text, size_t size) {
  skip_space(cursor);
  if (cursor->at == cursor->end || (*cursor->at != '\'' && *cursor->at != '"')) {
    return false;
  }
  char quote = *cursor->at++;
  size_t length = 0;
  while (cursor->at < cursor->end && *cursor->at != quote) {
    if (*cursor->at == '\\' || length + 1 >= size) {
      return false;
    }
    text[length++] = *cursor->at++;
  }
  text[length] = '\0';
  return take(cursor, quote == '"' ? "\"" : "'");
}

static bool take_number(struct cursor *cursor, size_t *number) {
  skip_space(cursor);
  const char *start = cursor->at;
  size_t value = 0;
  while (cursor->at < cursor->end && *cursor->at >= '0' && *cursor->at <= '9') {
    size_t digit = (size_t)(*cursor->at++ - '0');
    if (value > (SIZE_MAX - digit) / 10) {
      return false;
    }
    value = value * 10 + digit;
  }
  *number = value;
  return cursor->at > start;
}

static const char *take_shape(struct cursor *cursor, struct vamp_npy_header *header) {
  if (!take(cursor, "(")) {
    return "its shape is not a tuple";
  }
  bool separated = true;
  while (!take(cursor, ")")) {
    size_t extent;
    if (!separated || !take_number(cursor, &extent)) {
      return "its shape is not a tuple of whole numbers";
    }
    if (header->dimensions == VAMP_ARRAY_MAX_DIMENSIONS) {
      return "it has more than 4 dimensions";
    }
    header->shape[header->dimensions++] = extent;
    separated = take(cursor, ",");
  }
  return NULL;
}

enum { DESCR = 1, FORTRAN_ORDER = 2, SHAPE = 4, ALL_KEYS = 7 };

static const char *take_value(struct cursor *cursor, int key, struct vamp_npy_header *header) {
  switch (key) {
  case DESCR:
    return take_string(cursor, header->type, sizeof header->type) ? NULL
                                                                  : "its elements are not plain numbers";
  case FORTRAN_ORDER:
    header->fortran_order = take(cursor, "True");
    return header->fortran_order || take(cursor, "False") ? NULL
                                                          : "its fortran_order is neither True nor False";
  default:
    return take_shape(cursor, header);
  }
}

const char *vamp_npy_header_parse(const char *text, size_t length, struct vamp_npy_header *header) {
  struct cursor cursor = {text, text + length};
  int seen = 0;
  bool separated = true;
  *header = (struct vamp_npy_header){.dimensions = 0};
  if (!take(&cursor, "{")) {
    return "its header is not a dictionary";
  }
  while (!take(&cursor, "}")) {
    char name[16];
    if (!separated || !take_string(&cursor, name, sizeof name) || !take(&cursor, ":")) {
      return "its header is damaged";
    }
    int key = strcmp(name, "descr") == 0           ? DESCR
              : strcmp(name, "fortran_order") == 0 ? FORTRAN_ORDER
              : strcmp(name, "shape") == 0         ? SHAPE
                                                   : 0;
    if (key == 0 || seen & key) {
      return "its header has an unknown key, or a key twice";
    }
    seen |= key;
    const char *wrong = take_value(&cursor, key, header);
    if (wrong) {
      return wrong;
    }
    separated = take(&cursor, ",");
  }
  skip_space(&cursor);
  if (seen != ALL_KEYS || cursor.at != cursor.end) {
    return "its header is incomplete or followed by other text";
  }
  return NULL;
}
