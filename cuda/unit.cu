/*
 * Residual units of the codec: y = x + conv2(snake2(conv1(snake1(x)))), scaled, stored or added.
 *
 * Three ways, chosen by precision and channels when the unit is made:
 *
 * - FUSED, bf16 and up to 128 channels (where the codec's signals are long and bytes are the bound): one
 *   kernel, unit_fused.cu.
 * - TILED: activation, convolution with the second snake as its ending, convolution with the residual as
 *   its ending, through two activated signals in scratch memory. In fp32 and tf32, and in bf16 above 128
 * channels, where 6 + 6 bytes an element are little beside the multiplications.
 * - FEW, up to 8 channels: the two convolutions of conv_few.cu with a float signal between them.
 */
#include <stdlib.h>
#include <string.h>

#include "cuda/unit.h"

/* ---- two convolutions ----------------------------------------------------------------------------- */

static int run_pair(struct cuda_device *device, const struct cuda_unit *unit,
                    const struct vamp_packing *packing, float scale, bool accumulate, const float *in,
                    float *out) {
  const struct cuda_conv *first = unit->first;
  bool few = first->way == CONV_FEW;
  int channels = unit->shape.channels, width = first->plan.width;
  int64_t rows = packing->offsets[packing->count];
  const float *alpha1 = unit->alpha, *alpha2 = unit->alpha + 2 * channels;
  size_t bytes = (size_t)rows * (size_t)width * (few ? sizeof(float) : device->base.act_size);
  bytes = (bytes + 255) / 256 * 256;
  void *hidden;
  const void *from = in;
  int status = cuda_scratch(device, few ? bytes : 2 * bytes, &hidden);
  if (!status && !few) {
    void *activated = (char *)hidden + bytes;
    status = conv_activate(device, rows, channels, width, alpha1, in, activated);
    from = activated;
  }
  struct conv_epilogue end;
  memset(&end, 0, sizeof end);
  end.ending = few ? CONV_STORE : CONV_ACTIVATE;
  end.out = (float *)hidden;
  end.hidden = hidden;
  end.hidden_width = width;
  end.alpha = alpha2;
  end.inverse = alpha2 + channels;
  if (!status) {
    status = conv_run(device, first, alpha1, packing, packing, from, end);
  }
  memset(&end, 0, sizeof end);
  end.ending = CONV_RESIDUAL;
  end.out = out;
  end.residual = in;
  end.scale = scale;
  end.accumulate = accumulate;
  return status ? status : conv_run(device, unit->second, alpha2, packing, packing, hidden, end);
}

int cuda_residual_unit(struct vamp_device *base, const struct vamp_weight *unit,
                       const struct vamp_packing *packing, float scale, bool accumulate, const float *in,
                       float *out) {
  struct cuda_device *device = cuda_device(base);
  const struct cuda_unit *u = (const struct cuda_unit *)unit;
  if (packing->offsets[packing->count] == 0) {
    return 0;
  }
  return u->way == UNIT_FUSED ? unit_fused_run(device, u, packing, scale, accumulate, in, out)
                              : run_pair(device, u, packing, scale, accumulate, in, out);
}

/* ---- creation ------------------------------------------------------------------------------------- */

void cuda_unit_free(struct cuda_device *device, struct vamp_weight *unit) {
  struct cuda_unit *u = (struct cuda_unit *)unit;
  if (u) {
    conv_free(device, u->first);
    conv_free(device, u->second);
    cuda_release(device, u->alpha);
    free(u);
  }
}

static int upload_alphas(struct cuda_device *device, struct cuda_unit *u,
                         const struct vamp_unit_weights *weights) {
  size_t channels = (size_t)u->shape.channels;
  float *values = (float *)malloc(sizeof *values * 4 * channels);
  if (!values) {
    return VAMP_MEMORY;
  }
  for (size_t c = 0; c < channels; c++) {
    values[c] = weights->alpha1[c];
    values[channels + c] = 1.0f / (weights->alpha1[c] + 1e-9f);
    values[2 * channels + c] = weights->alpha2[c];
    values[3 * channels + c] = 1.0f / (weights->alpha2[c] + 1e-9f);
  }
  void *memory = NULL;
  int status = cuda_upload_new(device, values, sizeof *values * 4 * channels, &memory);
  u->alpha = (float *)memory;
  free(values);
  return status;
}

/* One of the two convolutions: kept rows, kept channels. */
static struct vamp_conv_shape half_shape(int channels, int kernel, int dilation) {
  struct vamp_conv_shape shape;
  shape.in_channels = shape.out_channels = channels;
  shape.kernel = kernel;
  shape.stride = 1;
  shape.dilation = dilation;
  shape.padding = (kernel - 1) * dilation / 2;
  shape.transposed = false;
  return shape;
}

int cuda_unit_create(struct vamp_device *base, const struct vamp_unit_shape *shape,
                     const struct vamp_unit_weights *weights, struct vamp_weight **unit,
                     struct vamp_error *error) {
  struct cuda_device *device = cuda_device(base);
  struct cuda_unit *u = (struct cuda_unit *)calloc(1, sizeof *u);
  if (!u) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  u->base.kind = CUDA_UNIT;
  u->shape = *shape;
  u->way = unit_fused_fits(device, shape) ? UNIT_FUSED : UNIT_PAIR;
  struct vamp_conv_shape first = half_shape(shape->channels, shape->kernel1, shape->dilation1);
  struct vamp_conv_shape second = half_shape(shape->channels, shape->kernel2, 1);
  bool few = shape->channels <= 8 && conv_few_fits(&first) && conv_few_fits(&second);
  int status = conv_make(device, &first, few, weights->weight1, weights->bias1, &u->first, error);
  if (!status) {
    status = conv_make(device, &second, few, weights->weight2, weights->bias2, &u->second, error);
  }
  if (!status) {
    status = upload_alphas(device, u, weights);
    if (status) {
      vamp_fail(error, status, "a residual unit's weights: %s", vamp_device_trouble(status));
    }
  }
  if (status) {
    cuda_unit_free(device, &u->base);
    return status;
  }
  *unit = &u->base;
  return 0;
}
