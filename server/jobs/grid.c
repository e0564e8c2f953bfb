/* The grid of a sweep: see grid.h. */
#include "server/jobs/grid.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The JSON pointer to an axis; what would have to be escaped in it ends it. */
static void point_to(const char *axis, char *pointer, size_t size) {
  snprintf(pointer, size, "/grid/%s", axis);
  size_t end = strlen("/grid/") + strcspn(pointer + strlen("/grid/"), "/~");
  pointer[end] = '\0';
}

static int check_axis(const char *axis, const json_t *values, struct vamp_error *error) {
  char pointer[VAMPD_GRID_MAX_PATH + 16];
  size_t length = strlen(axis);
  bool parts = length > 0 && length <= VAMPD_GRID_MAX_PATH && axis[0] != '.' && axis[length - 1] != '.' &&
               !strstr(axis, "..");
  point_to(axis, pointer, sizeof pointer);
  if (!parts) {
    return vamp_fail_field(error, VAMP_INVALID, length > 0 ? pointer : "/grid",
                           "A name in \"grid\" is a path like \"mask.mask_ratio\", at most %d bytes long.",
                           VAMPD_GRID_MAX_PATH);
  }
  if (!json_is_array(values) || json_array_size(values) == 0) {
    return vamp_fail_field(error, VAMP_INVALID, pointer, "%s must be an array of one value or more.",
                           pointer);
  }
  return VAMP_OK;
}

int vampd_grid_check(const json_t *grid, int *points, struct vamp_error *error) {
  const char *axis;
  json_t *values;
  size_t total = 1;
  if (!json_is_object(grid) || json_object_size(grid) == 0) {
    return vamp_fail_field(
        error, VAMP_INVALID, "/grid",
        "\"grid\" must be an object with one parameter or more, each with an array of values.");
  }
  if (json_object_size(grid) > VAMPD_GRID_MAX_AXES) {
    return vamp_fail_field(error, VAMP_LIMIT, "/grid", "\"grid\" has %zu parameters; at most %d can vary.",
                           json_object_size(grid), VAMPD_GRID_MAX_AXES);
  }
  json_object_foreach((json_t *)grid, axis, values) {
    int status = check_axis(axis, values, error);
    if (status != VAMP_OK) {
      return status;
    }
    total *= json_array_size(values) <= VAMPD_GRID_MAX_POINTS ? json_array_size(values)
                                                              : VAMPD_GRID_MAX_POINTS + 1;
    if (total > VAMPD_GRID_MAX_POINTS) {
      return vamp_fail_field(error, VAMP_LIMIT, "/grid", "\"grid\" has more than %d points.",
                             VAMPD_GRID_MAX_POINTS);
    }
  }
  *points = (int)total;
  return VAMP_OK;
}

/* Sets `path` in `params`. */
static int set_value(json_t *params, const char *path, json_t *value, struct vamp_error *error) {
  char part[VAMPD_GRID_MAX_PATH + 1];
  json_t *object = params;
  for (;;) {
    size_t length = strcspn(path, ".");
    memcpy(part, path, length);
    part[length] = '\0';
    if (path[length] == '\0') {
      return json_object_set(object, part, value) == 0
                 ? VAMP_OK
                 : vamp_fail(error, VAMP_MEMORY, "Out of memory while making a point of the sweep.");
    }
    json_t *next = json_object_get(object, part);
    if (!next && json_object_set_new(object, part, json_object()) == 0) {
      next = json_object_get(object, part);
    }
    if (!json_is_object(next)) {
      return vamp_fail_field(error, VAMP_INVALID, "/grid",
                             "A path in \"grid\" leads through \"%s\", which is not an object.", part);
    }
    object = next;
    path += length + 1;
  }
}

int vampd_grid_point(const json_t *grid, const json_t *base, int point, json_t **params, json_t **values,
                     struct vamp_error *error) {
  json_t *made = json_deep_copy(base), *at = json_object();
  const char *axis;
  json_t *list;
  int status =
      made && at ? VAMP_OK : vamp_fail(error, VAMP_MEMORY, "Out of memory for a point of the sweep.");
  size_t later = 1; /* points until an axis takes its next value */
  json_object_foreach((json_t *)grid, axis, list) {
    later *= json_array_size(list);
  }
  json_object_foreach((json_t *)grid, axis, list) {
    size_t count = json_array_size(list);
    later /= count;
    json_t *value = json_array_get(list, (size_t)point / later % count);
    if (status == VAMP_OK) {
      json_object_set(at, axis, value);
      /* A copy: two paths of which one leads into the other's value must not write into the grid. */
      json_t *copy = json_deep_copy(value);
      status = set_value(made, axis, copy, error);
      json_decref(copy);
    }
  }
  if (status != VAMP_OK) {
    json_decref(made);
    json_decref(at);
    return status;
  }
  *params = made;
  *values = at;
  return VAMP_OK;
}
