/*
 * Fuzz target: the grid of a sweep, and the points that it makes.
 *
 * The input is a JSON array of two: the grid and the parameters it is laid over. A grid that is accepted has
 * so many points, each of them can be made (or is refused with a reason), every value is one of its axis, and
 * what the points share is left as it was.
 *
 *   make fuzz
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/json.h"
#include "server/jobs/grid.h"
#include "vamp/request.h"

#define POINTS 64 /* that are looked at */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
  if (!condition) {
    abort();
  }
}

static void check_values(const json_t *grid, const json_t *values) {
  const char *name;
  json_t *value;
  require(json_object_size(values) == json_object_size(grid));
  json_object_foreach((json_t *)(uintptr_t)values, name, value) {
    const json_t *axis = json_object_get(grid, name);
    bool found = false;
    for (size_t i = 0; i < json_array_size(axis) && !found; i++) {
      found = json_equal(json_array_get(axis, i), value);
    }
    require(found);
  }
}

/* Parameters that are well-formed become a request, or an error that says why not. */
static void parse(const json_t *params) {
  struct vamp_request request = {0};
  struct vamp_error error = {0};
  int status = vamp_request_parse(params, &request, &error);
  require(status == VAMP_OK || error.message[0] != '\0');
  vamp_request_free(&request);
}

static void check_points(const json_t *grid, const json_t *base, int points) {
  char *before = json_dumps(base, JSON_ENCODE_ANY);
  for (int i = 0; i < points && i < POINTS; i++) {
    json_t *params = NULL, *values = NULL;
    struct vamp_error error = {0};
    if (vampd_grid_point(grid, base, i, &params, &values, &error) != VAMP_OK) {
      require(error.message[0] != '\0' && !params && !values);
      break;
    }
    check_values(grid, values);
    parse(params);
    json_decref(params);
    json_decref(values);
  }
  char *after = json_dumps(base, JSON_ENCODE_ANY); /* what all points share must not change */
  require(before && after && strcmp(before, after) == 0);
  free(before);
  free(after);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  json_t *both = NULL;
  struct vamp_error error = {0};
  if (vampd_json_parse(data, size, "The input", &both, &error) != VAMP_OK) {
    require(error.message[0] != '\0');
    return 0;
  }
  const json_t *grid = json_array_get(both, 0), *base = json_array_get(both, 1);
  int points = 0;
  if (grid && json_is_object(base)) {
    if (vampd_grid_check(grid, &points, &error) == VAMP_OK) {
      require(points >= 1 && points <= VAMPD_GRID_MAX_POINTS);
      check_points(grid, base, points);
    } else {
      require(error.message[0] != '\0');
    }
  }
  json_decref(both);
  return 0;
}
