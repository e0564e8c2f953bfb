/*
 * The grid of a sweep: its points, in their order, and what cannot be one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/jobs/grid.h"

static json_t *read_json(const char *text) {
  json_t *value = json_loads(text, 0, NULL);
  assert_non_null(value);
  return value;
}

static int check(const char *text, int *points, struct vamp_error *error) {
  json_t *grid = read_json(text);
  int status = vampd_grid_check(grid, points, error);
  json_decref(grid);
  return status;
}

static void test_good_grids(void **state) {
  (void)state;
  int points = 0;
  struct vamp_error error = {0};
  assert_int_equal(check("{\"seed\": [1]}", &points, &error), VAMP_OK);
  assert_int_equal(points, 1);
  assert_int_equal(check("{\"mask.mask_ratio\": [0.1, 0.2, 0.3], \"seed\": [1, 2]}", &points, &error),
                   VAMP_OK);
  assert_int_equal(points, 6);
}

static void test_bad_grids(void **state) {
  (void)state;
  static const struct {
    const char *text, *field;
    int status;
  } CASES[] = {
      {"{}", "/grid", VAMP_INVALID},
      {"[]", "/grid", VAMP_INVALID},
      {"{\"seed\": []}", "/grid/seed", VAMP_INVALID},
      {"{\"seed\": 1}", "/grid/seed", VAMP_INVALID},
      {"{\"\": [1]}", "/grid", VAMP_INVALID},
      {"{\".seed\": [1]}", "/grid/.seed", VAMP_INVALID},
      {"{\"seed.\": [1]}", "/grid/seed.", VAMP_INVALID},
      {"{\"mask..x\": [1]}", "/grid/mask..x", VAMP_INVALID},
      {"{\"a/b\": 1}", "/grid/a", VAMP_INVALID},
      {"{\"a\":[1],\"b\":[1],\"c\":[1],\"d\":[1],\"e\":[1],\"f\":[1],\"g\":[1],\"h\":[1],\"i\":[1]}", "/grid",
       VAMP_LIMIT},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
    int points = 0;
    struct vamp_error error = {0};
    assert_int_equal(check(CASES[i].text, &points, &error), CASES[i].status);
    assert_string_equal(error.field, CASES[i].field);
  }
  int points;
  assert_int_equal(vampd_grid_check(NULL, &points, &(struct vamp_error){0}), VAMP_INVALID);
}

static json_t *axes_of(int axes, int values) {
  json_t *grid = json_object();
  for (int axis = 0; axis < axes; axis++) {
    json_t *list = json_array();
    for (int i = 0; i < values; i++) {
      json_array_append_new(list, json_integer(i));
    }
    char name[16];
    snprintf(name, sizeof name, "x%d", axis);
    json_object_set_new(grid, name, list);
  }
  return grid;
}

static void test_number_of_points(void **state) {
  (void)state;
  static const struct {
    int axes, values, status;
  } CASES[] = {{1, VAMPD_GRID_MAX_POINTS, VAMP_OK},
               {1, VAMPD_GRID_MAX_POINTS + 1, VAMP_LIMIT},
               {2, 64, VAMP_OK},
               {2, 65, VAMP_LIMIT},
               {4, 8, VAMP_OK},
               {8, 5000, VAMP_LIMIT}};
  for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
    int points = 0;
    struct vamp_error error = {0};
    json_t *grid = axes_of(CASES[i].axes, CASES[i].values);
    assert_int_equal(vampd_grid_check(grid, &points, &error), CASES[i].status);
    json_decref(grid);
  }
}

static void test_points(void **state) {
  (void)state;
  json_t *grid =
      read_json("{\"mask.mask_ratio\": [0.25, 0.75], \"seed\": [5, 6, 7], \"sampling.a.b\": [true]}");
  json_t *base = read_json("{\"mask\": {\"periodic_prompt\": 3}, \"seed\": 1}");
  json_t *before = json_deep_copy(base);
  for (int point = 0; point < 6; point++) {
    json_t *params = NULL, *values = NULL;
    struct vamp_error error = {0};
    assert_int_equal(vampd_grid_point(grid, base, point, &params, &values, &error), VAMP_OK);
    char wanted[200];
    /* The last axis varies fastest. */
    double ratio = point < 3 ? 0.25 : 0.75;
    int seed = 5 + point % 3;
    snprintf(wanted, sizeof wanted,
             "{\"mask\": {\"periodic_prompt\": 3, \"mask_ratio\": %.2f}, \"seed\": %d,"
             " \"sampling\": {\"a\": {\"b\": true}}}",
             ratio, seed);
    json_t *expected = read_json(wanted);
    assert_true(json_equal(params, expected));
    json_decref(expected);
    snprintf(wanted, sizeof wanted, "{\"mask.mask_ratio\": %.2f, \"seed\": %d, \"sampling.a.b\": true}",
             ratio, seed);
    expected = read_json(wanted);
    assert_true(json_equal(values, expected));
    json_decref(expected);
    json_decref(params);
    json_decref(values);
  }
  assert_true(json_equal(base, before));
  json_decref(before);
  json_decref(base);
  json_decref(grid);
}

static void test_paths_that_lead_nowhere(void **state) {
  (void)state;
  json_t *params = NULL, *values = NULL, *base = read_json("{\"seed\": 1}");
  json_t *grid = read_json("{\"seed.deep\": [1]}");
  struct vamp_error error = {0};
  assert_int_equal(vampd_grid_point(grid, base, 0, &params, &values, &error), VAMP_INVALID);
  assert_null(params);
  json_decref(grid);
  /* One axis into the other's value: the grid's own values stay as they are. */
  grid = read_json("{\"mask\": [{\"a\": 1}], \"mask.b\": [2, 3]}");
  json_t *before = json_deep_copy(grid);
  for (int point = 0; point < 2; point++) {
    assert_int_equal(vampd_grid_point(grid, base, point, &params, &values, &error), VAMP_OK);
    json_t *mask = json_object_get(params, "mask");
    assert_int_equal(json_integer_value(json_object_get(mask, "a")), 1);
    assert_int_equal(json_integer_value(json_object_get(mask, "b")), 2 + point);
    json_decref(params);
    json_decref(values);
  }
  assert_true(json_equal(grid, before));
  json_decref(before);
  json_decref(grid);
  json_decref(base);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_good_grids),
      cmocka_unit_test(test_bad_grids),
      cmocka_unit_test(test_number_of_points),
      cmocka_unit_test(test_points),
      cmocka_unit_test(test_paths_that_lead_nowhere),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
