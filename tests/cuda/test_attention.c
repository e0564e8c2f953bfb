/*
 * Attention of the CUDA backend. How it is tested: cpu_reference.h.
 */
#include "tests/cuda/devices.h"

#include "tests/unit/trial_attention.h"

static void test_head_sizes(void **state) {
  static const int SIZES[] = {1, 8, 20, 33, 80, 128, 256};
  static const int LENGTHS[] = {5, 1, 0, 65};
  for (int i = 0; i < COUNT(SIZES); i++) {
    check_attention(state, i % 3 + 1, SIZES[i], 1, 1, COUNT(LENGTHS), LENGTHS);
  }
}

/* Tensor cores in bf16: around the tiles of 64 queries and keys. The emulated device has four
 * multiprocessors, so that a sequence alone takes the kernel for few blocks and all together the one for
 * many. */
static void test_fast(void **state) {
  static const int LENGTHS[] = {1, 64, 0, 65, 2, 63, 128};
  check_attention(state, 3, 64, 1, 1, COUNT(LENGTHS), LENGTHS);
}

/* Far enough that blocks of keys lie where the bias is constant, on both sides, and one short of it. */
static void test_far(void **state) {
  static const int LENGTHS[] = {257, 1, 193};
  check_attention(state, 2, 64, 1, 2, COUNT(LENGTHS), LENGTHS);
}

/* Where the bias alone decides: every distance must find its bucket. */
static void test_bias(void **state) {
  static const int LENGTHS[] = {270, 9};
  check_attention(state, 2, 64, 12, 0.25, COUNT(LENGTHS), LENGTHS);
  check_attention(state, 2, 16, 12, 1, COUNT(LENGTHS), LENGTHS);
}

/* Scores in the thousands: exp() of them is infinite, of their distance from the largest it is not. */
static void test_loud(void **state) {
  static const int LENGTHS[] = {40, 3, 70};
  check_attention(state, 2, 64, 1, 32, COUNT(LENGTHS), LENGTHS);
  check_attention(state, 2, 16, 100, 1, COUNT(LENGTHS), LENGTHS);
}

static void test_many_heads(void **state) {
  static const int LENGTHS[] = {1, 20, 0, 1, 33};
  check_attention(state, 20, 16, 1, 1, COUNT(LENGTHS), LENGTHS);
}

static void test_nothing(void **state) {
  static const int EMPTY[] = {0, 0};
  check_attention(state, 2, 64, 1, 1, COUNT(EMPTY), EMPTY);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_head_sizes), cmocka_unit_test(test_fast), cmocka_unit_test(test_far),
      cmocka_unit_test(test_bias),       cmocka_unit_test(test_loud), cmocka_unit_test(test_many_heads),
      cmocka_unit_test(test_nothing),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
