/*
 * Drawing candidates on the CPU backend. How it is tested: trial_predict.h.
 */
#include "tests/unit/trial_predict.h"

static const int LENGTHS[] = {1, 0, 20, 7, 33};
static const int ONE[] = {24};
static const int BEYOND_TILES[] = {450, 3};

static void test_argmax(void **state) {
  struct scene scene = predict_scene(0, 4, 64, 32, 4, 0.6, COUNT(LENGTHS), LENGTHS);
  for (int s = 0; s < scene.count; s++) {
    scene.sequence[s].argmax = true;
    scene.sequence[s].temperature = s % 2 ? 1 : 0.7f;
  }
  scene_check(state, &scene, true, check_predicted);
  scene_free(&scene);
}

static void test_sampled(void **state) {
  struct scene small = predict_scene(0, 4, 64, 32, 3, 0.6, COUNT(LENGTHS), LENGTHS);
  struct scene large = predict_scene(4, 10, 1024, 16, 3, 0.3, COUNT(LENGTHS), LENGTHS);
  struct scene odd = predict_scene(1, 3, 37, 20, 3, 1, COUNT(LENGTHS), LENGTHS);
  struct scene longer = predict_scene(0, 1, 64, 16, 3, 0.9, COUNT(BEYOND_TILES), BEYOND_TILES);
  for (int s = 0; s < COUNT(LENGTHS); s++) {
    small.sequence[s].noise = large.sequence[s].noise = (float)s;
    odd.sequence[s].step = 100 + s;
  }
  scene_check(state, &small, true, check_predicted);
  scene_check(state, &large, true, check_predicted);
  scene_check(state, &odd, true, check_predicted);
  scene_check(state, &longer, true, check_predicted);
  scene_free(&small);
  scene_free(&large);
  scene_free(&odd);
  scene_free(&longer);
}

/* Nothing masked but in the given codebooks: nothing to do, in a batch and alone. */
static void test_nothing_masked(void **state) {
  struct scene scene = predict_scene(2, 2, 64, 16, 1, 0, COUNT(LENGTHS), LENGTHS);
  for (int64_t row = 0; row < scene_rows(&scene); row++) {
    scene.arrays.tokens[row * scene.codebooks] = scene.vocabulary;
  }
  scene_check(state, &scene, true, check_predicted);
  scene_free(&scene);
}

static void test_temperature(void **state) {
  static const float TEMPERATURES[] = {0.3f, 0.01f, 1.5f, 10, 1000};
  struct scene scene = predict_scene(0, 2, 64, 32, 4, 1, COUNT(LENGTHS), LENGTHS);
  for (int s = 0; s < scene.count; s++) {
    scene.sequence[s].temperature = TEMPERATURES[s];
  }
  scene_check(state, &scene, true, check_predicted);
  scene_free(&scene);
}

static void test_top_k(void **state) {
  static const struct vamp_sequence SETTINGS[] = {
      {.top_k = 1, .top_p = 1},  {.top_k = 2, .top_p = 1},  {.top_k = 17, .top_p = 1},
      {.top_k = 64, .top_p = 1}, {.top_k = 63, .top_p = 1}, {.top_k = 5000, .top_p = 1},
  };
  check_filters(state, 64, 20, COUNT(SETTINGS), SETTINGS, ONE[0]);
  check_filters(state, 1024, 20, COUNT(SETTINGS), SETTINGS, ONE[0]);
}

static void test_top_p(void **state) {
  static const struct vamp_sequence SETTINGS[] = {
      {.top_p = 0.9f}, {.top_p = 0.5f}, {.top_p = 0.97f}, {.top_p = 1e-6f}};
  check_filters(state, 64, 20, COUNT(SETTINGS), SETTINGS, ONE[0]);
  check_filters(state, 1024, 0.8f, COUNT(SETTINGS), SETTINGS, ONE[0]);
}

static void test_typical(void **state) {
  static const struct vamp_sequence SETTINGS[] = {
      {.top_p = 1, .typical_mass = 0.15f, .typical_min = 64},
      {.top_p = 1, .typical_mass = 0.15f, .typical_min = 1},
      {.top_p = 1, .typical_mass = 0.9f, .typical_min = 3},
      {.top_p = 1, .typical_mass = 0.5f},
      {.top_p = 1, .typical_mass = 0.5f, .typical_min = 5000},
      {.top_p = 1, .typical_mass = 0.2f, .typical_min = 1, .argmax = true},
  };
  check_filters(state, 64, 20, COUNT(SETTINGS), SETTINGS, ONE[0]);
  check_filters(state, 1024, 20, COUNT(SETTINGS), SETTINGS, ONE[0]);
}

/* The likeliest token may be far from typical. What is left must not be drawn as if all of it were as
 * unlikely beside that one. */
static void test_typical_when_cold(void **state) {
  static const struct vamp_sequence SETTINGS[] = {
      {.top_p = 1, .typical_mass = 0.15f, .typical_min = 1},
      {.top_p = 1, .typical_mass = 0.3f, .typical_min = 8},
      {.top_p = 1, .typical_mass = 0.15f, .typical_min = 1, .argmax = true},
  };
  check_filters(state, 64, 0.02f, COUNT(SETTINGS), SETTINGS, ONE[0]);
  check_filters(state, 1024, 0.02f, COUNT(SETTINGS), SETTINGS, ONE[0]);
}

static void test_filters_together(void **state) {
  static const struct vamp_sequence SETTINGS[] = {
      {.top_k = 20, .top_p = 0.8f},
      {.top_k = 20, .top_p = 1, .typical_mass = 0.5f, .typical_min = 2},
      {.top_p = 0.9f, .typical_mass = 0.5f, .typical_min = 2},
      {.top_k = 30, .top_p = 0.9f, .typical_mass = 0.6f, .typical_min = 3},
      {.top_k = 3, .top_p = 0.99f, .typical_mass = 0.15f, .typical_min = 64},
  };
  check_filters(state, 64, 5, COUNT(SETTINGS), SETTINGS, ONE[0]);
  check_filters(state, 1024, 5, COUNT(SETTINGS), SETTINGS, ONE[0]);
}

/* A classifier of zeros: every token is as likely, and the likeliest is the first. */
static void test_equal_logits(void **state) {
  struct scene scene = predict_scene(0, 2, 64, 16, 1, 1, COUNT(ONE), ONE);
  memset(scene.weight, 0, sizeof(float) * 2 * 64 * 16);
  free(scene.bias);
  scene.bias = NULL;
  scene.sequence[0].argmax = true;
  scene_check(state, &scene, true, check_first);
  scene_free(&scene);
}

static void test_frequency(void **state) {
  static const int FRAMES[] = {4000};
  struct scene scene = predict_scene(0, 2, 64, 8, 0.7, 1, COUNT(FRAMES), FRAMES);
  for (int64_t row = 1; row < FRAMES[0]; row++) {
    memcpy(scene.x + row * scene.k, scene.x, sizeof(float) * (size_t)scene.k);
  }
  scene_check(state, &scene, true, check_frequency);
  scene_free(&scene);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_argmax),
      cmocka_unit_test(test_sampled),
      cmocka_unit_test(test_nothing_masked),
      cmocka_unit_test(test_temperature),
      cmocka_unit_test(test_top_k),
      cmocka_unit_test(test_top_p),
      cmocka_unit_test(test_typical),
      cmocka_unit_test(test_typical_when_cold),
      cmocka_unit_test(test_filters_together),
      cmocka_unit_test(test_equal_logits),
      cmocka_unit_test(test_frequency),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
