/*
 * Convolutions of the CUDA backend, plain, strided and transposed. How they are tested: cpu_reference.h.
 */
#include "tests/cuda/devices.h"

#include "tests/unit/trial_conv.h"

/* Shorter than any kernel, empty, and around the rows of a tile. */
static const int RAGGED[] = {1, 0, 130, 2, 31}, SHORT[] = {1, 9, 0, 20};

static void test_few_channels(void **state) {
  static const struct conv_case CASES[] = {
      {.size = {1, 1, 1, 1, 1, -1}, .no_bias = true},
      {.size = {1, 1, 7, 1, 1, -1}},
      {.size = {1, 24, 7, 1, 1, -1}},
      {.size = {24, 1, 7, 1, 1, -1}, .snake = true, .apply_tanh = true},
      {.size = {3, 5, 7, 1, 9, -1}, .snake = true},
      {.size = {8, 9, 11, 1, 5, -1}, .snake = true},
      {.size = {1, 3, 3, 2, 2, 1}},
      {.size = {3, 8, 6, 3, 1, -1}, .snake = true},
      {.size = {2, 1, 10, 5, 1, -1}, .transposed = true, .snake = true},
      /* 49128 bytes of shared memory: with what the kernel declares of its own more than 48 KiB */
      {.size = {1, 64, 187, 1, 1, -1}},
  };
  check_convs(state, COUNT(CASES), CASES, COUNT(RAGGED), RAGGED);
}

/* Channels around the widths of tiles and of 16 bytes. */
static void test_channels(void **state) {
  static const struct conv_case CASES[] = {
      {.size = {24, 24, 7, 1, 9, -1}, .snake = true},
      {.size = {40, 17, 3, 1, 1, -1}, .apply_tanh = true},
      {.size = {17, 40, 2, 1, 1, 1}, .no_bias = true},
      {.size = {32, 48, 1, 1, 1, -1}, .snake = true},
      {.size = {12, 64, 7, 1, 1, -1}},
      {.size = {96, 16, 3, 1, 5, -1}, .snake = true},
      {.size = {70, 96, 1, 1, 1, -1}, .snake = true},
      {.size = {130, 130, 3, 1, 1, -1}, .snake = true},
      {.size = {40, 256, 3, 1, 2, -1}, .snake = true},
      {.size = {72, 128, 1, 1, 1, -1}},
  };
  check_convs(state, COUNT(CASES), CASES, COUNT(SHORT), SHORT);
}

/* Several tiles of a sequence, and the halo at their seams. */
static void test_rows(void **state) {
  static const int LENGTHS[] = {300, 3, 129};
  static const struct conv_case CASES[] = {
      {.size = {1, 9, 7, 1, 1, -1}},
      {.size = {9, 1, 7, 1, 1, -1}, .snake = true, .apply_tanh = true},
      {.size = {16, 16, 7, 1, 9, -1}, .snake = true},
      {.size = {16, 24, 16, 8, 1, -1}, .snake = true},
      {.size = {24, 12, 4, 2, 1, -1}, .transposed = true, .snake = true},
      {.size = {12, 11, 1, 1, 1, -1}},
      {.size = {24, 128, 7, 1, 9, -1}, .snake = true},
      {.size = {16, 128, 2, 1, 1, 1}, .no_bias = true},
  };
  check_convs(state, COUNT(CASES), CASES, COUNT(LENGTHS), LENGTHS);
}

static void test_strided(void **state) {
  static const struct conv_case CASES[] = {
      {.size = {16, 32, 4, 2, 1, -1}, .snake = true},
      {.size = {10, 20, 6, 3, 1, -1}},
      {.size = {24, 48, 10, 5, 1, -1}, .snake = true},
      {.size = {32, 16, 3, 3, 2, 9}},
      {.size = {20, 20, 3, 2, 3, 2}},
      {.size = {16, 16, 14, 7, 1, -1}, .snake = true},
  };
  check_convs(state, COUNT(CASES), CASES, COUNT(RAGGED), RAGGED);
}

/* More sequences than a kernel takes with its arguments. */
static void test_many_sequences(void **state) {
  static const struct conv_case CASES[] = {
      {.size = {1, 3, 3, 1, 1, -1}},
      {.size = {16, 16, 3, 1, 1, -1}, .snake = true},
      {.size = {16, 10, 6, 3, 1, -1}, .transposed = true},
  };
  int lengths[40];
  for (int s = 0; s < COUNT(lengths); s++) {
    lengths[s] = s % 7 == 3 ? 0 : 1 + s % 5;
  }
  check_convs(state, COUNT(CASES), CASES, COUNT(lengths), lengths);
}

/* No padding: a short sequence makes no row. More than the kernel: rows of bias alone. */
static void test_padding(void **state) {
  static const struct conv_case CASES[] = {
      {.size = {16, 16, 7, 1, 3, 0}, .snake = true},
      {.size = {16, 16, 3, 1, 1, 5}, .snake = true},
      {.size = {4, 4, 3, 1, 1, 5}},
      {.size = {16, 32, 8, 4, 1, 0}},
      {.size = {1, 1, 2, 1, 1, 0}},
      {.size = {16, 16, 4, 1, 2, -1}},
  };
  check_convs(state, COUNT(CASES), CASES, COUNT(SHORT), SHORT);
}

static void test_transposed(void **state) {
  static const struct conv_case CASES[] = {
      {.size = {48, 24, 4, 2, 1, -1}, .transposed = true, .snake = true},
      {.size = {40, 20, 12, 6, 1, -1}, .transposed = true, .snake = true},
      {.size = {24, 40, 16, 8, 1, -1}, .transposed = true, .apply_tanh = true},
      {.size = {16, 9, 6, 3, 1, -1}, .transposed = true, .no_bias = true},
      {.size = {16, 16, 10, 5, 1, -1}, .transposed = true},
      /* kernels that are not twice the stride: overlap of three, gaps, no padding, much */
      {.size = {16, 16, 7, 3, 1, 0}, .transposed = true, .snake = true},
      {.size = {16, 24, 2, 3, 1, 0}, .transposed = true},
      {.size = {3, 5, 5, 1, 1, 2}, .transposed = true},
      {.size = {16, 16, 4, 2, 1, 3}, .transposed = true},
  };
  check_convs(state, COUNT(CASES), CASES, COUNT(SHORT), SHORT);
}

/* The sine far from the origin, and alphas that are tiny, large and 0 (where the snake is the identity). */
static void test_snake_range(void **state) {
  static const int LENGTHS[] = {50, 7};
  static const struct conv_case CASES[] = {{.size = {8, 8, 1, 1, 1, -1}, .snake = true},
                                           {.size = {32, 32, 1, 1, 1, -1}, .snake = true}};
  for (int i = 0; i < COUNT(CASES); i++) {
    check_conv_at(state, &CASES[i], 30, 1, COUNT(LENGTHS), LENGTHS);
    check_conv_at(state, &CASES[i], 1, 30, COUNT(LENGTHS), LENGTHS);
    check_conv_at(state, &CASES[i], 1, 1e-3, COUNT(LENGTHS), LENGTHS);
    check_conv_at(state, &CASES[i], 1, 0, COUNT(LENGTHS), LENGTHS);
  }
}

/* What no block's shared memory holds is refused with a sentence, at creation. */
static void test_too_far(void **state) {
  const struct devices *devices = *state;
  struct vamp_conv_shape shape = {16, 16, 16, 1, 4000, 30000, false};
  float *weight = random_floats(16 * 16 * 16, 1, 1);
  for (int i = 0; i < devices->count; i++) {
    struct vamp_device *device = devices->setting[i].device[0];
    struct vamp_weight *conv = NULL;
    struct vamp_error error = {0};
    assert_int_equal(device->ops->conv_create(device, &shape, weight, NULL, &conv, &error), VAMP_UNSUPPORTED);
    assert_null(conv);
    assert_non_null(strstr(error.message, "dilation 4000"));
  }
  free(weight);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_few_channels),   cmocka_unit_test(test_channels),
      cmocka_unit_test(test_rows),           cmocka_unit_test(test_strided),
      cmocka_unit_test(test_many_sequences), cmocka_unit_test(test_padding),
      cmocka_unit_test(test_transposed),     cmocka_unit_test(test_snake_range),
      cmocka_unit_test(test_too_far),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
