/*
 * Convolution on tensor cores, in bf16 or tf32, sums in float.
 *
 * A block computes BM rows by BN outputs of the folded view (conv.h). Its main loop walks over chunks of 32
 * inputs (16 in tf32: 64 bytes) and, in each, over the taps. The input rows of a chunk with their halo are
 * loaded once and serve all taps, which only begin at another row; the weights of one tap and chunk stream
 * through a ring of four stages by cp.async, three steps ahead of the multiplication, one barrier a step. The
 * input has been activated (snake, rounding) by whoever made it, once for each element: within the loop there
 * is nothing but ldmatrix and mma; a fragment of m16n8k8 in floats lies as one of m16n8k16 in bf16 does. A
 * warp computes WM x WN; 64 x 64 reads 2 bytes of shared memory for 32 multiplications, half of what the
 * tensor cores of sm_80 allow.
 *
 * Blocks of the same rows follow each other, so that at any time the device works on few rows with all their
 * outputs: those rows come from memory once, and the weights, some megabytes, stay in the second-level cache.
 *
 * Outputs are cut into BN that leave the least over. Warps whose rows all lie behind the sequence's end skip
 * the arithmetic: it saves time in short sequences, and no element that is kept notices.
 *
 * Rejected: snake within the loop, which every column of blocks would repeat (six times for 768 channels);
 * wgmma, which would double the rate on sm_90 and the code as well.
 */
#include "cuda/conv.cuh"

template <enum vamp_precision P, int WARPS_M, int WARPS_N, int WM, int WN>
__global__ void __launch_bounds__(WARPS_M *WARPS_N * 32) conv_mma_kernel(const struct conv_job job) {
  constexpr int BM = WARPS_M * WM, BN = WARPS_N * WN, MT = WM / 16, NT = WN / 8;
  constexpr int STAGE = BN * CONV_ROW_BYTES, SIZE = P == VAMP_PRECISION_BF16 ? 2 : 4;
  VAMP_SHARED(char, shared);
  char *inputs = shared + CONV_STAGES * STAGE;
  const struct conv_sequence sequence = conv_find(job.table, blockIdx.x / job.columns);
  const int64_t first = ((int64_t)(blockIdx.x / job.columns) - sequence.tile) * BM;
  const int column = (int)(blockIdx.x % job.columns) * BN;
  const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  const int warp_row = warp / WARPS_N * WM, warp_column = warp % WARPS_N * WN;
  const bool active = first + warp_row < sequence.rows;
  const int steps = job.chunks * job.plan.taps;

  float sum[MT][NT][4];
#pragma unroll
  for (int i = 0; i < MT * NT * 4; i++) {
    sum[i / (NT * 4)][i / 4 % NT][i % 4] = 0;
  }

  /* The step that is fetched next; beyond the last there are empty groups, to keep the count. */
  int fetch_chunk = 0, fetch_tap = 0, stage = 0;
  for (int s = 0; s < CONV_STAGES - 1; s++) {
    if (fetch_chunk < job.chunks) {
      conv_fetch(job, sequence, SIZE, first, column, BN, fetch_chunk, fetch_tap, shared + s * STAGE, inputs);
    }
    vamp_copy_commit();
    if (++fetch_tap == job.plan.taps) {
      fetch_tap = 0;
      fetch_chunk++;
    }
  }

  /* ldmatrix: where this lane's row of a fragment begins, within its tile. */
  const int a_offset = (warp_row + lane % 16) * CONV_ROW_BYTES + lane / 16 * 16;
  const int b_offset = (warp_column + lane / 16 * 8 + lane % 8) * CONV_ROW_BYTES + lane / 8 % 2 * 16;
  int chunk = 0, tap = 0;
  for (int step = 0; step < steps; step++) {
    vamp_copy_wait(CONV_STAGES - 2);
    __syncthreads();
    if (fetch_chunk < job.chunks) {
      int next = stage == 0 ? CONV_STAGES - 1 : stage - 1;
      conv_fetch(job, sequence, SIZE, first, column, BN, fetch_chunk, fetch_tap, shared + next * STAGE,
                 inputs);
    }
    vamp_copy_commit();
    if (++fetch_tap == job.plan.taps) {
      fetch_tap = 0;
      fetch_chunk++;
    }
    if (active) {
      const char *a = inputs +
                      (chunk % job.input_slots * job.input_rows + tap * job.plan.dilation) * CONV_ROW_BYTES +
                      a_offset;
      const char *b = shared + stage * STAGE + b_offset;
#pragma unroll
      for (int k = 0; k < 2; k++) {
        uint32_t fragment_a[MT][4], fragment_b[NT / 2][4];
#pragma unroll
        for (int m = 0; m < MT; m++) {
          vamp_ldmatrix_x4(fragment_a[m], a + m * 16 * CONV_ROW_BYTES + k * 32);
        }
#pragma unroll
        for (int n = 0; n < NT / 2; n++) {
          vamp_ldmatrix_x4(fragment_b[n], b + n * 16 * CONV_ROW_BYTES + k * 32);
        }
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
          for (int n = 0; n < NT; n++) {
            if (P == VAMP_PRECISION_BF16) {
              vamp_mma_bf16(sum[m][n], fragment_a[m], fragment_b[n / 2] + n % 2 * 2);
            } else {
              vamp_mma_tf32(sum[m][n], fragment_a[m], fragment_b[n / 2] + n % 2 * 2);
            }
          }
        }
      }
    }
    stage = stage == CONV_STAGES - 1 ? 0 : stage + 1;
    if (++tap == job.plan.taps) {
      tap = 0;
      chunk++;
    }
  }

  if (active) {
#pragma unroll
    for (int m = 0; m < MT; m++) {
      int64_t row = first + warp_row + m * 16 + lane / 4;
#pragma unroll
      for (int n = 0; n < NT; n++) {
        int output = column + warp_column + n * 8 + lane % 4 * 2;
        conv_end_pair<P>(job, sequence, row, output, sum[m][n][0], sum[m][n][1]);
        conv_end_pair<P>(job, sequence, row + 8, output, sum[m][n][2], sum[m][n][3]);
      }
    }
  }
}

/* ---- launch --------------------------------------------------------------------------------------- */

enum { BM = 128 };

/* The widest of these that fills up the outputs least. */
static int tile_columns(int outputs) {
  static const int WIDTHS[] = {128, 96, 64, 48, 32, 16};
  int best = 0, least = 0;
  for (int i = 0; i < 6; i++) {
    int total = (outputs + WIDTHS[i] - 1) / WIDTHS[i] * WIDTHS[i];
    if (!best || total < least) {
      best = WIDTHS[i];
      least = total;
    }
  }
  return best;
}

static size_t shared_bytes(const struct conv_plan *plan, int *slots, int *rows) {
  /* As many slots as chunks are underway: those of the step at work and of three steps ahead. */
  *slots = (CONV_STAGES - 1 + plan->taps - 1) / plan->taps + 1;
  *rows = BM + (plan->taps - 1) * plan->dilation;
  size_t weights = (size_t)CONV_STAGES * (size_t)tile_columns(plan->outputs);
  return (weights + (size_t)*slots * (size_t)*rows) * CONV_ROW_BYTES;
}

size_t conv_mma_shared(const struct conv_plan *plan) {
  int slots, rows;
  return shared_bytes(plan, &slots, &rows);
}

template <enum vamp_precision P, int WARPS_M, int WARPS_N, int WM, int WN>
static int launch(struct cuda_device *device, struct conv_job *job, int64_t tiles, size_t bytes) {
  job->columns = (job->plan.outputs + WARPS_N * WN - 1) / (WARPS_N * WN);
  CUDA_TRY(cuda_allow_shared((const void *)conv_mma_kernel<P, WARPS_M, WARPS_N, WM, WN>, bytes));
  VAMP_LAUNCH((conv_mma_kernel<P, WARPS_M, WARPS_N, WM, WN>), dim3((unsigned)(tiles * job->columns)),
              dim3(WARPS_M * WARPS_N * 32), bytes, device->stream, *job);
  CUDA_TRY(cudaGetLastError());
  return 0;
}

template <enum vamp_precision P>
static int run(struct cuda_device *device, struct conv_job *job, const struct vamp_packing *from,
               const struct vamp_packing *to) {
  int64_t tiles;
  int status = conv_table_make(device, &job->plan, from, to, BM, &job->table, &tiles);
  if (status || tiles == 0) {
    return status;
  }
  size_t bytes = shared_bytes(&job->plan, &job->input_slots, &job->input_rows);
  job->chunks =
      (job->plan.inputs * (P == VAMP_PRECISION_BF16 ? 2 : 4) + CONV_CHUNK_BYTES - 1) / CONV_CHUNK_BYTES;
  switch (tile_columns(job->plan.outputs)) {
  case 128:
    return launch<P, 2, 2, 64, 64>(device, job, tiles, bytes);
  case 96:
    return launch<P, 2, 2, 64, 48>(device, job, tiles, bytes);
  case 64:
    return launch<P, 4, 1, 32, 64>(device, job, tiles, bytes);
  case 48:
    return launch<P, 4, 1, 32, 48>(device, job, tiles, bytes);
  case 32:
    return launch<P, 4, 1, 32, 32>(device, job, tiles, bytes);
  default:
    return launch<P, 4, 1, 32, 16>(device, job, tiles, bytes);
  }
}

int conv_mma_run(struct cuda_device *device, struct conv_job *job, const struct vamp_packing *from,
                 const struct vamp_packing *to) {
  return cuda_bf16(device) ? run<VAMP_PRECISION_BF16>(device, job, from, to)
                           : run<VAMP_PRECISION_TF32>(device, job, from, to);
}
