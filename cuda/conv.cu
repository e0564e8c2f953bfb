/*
 * Convolutions of the codec: creation, the folded view (conv.h), and the choice of a kernel.
 *
 * With few channels on one side (the codec's first and last convolution, and small models) one thread makes
 * whole rows (conv_few.cu), in float whatever the precision. Everything else is tiled: the input passes once
 * through snake into scratch memory, in the precision of the device and with channels filled up to 16 bytes,
 * so that the kernels (conv_mma.cu, conv_fp32.cu) do nothing but copy and multiply. The pass costs 6 bytes
 * an element (4 in, 2 out); repeating the snake in each column of blocks would cost more from 256 outputs
 * on, and below that the residual units, which are most of the time, have a kernel without it
 * (unit_fused.cu).
 */
#include <stdlib.h>
#include <string.h>

#include "cuda/conv.cuh"

/* ---- the folded view ------------------------------------------------------------------------------ */

struct conv_plan conv_plan_make(const struct vamp_conv_shape *shape, int width) {
  struct conv_plan plan;
  memset(&plan, 0, sizeof plan);
  plan.channels = shape->in_channels;
  plan.width = width;
  plan.out_channels = shape->out_channels;
  plan.inputs = width;
  plan.outputs = shape->out_channels;
  plan.taps = shape->kernel;
  plan.dilation = shape->dilation;
  plan.pitch = width;
  plan.shift = (int64_t)shape->padding * width;
  plan.fold = 1;
  if (shape->transposed) {
    plan.fold = shape->stride;
    plan.taps = (shape->kernel + shape->stride - 1) / shape->stride;
    plan.outputs = shape->stride * shape->out_channels;
    plan.padding = shape->padding;
    plan.shift = (int64_t)(plan.taps - 1) * width;
    plan.out_shift = (int64_t)shape->padding * shape->out_channels;
  } else if (shape->stride > 1) {
    plan.taps = (shape->kernel - 1) * shape->dilation / shape->stride + 1;
    plan.inputs = shape->stride * width;
    plan.pitch = plan.inputs;
    plan.dilation = 1;
  }
  return plan;
}

float conv_plan_weight(const struct vamp_conv_shape *shape, const struct conv_plan *plan, const float *weight,
                       int n, int m, int k) {
  int in = k % plan->width, out = n % shape->out_channels, tap = m;
  if (shape->transposed) {
    tap = n / shape->out_channels + (plan->taps - 1 - m) * shape->stride;
  } else if (shape->stride > 1) {
    int row = m * shape->stride + k / plan->width;
    if (row % shape->dilation) {
      return 0;
    }
    tap = row / shape->dilation;
  }
  if (in >= shape->in_channels || tap >= shape->kernel) {
    return 0;
  }
  size_t first = shape->transposed ? (size_t)in * (size_t)shape->out_channels + (size_t)out
                                   : (size_t)out * (size_t)shape->in_channels + (size_t)in;
  return weight[first * (size_t)shape->kernel + (size_t)tap];
}

int conv_width(const struct cuda_device *device, int channels) {
  int piece = cuda_bf16(device) ? 8 : 4;
  return (channels + piece - 1) / piece * piece;
}

/* ---- creation ------------------------------------------------------------------------------------- */

/* FEW: [taps, inputs, outputs]. TILED: [chunks, taps, outputs, inputs of a chunk]. */
static int upload_weight(struct cuda_device *device, struct cuda_conv *c, const float *weight) {
  const struct conv_plan *plan = &c->plan;
  bool few = c->way == CONV_FEW;
  int each = few ? plan->inputs : CONV_CHUNK_BYTES / (int)device->base.act_size;
  int chunks = (plan->inputs + each - 1) / each;
  size_t count = (size_t)chunks * (size_t)each * (size_t)plan->taps * (size_t)plan->outputs;
  count += few ? 0 : (size_t)CONV_SPARE_OUTPUTS * (size_t)each;
  float *values = (float *)calloc(count, sizeof *values);
  if (!values) {
    return VAMP_MEMORY;
  }
  size_t at = 0;
  for (int chunk = 0; chunk < chunks; chunk++) {
    for (int m = 0; m < plan->taps; m++) {
      for (int i = 0; i < plan->outputs * each; i++) {
        int n = few ? i % plan->outputs : i / each;
        int k = few ? i / plan->outputs : chunk * each + i % each;
        values[at++] = k < plan->inputs ? conv_plan_weight(&c->shape, plan, weight, n, m, k) : 0;
      }
    }
  }
  int status = few ? cuda_upload_new(device, values, sizeof *values * count, &c->weight)
                   : cuda_upload_act(device, values, count, &c->weight);
  free(values);
  return status;
}

/* One bias for each output of the folded view; zeros where there is none. */
static int upload_bias(struct cuda_device *device, struct cuda_conv *c, const float *bias) {
  float *values = (float *)calloc((size_t)c->plan.outputs, sizeof *values);
  if (!values) {
    return VAMP_MEMORY;
  }
  for (int n = 0; n < c->plan.outputs && bias; n++) {
    values[n] = bias[n % c->plan.out_channels];
  }
  void *memory = NULL;
  int status = cuda_upload_new(device, values, sizeof *values * (size_t)c->plan.outputs, &memory);
  c->bias = (float *)memory;
  free(values);
  return status;
}

void conv_free(struct cuda_device *device, struct cuda_conv *conv) {
  if (conv) {
    cuda_release(device, conv->weight);
    cuda_release(device, conv->bias);
    free(conv);
  }
}

bool conv_few_fits(const struct vamp_conv_shape *shape) {
  struct conv_plan plan = conv_plan_make(shape, shape->in_channels);
  return conv_few_shared(&plan) > 0;
}

int conv_make(struct cuda_device *device, const struct vamp_conv_shape *shape, bool few, const float *weight,
              const float *bias, struct cuda_conv **conv, struct vamp_error *error) {
  struct cuda_conv *c = (struct cuda_conv *)calloc(1, sizeof *c);
  if (!c) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  c->base.kind = CUDA_CONV;
  c->shape = *shape;
  c->way = few ? CONV_FEW : CONV_TILED;
  c->plan = conv_plan_make(shape, few ? shape->in_channels : conv_width(device, shape->in_channels));
  size_t shared = few                                             ? conv_few_shared(&c->plan)
                  : device->base.precision == VAMP_PRECISION_FP32 ? conv_fp32_shared(&c->plan)
                                                                  : conv_mma_shared(&c->plan);
  int status;
  if (shared > cuda_shared_room(device)) {
    status = vamp_fail(error, VAMP_UNSUPPORTED,
                       "a convolution of kernel %d at dilation %d needs %zu bytes of shared memory, and this "
                       "device has %zu",
                       shape->kernel, shape->dilation, shared, cuda_shared_room(device));
    goto err;
  }
  status = upload_weight(device, c, weight);
  if (!status) {
    status = upload_bias(device, c, bias);
  }
  if (status) {
    vamp_fail(error, status, "a convolution's weights: %s", vamp_device_trouble(status));
    goto err;
  }
  *conv = c;
  return 0;
err:
  conv_free(device, c);
  return status;
}

int cuda_conv_create(struct vamp_device *device, const struct vamp_conv_shape *shape, const float *weight,
                     const float *bias, struct vamp_weight **conv, struct vamp_error *error) {
  struct cuda_conv *c;
  int status = conv_make(cuda_device(device), shape, conv_few_fits(shape), weight, bias, &c, error);
  if (!status) {
    *conv = &c->base;
  }
  return status;
}

void cuda_conv_free(struct cuda_device *device, struct vamp_weight *conv) {
  conv_free(device, (struct cuda_conv *)conv);
}

/* ---- activation ----------------------------------------------------------------------------------- */

enum { ACTIVATE_THREADS = 256, ACTIVATE_ROWS = 8 };

/* A thread has four channels of ACTIVATE_ROWS rows, apart by as many rows as the block has side by side. */
template <enum vamp_precision P>
__global__ void __launch_bounds__(ACTIVATE_THREADS)
    conv_activate_kernel(int64_t rows, int channels, int width, const float *alpha, const float *in,
                         void *out) {
  int groups = width / 4;
  int64_t item = (int64_t)blockIdx.x * ACTIVATE_THREADS + threadIdx.x;
  int64_t apart = (rows + ACTIVATE_ROWS - 1) / ACTIVATE_ROWS;
  int c = (int)(item % groups) * 4;
  int64_t row = item / groups;
  if (row >= apart) {
    return;
  }
  float factor[4], inverse[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    factor[i] = alpha && c + i < channels ? alpha[c + i] : 0;
    inverse[i] = conv_inverse(factor[i]);
  }
#pragma unroll
  for (int r = 0; r < ACTIVATE_ROWS; r++) {
    if (row < rows) {
      float x[4];
      conv_read_four(in + row * channels + c, c, channels, x);
      if (alpha) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          x[i] = conv_snake(x[i], factor[i], inverse[i]);
        }
      }
      int64_t to = row * width + c;
      if (P == VAMP_PRECISION_BF16) {
        *(uint2 *)((__nv_bfloat16 *)out + to) =
            make_uint2(vamp_bf16_pack(x[0], x[1]), vamp_bf16_pack(x[2], x[3]));
      } else {
        if (P == VAMP_PRECISION_TF32) {
#pragma unroll
          for (int i = 0; i < 4; i++) {
            x[i] = vamp_tf32_round(x[i]);
          }
        }
        *(float4 *)((float *)out + to) = make_float4(x[0], x[1], x[2], x[3]);
      }
    }
    row += apart;
  }
}

int conv_activate(struct cuda_device *device, int64_t rows, int channels, int width, const float *alpha,
                  const float *in, void *out) {
  int64_t items = (rows + ACTIVATE_ROWS - 1) / ACTIVATE_ROWS * (width / 4);
  int64_t blocks = (items + ACTIVATE_THREADS - 1) / ACTIVATE_THREADS;
  switch (device->base.precision) {
  case VAMP_PRECISION_BF16:
    VAMP_LAUNCH(conv_activate_kernel<VAMP_PRECISION_BF16>, dim3((unsigned)blocks), dim3(ACTIVATE_THREADS), 0,
                device->stream, rows, channels, width, alpha, in, out);
    break;
  case VAMP_PRECISION_TF32:
    VAMP_LAUNCH(conv_activate_kernel<VAMP_PRECISION_TF32>, dim3((unsigned)blocks), dim3(ACTIVATE_THREADS), 0,
                device->stream, rows, channels, width, alpha, in, out);
    break;
  default:
    VAMP_LAUNCH(conv_activate_kernel<VAMP_PRECISION_FP32>, dim3((unsigned)blocks), dim3(ACTIVATE_THREADS), 0,
                device->stream, rows, channels, width, alpha, in, out);
  }
  CUDA_TRY(cudaGetLastError());
  return 0;
}

/* ---- running -------------------------------------------------------------------------------------- */

int conv_table_make(struct cuda_device *device, const struct conv_plan *plan, const struct vamp_packing *from,
                    const struct vamp_packing *to, int tile_rows, struct conv_table *table, int64_t *tiles) {
  struct conv_sequence *sequences = table->few;
  *tiles = 0;
  table->count = from->count;
  table->memory = NULL;
  if (from->count > CONV_TABLE) {
    sequences = (struct conv_sequence *)malloc(sizeof *sequences * (size_t)from->count);
    if (!sequences) {
      return VAMP_MEMORY;
    }
  }
  for (int s = 0; s < from->count; s++) {
    struct conv_sequence *one = &sequences[s];
    one->in_begin = from->offsets[s];
    one->in_rows = from->offsets[s + 1] - from->offsets[s];
    one->out_begin = to->offsets[s];
    one->out_rows = to->offsets[s + 1] - to->offsets[s];
    one->rows = one->out_rows > 0 ? (one->out_rows + plan->padding + plan->fold - 1) / plan->fold : 0;
    one->tile = *tiles;
    *tiles += (one->rows + tile_rows - 1) / tile_rows;
  }
  int status = 0;
  if (sequences != table->few) {
    const void *memory = NULL;
    status = cuda_stage(device, sequences, sizeof *sequences * (size_t)from->count, &memory);
    table->memory = (const struct conv_sequence *)memory;
    free(sequences);
  }
  return status;
}

int conv_run(struct cuda_device *device, const struct cuda_conv *conv, const float *alpha,
             const struct vamp_packing *from, const struct vamp_packing *to, const void *in,
             struct conv_epilogue end) {
  struct conv_job job;
  memset(&job, 0, sizeof job);
  job.plan = conv->plan;
  job.in = in;
  job.weight = conv->weight;
  job.alpha = alpha;
  job.end = end;
  job.end.bias = conv->bias;
  /* Both outputs of a pair are in the same row of the result, and at an even place. */
  job.end.paired = conv->plan.out_channels % 2 == 0;
  job.end.whole = conv->plan.out_channels % 4 == 0 && !end.apply_tanh;
  if (conv->way == CONV_FEW) {
    return conv_few_run(device, &job, from, to);
  }
  return device->base.precision == VAMP_PRECISION_FP32 ? conv_fp32_run(device, &job, from, to)
                                                       : conv_mma_run(device, &job, from, to);
}

int cuda_conv(struct vamp_device *base, const struct vamp_weight *conv, const struct vamp_weight *alpha,
              bool apply_tanh, const struct vamp_packing *from, const struct vamp_packing *to,
              const float *in, float *out) {
  struct cuda_device *device = cuda_device(base);
  const struct cuda_conv *c = (const struct cuda_conv *)conv;
  const float *factors = cuda_vector_values(alpha);
  int64_t rows = from->offsets[from->count];
  struct conv_epilogue end;
  memset(&end, 0, sizeof end);
  end.ending = CONV_STORE;
  end.apply_tanh = apply_tanh;
  end.out = out;
  if (c->way == CONV_FEW || rows == 0) {
    return conv_run(device, c, factors, from, to, in, end);
  }
  void *activated;
  int status = cuda_scratch(device, (size_t)rows * (size_t)c->plan.width * device->base.act_size, &activated);
  if (!status) {
    status = conv_activate(device, rows, c->plan.channels, c->plan.width, factors, in, activated);
  }
  return status ? status : conv_run(device, c, NULL, from, to, activated, end);
}
