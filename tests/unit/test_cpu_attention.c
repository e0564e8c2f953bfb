/*
 * Attention of the CPU backend. How it is tested: cpu_reference.h.
 */
#include "tests/unit/trial_attention.h"

/* The reference's own buckets, against the formula's values worked out by hand. */
static void test_buckets(void **state) {
  (void)state;
  static const int WANT[][2] = {{0, 0},   {1, 1},   {7, 7},   {8, 8},   {11, 8},   {12, 9},   {15, 9},
                                {16, 10}, {22, 10}, {23, 11}, {31, 11}, {32, 12},  {45, 12},  {46, 13},
                                {63, 13}, {64, 14}, {90, 14}, {91, 15}, {127, 15}, {128, 15}, {500, 15}};
  for (int i = 0; i < COUNT(WANT); i++) {
    assert_int_equal(bucket_of(-WANT[i][0]), WANT[i][1]);
    assert_int_equal(bucket_of(WANT[i][0]), WANT[i][1] + (WANT[i][0] ? 16 : 0));
  }
}

static void test_head_sizes(void **state) {
  static const int SIZES[] = {1, 8, 16, 20, 48, 64, 80, 128};
  static const int LENGTHS[] = {5, 1, 0, 63, 64, 65, 2};
  for (int i = 0; i < COUNT(SIZES); i++) {
    check_attention(state, i % 3 + 1, SIZES[i], 1, 1, COUNT(LENGTHS), LENGTHS);
  }
}

static void test_long(void **state) {
  static const int LENGTHS[] = {575, 1, 173};
  check_attention(state, 2, 64, 1, 2, COUNT(LENGTHS), LENGTHS);
  check_attention(state, 1, 20, 1, 2, COUNT(LENGTHS), LENGTHS);
}

/* Where the bias alone decides, with a bias that all but selects: every distance must find its bucket. */
static void test_bias(void **state) {
  static const int LENGTHS[] = {575, 9, 130};
  check_attention(state, 3, 16, 12, 1, COUNT(LENGTHS), LENGTHS);
}

/* Scores in the thousands: exp() of them is infinite, of their distance from the largest it is not. */
static void test_loud(void **state) {
  static const int LENGTHS[] = {40, 3, 70};
  check_attention(state, 2, 64, 1, 32, COUNT(LENGTHS), LENGTHS);
  check_attention(state, 2, 16, 100, 1, COUNT(LENGTHS), LENGTHS);
}

static void test_many_heads(void **state) {
  static const int LENGTHS[] = {1, 100, 0, 17, 1, 1, 32, 33};
  check_attention(state, 20, 16, 1, 1, COUNT(LENGTHS), LENGTHS);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_buckets), cmocka_unit_test(test_head_sizes), cmocka_unit_test(test_long),
      cmocka_unit_test(test_bias),    cmocka_unit_test(test_loud),       cmocka_unit_test(test_many_heads),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
