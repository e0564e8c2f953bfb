/*
 * Remasking on the CUDA backend. How it is tested: trial_remask.h.
 */
#include "tests/cuda/devices.h"

#include "tests/unit/trial_remask.h"

/* Positions up to several for each of a block's 1024 threads. */
static const int LENGTHS[] = {1, 0, 50, 7, 330, 2};

static void test_distinct(void **state) {
  check_remask(state, 0, 4, 0.7, 0, COUNT(LENGTHS), LENGTHS);
  check_remask(state, 4, 10, 0.5, 0, COUNT(LENGTHS), LENGTHS);
  check_remask(state, 0, 1, 1, 0, COUNT(LENGTHS), LENGTHS);
}

static void test_ties(void **state) {
  check_remask(state, 0, 4, 0.7, 1, COUNT(LENGTHS), LENGTHS); /* every confidence is -infinity */
  check_remask(state, 0, 4, 1, 2, COUNT(LENGTHS), LENGTHS);
  check_remask(state, 4, 10, 0.5, 7, COUNT(LENGTHS), LENGTHS);
}

/* Confidence with noise is positive as well, and 0 has two signs that are equal. */
static void test_signs(void **state) {
  struct scene scene = scene_make(4, 4, 64, COUNT(LENGTHS), LENGTHS, 0.8, 9);
  static const float VALUES[] = {0.0f, -0.0f, 1e-30f, -1e-30f, 25, -25, 1e30f};
  uint64_t seed = 10;
  for (int64_t i = 0; i < scene_rows(&scene) * 4; i++) {
    scene.arrays.confidence[i] = VALUES[random_below(&seed, COUNT(VALUES))];
  }
  for (int s = 0; s < scene.count; s++) {
    scene.sequence[s].keep_masked = scene.sequence[s].masked * 2 / 5;
  }
  scene_check(state, &scene, false, check_remasked);
  scene_free(&scene);
}

static void test_nothing_masked(void **state) {
  check_remask(state, 2, 3, 0, 0, COUNT(LENGTHS), LENGTHS);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_distinct),
      cmocka_unit_test(test_ties),
      cmocka_unit_test(test_signs),
      cmocka_unit_test(test_nothing_masked),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
