/*
 * A residual unit as a trial of cpu_reference.h, for the tests of any backend.
 */
#ifndef VAMP_TEST_TRIAL_UNIT_H
#define VAMP_TEST_TRIAL_UNIT_H

#include "tests/unit/cpu_reference.h"

struct unit_trial {
  struct trial trial;
  struct vamp_unit_shape shape;
  float scale;
  bool accumulate;
  float *alpha[2], *weight[2], *bias[2];
};

static inline void unit_create(const struct trial *trial, struct vamp_device *device,
                               struct vamp_weight **weights) {
  const struct unit_trial *unit = (const struct unit_trial *)trial;
  struct vamp_unit_weights host = {unit->alpha[0], unit->weight[0], unit->bias[0],
                                   unit->alpha[1], unit->weight[1], unit->bias[1]};
  struct vamp_error error = {0};
  if (device->ops->unit_create(device, &unit->shape, &host, weights, &error)) {
    fail_msg("%s: %s", trial->name, error.message);
  }
}

static inline int unit_run(const struct trial *trial, struct vamp_device *device,
                           struct vamp_weight **weights, const struct vamp_packing *from,
                           const struct vamp_packing *to, const void *in, void *out) {
  (void)to;
  const struct unit_trial *unit = (const struct unit_trial *)trial;
  return device->ops->residual_unit(device, weights[0], from, unit->scale, unit->accumulate, in, out);
}

/* y = conv(snake(x)), of as many rows. */
static inline void half_unit(const struct unit_trial *unit, int half, int64_t rows, const double *x,
                             double *y) {
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

static inline void unit_reference(const struct trial *trial, int64_t rows, const float *in, double *out) {
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

static inline void check_unit(void **state, int channels, int kernel1, int dilation1, int kernel2,
                              float scale, bool accumulate, int count, const int *lengths) {
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

#endif
