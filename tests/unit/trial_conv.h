/*
 * A convolution as a trial of cpu_reference.h, plain, strided or transposed, for the tests of any backend.
 */
#ifndef VAMP_TEST_TRIAL_CONV_H
#define VAMP_TEST_TRIAL_CONV_H

#include "tests/unit/cpu_reference.h"

struct conv_trial {
  struct trial trial;
  struct vamp_conv_shape shape;
  bool apply_tanh;
  float *weight, *bias, *alpha; /* bias and alpha may be NULL */
};

/* size: in channels, out channels, kernel, stride, dilation, padding; padding -1: what the codec would take.
 */
struct conv_case {
  int size[6];
  bool transposed, snake, apply_tanh, no_bias;
};

static inline int64_t conv_rows(const struct trial *trial, int64_t rows) {
  return vamp_conv_rows(&((const struct conv_trial *)trial)->shape, rows);
}

static inline void conv_create(const struct trial *trial, struct vamp_device *device,
                               struct vamp_weight **weights) {
  const struct conv_trial *conv = (const struct conv_trial *)trial;
  struct vamp_error error = {0};
  size_t bytes = sizeof(float) * (size_t)conv->shape.in_channels * (size_t)conv->shape.out_channels *
                 (size_t)conv->shape.kernel;
  float *weight = taken(malloc(bytes));
  memcpy(weight, conv->weight, bytes);
  int status = device->ops->conv_create(device, &conv->shape, weight, conv->bias, &weights[0], &error);
  memset(weight, 0xFF, bytes);
  free(weight);
  if (!status && conv->alpha) {
    status =
        device->ops->vector_create(device, conv->alpha, (size_t)conv->shape.in_channels, &weights[1], &error);
  }
  if (status) {
    fail_msg("%s: %s", trial->name, error.message);
  }
}

static inline int conv_run(const struct trial *trial, struct vamp_device *device,
                           struct vamp_weight **weights, const struct vamp_packing *from,
                           const struct vamp_packing *to, const void *in, void *out) {
  const struct conv_trial *conv = (const struct conv_trial *)trial;
  return device->ops->conv(device, weights[0], weights[1], conv->apply_tanh, from, to, in, out);
}

static inline double snake(double x, double alpha) {
  return x + sin(alpha * x) * sin(alpha * x) / (alpha + 1e-9);
}

/* Every input row adds to every output row that it reaches: o = i·stride + tap·dilation − padding where
 * transposed, and the same with the roles changed where not. */
static inline void conv_reference(const struct trial *trial, int64_t rows, const float *in, double *out) {
  const struct conv_trial *conv = (const struct conv_trial *)trial;
  const struct vamp_conv_shape *shape = &conv->shape;
  int ins = shape->in_channels, outs = shape->out_channels, kernel = shape->kernel;
  int64_t out_rows = vamp_conv_rows(shape, rows);
  for (int64_t i = 0; i < out_rows * outs; i++) {
    out[i] = conv->bias ? (double)conv->bias[i % outs] : 0;
  }
  double *x = taken(calloc((size_t)(rows * ins + 1), sizeof *x));
  for (int64_t i = 0; i < rows * ins; i++) {
    x[i] = conv->alpha ? snake((double)in[i], (double)conv->alpha[i % ins]) : (double)in[i];
  }
  int64_t outer = shape->transposed ? rows : out_rows;
  for (int64_t at = 0; at < outer; at++) {
    for (int tap = 0; tap < kernel; tap++) {
      int64_t other = at * shape->stride + tap * shape->dilation - shape->padding;
      int64_t from = shape->transposed ? at : other, to = shape->transposed ? other : at;
      if (from < 0 || from >= rows || to < 0 || to >= out_rows) {
        continue;
      }
      for (int o = 0; o < outs; o++) {
        for (int i = 0; i < ins; i++) {
          int place = shape->transposed ? (i * outs + o) * kernel + tap : (o * ins + i) * kernel + tap;
          out[to * outs + o] += x[from * ins + i] * (double)conv->weight[place];
        }
      }
    }
  }
  free(x);
  for (int64_t i = 0; conv->apply_tanh && i < out_rows * outs; i++) {
    out[i] = tanh(out[i]);
  }
}

static inline struct vamp_conv_shape shape_of(const struct conv_case *one) {
  struct vamp_conv_shape shape = {
      .in_channels = one->size[0],
      .out_channels = one->size[1],
      .kernel = one->size[2],
      .stride = one->size[3],
      .dilation = one->size[4],
      .padding = one->size[5],
      .transposed = one->transposed,
  };
  if (shape.padding < 0) {
    bool keeps_rows = !shape.transposed && shape.stride == 1;
    shape.padding = keeps_rows ? (shape.kernel - 1) * shape.dilation / 2 : shape.stride / 2;
  }
  return shape;
}

static inline void check_conv_at(void **state, const struct conv_case *one, double in_scale,
                                 double alpha_scale, int count, const int *lengths) {
  struct vamp_conv_shape shape = shape_of(one);
  int ins = shape.in_channels, taps = shape.kernel;
  int terms = ins * (one->transposed ? (taps + shape.stride - 1) / shape.stride : taps);
  size_t weights = (size_t)ins * (size_t)shape.out_channels * (size_t)taps;
  /* Without a snake all inputs are exact in bf16; with one they are rounded, and tens to hundreds of
   * roundings of 2^-9 meet in each output. */
  struct conv_trial conv = {
      .trial = {.in_width = ins,
                .out_width = shape.out_channels,
                .tolerance = 1e-5 * fmax(1, in_scale),
                .tolerance_bf16 = (one->snake ? 1.5e-2 : 1e-5) * fmax(1, in_scale),
                .rows = conv_rows,
                .create = conv_create,
                .run = conv_run,
                .reference = conv_reference},
      .shape = shape,
      .apply_tanh = one->apply_tanh,
      .weight = random_weights(weights, terms, weights),
      .bias = one->no_bias ? NULL : random_floats((size_t)shape.out_channels, 1, 11),
      .alpha = one->snake ? random_floats((size_t)ins, alpha_scale, 12) : NULL,
  };
  for (int i = 0; one->snake && i < ins; i++) {
    /* a learned alpha is about 1; this keeps it away from 0, where the fraction is ill-conditioned */
    conv.alpha[i] = as_bf16(copysignf(0.5f * (float)alpha_scale, conv.alpha[i]) + conv.alpha[i]);
  }
  snprintf(conv.trial.name, sizeof conv.trial.name,
           "%sconv %d->%d kernel %d stride %d dilation %d padding %d%s%s",
           one->transposed ? "transposed " : "", ins, shape.out_channels, taps, shape.stride, shape.dilation,
           shape.padding, one->snake ? " snake" : "", one->apply_tanh ? " tanh" : "");
  trial_check_scaled(state, &conv.trial, count, lengths, in_scale);
  free(conv.weight);
  free(conv.bias);
  free(conv.alpha);
}

static inline void check_convs(void **state, int count, const struct conv_case *cases, int sequences,
                               const int *lengths) {
  for (int i = 0; i < count; i++) {
    check_conv_at(state, &cases[i], 1, 1, sequences, lengths);
  }
}

#endif
