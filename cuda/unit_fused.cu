/*
 * A residual unit of up to 128 channels in bf16, as one kernel.
 *
 * A block reads its rows of x with the halo of both convolutions, activates them into shared memory with all
 * channels, multiplies, activates the sums into the same shared memory (the input is used up by then),
 * multiplies again, and adds x, which it finds in the second cache. x is read once and the result written
 * once; the hidden signal never leaves the processor. The block computes the rows of hidden halo that its
 * neighbours compute as well: 4 to 8 % more in the first convolution.
 *
 * Units are narrow, so there are few multiplications to each address, and instructions beside the tensor
 * cores' are as scarce as those. So all sizes follow from the columns at compile time, addresses are moved on
 * by additions, weights are copied without asking which of them are real, and sums leave through shared
 * memory, four neighbours at a time.
 *
 * Rejected: three blocks a multiprocessor, for which there are not enough registers; the hidden signal of
 * wide units in shared memory, which is too small for their channels.
 */
#include <string.h>

#include "cuda/conv.cuh"
#include "cuda/unit.h"

enum { FUSED_STAGES = 3, FUSED_LIMIT = 128, FUSED_THREADS = 256 };

/* What it is told. */
struct unit_job {
  int channels, inputs; /* inputs: channels filled up to 16 */
  int taps1, dilation1, taps2;
  int halo;                      /* rows of hidden beside the tile's own: taps2 - 1 */
  const void *weight1, *weight2; /* bf16 [chunks, taps, channels, 32] */
  const float *alpha, *bias1, *bias2;
  const float *in;
  float *out;
  float scale;
  bool accumulate, whole; /* whole: four neighbours lie together, as one float4 */
  struct conv_table table;
};

/* Sizes that follow from the columns of a block. Narrow units would meet at a barrier after a few
 * multiplications: they take several taps a step. Rows of shared memory are an odd number of 16 bytes long:
 * no bank conflict. */
static __host__ __device__ constexpr int unit_group(int columns) {
  return columns <= 32 ? 4 : columns <= 64 ? 2 : 1;
}

static __host__ __device__ constexpr int unit_row_bytes(int columns) {
  return columns * 2 + 16;
}

static __host__ __device__ constexpr int unit_stage_bytes(int columns) {
  return unit_group(columns) * columns * CONV_ROW_BYTES;
}

static_assert(unit_group(64) * 64 <= CONV_SPARE_OUTPUTS && unit_group(32) * 32 <= CONV_SPARE_OUTPUTS &&
                  unit_group(128) * 128 <= CONV_SPARE_OUTPUTS,
              "what unit_fetch reads too much is there");

/* Starts the copies of one step's weights, [group taps, columns] of one chunk; `from` and `to` are where the
 * thread's first piece lies. What is behind the last channel or the last tap is read as well: other weights,
 * or the room that CONV_SPARE_OUTPUTS leaves behind all of them, and it meets no sum that is kept. */
template <int COLUMNS>
static __device__ __forceinline__ void unit_fetch(const char *from, int channels, char *to) {
  constexpr int ROWS = unit_group(COLUMNS) * COLUMNS, TOGETHER = FUSED_THREADS / 4;
  const int row = (int)threadIdx.x / 4, first = row / COLUMNS * channels + row % COLUMNS;
#pragma unroll
  for (int j = 0; j < (ROWS + TOGETHER - 1) / TOGETHER; j++) {
    const int r = row + j * TOGETHER;
    if (ROWS % TOGETHER == 0 || r < ROWS) {
      const int apart = r / COLUMNS * channels + r % COLUMNS - first;
      vamp_copy_async16(to + j * TOGETHER * CONV_ROW_BYTES, from + apart * CONV_CHUNK_BYTES, true);
    }
  }
}

/* 16 inputs of one tap. */
template <int MT, int NT>
static __device__ __forceinline__ void unit_multiply_part(const char *a, int row_bytes, const char *b,
                                                          float sum[MT][NT][4]) {
  uint32_t fragment_a[MT][4];
#pragma unroll
  for (int m = 0; m < MT; m++) {
    vamp_ldmatrix_x4(fragment_a[m], a + m * 16 * row_bytes);
  }
#pragma unroll
  for (int n = 0; n < NT / 2; n++) {
    uint32_t fragment_b[4];
    vamp_ldmatrix_x4(fragment_b, b + n * 16 * CONV_ROW_BYTES);
#pragma unroll
    for (int m = 0; m < MT; m++) {
      vamp_mma_bf16(sum[m][n * 2], fragment_a[m], fragment_b);
      vamp_mma_bf16(sum[m][n * 2 + 1], fragment_a[m], fragment_b + 2);
    }
  }
}

/* The sums of one convolution over rows that lie in shared memory with all their channels. lane_a, lane_b:
 * where the lane's rows of fragments begin, in rows and in the first stage; to: where its copies go. */
template <int MT, int NT, int COLUMNS>
static __device__ __forceinline__ void unit_multiply(const struct unit_job &job, const void *weight, int taps,
                                                     int dilation, const char *lane_a, const char *lane_b,
                                                     char *to, bool active, float sum[MT][NT][4]) {
  constexpr int GROUP = unit_group(COLUMNS), STAGE = unit_stage_bytes(COLUMNS);
  constexpr int ROW = unit_row_bytes(COLUMNS);
  const int chunks = (job.inputs + 31) / 32, tap_bytes = dilation * ROW, channels = job.channels;
  int fetch_chunk = 0, fetch_tap = 0, stage = 0;
  const int row = (int)threadIdx.x / 4;
  const char *next = (const char *)weight + (row / COLUMNS * channels + row % COLUMNS) * CONV_CHUNK_BYTES +
                     threadIdx.x % 4 * 16;
#pragma unroll
  for (int i = 0; i < MT * NT * 4; i++) {
    sum[i / (NT * 4)][i / 4 % NT][i % 4] = 0;
  }
  /* Beyond the last step there are empty groups, to keep the count. */
  auto fetch = [&](int into) {
    if (fetch_chunk < chunks) {
      unit_fetch<COLUMNS>(next, channels, to + into * STAGE);
      const int took = taps - fetch_tap < GROUP ? taps - fetch_tap : GROUP;
      next += took * channels * CONV_CHUNK_BYTES;
      fetch_tap += took;
      if (fetch_tap == taps) {
        fetch_tap = 0;
        fetch_chunk++;
      }
    }
    vamp_copy_commit();
  };
  for (int s = 0; s < FUSED_STAGES - 1; s++) {
    fetch(s);
  }
  for (int chunk = 0; chunk < chunks; chunk++) {
    const bool both = job.inputs - chunk * 32 > 16;
    const char *a = lane_a + chunk * CONV_CHUNK_BYTES;
    for (int first = 0; first < taps; first += GROUP) {
      vamp_copy_wait(FUSED_STAGES - 2);
      __syncthreads();
      fetch(stage == 0 ? FUSED_STAGES - 1 : stage - 1);
      const char *b = lane_b + stage * STAGE;
      stage = stage == FUSED_STAGES - 1 ? 0 : stage + 1;
      const int last = taps - first < GROUP ? taps - first : GROUP;
#pragma unroll 1
      for (int tap = 0; tap < last && active; tap++) {
        unit_multiply_part<MT, NT>(a, ROW, b, sum);
        if (both) {
          unit_multiply_part<MT, NT>(a + 32, ROW, b + 32, sum);
        }
        a += tap_bytes;
        b += COLUMNS * CONV_ROW_BYTES;
      }
    }
  }
}

/* Rows of x from row `above` on, activated, into shared memory; zeros beside the sequence and the channels. A
 * thread keeps its four channels and walks down the rows. */
static __device__ __forceinline__ void unit_load(const struct unit_job &job,
                                                 const struct conv_sequence &sequence, int64_t above,
                                                 int count, int row_bytes, char *rows) {
  const int channels = job.channels, groups = job.inputs / 4;
  const int c = (int)threadIdx.x % groups * 4, beside = FUSED_THREADS / groups;
  const float *signal = job.in + sequence.in_begin * channels + c;
  float alpha[4], inverse[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    alpha[i] = c + i < channels ? job.alpha[c + i] : 0;
    inverse[i] = c + i < channels ? job.alpha[channels + c + i] : 0;
  }
  int row = (int)threadIdx.x / groups;
  if (row >= beside) {
    return;
  }
#pragma unroll 4
  for (; row < count; row += beside) {
    float x[4] = {0, 0, 0, 0};
    if (above + row >= 0 && above + row < sequence.in_rows && c < channels) {
      conv_read_four(signal + (above + row) * channels, c, channels, x);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      x[i] = conv_snake(x[i], alpha[i], inverse[i]);
    }
    *(uint2 *)(rows + row * row_bytes + c * 2) =
        make_uint2(vamp_bf16_pack(x[0], x[1]), vamp_bf16_pack(x[2], x[3]));
  }
}

/* A piece of a warp's sums, from shared memory to where it belongs (conv_mma.cu's endings say why so). at: of
 * its first row and of channel 0; rows: how many of them are real. Whole warp. */
template <int WN>
static __device__ __forceinline__ void unit_end(const struct unit_job &job, int64_t at, int rows, int column,
                                                const char *piece) {
  constexpr int LANES = WN / 4, ROWS = 32 / LANES;                                  /* of a row; at once */
  constexpr int TOGETHER = CONV_PIECE_ROWS / ROWS < 4 ? CONV_PIECE_ROWS / ROWS : 4; /* reads under way */
  const int lane = (int)threadIdx.x % 32, mine = lane / LANES, n = column + lane % LANES * 4;
  if (lane >= LANES * ROWS || n >= job.channels) {
    return;
  }
  piece += mine * conv_piece_pitch(WN) + lane % LANES * 16;
  at += (int64_t)mine * job.channels + n;
  const float4 none = make_float4(0, 0, 0, 0), bias = *(const float4 *)(job.bias2 + n);
  const int apart = ROWS * job.channels;
#pragma unroll
  for (int row = 0; row < CONV_PIECE_ROWS; row += TOGETHER * ROWS) {
    float4 x[TOGETHER], before[TOGETHER];
#pragma unroll
    for (int i = 0; i < TOGETHER; i++) {
      bool inside = mine + row + i * ROWS < rows;
      x[i] = inside ? *(const float4 *)(job.in + at + i * apart) : none;
      before[i] = inside && job.accumulate ? *(const float4 *)(job.out + at + i * apart) : none;
    }
#pragma unroll
    for (int i = 0; i < TOGETHER; i++, at += apart) {
      float4 y = *(const float4 *)(piece + (row + i * ROWS) * conv_piece_pitch(WN));
      if (mine + row + i * ROWS < rows) {
        y = conv_add_four(x[i], conv_add_four(y, bias));
        y = make_float4(job.scale * y.x, job.scale * y.y, job.scale * y.z, job.scale * y.w);
        vamp_store_four(job.out + at, job.accumulate ? conv_add_four(before[i], y) : y);
      }
    }
  }
}

/* The same where channels are no multiple of four. */
template <int WN>
static __device__ __forceinline__ void unit_end_singly(const struct unit_job &job, int64_t at, int rows,
                                                       int column, const char *piece) {
#pragma unroll 1
  for (int i = (int)threadIdx.x % 32; i < CONV_PIECE_ROWS * WN; i += 32) {
    const int row = i / WN, n = column + i % WN;
    if (row < rows && n < job.channels) {
      const int64_t to = at + (int64_t)row * job.channels + n;
      float sum = *(const float *)(piece + row * conv_piece_pitch(WN) + i % WN * 4);
      float y = job.scale * (job.in[to] + (sum + job.bias2[n]));
      job.out[to] = job.accumulate ? job.out[to] + y : y;
    }
  }
}

/* Warps of 32 x WN, WARPS_N side by side; WARPS_N * WN is at least the channels. */
template <int WARPS_M, int WARPS_N, int WN>
__global__ void __launch_bounds__(FUSED_THREADS, 2) unit_kernel(const struct unit_job job) {
  constexpr int BM = WARPS_M * 32, BN = WARPS_N * WN, MT = 2, NT = WN / 8, ROW = unit_row_bytes(BN);
  static_assert(WARPS_M * WARPS_N * 32 == FUSED_THREADS, "eight warps");
  VAMP_SHARED(char, shared);
  char *rows = shared + FUSED_STAGES * unit_stage_bytes(BN);
  const struct conv_sequence sequence = conv_find(job.table, blockIdx.x);
  const int64_t first = ((int64_t)blockIdx.x - sequence.tile) * (BM - job.halo);
  const int64_t hidden = first - job.halo / 2;
  const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  const int warp_row = warp / WARPS_N * 32, warp_column = warp % WARPS_N * WN;

  unit_load(job, sequence, hidden - (job.taps1 - 1) * job.dilation1 / 2, BM + (job.taps1 - 1) * job.dilation1,
            ROW, rows);
  /* The first barrier of unit_multiply lies between these writes and all reads. */
  const char *lane_a = vamp_keep(rows + (warp_row + lane % 16) * ROW + lane / 16 * 16);
  const char *lane_b =
      vamp_keep(shared + (warp_column + lane / 16 * 8 + lane % 8) * CONV_ROW_BYTES + lane / 8 % 2 * 16);
  char *to = vamp_keep(shared + threadIdx.x / 4 * CONV_ROW_BYTES + threadIdx.x % 4 * 16);
  const bool active = hidden + warp_row < sequence.rows;
  float sum[MT][NT][4];
  unit_multiply<MT, NT, BN>(job, job.weight1, job.taps1, job.dilation1, lane_a, lane_b, to, active, sum);
  __syncthreads();
  /* The hidden signal: snake of the sums, 0 beside the sequence and the channels. */
#pragma unroll
  for (int j = 0; j < NT; j++) {
    const int n = warp_column + j * 8 + lane % 4 * 2;
    float bias[2], alpha[2], inverse[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      bool real = n + i < job.channels;
      bias[i] = real ? job.bias1[n + i] : 0;
      alpha[i] = real ? job.alpha[2 * job.channels + n + i] : 0;
      inverse[i] = real ? job.alpha[3 * job.channels + n + i] : 0;
    }
#pragma unroll
    for (int i = 0; i < MT * 2; i++) {
      int row = warp_row + i * 8 + lane / 4;
      bool inside = hidden + row >= 0 && hidden + row < sequence.rows;
      float h0 = conv_snake(sum[i / 2][j][i % 2 * 2] + bias[0], alpha[0], inverse[0]);
      float h1 = conv_snake(sum[i / 2][j][i % 2 * 2 + 1] + bias[1], alpha[1], inverse[1]);
      if (n < job.inputs) {
        h0 = n < job.channels ? h0 : 0;
        h1 = n + 1 < job.channels ? h1 : 0;
        *(uint32_t *)(rows + row * ROW + n * 2) = inside ? vamp_bf16_pack(h0, h1) : 0;
      }
    }
  }
  const int64_t start = (sequence.in_begin + first) * job.channels;
  const bool kept = first + warp_row < sequence.rows;
  unit_multiply<MT, NT, BN>(job, job.weight2, job.taps2, 1, lane_a, lane_b, to, kept, sum);
  __syncthreads(); /* all have read what lies where the sums pass through now */
  if (kept) {
    char *piece = shared + warp * CONV_PIECE_ROWS * conv_piece_pitch(WN);
    const int64_t left = sequence.rows - first;
    const int real = (left < BM - job.halo ? (int)left : BM - job.halo) - warp_row;
#pragma unroll
    for (int m = 0; m < MT; m++) {
      conv_put_piece<NT>(sum[m], lane, piece);
      __syncwarp();
      const int64_t at = start + (int64_t)(warp_row + m * 16) * job.channels;
      if (job.whole) {
        unit_end<WN>(job, at, real - m * 16, warp_column, piece);
      } else {
        unit_end_singly<WN>(job, at, real - m * 16, warp_column, piece);
      }
      __syncwarp();
    }
  }
}

/* ---- its launch ----------------------------------------------------------------------------------- */

static int fused_columns(int channels) {
  static const int WIDTHS[] = {16, 32, 48, 64, 96, FUSED_LIMIT};
  int i = 0;
  while (WIDTHS[i] < channels) {
    i++;
  }
  return WIDTHS[i];
}

static int fused_rows(int channels) {
  return channels <= 64 ? 256 : 128;
}

/* Fills in the geometry; returns the bytes of shared memory. */
static size_t fused_geometry(const struct vamp_unit_shape *shape, struct unit_job *job) {
  int columns = fused_columns(shape->channels);
  job->channels = shape->channels;
  job->inputs = (shape->channels + 15) / 16 * 16;
  job->taps1 = shape->kernel1;
  job->dilation1 = shape->dilation1;
  job->taps2 = shape->kernel2;
  job->halo = shape->kernel2 - 1;
  int context = (job->taps1 - 1) * job->dilation1;
  int rows = fused_rows(shape->channels) + (context > job->halo ? context : job->halo);
  size_t bytes = (size_t)FUSED_STAGES * (size_t)unit_stage_bytes(columns) +
                 (size_t)rows * (size_t)unit_row_bytes(columns);
  /* Each warp has 32 rows and all columns, or half of them where there are four warps one below another. */
  size_t pieces = (size_t)FUSED_THREADS / 32 * CONV_PIECE_ROWS *
                  (size_t)conv_piece_pitch(columns > 64 ? columns / 2 : columns);
  return bytes > pieces ? bytes : pieces;
}

bool unit_fused_fits(const struct cuda_device *device, const struct vamp_unit_shape *shape) {
  struct unit_job job;
  return cuda_bf16(device) && shape->channels > 8 && shape->channels <= FUSED_LIMIT &&
         shape->kernel2 <= fused_rows(shape->channels) / 2 &&
         fused_geometry(shape, &job) <= cuda_shared_room(device);
}

template <int WARPS_M, int WARPS_N, int WN>
static int launch(struct cuda_device *device, const struct unit_job *job, int64_t tiles, size_t bytes) {
  CUDA_TRY(cuda_allow_shared((const void *)unit_kernel<WARPS_M, WARPS_N, WN>, bytes));
  VAMP_LAUNCH((unit_kernel<WARPS_M, WARPS_N, WN>), dim3((unsigned)tiles), dim3(FUSED_THREADS), bytes,
              device->stream, *job);
  CUDA_TRY(cudaGetLastError());
  return 0;
}

int unit_fused_run(struct cuda_device *device, const struct cuda_unit *unit,
                   const struct vamp_packing *packing, float scale, bool accumulate, const float *in,
                   float *out) {
  struct unit_job job;
  int64_t tiles;
  memset(&job, 0, sizeof job);
  size_t bytes = fused_geometry(&unit->shape, &job);
  int status = conv_table_make(device, &unit->first->plan, packing, packing,
                               fused_rows(job.channels) - job.halo, &job.table, &tiles);
  if (status || tiles == 0) {
    return status;
  }
  job.weight1 = unit->first->weight;
  job.weight2 = unit->second->weight;
  job.bias1 = unit->first->bias;
  job.bias2 = unit->second->bias;
  job.alpha = unit->alpha;
  job.in = in;
  job.out = out;
  job.scale = scale;
  job.accumulate = accumulate;
  job.whole = job.channels % 4 == 0;
  switch (fused_columns(job.channels)) {
  case 16:
    return launch<8, 1, 16>(device, &job, tiles, bytes);
  case 32:
    return launch<8, 1, 32>(device, &job, tiles, bytes);
  case 48:
    return launch<8, 1, 48>(device, &job, tiles, bytes);
  case 64:
    return launch<8, 1, 64>(device, &job, tiles, bytes);
  case 96:
    return launch<4, 2, 48>(device, &job, tiles, bytes);
  default:
    return launch<4, 2, 64>(device, &job, tiles, bytes);
  }
}
