/*
 * Drawing candidates on the CUDA backend. How it is tested: trial_predict.h. Beyond that, cpu/sample.c is the
 * specification to the bit: where the logits are equal, the tokens must be.
 */
#include "tests/cuda/devices.h"

#include "tests/unit/trial_predict.h"

static const int LENGTHS[] = {1, 0, 20, 7, 33};
enum { FRAMES = 16 };

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
  static const int TILES[] = {150, 3}; /* more masked positions of a codebook than a tile has rows */
  struct scene large = predict_scene(4, 10, 1024, 16, 3, 0.07, COUNT(LENGTHS), LENGTHS);
  struct scene odd = predict_scene(1, 3, 37, 21, 3, 1, COUNT(LENGTHS), LENGTHS);
  struct scene longer = predict_scene(0, 2, 130, 40, 3, 0.9, COUNT(TILES), TILES);
  for (int s = 0; s < COUNT(LENGTHS); s++) {
    large.sequence[s].noise = (float)s;
    odd.sequence[s].step = 100 + s;
  }
  scene_check(state, &large, true, check_predicted);
  scene_check(state, &odd, true, check_predicted);
  scene_check(state, &longer, true, check_predicted);
  scene_free(&large);
  scene_free(&odd);
  scene_free(&longer);
}

/* Of all positions one is masked, in the last codebook of the last row; then none. */
static void test_few_masked(void **state) {
  struct scene scene = predict_scene(2, 2, 64, 16, 1, 0, COUNT(LENGTHS), LENGTHS);
  for (int64_t row = 0; row < scene_rows(&scene); row++) {
    scene.arrays.tokens[row * scene.codebooks] = scene.vocabulary; /* given ones do not count */
  }
  scene_check(state, &scene, true, check_predicted);
  scene.arrays.tokens[scene_rows(&scene) * scene.codebooks - 1] = scene.vocabulary;
  scene.sequence[scene.count - 1].masked = 1;
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
  static const struct vamp_sequence SETTINGS[] = {{.top_k = 1, .top_p = 1},
                                                  {.top_k = 17, .top_p = 1},
                                                  {.top_k = 63, .top_p = 1},
                                                  {.top_k = 5000, .top_p = 1}};
  check_filters(state, 64, 20, COUNT(SETTINGS), SETTINGS, FRAMES);
  check_filters(state, 100, 20, COUNT(SETTINGS), SETTINGS, FRAMES);
}

static void test_top_p(void **state) {
  static const struct vamp_sequence SETTINGS[] = {{.top_p = 0.9f}, {.top_p = 0.5f}, {.top_p = 1e-6f}};
  check_filters(state, 64, 20, COUNT(SETTINGS), SETTINGS, FRAMES);
  check_filters(state, 200, 0.8f, COUNT(SETTINGS), SETTINGS, FRAMES);
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
  check_filters(state, 64, 20, COUNT(SETTINGS), SETTINGS, FRAMES);
  check_filters(state, 200, 20, COUNT(SETTINGS), SETTINGS, FRAMES);
}

/* The likeliest token may be far from typical: see the CPU's test. */
static void test_typical_when_cold(void **state) {
  static const struct vamp_sequence SETTINGS[] = {
      {.top_p = 1, .typical_mass = 0.15f, .typical_min = 1},
      {.top_p = 1, .typical_mass = 0.15f, .typical_min = 1, .argmax = true},
  };
  check_filters(state, 64, 0.02f, COUNT(SETTINGS), SETTINGS, FRAMES);
  check_filters(state, 1024, 0.02f, COUNT(SETTINGS), SETTINGS, 3);
}

static void test_filters_together(void **state) {
  static const struct vamp_sequence SETTINGS[] = {
      {.top_k = 20, .top_p = 0.8f},
      {.top_k = 30, .top_p = 0.9f, .typical_mass = 0.6f, .typical_min = 3},
      {.top_k = 3, .top_p = 0.99f, .typical_mass = 0.15f, .typical_min = 64},
  };
  check_filters(state, 1024, 5, COUNT(SETTINGS), SETTINGS, 3);
}

/* A batch in which some filter and some do not. */
static void test_mixed(void **state) {
  struct scene scene = predict_scene(0, 2, 96, 24, 4, 0.8, COUNT(LENGTHS), LENGTHS);
  scene.sequence[2].top_k = 5;
  scene.sequence[4].typical_mass = 0.4f;
  scene_check(state, &scene, true, check_predicted);
  scene_free(&scene);
}

/* A classifier of zeros: every token is as likely, and the likeliest is the first. */
static void test_equal_logits(void **state) {
  static const int LENGTH = FRAMES;
  struct scene scene = predict_scene(0, 2, 64, 16, 1, 1, 1, &LENGTH);
  memset(scene.weight, 0, sizeof(float) * 2 * 64 * 16);
  free(scene.bias);
  scene.bias = NULL;
  scene.sequence[0].argmax = true;
  scene_check(state, &scene, true, check_first);
  scene_free(&scene);
}

static void test_frequency(void **state) {
  static const int MANY = 1000;
  struct scene scene = predict_scene(0, 2, 64, 8, 0.7, 1, 1, &MANY);
  for (int64_t row = 1; row < MANY; row++) {
    memcpy(scene.x + row * scene.k, scene.x, sizeof(float) * (size_t)scene.k);
  }
  scene_check(state, &scene, true, check_frequency);
  scene_free(&scene);
}

/* ---- against the CPU, to the bit ----------------------------------------------------------------- */

/* x and weights are such that each logit is a sum without rounding: both backends have the same ones. */
static struct scene exact_scene(int vocabulary) {
  struct scene scene =
      predict_scene(1, 3, vocabulary, 32, 4, vocabulary > 64 ? 0.2 : 0.6, COUNT(LENGTHS), LENGTHS);
  size_t inputs = (size_t)(scene_rows(&scene) * scene.k), weights = 3 * (size_t)vocabulary * (size_t)scene.k;
  uint64_t seed = 77;
  for (size_t i = 0; i < inputs; i++) {
    scene.x[i] = (float)(random_below(&seed, 17) - 8) / 8;
  }
  for (size_t i = 0; i < weights; i++) {
    scene.weight[i] = (float)(random_below(&seed, 65) - 32) / 32;
  }
  for (size_t i = 0; i < 3 * (size_t)vocabulary; i++) {
    scene.bias[i] = (float)(random_below(&seed, 129) - 64) / 256;
  }
  return scene;
}

static struct arrays run_whole(const struct scene *scene, const struct setting *setting,
                               struct vamp_device *device) {
  struct vamp_weight *classifier = NULL;
  assert_int_equal(device->ops->linear_create(device, scene->predicted * scene->vocabulary, scene->k, false,
                                              scene->weight, scene->bias, &classifier, NULL),
                   0);
  struct arrays got = scene_run(scene, setting, device, classifier, 0, scene->count);
  device->ops->weight_free(device, classifier);
  return got;
}

/* Tokens, probabilities and confidence are those of the CPU. */
static void check_against_cpu(void **state, const struct scene *scene, const char *name) {
  const struct devices *devices = *state;
  struct vamp_device_options options = {
      .precision = VAMP_PRECISION_FP32, .precision_given = true, .threads = 1};
  struct setting cpu = {.name = "cpu"};
  assert_int_equal(vamp_cpu_open(&options, &cpu.device[0], NULL), 0);
  bool fused = !strstr(cpu.device[0]->description, "baseline"); /* has multiply-add, which a GPU always has */
  struct arrays want = run_whole(scene, &cpu, cpu.device[0]);
  for (int i = 0; i < devices->count && fused; i++) {
    struct arrays got = run_whole(scene, &devices->setting[i], devices->setting[i].device[0]);
    for (int64_t at = 0; at < scene_rows(scene) * scene->predicted; at++) {
      if (got.sampled[at] != want.sampled[at] || got.probability[at] != want.probability[at] ||
          got.confidence[at] != want.confidence[at]) {
        fail_msg("%s, %s: position %d: token %d, probability %.9g, confidence %.9g and not %d, %.9g, %.9g",
                 name, devices->setting[i].name, (int)at, got.sampled[at], (double)got.probability[at],
                 (double)got.confidence[at], want.sampled[at], (double)want.probability[at],
                 (double)want.confidence[at]);
      }
    }
    arrays_free(&got);
  }
  arrays_free(&want);
  cpu.device[0]->close(cpu.device[0]);
}

static void test_same_as_cpu(void **state) {
  static const struct vamp_sequence SETTINGS[] = {
      {.top_p = 1},
      {.top_p = 1, .temperature = 0.6f, .noise = 7.5f},
      {.top_p = 0.9f, .temperature = 1.3f},
      {.top_k = 11, .top_p = 1, .noise = 1},
      {.top_k = 40, .top_p = 0.95f, .typical_mass = 0.3f, .typical_min = 5},
      {.top_p = 1, .argmax = true},
      {.top_p = 1, .temperature = 0.02f, .typical_mass = 0.2f, .typical_min = 2, .noise = 2},
  };
  static const int VOCABULARIES[] = {45, 64, 1024}; /* all settings, then the second and the fifth */
  for (int v = 0; v < COUNT(VOCABULARIES); v++) {
    struct scene scene = exact_scene(VOCABULARIES[v]);
    for (int i = v == 0 ? 0 : 1; i < COUNT(SETTINGS); i += v == 0 ? 1 : 3) {
      char name[64];
      snprintf(name, sizeof name, "vocabulary %d, setting %d", VOCABULARIES[v], i);
      for (int s = 0; s < scene.count; s++) {
        struct vamp_sequence *to = &scene.sequence[s];
        const struct vamp_sequence *from = &SETTINGS[i];
        to->temperature = from->temperature > 0 ? from->temperature : 1;
        to->top_k = from->top_k;
        to->top_p = from->top_p;
        to->typical_mass = from->typical_mass;
        to->typical_min = from->typical_min;
        to->noise = from->noise;
        to->argmax = from->argmax;
      }
      check_against_cpu(state, &scene, name);
    }
    scene_free(&scene);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_argmax),
      cmocka_unit_test(test_sampled),
      cmocka_unit_test(test_few_masked),
      cmocka_unit_test(test_temperature),
      cmocka_unit_test(test_top_k),
      cmocka_unit_test(test_top_p),
      cmocka_unit_test(test_typical),
      cmocka_unit_test(test_typical_when_cold),
      cmocka_unit_test(test_filters_together),
      cmocka_unit_test(test_mixed),
      cmocka_unit_test(test_equal_logits),
      cmocka_unit_test(test_frequency),
      cmocka_unit_test(test_same_as_cpu),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
