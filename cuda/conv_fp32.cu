/*
 * Convolution in float, for parity: true fp32 multiplications and sums, no tensor cores.
 *
 * The loop over chunks and taps, the loads and the shared memory are those of conv_mma.cu, with 16 floats
 * where that has 32 bf16. A thread computes RT x 8 sums; its rows and columns are interleaved with those of
 * its neighbours, so that four inputs of eight rows are read at once without a bank conflict. Sixteen reads
 * of 16 bytes feed 256 multiplications.
 */
#include "cuda/conv.cuh"

enum { THREADS = 128, COLUMNS = 8 };

/* TN threads lie side by side, THREADS / TN one above the other. */
template <int TN, int RT>
__global__ void __launch_bounds__(THREADS, 3) conv_fp32_kernel(const struct conv_job job) {
  constexpr int TM = THREADS / TN, BM = TM * RT, BN = TN * COLUMNS, STAGE = BN * CONV_ROW_BYTES;
  VAMP_SHARED(char, shared);
  char *inputs = shared + CONV_STAGES * STAGE;
  const struct conv_sequence sequence = conv_find(job.table, blockIdx.x / job.columns);
  const int64_t first = ((int64_t)(blockIdx.x / job.columns) - sequence.tile) * BM;
  const int column = (int)(blockIdx.x % job.columns) * BN;
  const int across = (int)threadIdx.x % TN, down = (int)threadIdx.x / TN;
  const int steps = job.chunks * job.plan.taps;

  float sum[RT][COLUMNS];
#pragma unroll
  for (int i = 0; i < RT * COLUMNS; i++) {
    sum[i / COLUMNS][i % COLUMNS] = 0;
  }
  int fetch_chunk = 0, fetch_tap = 0, stage = 0;
  for (int s = 0; s < CONV_STAGES - 1; s++) {
    if (fetch_chunk < job.chunks) {
      conv_fetch(job, sequence, 4, first, column, BN, fetch_chunk, fetch_tap, shared + s * STAGE, inputs);
    }
    vamp_copy_commit();
    if (++fetch_tap == job.plan.taps) {
      fetch_tap = 0;
      fetch_chunk++;
    }
  }
  int chunk = 0, tap = 0;
  for (int step = 0; step < steps; step++) {
    vamp_copy_wait(CONV_STAGES - 2);
    __syncthreads();
    if (fetch_chunk < job.chunks) {
      int next = stage == 0 ? CONV_STAGES - 1 : stage - 1;
      conv_fetch(job, sequence, 4, first, column, BN, fetch_chunk, fetch_tap, shared + next * STAGE, inputs);
    }
    vamp_copy_commit();
    if (++fetch_tap == job.plan.taps) {
      fetch_tap = 0;
      fetch_chunk++;
    }
    const char *a =
        inputs + (chunk % job.input_slots * job.input_rows + tap * job.plan.dilation + down) * CONV_ROW_BYTES;
    const char *b = shared + stage * STAGE + across * CONV_ROW_BYTES;
#pragma unroll
    for (int k = 0; k < 4; k++) {
      float4 w[COLUMNS];
#pragma unroll
      for (int n = 0; n < COLUMNS; n++) {
        w[n] = *(const float4 *)(b + n * TN * CONV_ROW_BYTES + k * 16);
      }
#pragma unroll
      for (int m = 0; m < RT; m++) {
        float4 x = *(const float4 *)(a + m * TM * CONV_ROW_BYTES + k * 16);
#pragma unroll
        for (int n = 0; n < COLUMNS; n++) {
          sum[m][n] = fmaf(x.x, w[n].x, sum[m][n]);
          sum[m][n] = fmaf(x.y, w[n].y, sum[m][n]);
          sum[m][n] = fmaf(x.z, w[n].z, sum[m][n]);
          sum[m][n] = fmaf(x.w, w[n].w, sum[m][n]);
        }
      }
    }
    stage = stage == CONV_STAGES - 1 ? 0 : stage + 1;
    if (++tap == job.plan.taps) {
      tap = 0;
      chunk++;
    }
  }
#pragma unroll
  for (int m = 0; m < RT; m++) {
#pragma unroll
    for (int n = 0; n < COLUMNS; n++) {
      conv_end<VAMP_PRECISION_FP32>(job, sequence, first + down + m * TM, column + across + n * TN,
                                    sum[m][n]);
    }
  }
}

/* ---- launch --------------------------------------------------------------------------------------- */

/* Threads side by side, by the number of outputs, and the rows that a block then has. */
static int threads_across(int outputs) {
  return outputs > 32 ? 8 : outputs > 16 ? 4 : 2;
}

static int tile_rows(int outputs) {
  return outputs > 16 ? 128 : 256;
}

static size_t shared_bytes(const struct conv_plan *plan, int *slots, int *rows) {
  *slots = (CONV_STAGES - 1 + plan->taps - 1) / plan->taps + 1;
  *rows = tile_rows(plan->outputs) + (plan->taps - 1) * plan->dilation;
  size_t weights = (size_t)CONV_STAGES * (size_t)(threads_across(plan->outputs) * COLUMNS);
  return (weights + (size_t)*slots * (size_t)*rows) * CONV_ROW_BYTES;
}

size_t conv_fp32_shared(const struct conv_plan *plan) {
  int slots, rows;
  return shared_bytes(plan, &slots, &rows);
}

template <int TN, int RT>
static int launch(struct cuda_device *device, struct conv_job *job, int64_t tiles, size_t bytes) {
  job->columns = (job->plan.outputs + TN * COLUMNS - 1) / (TN * COLUMNS);
  CUDA_TRY(cuda_allow_shared((const void *)conv_fp32_kernel<TN, RT>, bytes));
  VAMP_LAUNCH((conv_fp32_kernel<TN, RT>), dim3((unsigned)(tiles * job->columns)), dim3(THREADS), bytes,
              device->stream, *job);
  CUDA_TRY(cudaGetLastError());
  return 0;
}

int conv_fp32_run(struct cuda_device *device, struct conv_job *job, const struct vamp_packing *from,
                  const struct vamp_packing *to) {
  int64_t tiles;
  int outputs = job->plan.outputs;
  int status = conv_table_make(device, &job->plan, from, to, tile_rows(outputs), &job->table, &tiles);
  if (status || tiles == 0) {
    return status;
  }
  size_t bytes = shared_bytes(&job->plan, &job->input_slots, &job->input_rows);
  job->chunks = (job->plan.inputs * 4 + CONV_CHUNK_BYTES - 1) / CONV_CHUNK_BYTES;
  switch (threads_across(outputs)) {
  case 8:
    return launch<8, 8>(device, job, tiles, bytes);
  case 4:
    return launch<4, 4>(device, job, tiles, bytes);
  default:
    return launch<2, 4>(device, job, tiles, bytes);
  }
}
