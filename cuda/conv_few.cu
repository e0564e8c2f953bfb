/*
 * Convolution with few channels on one side: 1 to 64 at the codec's beginning, 24 to 1 at its end, and most
 * of a small model's. In float whatever the precision, with the snake on the way in.
 *
 * A thread makes one row, eight outputs at a time (one where there is but one). The block's input rows with
 * their halo are activated once into shared memory, at an odd number of floats a row, so that neighbouring
 * rows lie in different banks; the weights lie beside them and every thread reads the same one at a time.
 * The bound is bytes: 28 floats written for one read at the beginning, 24 read for one written at the end.
 */
#include "cuda/conv.cuh"

enum { THREADS = 128, FEW = 8 };

/* Outputs that a thread sums up at a time. */
template <int GROUP> __global__ void __launch_bounds__(THREADS) conv_few_kernel(const struct conv_job job) {
  VAMP_SHARED(float, shared);
  const struct conv_plan &plan = job.plan;
  const struct conv_sequence sequence = conv_find(job.table, blockIdx.x);
  const int64_t first = ((int64_t)blockIdx.x - sequence.tile) * THREADS;
  const int thread = (int)threadIdx.x, stride = plan.inputs | 1;
  const int columns = (plan.outputs + GROUP - 1) / GROUP * GROUP;
  float *weights = shared, *rows = shared + plan.taps * plan.inputs * columns;

  for (int i = thread; i < plan.taps * plan.inputs * columns; i += THREADS) {
    int n = i % columns;
    weights[i] = n < plan.outputs ? ((const float *)job.weight)[i / columns * plan.outputs + n] : 0;
  }
  const float *signal = (const float *)job.in + sequence.in_begin * plan.width;
  const int64_t length = sequence.in_rows * plan.width, base = first * plan.pitch - plan.shift;
  for (int i = thread; i < job.input_rows * plan.inputs; i += THREADS) {
    int64_t at = base + i / plan.inputs * plan.pitch + i % plan.inputs;
    float x = 0;
    if (at >= 0 && at < length) {
      x = signal[at];
      if (job.alpha) {
        float alpha = job.alpha[i % plan.inputs % plan.width];
        x = conv_snake(x, alpha, conv_inverse(alpha));
      }
    }
    rows[i / plan.inputs * stride + i % plan.inputs] = x;
  }
  __syncthreads();
  if (first + thread >= sequence.rows) {
    return;
  }
  for (int n = 0; n < plan.outputs; n += GROUP) {
    float sum[GROUP];
#pragma unroll
    for (int i = 0; i < GROUP; i++) {
      sum[i] = 0;
    }
    for (int m = 0; m < plan.taps; m++) {
      const float *row = rows + (thread + m * plan.dilation) * stride;
      const float *weight = weights + m * plan.inputs * columns + n;
      for (int k = 0; k < plan.inputs; k++) {
        float x = row[k];
        if (GROUP == 1) {
          sum[0] = fmaf(x, weight[k], sum[0]);
        }
#pragma unroll
        for (int i = 0; i + 4 <= GROUP; i += 4) {
          float4 w = *(const float4 *)(weight + k * columns + i);
          sum[i] = fmaf(x, w.x, sum[i]);
          sum[i + 1] = fmaf(x, w.y, sum[i + 1]);
          sum[i + 2] = fmaf(x, w.z, sum[i + 2]);
          sum[i + 3] = fmaf(x, w.w, sum[i + 3]);
        }
      }
    }
    if (GROUP == 1) {
      conv_end<VAMP_PRECISION_FP32>(job, sequence, first + thread, n, sum[0]);
    }
#pragma unroll
    for (int i = 0; i + 2 <= GROUP; i += 2) {
      conv_end_pair<VAMP_PRECISION_FP32>(job, sequence, first + thread, n + i, sum[i], sum[i + 1]);
    }
  }
}

/* ---- launch --------------------------------------------------------------------------------------- */

static int input_rows(const struct conv_plan *plan) {
  return THREADS + (plan->taps - 1) * plan->dilation;
}

static int group(const struct conv_plan *plan) {
  return plan->outputs == 1 ? 1 : plan->outputs <= 4 ? 4 : FEW;
}

/* Bytes, or 0 where this is not the way: many channels on both sides, or more than 48 KiB. */
size_t conv_few_shared(const struct conv_plan *plan) {
  if (plan->inputs > FEW && plan->outputs > FEW) {
    return 0;
  }
  int64_t columns = (plan->outputs + group(plan) - 1) / group(plan) * group(plan);
  int64_t weights = (int64_t)plan->taps * plan->inputs * columns;
  int64_t rows = (int64_t)input_rows(plan) * (plan->inputs | 1);
  return weights + rows <= 12 * 1024 ? (size_t)(weights + rows) * sizeof(float) : 0;
}

template <int GROUP> static int launch(struct cuda_device *device, struct conv_job *job, int64_t tiles) {
  size_t bytes = conv_few_shared(&job->plan);
  job->input_rows = input_rows(&job->plan);
  CUDA_TRY(cuda_allow_shared((const void *)conv_few_kernel<GROUP>, bytes));
  VAMP_LAUNCH(conv_few_kernel<GROUP>, dim3((unsigned)tiles), dim3(THREADS), bytes, device->stream, *job);
  CUDA_TRY(cudaGetLastError());
  return 0;
}

int conv_few_run(struct cuda_device *device, struct conv_job *job, const struct vamp_packing *from,
                 const struct vamp_packing *to) {
  int64_t tiles;
  int status = conv_table_make(device, &job->plan, from, to, THREADS, &job->table, &tiles);
  if (status || tiles == 0) {
    return status;
  }
  switch (group(&job->plan)) {
  case 1:
    return launch<1>(device, job, tiles);
  case 4:
    return launch<4>(device, job, tiles);
  default:
    return launch<FEW>(device, job, tiles);
  }
}
