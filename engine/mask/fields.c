/* Reading a JSON object strictly: see fields.h. */
#include "engine/mask/fields.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The largest length <= `length` that does not cut a UTF-8 character of `text` in two. Error texts go
 * back to the user as JSON, which half a character would make invalid. */
static size_t whole_characters(const char *text, size_t length) {
  while (length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80) {
    length--;
  }
  return length;
}

void vamp_mask_pointer_join(char out[VAMP_MASK_POINTER_SIZE], const char *base, const char *token) {
  char escaped[VAMP_MASK_POINTER_SIZE];
  size_t used = 0;
  for (const char *c = token; *c && used + 3 < sizeof escaped; c++) {
    if (*c == '~' || *c == '/') {
      escaped[used++] = '~';
      escaped[used++] = *c == '~' ? '0' : '1';
    } else {
      escaped[used++] = *c;
    }
  }
  escaped[used] = '\0';
  char joined[2 * VAMP_MASK_POINTER_SIZE];
  snprintf(joined, sizeof joined, "%.*s/%s", VAMP_MASK_POINTER_SIZE - 1, base, escaped);
  size_t length = strlen(joined);
  if (length >= VAMP_MASK_POINTER_SIZE) {
    length = whole_characters(joined, VAMP_MASK_POINTER_SIZE - 1);
  } else if (token[0] != '\0') {
    /* The token may itself have been cut in the middle of a character. */
    size_t start = length;
    while (start > 0 && ((unsigned char)joined[start - 1] & 0xC0) == 0x80) {
      start--;
    }
    unsigned char lead = start > 0 ? (unsigned char)joined[start - 1] : 0;
    size_t needs = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;
    if (length - start < needs) {
      length = start - 1;
    }
  }
  memcpy(out, joined, length);
  out[length] = '\0';
}

void vamp_mask_pointer_index(char out[VAMP_MASK_POINTER_SIZE], const char *base, int index) {
  char token[16];
  snprintf(token, sizeof token, "%d", index);
  vamp_mask_pointer_join(out, base, token);
}

void vamp_mask_quote(char out[VAMP_MASK_QUOTE_SIZE], const char *text) {
  size_t room = VAMP_MASK_QUOTE_SIZE - 6; /* two quotes, three dots, the end */
  size_t length = strlen(text);
  bool cut = length > room;
  if (cut) {
    length = whole_characters(text, room);
  }
  snprintf(out, VAMP_MASK_QUOTE_SIZE, "\"%.*s%s\"", (int)length, text, cut ? "..." : "");
}

static const char *type_name(const json_t *value) {
  switch (json_typeof(value)) {
  case JSON_OBJECT:
    return "an object";
  case JSON_ARRAY:
    return "an array";
  case JSON_STRING:
    return "a string";
  case JSON_INTEGER:
  case JSON_REAL:
    return "a number";
  case JSON_TRUE:
  case JSON_FALSE:
    return "a boolean";
  default:
    return "null";
  }
}

int vamp_mask_fields_fail(struct vamp_mask_fields *fields, int status, const char *name, const char *format,
                          ...) {
  if (fields->status != 0) {
    return fields->status;
  }
  char message[384];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  char pointer[VAMP_MASK_POINTER_SIZE];
  if (name) {
    vamp_mask_pointer_join(pointer, fields->pointer, name);
  } else {
    snprintf(pointer, sizeof pointer, "%s", fields->pointer);
  }
  fields->status = vamp_fail_field(fields->error, status, pointer, "%s", message);
  return fields->status;
}

void vamp_mask_fields_open(struct vamp_mask_fields *fields, const json_t *value, const char *pointer,
                           struct vamp_error *error) {
  *fields = (struct vamp_mask_fields){.object = value, .pointer = pointer, .error = error};
  if (!json_is_object(value)) {
    vamp_mask_fields_fail(fields, VAMP_INVALID, NULL, "a mask is a JSON object, and this is %s.",
                          value ? type_name(value) : "missing");
  }
}

const json_t *vamp_mask_fields_value(struct vamp_mask_fields *fields, const char *name) {
  if (fields->asked_count < VAMP_MASK_FIELDS_MAX) {
    fields->asked[fields->asked_count++] = name;
  }
  return fields->status == 0 ? json_object_get(fields->object, name) : NULL;
}

bool vamp_mask_json_integer(const json_t *value, int64_t *integer) {
  if (json_is_integer(value)) {
    *integer = (int64_t)json_integer_value(value);
    return true;
  }
  double real = json_is_real(value) ? json_real_value(value) : NAN;
  if (!(fabs(real) <= 9007199254740992.0) || real != floor(real)) {
    return false;
  }
  *integer = (int64_t)real;
  return true;
}

bool vamp_mask_fields_integer(struct vamp_mask_fields *fields, const char *name, int64_t least, int64_t most,
                              int64_t *value) {
  const json_t *field = vamp_mask_fields_value(fields, name);
  if (!field) {
    return false;
  }
  int64_t integer;
  if (!vamp_mask_json_integer(field, &integer)) {
    vamp_mask_fields_fail(fields, VAMP_INVALID, name, "%s must be an integer, and is %s%s.", name,
                          json_is_real(field) ? "a number with a fraction or too large" : type_name(field),
                          json_is_string(field) ? ": leave out the quotes" : "");
  } else if (integer < least || integer > most) {
    vamp_mask_fields_fail(fields, VAMP_INVALID, name, "%s is %lld: it must be an integer from %lld to %lld.",
                          name, (long long)integer, (long long)least, (long long)most);
  } else {
    *value = integer;
  }
  return true;
}

bool vamp_mask_fields_number(struct vamp_mask_fields *fields, const char *name, double least, double most,
                             double *value) {
  const json_t *field = vamp_mask_fields_value(fields, name);
  if (!field) {
    return false;
  }
  double number = json_number_value(field);
  if (!json_is_number(field)) {
    vamp_mask_fields_fail(fields, VAMP_INVALID, name, "%s must be a number, and is %s%s.", name,
                          type_name(field), json_is_string(field) ? ": leave out the quotes" : "");
  } else if (!(number >= least && number <= most)) {
    vamp_mask_fields_fail(fields, VAMP_INVALID, name, "%s is %g: it must be from %g to %g.", name, number,
                          least, most);
  } else {
    *value = number;
  }
  return true;
}

/* "a", "b" or "c" */
static void list_choices(char *out, size_t size, const char *const *choices) {
  size_t used = 0;
  out[0] = '\0';
  for (int i = 0; choices[i] && used < size; i++) {
    const char *comma = i == 0 ? "" : choices[i + 1] ? ", " : " or ";
    used += (size_t)snprintf(out + used, size - used, "%s\"%s\"", comma, choices[i]);
  }
}

bool vamp_mask_fields_choice(struct vamp_mask_fields *fields, const char *name, const char *const *choices,
                             int *value) {
  const json_t *field = vamp_mask_fields_value(fields, name);
  if (!field) {
    return false;
  }
  const char *text = json_string_value(field);
  for (int i = 0; text && choices[i]; i++) {
    if (strcmp(text, choices[i]) == 0) {
      *value = i;
      return true;
    }
  }
  char known[256], quoted[VAMP_MASK_QUOTE_SIZE];
  list_choices(known, sizeof known, choices);
  vamp_mask_quote(quoted, text ? text : "");
  vamp_mask_fields_fail(fields, VAMP_INVALID, name, "%s is %s: it must be %s.", name,
                        text ? quoted : type_name(field), known);
  return true;
}

bool vamp_mask_fields_boolean(struct vamp_mask_fields *fields, const char *name, bool *value) {
  const json_t *field = vamp_mask_fields_value(fields, name);
  if (!field) {
    return false;
  }
  if (json_is_boolean(field)) {
    *value = json_is_true(field);
  } else {
    vamp_mask_fields_fail(fields, VAMP_INVALID, name, "%s must be true or false, and is %s.", name,
                          type_name(field));
  }
  return true;
}

int vamp_mask_fields_finish(struct vamp_mask_fields *fields) {
  if (fields->status != 0) {
    return fields->status;
  }
  /* Jansson's iterators want a pointer that is not const and change nothing. */
  for (void *at = json_object_iter((json_t *)fields->object); at;
       at = json_object_iter_next((json_t *)fields->object, at)) {
    const char *key = json_object_iter_key(at);
    bool known = false;
    for (int i = 0; i < fields->asked_count && !known; i++) {
      known = strcmp(key, fields->asked[i]) == 0;
    }
    if (!known) {
      char list[256] = "";
      size_t used = 0;
      for (int i = 0; i < fields->asked_count && used < sizeof list; i++) {
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", fields->asked[i]);
      }
      char quoted[VAMP_MASK_QUOTE_SIZE];
      vamp_mask_quote(quoted, key);
      return vamp_mask_fields_fail(fields, VAMP_INVALID, key, "%s is not a field here. Known are: %s.",
                                   quoted, list);
    }
  }
  return 0;
}
