/*
 * The matrix operations of the CPU backend: linear with its epilogues, the norm, the embedding. How they are
 * tested: cpu_reference.h.
 */
#include "tests/unit/trial_linear.h"

/* Around the sizes at which an implementation may change its way: vectors, tiles, blocks of rows. */
static const int RAGGED[] = {1, 0, 15, 16, 17, 1, 0, 33, 64, 100, 192, 193};
static const int LONG[] = {401, 1, 575};
static const int SHORT[] = {3, 0, 1, 20};

static void test_linear_store(void **state) {
  check_linear(state, VAMP_STORE, 64, 64, false, 1, COUNT(RAGGED), RAGGED);
  check_linear(state, VAMP_STORE, 48, 33, true, 1, COUNT(RAGGED), RAGGED);
  check_linear(state, VAMP_STORE, 7, 100, true, 1, COUNT(SHORT), SHORT);
}

static void test_linear_store_f32(void **state) {
  check_linear(state, VAMP_STORE_F32, 100, 48, true, 1, COUNT(RAGGED), RAGGED);
  check_linear(state, VAMP_STORE_F32, 1027, 32, true, 1, COUNT(SHORT), SHORT);
  check_linear(state, VAMP_STORE_F32, 16, 700, false, 1, COUNT(SHORT), SHORT);
}

static void test_linear_add(void **state) {
  check_linear(state, VAMP_ADD, 64, 96, false, 1, COUNT(RAGGED), RAGGED);
  check_linear(state, VAMP_ADD, 50, 20, true, 1, COUNT(LONG), LONG);
}

static void test_linear_gated(void **state) {
  check_linear(state, VAMP_GATED_GELU, 64, 32, false, 1, COUNT(RAGGED), RAGGED);
  check_linear(state, VAMP_GATED_GELU, 128, 64, true, 3, COUNT(SHORT), SHORT);
  check_linear(state, VAMP_GATED_GELU, 512, 40, false, 1, COUNT(SHORT), SHORT);
  /* halves of odd size, and of one channel */
  check_linear(state, VAMP_GATED_GELU, 14, 24, true, 1, COUNT(SHORT), SHORT);
  check_linear(state, VAMP_GATED_GELU, 66, 17, true, 1, COUNT(SHORT), SHORT);
  check_linear(state, VAMP_GATED_GELU, 2, 16, true, 1, COUNT(SHORT), SHORT);
  check_linear(state, VAMP_GATED_GELU, 1026, 8, true, 1, COUNT(SHORT), SHORT);
}

static void test_linear_narrow(void **state) {
  for (int e = VAMP_STORE; e <= VAMP_ADD; e++) {
    check_linear(state, (enum vamp_epilogue)e, 1, 1, true, 1, COUNT(SHORT), SHORT);
    check_linear(state, (enum vamp_epilogue)e, 1, 64, false, 1, COUNT(SHORT), SHORT);
    check_linear(state, (enum vamp_epilogue)e, 64, 1, true, 1, COUNT(SHORT), SHORT);
  }
  check_linear(state, VAMP_GATED_GELU, 2, 1, true, 1, COUNT(SHORT), SHORT);
}

static void test_linear_long(void **state) {
  check_linear(state, VAMP_STORE, 80, 80, true, 1, COUNT(LONG), LONG);
  check_linear(state, VAMP_GATED_GELU, 96, 40, false, 1, COUNT(LONG), LONG);
}

/* Gates where the tanh has long reached its ends: nothing may overflow on the way. */
static void test_linear_loud(void **state) {
  check_linear(state, VAMP_GATED_GELU, 64, 32, true, 40, COUNT(SHORT), SHORT);
}

static void test_linear_nothing(void **state) {
  static const int EMPTY[] = {0, 0};
  check_linear(state, VAMP_STORE, 16, 16, true, 1, 0, EMPTY);
  check_linear(state, VAMP_STORE, 16, 16, true, 1, COUNT(EMPTY), EMPTY);
}

static void test_rms_norm(void **state) {
  static const int WIDTHS[] = {1, 3, 8, 16, 20, 31, 64, 80, 257, 1280};
  for (int i = 0; i < COUNT(WIDTHS); i++) {
    check_norm(state, WIDTHS[i], 1, COUNT(RAGGED), RAGGED);
  }
  check_norm(state, 96, 1000, COUNT(RAGGED), RAGGED);
  check_norm(state, 96, 1e-3, COUNT(RAGGED), RAGGED); /* where the 1e-6 decides */
  check_norm(state, 96, 0, COUNT(RAGGED), RAGGED);
}

static void test_embed(void **state) {
  check_embed(state, 4, 1025, 8, 64, COUNT(RAGGED), RAGGED);
  check_embed(state, 14, 65, 8, 80, COUNT(RAGGED), RAGGED);
  check_embed(state, 1, 3, 1, 1, COUNT(RAGGED), RAGGED);
  check_embed(state, 3, 17, 5, 33, COUNT(RAGGED), RAGGED);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_linear_store),  cmocka_unit_test(test_linear_store_f32),
      cmocka_unit_test(test_linear_add),    cmocka_unit_test(test_linear_gated),
      cmocka_unit_test(test_linear_narrow), cmocka_unit_test(test_linear_long),
      cmocka_unit_test(test_linear_loud),   cmocka_unit_test(test_linear_nothing),
      cmocka_unit_test(test_rms_norm),      cmocka_unit_test(test_embed),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
