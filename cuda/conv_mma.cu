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
 * Two warps a scheduler leave little room for instructions beside the products: addresses are moved on by
 * additions and never divided, and sums leave through shared memory, 16 rows of a warp at a time, in pieces
 * of 16 bytes whose reads are under way together.
 *
 * Rejected: snake within the loop, which every column of blocks would repeat (six times for 768 channels);
 * wgmma, which would double the rate on sm_90 and the code as well.
 */
#include "cuda/conv.cuh"

/* ---- loads ---------------------------------------------------------------------------------------- */

enum { THREADS = 128, COPY_ROWS = THREADS / 4 }; /* COPY_ROWS: of 64 bytes, by all threads at once */

/* The step that is fetched next, as this thread sees it: all that its copies need, moved on by additions. */
struct ahead {
  const char *weight; /* the thread's first piece */
  int64_t at;         /* byte of the sequence's signal where its first piece of the next chunk lies */
  int inside;         /* byte of the folded row where that is */
  int chunk, tap, slot;
};

/* The weights of one tap and chunk. What lies behind the last output is read, too, and multiplied into sums
 * that nobody keeps: another tap's weights, or the room that CONV_SPARE_OUTPUTS leaves behind the last. */
template <int BN> static __device__ __forceinline__ void fetch_weights(const char *weight, char *to) {
#pragma unroll
  for (int j = 0; j < (BN + COPY_ROWS - 1) / COPY_ROWS; j++) {
    if (BN % COPY_ROWS == 0 || (int)threadIdx.x / 4 + j * COPY_ROWS < BN) {
      vamp_copy_async16(to + j * COPY_ROWS * CONV_ROW_BYTES, weight + j * THREADS * 16, true);
    }
  }
}

/* The rows of one chunk. signal, length: of the sequence, in bytes, and so is the pitch from row to row. */
static __device__ __forceinline__ void fetch_rows(const struct conv_job &job, const struct ahead &next,
                                                  const char *signal, int64_t length, int64_t pitch,
                                                  int row_bytes, char *to) {
  int64_t at = next.at;
  uint64_t end = next.inside < row_bytes ? (uint64_t)length : 0; /* behind the last input: zeros */
#pragma unroll 2
  for (int row = (int)threadIdx.x / 4; row < job.input_rows; row += COPY_ROWS) {
    bool valid = (uint64_t)at < end;
    vamp_copy_async16(to, signal + (valid ? at : 0), valid);
    at += COPY_ROWS * pitch;
    to += COPY_ROWS * CONV_ROW_BYTES;
  }
}

/* ---- endings -------------------------------------------------------------------------------------- */

template <enum vamp_precision P>
static __device__ __forceinline__ void store_hidden(void *hidden, int64_t at, float4 y) {
  if (P == VAMP_PRECISION_BF16) {
    *(uint2 *)((__nv_bfloat16 *)hidden + at) = make_uint2(vamp_bf16_pack(y.x, y.y), vamp_bf16_pack(y.z, y.w));
  } else {
    if (P == VAMP_PRECISION_TF32) {
      y = make_float4(vamp_tf32_round(y.x), vamp_tf32_round(y.y), vamp_tf32_round(y.z), vamp_tf32_round(y.w));
    }
    vamp_store_four((float *)hidden + at, y);
  }
}

/* A piece of a warp's sums, from shared memory to where it belongs, four neighbours at a time: a lane has the
 * same four outputs in each of its rows. first, column: of the piece. Whole warp. */
template <enum vamp_precision P, enum conv_ending ENDING, int WN>
static __device__ __forceinline__ void end_piece(const struct conv_job &job,
                                                 const struct conv_sequence &sequence, int64_t first,
                                                 int column, const char *piece) {
  constexpr int LANES = WN / 4, ROWS = 32 / LANES;                                  /* of a row; at once */
  constexpr int TOGETHER = CONV_PIECE_ROWS / ROWS < 4 ? CONV_PIECE_ROWS / ROWS : 4; /* reads under way */
  const struct conv_epilogue &end = job.end;
  const struct conv_plan &plan = job.plan;
  const int lane = (int)threadIdx.x % 32, n = column + lane % LANES * 4;
  const int64_t t = first + lane / LANES;
  if (lane >= LANES * ROWS || n >= (ENDING == CONV_ACTIVATE ? end.hidden_width : plan.outputs)) {
    return;
  }
  const bool real = n < plan.outputs;
  const float4 none = make_float4(0, 0, 0, 0), bias = real ? *(const float4 *)(end.bias + n) : none;
  float4 alpha = none, inverse = none;
  if (ENDING == CONV_ACTIVATE && real) {
    alpha = *(const float4 *)(end.alpha + n);
    inverse = *(const float4 *)(end.inverse + n);
  }
  piece += lane / LANES * conv_piece_pitch(WN) + lane % LANES * 16;
  /* Rows of a hidden signal, or elements of the result. */
  int64_t at = ENDING == CONV_ACTIVATE ? t : t * plan.outputs + n - plan.out_shift;
  const int64_t apart = ENDING == CONV_ACTIVATE ? ROWS : ROWS * (int64_t)plan.outputs;
  const uint64_t limit =
      (uint64_t)(ENDING == CONV_ACTIVATE ? sequence.rows : sequence.out_rows * plan.out_channels);
  const int64_t begin = ENDING == CONV_ACTIVATE ? sequence.out_begin * end.hidden_width + n
                                                : sequence.out_begin * plan.out_channels;
#pragma unroll
  for (int row = 0; row < CONV_PIECE_ROWS; row += TOGETHER * ROWS) {
    float4 x[TOGETHER], before[TOGETHER];
#pragma unroll
    for (int i = 0; i < TOGETHER; i++) {
      int64_t from = at + i * apart;
      bool inside = ENDING == CONV_RESIDUAL && (uint64_t)from < limit;
      x[i] = inside ? *(const float4 *)(end.residual + begin + from) : none;
      before[i] = inside && end.accumulate ? *(const float4 *)(end.out + begin + from) : none;
    }
#pragma unroll
    for (int i = 0; i < TOGETHER; i++, at += apart) {
      float4 y = conv_add_four(*(const float4 *)(piece + (row + i * ROWS) * conv_piece_pitch(WN)), bias);
      if ((uint64_t)at >= limit) {
        continue;
      }
      if (ENDING == CONV_ACTIVATE) {
        y = make_float4(conv_snake(y.x, alpha.x, inverse.x), conv_snake(y.y, alpha.y, inverse.y),
                        conv_snake(y.z, alpha.z, inverse.z), conv_snake(y.w, alpha.w, inverse.w));
        store_hidden<P>(end.hidden, begin + at * end.hidden_width, real ? y : none);
        continue;
      }
      if (ENDING == CONV_RESIDUAL) {
        y = conv_add_four(x[i], y);
        y = make_float4(end.scale * y.x, end.scale * y.y, end.scale * y.z, end.scale * y.w);
        y = end.accumulate ? conv_add_four(before[i], y) : y;
      }
      vamp_store_four(end.out + begin + at, y);
    }
  }
}

/* The same for results of which four neighbours do not lie together, and for tanh. */
template <enum vamp_precision P, int WN>
static __device__ __forceinline__ void end_singly(const struct conv_job &job,
                                                  const struct conv_sequence &sequence, int64_t first,
                                                  int column, const char *piece) {
#pragma unroll 1
  for (int i = (int)threadIdx.x % 32; i < CONV_PIECE_ROWS * WN; i += 32) {
    float sum = *(const float *)(piece + i / WN * conv_piece_pitch(WN) + i % WN * 4);
    conv_end<P>(job, sequence, first + i / WN, column + i % WN, sum);
  }
}

/* ---- the kernel ----------------------------------------------------------------------------------- */

template <enum vamp_precision P, int WARPS_M, int WARPS_N, int WM, int WN>
__global__ void __launch_bounds__(THREADS) conv_mma_kernel(const struct conv_job job) {
  constexpr int BM = WARPS_M * WM, BN = WARPS_N * WN, MT = WM / 16, NT = WN / 8;
  constexpr int STAGE = BN * CONV_ROW_BYTES, SIZE = P == VAMP_PRECISION_BF16 ? 2 : 4;
  static_assert(WARPS_M * WARPS_N * 32 == THREADS, "four warps");
  VAMP_SHARED(char, shared);
  const struct conv_sequence sequence = conv_find(job.table, blockIdx.x / job.columns);
  const int64_t first = ((int64_t)(blockIdx.x / job.columns) - sequence.tile) * BM;
  const int column = (int)(blockIdx.x % job.columns) * BN;
  const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  const int warp_row = warp / WARPS_N * WM, warp_column = warp % WARPS_N * WN;
  const bool active = first + warp_row < sequence.rows;
  const int taps = job.plan.taps, steps = job.chunks * taps;
  const int slot_bytes = job.input_rows * CONV_ROW_BYTES, slots_bytes = job.input_slots * slot_bytes;
  const int64_t step_bytes = (int64_t)job.plan.outputs * CONV_CHUNK_BYTES, pitch = job.plan.pitch * SIZE;
  const int64_t length = sequence.in_rows * job.plan.width * SIZE;
  const char *signal = (const char *)job.in + sequence.in_begin * job.plan.width * SIZE;

  float sum[MT][NT][4];
#pragma unroll
  for (int i = 0; i < MT * NT * 4; i++) {
    sum[i / (NT * 4)][i / 4 % NT][i % 4] = 0;
  }

  struct ahead next = {(const char *)job.weight + (int64_t)column * CONV_CHUNK_BYTES + threadIdx.x * 16,
                       (first + threadIdx.x / 4) * pitch - job.plan.shift * SIZE + threadIdx.x % 4 * 16,
                       (int)threadIdx.x % 4 * 16,
                       0,
                       0,
                       0};
  char *to = vamp_keep(shared + threadIdx.x / 4 * CONV_ROW_BYTES + threadIdx.x % 4 * 16);
  /* Starts the copies of a step; beyond the last there are empty groups, to keep the count. */
  auto fetch = [&](int stage) {
    if (next.chunk < job.chunks) {
      fetch_weights<BN>(next.weight, to + stage * STAGE);
      next.weight += step_bytes;
      if (next.tap == 0) {
        fetch_rows(job, next, signal, length, pitch, job.plan.inputs * SIZE,
                   to + CONV_STAGES * STAGE + next.slot);
      }
      if (++next.tap == taps) {
        next.tap = 0;
        next.chunk++;
        next.at += CONV_CHUNK_BYTES;
        next.inside += CONV_CHUNK_BYTES;
        next.slot = next.slot + slot_bytes == slots_bytes ? 0 : next.slot + slot_bytes;
      }
    }
    vamp_copy_commit();
  };
  for (int s = 0; s < CONV_STAGES - 1; s++) {
    fetch(s);
  }

  /* ldmatrix: where this lane's row of a fragment begins. */
  const char *lane_a =
      vamp_keep(shared + CONV_STAGES * STAGE + (warp_row + lane % 16) * CONV_ROW_BYTES + lane / 16 * 16);
  const char *lane_b =
      vamp_keep(shared + (warp_column + lane / 16 * 8 + lane % 8) * CONV_ROW_BYTES + lane / 8 % 2 * 16);
  const int tap_bytes = job.plan.dilation * CONV_ROW_BYTES;
  int tap = 0, slot = 0, stage = 0;
  for (int step = 0; step < steps; step++) {
    vamp_copy_wait(CONV_STAGES - 2);
    __syncthreads();
    fetch(stage == 0 ? CONV_STAGES - 1 : stage - 1);
    if (active) {
      const char *a = lane_a + slot + tap * tap_bytes, *b = lane_b + stage * STAGE;
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
    if (++tap == taps) {
      tap = 0;
      slot = slot + slot_bytes == slots_bytes ? 0 : slot + slot_bytes;
    }
  }

  __syncthreads(); /* all have read the stages, whose place the sums pass through now */
  if (active) {
    char *piece = shared + warp * CONV_PIECE_ROWS * conv_piece_pitch(WN);
#pragma unroll
    for (int m = 0; m < MT; m++) {
      conv_put_piece<NT>(sum[m], lane, piece);
      __syncwarp();
      const int64_t row = first + warp_row + m * 16;
      if (!job.end.whole) {
        end_singly<P, WN>(job, sequence, row, column + warp_column, piece);
      } else if (job.end.ending == CONV_ACTIVATE) {
        end_piece<P, CONV_ACTIVATE, WN>(job, sequence, row, column + warp_column, piece);
      } else if (job.end.ending == CONV_RESIDUAL) {
        end_piece<P, CONV_RESIDUAL, WN>(job, sequence, row, column + warp_column, piece);
      } else {
        end_piece<P, CONV_STORE, WN>(job, sequence, row, column + warp_column, piece);
      }
      __syncwarp();
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
              dim3(THREADS), bytes, device->stream, *job);
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
