/*
 * JSON from strangers: see json.h.
 *
 * jansson bounds its recursion (2,048 deep) but not its memory, and a byte of "[[[[" or "{},{},{}" costs
 * it up to a hundred: 64 MiB of that would take gigabytes. So the text is scanned once beforehand,
 * counting what will become an allocation. The scan only needs to know strings from structure; everything
 * else about the grammar is jansson's business.
 */
#include "server/http/json.h"

#include <stdbool.h>

static int check_bounds(const char *text, size_t size, const char *what, struct vamp_error *error) {
  size_t depth = 0, containers = 0, values = 1;
  bool in_string = false;
  for (size_t i = 0; i < size; i++) {
    char character = text[i];
    if (in_string) {
      i += character == '\\';
      in_string = character != '"';
    } else if (character == '"') {
      in_string = true;
    } else if (character == '[' || character == '{') {
      depth++;
      containers++;
    } else if (character == ']' || character == '}') {
      depth -= depth > 0;
    } else if (character == ',') {
      values++;
    }
    if (depth > VAMPD_JSON_MAX_DEPTH) {
      return vamp_fail(error, VAMP_LIMIT, "%s is nested deeper than %d levels.", what, VAMPD_JSON_MAX_DEPTH);
    }
    if (containers > VAMPD_JSON_MAX_CONTAINERS || values > VAMPD_JSON_MAX_VALUES) {
      return vamp_fail(error, VAMP_LIMIT, "%s holds more than %d objects and arrays or %d values.", what,
                       VAMPD_JSON_MAX_CONTAINERS, VAMPD_JSON_MAX_VALUES);
    }
  }
  return VAMP_OK;
}

int vampd_json_parse(const void *text, size_t size, const char *what, json_t **value,
                     struct vamp_error *error) {
  int status = check_bounds(text, size, what, error);
  if (status != VAMP_OK) {
    return status;
  }
  json_error_t why;
  json_t *parsed = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
  if (!parsed && json_error_code(&why) == json_error_out_of_memory) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while reading %s.", what);
  }
  if (!parsed) {
    return vamp_fail(error, VAMP_INVALID, "%s is not valid JSON: line %d, column %d: %s.", what, why.line,
                     why.column, why.text);
  }
  *value = parsed;
  return VAMP_OK;
}

json_t *vampd_json_text(const char *text) {
  json_t *string = json_string(text);
  if (string) {
    return string;
  }
  char plain[1024];
  size_t length = 0;
  for (; text[length] && length + 1 < sizeof plain; length++) {
    bool printable = text[length] >= ' ' && text[length] <= '~';
    plain[length] = printable ? text[length] : '?';
  }
  plain[length] = '\0';
  return json_string(plain);
}
