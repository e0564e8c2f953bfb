/*
 * The residual unit of the CUDA backend. How it is tested: cpu_reference.h. In bf16 up to 128 channels it is
 * one kernel, above and in fp32 and tf32 two convolutions, up to 8 channels two others.
 */
#include "tests/cuda/devices.h"

#include "tests/unit/trial_unit.h"

static const int RAGGED[] = {1, 40, 0, 2, 90, 5}, SHORT[] = {12, 1, 0, 30};

/* The encoder's: 7 with dilation 1, 3, 9, then 1. */
static void test_encoder_units(void **state) {
  static const int CHANNELS[] = {1, 8, 15, 24, 64};
  for (int i = 0; i < COUNT(CHANNELS); i++) {
    int dilation = i % 3 == 0 ? 9 : i % 3 == 1 ? 3 : 1;
    check_unit(state, CHANNELS[i], 7, dilation, 1, 1, false, COUNT(RAGGED), RAGGED);
  }
}

/* The decoder's: 3, 7, 11 with dilation 1, 3, 5, both kernels alike, summed up to a mean. */
static void test_decoder_units(void **state) {
  static const int CHANNELS[] = {3, 12, 16, 24, 40, 50};
  for (int i = 0; i < COUNT(CHANNELS); i++) {
    int kernel = i % 3 == 0 ? 11 : i % 3 == 1 ? 7 : 3;
    check_unit(state, CHANNELS[i], kernel, 1 + 2 * (i % 3), kernel, 1.0f / 3, i % 2 == 0, COUNT(SHORT),
               SHORT);
  }
}

static void test_wide_units(void **state) {
  check_unit(state, 96, 3, 9, 3, 1, true, COUNT(SHORT), SHORT);
  check_unit(state, 128, 3, 1, 1, 1, false, COUNT(SHORT), SHORT);
  check_unit(state, 130, 3, 3, 3, 0.5f, true, COUNT(SHORT), SHORT);
  check_unit(state, 256, 3, 9, 1, 1, false, COUNT(SHORT), SHORT);
}

/* A second kernel that reaches further than the first. */
static void test_kernels(void **state) {
  check_unit(state, 8, 1, 1, 1, -2, true, COUNT(SHORT), SHORT);
  check_unit(state, 32, 1, 1, 11, 1, false, COUNT(SHORT), SHORT);
  check_unit(state, 24, 3, 1, 7, -2, true, COUNT(SHORT), SHORT);
}

/* Several tiles a sequence: the context at their seams. */
static void test_long_units(void **state) {
  static const int LENGTHS[] = {520, 7, 256}, SHORTER[] = {260, 1, 119};
  check_unit(state, 4, 11, 5, 11, 0.5f, true, COUNT(SHORTER), SHORTER);
  check_unit(state, 16, 7, 9, 1, 1, false, COUNT(LENGTHS), LENGTHS);
  check_unit(state, 24, 11, 5, 11, 1, false, COUNT(LENGTHS), LENGTHS);
  check_unit(state, 70, 3, 5, 3, 1, false, COUNT(SHORTER), SHORTER);
}

/* More sequences than a kernel takes with its arguments. */
static void test_many_sequences(void **state) {
  int lengths[34];
  for (int s = 0; s < COUNT(lengths); s++) {
    lengths[s] = s % 7 == 3 ? 0 : 1 + s % 5;
  }
  check_unit(state, 16, 3, 1, 3, 1, false, COUNT(lengths), lengths);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_encoder_units), cmocka_unit_test(test_decoder_units),
      cmocka_unit_test(test_wide_units),    cmocka_unit_test(test_kernels),
      cmocka_unit_test(test_long_units),    cmocka_unit_test(test_many_sequences),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
