/*
 * The matrix operations of the CUDA backend: linear with its epilogues, the norm, the embedding. How they are
 * tested: cpu_reference.h. That a sequence alone gives the bits it gives among others is asked here at
 * numbers of rows on both sides of the borders at which another algorithm of cuBLAS may be taken
 * (cuda/product.h).
 */
#include "tests/cuda/devices.h"

/* Both halves are rounded to bfloat16 before they are joined, and a gate amplifies its error. */
#define TRIAL_GATED_BF16 1.2e-2
#include "tests/unit/trial_linear.h"

static const int RAGGED[] = {1, 0, 15, 17, 64, 33}, SHORT[] = {3, 0, 1, 20};
/* Together 1301 rows; alone one, 255, 257 and 641. */
static const int CLASSES[] = {255, 1, 257, 641, 147};

static void test_store(void **state) {
  check_linear(state, VAMP_STORE, 64, 64, false, 1, COUNT(RAGGED), RAGGED);
  check_linear(state, VAMP_STORE, 48, 33, true, 1, COUNT(RAGGED), RAGGED);
  check_linear(state, VAMP_STORE, 7, 100, true, 1, COUNT(SHORT), SHORT);
  check_linear(state, VAMP_STORE, 7, 100, false, 1, COUNT(SHORT), SHORT);
  check_linear(state, VAMP_STORE_F32, 100, 48, true, 1, COUNT(SHORT), SHORT);
  check_linear(state, VAMP_STORE_F32, 1027, 32, false, 1, COUNT(SHORT), SHORT);
}

static void test_add(void **state) {
  check_linear(state, VAMP_ADD, 64, 96, false, 1, COUNT(RAGGED), RAGGED);
  check_linear(state, VAMP_ADD, 50, 20, true, 1, COUNT(SHORT), SHORT);
}

static void test_gated(void **state) {
  check_linear(state, VAMP_GATED_GELU, 64, 32, false, 1, COUNT(RAGGED), RAGGED);
  check_linear(state, VAMP_GATED_GELU, 128, 64, true, 3, COUNT(SHORT), SHORT);
  /* halves of odd size, and of one channel */
  check_linear(state, VAMP_GATED_GELU, 14, 24, false, 1, COUNT(SHORT), SHORT);
  check_linear(state, VAMP_GATED_GELU, 66, 17, true, 1, COUNT(SHORT), SHORT);
  check_linear(state, VAMP_GATED_GELU, 2, 16, false, 1, COUNT(SHORT), SHORT);
}

static void test_narrow(void **state) {
  for (int e = VAMP_STORE; e <= VAMP_ADD; e++) {
    check_linear(state, (enum vamp_epilogue)e, 1, 1, true, 1, COUNT(SHORT), SHORT);
    check_linear(state, (enum vamp_epilogue)e, 1, 64, false, 1, COUNT(SHORT), SHORT);
    check_linear(state, (enum vamp_epilogue)e, 64, 1, false, 1, COUNT(SHORT), SHORT);
  }
  check_linear(state, VAMP_GATED_GELU, 2, 1, true, 1, COUNT(SHORT), SHORT);
}

static void test_row_classes(void **state) {
  check_linear(state, VAMP_STORE, 24, 72, false, 1, COUNT(CLASSES), CLASSES);
  check_linear(state, VAMP_ADD, 16, 56, false, 1, COUNT(CLASSES), CLASSES);
  check_linear(state, VAMP_GATED_GELU, 32, 40, false, 1, COUNT(CLASSES), CLASSES);
}

static void test_loud(void **state) {
  check_linear(state, VAMP_GATED_GELU, 64, 32, true, 40, COUNT(SHORT), SHORT);
  check_linear(state, VAMP_GATED_GELU, 64, 32, false, 40, COUNT(SHORT), SHORT);
}

static void test_nothing(void **state) {
  static const int EMPTY[] = {0, 0};
  check_linear(state, VAMP_STORE, 16, 16, true, 1, 0, EMPTY);
  check_linear(state, VAMP_STORE, 16, 16, false, 1, COUNT(EMPTY), EMPTY);
}

/* Both kernels: in registers up to 2048 channels that are a multiple of 4, and any. */
static void test_rms_norm(void **state) {
  static const int WIDTHS[] = {1, 4, 31, 64, 128, 132, 257, 1280, 2048, 2052};
  for (int i = 0; i < COUNT(WIDTHS); i++) {
    check_norm(state, WIDTHS[i], 1, COUNT(SHORT), SHORT);
  }
  check_norm(state, 96, 1000, COUNT(RAGGED), RAGGED);
  check_norm(state, 96, 1e-3, COUNT(SHORT), SHORT); /* where the 1e-6 decides */
  check_norm(state, 96, 0, COUNT(SHORT), SHORT);
}

static void test_embed(void **state) {
  check_embed(state, 4, 1025, 8, 64, COUNT(SHORT), SHORT);
  check_embed(state, 14, 65, 8, 80, COUNT(RAGGED), RAGGED);
  check_embed(state, 1, 3, 1, 1, COUNT(SHORT), SHORT);
  check_embed(state, 3, 17, 5, 33, COUNT(SHORT), SHORT);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_store),   cmocka_unit_test(test_add),         cmocka_unit_test(test_gated),
      cmocka_unit_test(test_narrow),  cmocka_unit_test(test_row_classes), cmocka_unit_test(test_loud),
      cmocka_unit_test(test_nothing), cmocka_unit_test(test_rms_norm),    cmocka_unit_test(test_embed),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
