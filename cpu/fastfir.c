/* See fastfir.h. */
#include "cpu/fastfir.h"

#include <stdlib.h>
#include <string.h>

struct fast_fir {
  int channels, dilation;
  int blocks; /* of 2 * dilation output rows */
  int taps;   /* even ones; one more than the odd */
  struct onednn_conv *even, *odd, *sum;
};

bool fast_fir_pays(const struct vamp_conv_shape *shape) {
  return shape->in_channels >= 96 && shape->in_channels == shape->out_channels && shape->kernel >= 7 &&
         shape->kernel % 2 == 1 && shape->stride == 1 && !shape->transposed;
}

int fast_fir_rows(const struct vamp_conv_shape *shape, int rows) {
  int step = 2 * shape->dilation;
  return (rows + step - 1) / step * step;
}

void fast_fir_free(struct fast_fir *fir) {
  if (!fir) {
    return;
  }
  onednn_conv_free(fir->even);
  onednn_conv_free(fir->odd);
  onednn_conv_free(fir->sum);
  free(fir);
}

/* Every second tap from `first` on, or with `both` the sum of each pair; [pairs, taps]. */
static void pick_taps(const float *weight, size_t pairs, size_t kernel, size_t taps, size_t first, bool both,
                      float *out) {
  for (size_t i = 0; i < pairs; i++) {
    const float *row = weight + i * kernel;
    for (size_t t = 0; t < taps; t++) {
      size_t tap = 2 * t + first;
      *out++ = row[tap] + (both && tap + 1 < kernel ? row[tap + 1] : 0.0f);
    }
  }
}

int fast_fir_create(struct cpu_device *device, const struct vamp_conv_shape *shape, int rows,
                    const float *weight, const float *bias, struct fast_fir **out, struct vamp_error *error) {
  struct fast_fir *fir = calloc(1, sizeof *fir);
  int channels = shape->in_channels, dilation = shape->dilation, taps = (shape->kernel + 1) / 2;
  size_t pairs = (size_t)channels * (size_t)channels, kernel = (size_t)shape->kernel;
  float *part = malloc(sizeof *part * pairs * (size_t)taps);
  float *twice = malloc(sizeof *twice * (size_t)channels);
  int status = VAMP_MEMORY, half;
  if (!fir || !part || !twice) {
    vamp_fail(error, VAMP_MEMORY, "out of memory for a convolution's weights");
    goto done;
  }
  *fir = (struct fast_fir){.channels = channels,
                           .dilation = dilation,
                           .blocks = fast_fir_rows(shape, rows) / (2 * dilation),
                           .taps = taps};
  half = fir->blocks * dilation;
  pick_taps(weight, pairs, kernel, (size_t)taps, 0, false, part);
  status = onednn_conv_create(device->onednn, cpu_bf16(device), half + dilation, channels, channels, taps,
                              dilation, part, bias, &fir->even, error);
  if (!status) {
    pick_taps(weight, pairs, kernel, (size_t)taps - 1, 1, false, part);
    status = onednn_conv_create(device->onednn, cpu_bf16(device), half, channels, channels, taps - 1,
                                dilation, part, NULL, &fir->odd, error);
  }
  if (!status) {
    /* A carries the bias: odd rows subtract it once, so here it stands twice. */
    for (int c = 0; c < channels; c++) {
      twice[c] = 2.0f * bias[c];
    }
    pick_taps(weight, pairs, kernel, (size_t)taps, 0, true, part);
    status = onednn_conv_create(device->onednn, cpu_bf16(device), half, channels, channels, taps, dilation,
                                part, twice, &fir->sum, error);
  }
done:
  free(part);
  free(twice);
  if (status) {
    fast_fir_free(fir);
    return status;
  }
  *out = fir;
  return 0;
}

/* Bytes of E, O or S: every one a block longer than its convolution needs at most. */
static size_t signal_bytes(const struct cpu_device *device, const struct fast_fir *fir) {
  size_t blocks = (size_t)(fir->blocks + fir->taps);
  return cpu_carved(device->base.act_size * blocks * (size_t)(fir->dilation * fir->channels));
}

static size_t result_bytes(const struct fast_fir *fir) {
  return cpu_carved(sizeof(float) * (size_t)(fir->blocks + 1) * (size_t)(fir->dilation * fir->channels));
}

size_t fast_fir_scratch(const struct cpu_device *device, const struct fast_fir *fir) {
  return 3 * signal_bytes(device, fir) + 3 * result_bytes(fir) +
         cpu_carved(sizeof(float) * (size_t)(fir->dilation * fir->channels)) +
         cpu_carved(onednn_scratch_size(device->onednn));
}

int fast_fir_run(const struct cpu_device *device, const struct fast_fir *fir, const float *in, float *out,
                 char *scratch) {
  const struct simd *simd = device->simd;
  bool bf16 = cpu_bf16(device);
  size_t block = (size_t)(fir->dilation * fir->channels), bytes = block * device->base.act_size;
  char *even = cpu_carve(&scratch, signal_bytes(device, fir));
  char *odd = cpu_carve(&scratch, signal_bytes(device, fir));
  char *sum = cpu_carve(&scratch, signal_bytes(device, fir));
  float *a = cpu_carve(&scratch, result_bytes(fir)), *b = cpu_carve(&scratch, result_bytes(fir));
  float *g = cpu_carve(&scratch, result_bytes(fir)), *added = cpu_carve(&scratch, sizeof *added * block);
  /* Block 2m of the input is E[m], block 2m + 1 is O[m]. E has one block more than there is input: what
   * stands there meets no tap of its own and cancels out of the odd rows, so zeros will do. */
  size_t count = (size_t)(fir->blocks + fir->taps) - 1;
  for (size_t m = 0; m < count; m++) {
    const float *e = in + 2 * m * block, *o = e + block;
    simd->to_act(e, block, bf16, even + m * bytes);
    simd->to_act(o, block, bf16, odd + m * bytes);
    if (m + 1 < count) {
      simd->residual(o, o + block, block, 1.0f, false, added);
      simd->to_act(added, block, bf16, sum + m * bytes);
    } else {
      memcpy(sum + m * bytes, odd + m * bytes, bytes);
    }
  }
  memset(even + count * bytes, 0, bytes);
  int status = onednn_conv_run(fir->even, even, a, scratch);
  if (!status) {
    status = onednn_conv_run(fir->odd, odd, b, scratch);
  }
  if (!status) {
    status = onednn_conv_run(fir->sum, sum, g, scratch);
  }
  for (size_t m = 0; m < (size_t)fir->blocks && !status; m++) {
    float *y = out + 2 * m * block;
    simd->residual(a + m * block, b + m * block, block, 1.0f, false, y);
    simd->subtract(g + m * block, a + (m + 1) * block, b + m * block, block, y + block);
  }
  return status;
}
