/*
 * The residual vector quantiser of the CUDA backend. How it is tested: trial_quantize.h.
 */
#include "tests/cuda/devices.h"

#include "tests/unit/trial_quantize.h"

static void test_random(void **state) {
  check_random(state, 14, 64, 8, 32, 21);
  check_random(state, 2, 1024, 8, 100, 9);
  check_random(state, 2, 1000, 8, 17, 5);
  check_random(state, 3, 17, 5, 24, 19);
  check_random(state, 1, 2, 1, 1, 5);
  check_random(state, 1, 1, 8, 16, 2);
  check_random(state, 2, 40, 16, 48, 9);
  check_random(state, 2, 40, 16, 48, 0);
}

/* Every row of the table stands in it several times, in the same lane of a warp and in others. */
static void test_equal_rows(void **state) {
  static const int PERIODS[] = {1, 3, 32, 50};
  for (int p = 0; p < COUNT(PERIODS); p++) {
    struct quantizer q = quantizer_make(2, 160, 8, 16);
    for (int level = 0; level < q.codebooks; level++) {
      for (int code = PERIODS[p]; code < q.entries; code++) {
        memcpy(q.table + (level * q.entries + code) * q.dimensions, table_row(&q, level, code % PERIODS[p]),
               sizeof(float) * (size_t)q.dimensions);
      }
    }
    float *latent = random_floats(20 * 16, 1, 7);
    check_quantizer(state, &q, 20, latent);
    free(latent);
    quantizer_free(&q);
  }
}

/* Silence into a quantiser without bias: z is 0, all rows are equally far, the first is taken. So it is where
 * the latent is no number: a code must always be one. */
static void test_no_direction(void **state) {
  struct quantizer q = quantizer_make(1, 100, 8, 16);
  memset(q.in_bias, 0, sizeof(float) * 8);
  float latent[3 * 16] = {0};
  for (int i = 32; i < 48; i++) {
    latent[i] = NAN;
  }
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
      cmocka_unit_test(test_equal_rows),
      cmocka_unit_test(test_no_direction),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
