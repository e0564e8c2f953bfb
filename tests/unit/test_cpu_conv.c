/*
 * Convolutions of the CPU backend, plain and transposed. How they are tested: cpu_reference.h.
 */
#include "tests/unit/trial_conv.h"

/* Shorter than any kernel, empty, and around the sizes of tiles. */
static const int RAGGED[] = {1, 64, 0, 2, 130, 5, 31, 1, 12};

static void test_one_channel(void **state) {
  static const struct conv_case CASES[] = {
      {.size = {1, 1, 1, 1, 1, -1}, .no_bias = true},
      {.size = {1, 1, 7, 1, 1, -1}},
      {.size = {1, 8, 7, 1, 1, -1}},
      {.size = {1, 64, 7, 1, 1, -1}},
      {.size = {1, 24, 3, 1, 1, -1}},
      {.size = {8, 1, 7, 1, 1, -1}, .snake = true, .apply_tanh = true},
      {.size = {16, 1, 7, 1, 1, -1}, .snake = true, .apply_tanh = true},
      {.size = {24, 1, 7, 1, 1, -1}, .snake = true, .apply_tanh = true},
      {.size = {40, 1, 3, 1, 1, -1}, .apply_tanh = true},
  };
  check_convs(state, COUNT(CASES), CASES, COUNT(RAGGED), RAGGED);
}

static void test_few_channels(void **state) {
  static const struct conv_case CASES[] = {
      {.size = {2, 3, 3, 1, 1, -1}},
      {.size = {8, 8, 1, 1, 1, -1}, .snake = true},
      {.size = {8, 8, 7, 1, 9, -1}, .snake = true},
      {.size = {4, 8, 11, 1, 5, -1}},
      {.size = {12, 5, 7, 1, 3, -1}, .snake = true, .no_bias = true},
      {.size = {15, 15, 3, 1, 1, -1}, .apply_tanh = true},
  };
  check_convs(state, COUNT(CASES), CASES, COUNT(RAGGED), RAGGED);
}

static void test_many_channels(void **state) {
  static const struct conv_case CASES[] = {
      {.size = {16, 16, 7, 1, 1, -1}, .snake = true},
      {.size = {16, 16, 7, 1, 9, -1}},
      {.size = {24, 24, 7, 1, 3, -1}, .snake = true},
      {.size = {40, 24, 3, 1, 1, -1}},
      {.size = {24, 40, 11, 1, 5, -1}, .snake = true},
      {.size = {17, 33, 5, 1, 2, -1}, .no_bias = true},
      {.size = {32, 48, 1, 1, 1, -1}, .snake = true},
      {.size = {64, 16, 7, 1, 1, -1}, .apply_tanh = true},
      {.size = {12, 64, 7, 1, 1, -1}},
      {.size = {64, 12, 3, 1, 1, -1}, .snake = true},
      {.size = {100, 128, 3, 1, 1, -1}},
  };
  check_convs(state, COUNT(CASES), CASES, COUNT(RAGGED), RAGGED);
}

static void test_strided(void **state) {
  static const struct conv_case CASES[] = {
      {.size = {8, 16, 4, 2, 1, -1}, .snake = true},
      {.size = {16, 32, 6, 3, 1, -1}},
      {.size = {4, 8, 8, 4, 1, -1}},
      {.size = {24, 48, 10, 5, 1, -1}, .snake = true},
      {.size = {32, 64, 12, 6, 1, -1}, .snake = true},
      {.size = {16, 16, 14, 7, 1, -1}},
      {.size = {40, 80, 16, 8, 1, -1}, .snake = true},
      {.size = {1, 3, 3, 2, 2, 1}},
      {.size = {20, 20, 3, 2, 3, 2}},
  };
  check_convs(state, COUNT(CASES), CASES, COUNT(RAGGED), RAGGED);
}

/* No padding: a short sequence makes no row. More than the kernel: rows of bias alone. */
static void test_padding(void **state) {
  static const struct conv_case CASES[] = {
      {.size = {8, 8, 7, 1, 1, 0}},    {.size = {24, 24, 7, 1, 3, 0}}, {.size = {16, 16, 11, 1, 1, 2}},
      {.size = {16, 16, 3, 1, 1, 5}},  {.size = {4, 4, 3, 1, 1, 5}},   {.size = {16, 32, 8, 4, 1, 0}},
      {.size = {32, 16, 3, 3, 2, 9}},  {.size = {1, 1, 2, 1, 1, 0}},   {.size = {24, 24, 2, 1, 1, 1}},
      {.size = {16, 16, 4, 1, 2, -1}},
  };
  check_convs(state, COUNT(CASES), CASES, COUNT(RAGGED), RAGGED);
}

static void test_transposed(void **state) {
  static const struct conv_case CASES[] = {
      {.size = {8, 4, 4, 2, 1, -1}, .transposed = true, .snake = true},
      {.size = {32, 16, 4, 2, 1, -1}, .transposed = true, .snake = true},
      {.size = {48, 24, 4, 2, 1, -1}, .transposed = true},
      {.size = {64, 32, 8, 4, 1, -1}, .transposed = true, .snake = true},
      {.size = {16, 8, 8, 4, 1, -1}, .transposed = true},
      {.size = {40, 20, 12, 6, 1, -1}, .transposed = true, .snake = true},
      {.size = {32, 16, 16, 8, 1, -1}, .transposed = true, .no_bias = true},
      {.size = {24, 40, 16, 8, 1, -1}, .transposed = true, .apply_tanh = true},
      {.size = {2, 1, 12, 6, 1, -1}, .transposed = true},
      {.size = {16, 16, 6, 3, 1, -1}, .transposed = true},
      {.size = {16, 16, 10, 5, 1, -1}, .transposed = true},
      /* kernels that are not twice the stride: overlap of three, gaps, no padding, much */
      {.size = {16, 16, 7, 3, 1, 0}, .transposed = true},
      {.size = {16, 24, 2, 3, 1, 0}, .transposed = true},
      {.size = {3, 5, 5, 1, 1, 2}, .transposed = true},
      {.size = {16, 16, 4, 2, 1, 3}, .transposed = true},
  };
  check_convs(state, COUNT(CASES), CASES, COUNT(RAGGED), RAGGED);
}

/* More rows than any tile. */
static void test_long(void **state) {
  static const int LENGTHS[] = {3001, 3, 1200};
  static const struct conv_case CASES[] = {
      {.size = {1, 8, 7, 1, 1, -1}},
      {.size = {8, 8, 7, 1, 9, -1}, .snake = true},
      {.size = {8, 1, 7, 1, 1, -1}, .snake = true, .apply_tanh = true},
      {.size = {16, 16, 7, 1, 3, -1}, .snake = true},
      {.size = {8, 16, 4, 2, 1, -1}, .snake = true},
      {.size = {24, 12, 4, 2, 1, -1}, .transposed = true, .snake = true},
  };
  check_convs(state, COUNT(CASES), CASES, COUNT(LENGTHS), LENGTHS);
}

/* The sine far from the origin, and alphas that are tiny, large and 0 (where the snake is the identity). */
static void test_snake_range(void **state) {
  static const int LENGTHS[] = {50, 7};
  static const struct conv_case CASES[] = {
      {.size = {8, 8, 1, 1, 1, -1}, .snake = true},
      {.size = {32, 32, 1, 1, 1, -1}, .snake = true},
      {.size = {32, 16, 4, 2, 1, -1}, .transposed = true, .snake = true},
  };
  for (int i = 0; i < COUNT(CASES); i++) {
    check_conv_at(state, &CASES[i], 30, 1, COUNT(LENGTHS), LENGTHS);
    check_conv_at(state, &CASES[i], 1, 30, COUNT(LENGTHS), LENGTHS);
    check_conv_at(state, &CASES[i], 1, 1e-3, COUNT(LENGTHS), LENGTHS);
    check_conv_at(state, &CASES[i], 1, 0, COUNT(LENGTHS), LENGTHS);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_one_channel),   cmocka_unit_test(test_few_channels),
      cmocka_unit_test(test_many_channels), cmocka_unit_test(test_strided),
      cmocka_unit_test(test_padding),       cmocka_unit_test(test_transposed),
      cmocka_unit_test(test_long),          cmocka_unit_test(test_snake_range),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
