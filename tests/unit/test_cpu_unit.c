/*
 * The residual unit of the CPU backend. How it is tested: cpu_reference.h.
 */
#include "tests/unit/cpu_reference.h"

struct unit_trial {
  struct trial trial;
  struct vamp_unit_shape shape;
  float scale;
  bool accumulate;
  float *alpha[2], *weight[2], *bias[2];
};

static void unit_create(const struct trial *trial, struct vamp_device *device, struct vamp_weight **weights) {
  const struct unit_trial *unit = (const struct unit_trial *)trial;
  struct vamp_unit_weights host = {unit->alpha[0], unit->weight[0], unit->bias[0],
                                   unit->alpha[1], unit->weight[1], unit->bias[1]};
  struct vamp_error error = {0};
  if (device->ops->unit_create(device, &unit->shape, &host, weights, &error)) {
    fail_msg("%s: %s", trial->name, error.message);
  }
}

static int unit_run(const struct trial *trial, struct vamp_device *device, struct vamp_weight **weights,
                    const struct vamp_packing *from, const struct vamp_packing *to, const void *in,
                    void *out) {
  (void)to;
  const struct unit_trial *unit = (const struct unit_trial *)trial;
  return device->ops->residual_unit(device, weights[0], from, unit->scale, unit->accumulate, in, out);
}

/* y = conv(snake(x)), of as many rows. */
static void half_unit(const struct unit_trial *unit, int half, int64_t rows, const double *x, double *y) {
  int channels = unit->shape.channels;
  int kernel = half ? unit->shape.kernel2 : unit->shape.kernel1;
  int dilation = half ? 1 : unit->shape.dilation1;
  double *active = taken(calloc((size_t)(rows * channels + 1), sizeof *active));
  for (int64_t i = 0; i < rows * channels; i++) {
    double alpha = (double)unit->alpha[half][i % channels];
    active[i] = x[i] + sin(alpha * x[i]) * sin(alpha * x[i]) / (alpha + 1e-9);
  }
  for (int64_t t = 0; t < rows; t++) {
    for (int o = 0; o < channels; o++) {
      double sum = (double)unit->bias[half][o];
      for (int tap = 0; tap < kernel; tap++) {
        int64_t at = t + (int64_t)(tap - kernel / 2) * dilation;
        for (int i = 0; i < channels && at >= 0 && at < rows; i++) {
          sum += active[at * channels + i] * (double)unit->weight[half][(o * channels + i) * kernel + tap];
        }
      }
      y[t * channels + o] = sum;
    }
  }
  free(active);
}

static void unit_reference(const struct trial *trial, int64_t rows, const float *in, double *out) {
  const struct unit_trial *unit = (const struct unit_trial *)trial;
  size_t count = (size_t)(rows * unit->shape.channels);
  double *x = taken(calloc(count + 1, sizeof *x)), *hidden = taken(calloc(count + 1, sizeof *x));
  double *y = taken(calloc(count + 1, sizeof *y));
  for (size_t i = 0; i < count; i++) {
    x[i] = (double)in[i];
  }
  half_unit(unit, 0, rows, x, hidden);
  half_unit(unit, 1, rows, hidden, y);
  for (size_t i = 0; i < count; i++) {
    double value = (double)unit->scale * (x[i] + y[i]);
    out[i] = unit->accumulate ? out[i] + value : value;
  }
  free(x);
  free(hidden);
  free(y);
}

static void check_unit(void **state, int channels, int kernel1, int dilation1, int kernel2, float scale,
                       bool accumulate, int count, const int *lengths) {
  int kernels[] = {kernel1, kernel2};
  struct unit_trial unit = {
      .trial = {.in_width = channels,
                .out_width = channels,
                .tolerance = 2e-5,
                .tolerance_bf16 = 3e-2,
                .create = unit_create,
                .run = unit_run,
                .reference = unit_reference},
      .shape = {channels, kernel1, dilation1, kernel2},
      .scale = scale,
      .accumulate = accumulate,
  };
  for (int half = 0; half < 2; half++) {
    int terms = channels * kernels[half];
    unit.weight[half] = random_weights((size_t)terms * (size_t)channels, terms, (uint64_t)half + 1);
    unit.bias[half] = random_floats((size_t)channels, 1, (uint64_t)half + 3);
    unit.alpha[half] = random_floats((size_t)channels, 0.5, (uint64_t)half + 5);
    for (int c = 0; c < channels; c++) {
      unit.alpha[half][c] = as_bf16(1 + unit.alpha[half][c]);
    }
  }
  snprintf(unit.trial.name, sizeof unit.trial.name, "unit of %d channels, kernels %d (dilation %d) and %d%s",
           channels, kernel1, dilation1, kernel2, accumulate ? ", accumulated" : "");
  trial_check(state, &unit.trial, count, lengths);
  for (int half = 0; half < 2; half++) {
    free(unit.weight[half]);
    free(unit.bias[half]);
    free(unit.alpha[half]);
  }
}

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
