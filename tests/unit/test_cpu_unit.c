/*
 * The residual unit of the CPU backend. How it is tested: cpu_reference.h.
 */
#include "tests/unit/trial_unit.h"

static const int RAGGED[] = {1, 40, 0, 2, 90, 5, 31, 1, 12};

/* The encoder's: 7 with dilation 1, 3, 9, then 1. */
static void test_encoder_units(void **state) {
  static const int CHANNELS[] = {1, 4, 8, 15, 16, 24, 40, 64};
  for (int i = 0; i < COUNT(CHANNELS); i++) {
    int dilation = i % 3 == 0 ? 1 : i % 3 == 1 ? 3 : 9;
    check_unit(state, CHANNELS[i], 7, dilation, 1, 1, false, COUNT(RAGGED), RAGGED);
  }
  check_unit(state, 16, 7, 9, 1, 1, false, COUNT(RAGGED), RAGGED);
  check_unit(state, 8, 7, 9, 1, 1, false, COUNT(RAGGED), RAGGED);
}

/* The decoder's: 3, 7, 11 with dilation 1, 3, 5, both kernels alike, summed up to a mean. */
static void test_decoder_units(void **state) {
  static const int CHANNELS[] = {3, 8, 12, 16, 24, 32, 48};
  for (int i = 0; i < COUNT(CHANNELS); i++) {
    int kernel = i % 3 == 0 ? 11 : i % 3 == 1 ? 7 : 3;
    check_unit(state, CHANNELS[i], kernel, 1 + 2 * (i % 3), kernel, 1.0f / 3, i % 2 == 0, COUNT(RAGGED),
               RAGGED);
  }
  check_unit(state, 8, 11, 5, 11, 1.0f / 3, true, COUNT(RAGGED), RAGGED);
  check_unit(state, 20, 11, 5, 11, 1.0f / 3, true, COUNT(RAGGED), RAGGED);
}

static void test_kernel_one(void **state) {
  check_unit(state, 8, 1, 1, 1, -2, true, COUNT(RAGGED), RAGGED);
  check_unit(state, 32, 1, 1, 1, -2, false, COUNT(RAGGED), RAGGED);
  check_unit(state, 32, 1, 1, 3, 1, false, COUNT(RAGGED), RAGGED);
}

/* Several tiles a sequence: the context at their seams. */
static void test_long_units(void **state) {
  static const int LENGTHS[] = {2100, 7, 1030, 1}, SHORTER[] = {600, 7, 1, 515};
  check_unit(state, 4, 11, 5, 11, 0.5f, true, COUNT(LENGTHS), LENGTHS);
  check_unit(state, 16, 7, 9, 1, 1, false, COUNT(LENGTHS), LENGTHS);
  check_unit(state, 24, 11, 5, 11, 1, false, COUNT(SHORTER), SHORTER);
}

/* The widths at which tiles get shorter. */
static void test_wide_units(void **state) {
  static const int LENGTHS[] = {260, 3, 193};
  check_unit(state, 96, 3, 1, 1, 1, false, COUNT(LENGTHS), LENGTHS);
  check_unit(state, 192, 3, 3, 1, 1, false, COUNT(LENGTHS), LENGTHS);
}

/* Wide and long enough for the fast FIR, in one of the convolutions and in both. */
static void test_fast_units(void **state) {
  static const int LENGTHS[] = {300, 3, 1, 259}, SHORT[] = {40, 11};
  check_unit(state, 96, 7, 9, 1, 1, false, COUNT(LENGTHS), LENGTHS);
  check_unit(state, 96, 11, 5, 11, 1.0f / 3, true, COUNT(LENGTHS), LENGTHS);
  check_unit(state, 100, 3, 1, 7, 1, false, COUNT(SHORT), SHORT);
  check_unit(state, 200, 7, 3, 7, 1, false, COUNT(SHORT), SHORT);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_encoder_units), cmocka_unit_test(test_decoder_units),
      cmocka_unit_test(test_kernel_one),    cmocka_unit_test(test_long_units),
      cmocka_unit_test(test_wide_units),    cmocka_unit_test(test_fast_units),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
