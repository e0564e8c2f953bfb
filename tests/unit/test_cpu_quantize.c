/*
 * The residual vector quantiser of the CPU backend. How it is tested: trial_quantize.h.
 */
#include "tests/unit/trial_quantize.h"

static void test_random(void **state) {
  check_random(state, 14, 64, 8, 32, 33);
  check_random(state, 3, 1024, 8, 100, 20);
  check_random(state, 2, 1000, 8, 17, 9);
  check_random(state, 4, 17, 5, 24, 40);
  check_random(state, 1, 2, 1, 1, 5);
  check_random(state, 1, 1, 8, 16, 2);
  check_random(state, 2, 40, 16, 48, 0);
}

static void test_many_rows(void **state) {
  check_random(state, 2, 16, 8, 16, 700);
}

/* Every row of the table stands in it several times, in the same lane of a vector and in others. */
static void test_equal_rows(void **state) {
  static const int PERIODS[] = {1, 3, 16, 50};
  for (int p = 0; p < COUNT(PERIODS); p++) {
    struct quantizer q = quantizer_make(3, 160, 8, 16);
    for (int level = 0; level < q.codebooks; level++) {
      for (int code = PERIODS[p]; code < q.entries; code++) {
        memcpy(q.table + (level * q.entries + code) * q.dimensions, table_row(&q, level, code % PERIODS[p]),
               sizeof(float) * (size_t)q.dimensions);
      }
    }
    float *latent = random_floats(60 * 16, 1, 7);
    check_quantizer(state, &q, 60, latent);
    free(latent);
    quantizer_free(&q);
  }
}

/* Silence into a quantiser without bias: z is 0, all rows are equally far, the first is taken. */
static void test_zero_latent(void **state) {
  struct quantizer q = quantizer_make(1, 100, 8, 16);
  memset(q.in_bias, 0, sizeof(float) * 8);
  float latent[3 * 16] = {0};
  const struct devices *devices = *state;
  for (int i = 0; i < devices->count; i++) {
    struct vamp_device *device = devices->setting[i].device[0];
    struct vamp_weight *weight = quantizer_create(&q, device);
    struct quantized got = quantize(&q, device, weight, 3, latent, true);
    for (int r = 0; r < 3; r++) {
      assert_int_equal(got.codes[r], 0);
    }
    quantized_free(&got);
    device->ops->weight_free(device, weight);
  }
  quantizer_free(&q);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_random),
      cmocka_unit_test(test_many_rows),
      cmocka_unit_test(test_equal_rows),
      cmocka_unit_test(test_zero_latent),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
