/*
 * Residual units of the codec: y = x + conv2(snake2(conv1(snake1(x)))), scaled, stored or added.
 *
 * Three ways, chosen by precision and channels when the unit is made:
 *
 * - FUSED, bf16 and up to 128 channels (where the codec's signals are long and bytes are the bound): one
 *   kernel. A block reads its rows of x with the halo of both convolutions, activates them into shared
 *   memory with all channels, multiplies, activates the sums into the same shared memory (the input is used
 *   up by then), multiplies again, and adds x, which it finds in the second cache. x is read once and the
 *   result written once; the hidden signal never leaves the processor. The block computes the rows of hidden
 *   halo that its neighbours compute as well: 4 to 8 % more in the first convolution.
 * - TILED: activation, convolution with the second snake as its ending, convolution with the residual as
 *   its ending, through two activated signals in scratch memory. In fp32 and tf32, and in bf16 above 128
 * channels, where 6 + 6 bytes an element are little beside the multiplications.
 * - FEW, up to 8 channels: the two convolutions of conv_few.cu with a float signal between them.
 */
#include <stdlib.h>
#include <string.h>

#include "cuda/conv.cuh"

enum unit_way { UNIT_FUSED, UNIT_PAIR };

struct cuda_unit {
  struct vamp_weight base;
  enum unit_way way;
  struct vamp_unit_shape shape;
  struct cuda_conv *first, *second;
  float *alpha; /* device [4, channels]: alpha1, its inverse, alpha2, its inverse */
};

/* ---- the fused kernel ----------------------------------------------------------------------------- */

enum { FUSED_STAGES = 3, FUSED_LIMIT = 128 };

/* What it is told. Rows of shared memory are `row_bytes` long: an odd number of 16 bytes, no bank conflict.
 */
struct unit_job {
  int channels, inputs; /* inputs: channels filled up to 16 */
  int taps1, dilation1, taps2;
  int group;                     /* taps of one step */
  int halo;                      /* rows of hidden beside the tile's own: taps2 - 1 */
  int row_bytes, stage_bytes;    /* of shared memory */
  const void *weight1, *weight2; /* bf16 [chunks, taps, channels, 32] */
  const float *alpha, *bias1, *bias2;
  const float *in;
  float *out;
  float scale;
  bool accumulate, paired;
  struct conv_table table;
};

/* Starts the copies of one step's weights, [group taps, columns] of one chunk. */
static __device__ __forceinline__ void unit_fetch(const struct unit_job &job, const void *weight, int taps,
                                                  int columns, int chunk, int tap, char *stage) {
  const char *from = (const char *)weight + (int64_t)(chunk * taps + tap) * job.channels * CONV_CHUNK_BYTES;
  int last = taps - tap < job.group ? taps - tap : job.group;
  for (int i = (int)threadIdx.x; i < last * columns * 4; i += (int)blockDim.x) {
    int n = i / 4 % columns, t = i / 4 / columns;
    bool valid = n < job.channels;
    const char *piece = from + ((int64_t)t * job.channels + n) * CONV_CHUNK_BYTES + i % 4 * 16;
    vamp_copy_async16(stage + i / 4 * CONV_ROW_BYTES + i % 4 * 16, valid ? piece : from, valid);
  }
}

/* The sums of one convolution over rows that lie in shared memory with all their channels. */
template <int MT, int NT>
static __device__ __forceinline__ void
unit_multiply(const struct unit_job &job, const void *weight, int taps, int dilation, int columns,
              const char *rows, int a_offset, int b_offset, char *stages, bool active, float sum[MT][NT][4]) {
  const int chunks = (job.inputs + 31) / 32;
  int fetch_chunk = 0, fetch_tap = 0, stage = 0;
#pragma unroll
  for (int i = 0; i < MT * NT * 4; i++) {
    sum[i / (NT * 4)][i / 4 % NT][i % 4] = 0;
  }
  for (int s = 0; s < FUSED_STAGES - 1; s++) {
    if (fetch_chunk < chunks) {
      unit_fetch(job, weight, taps, columns, fetch_chunk, fetch_tap, stages + s * job.stage_bytes);
    }
    vamp_copy_commit();
    fetch_tap += job.group;
    if (fetch_tap >= taps) {
      fetch_tap = 0;
      fetch_chunk++;
    }
  }
  for (int chunk = 0; chunk < chunks; chunk++) {
    const int parts = job.inputs - chunk * 32 > 16 ? 2 : 1;
    for (int first = 0; first < taps; first += job.group) {
      vamp_copy_wait(FUSED_STAGES - 2);
      __syncthreads();
      if (fetch_chunk < chunks) {
        int next = stage == 0 ? FUSED_STAGES - 1 : stage - 1;
        unit_fetch(job, weight, taps, columns, fetch_chunk, fetch_tap, stages + next * job.stage_bytes);
      }
      vamp_copy_commit();
      fetch_tap += job.group;
      if (fetch_tap >= taps) {
        fetch_tap = 0;
        fetch_chunk++;
      }
      const char *b = stages + stage * job.stage_bytes + b_offset;
      stage = stage == FUSED_STAGES - 1 ? 0 : stage + 1;
      const int last = first + job.group < taps ? first + job.group : taps;
#pragma unroll 1
      for (int tap = first; tap < last && active; tap++) {
        const char *a = rows + tap * dilation * job.row_bytes + chunk * CONV_CHUNK_BYTES + a_offset;
#pragma unroll 1
        for (int k = 0; k < parts; k++) {
          uint32_t fragment_a[MT][4];
#pragma unroll
          for (int m = 0; m < MT; m++) {
            vamp_ldmatrix_x4(fragment_a[m], a + m * 16 * job.row_bytes + k * 32);
          }
#pragma unroll
          for (int n = 0; n < NT / 2; n++) {
            uint32_t fragment_b[4];
            vamp_ldmatrix_x4(fragment_b, b + n * 16 * CONV_ROW_BYTES + k * 32);
#pragma unroll
            for (int m = 0; m < MT; m++) {
              vamp_mma_bf16(sum[m][n * 2], fragment_a[m], fragment_b);
              vamp_mma_bf16(sum[m][n * 2 + 1], fragment_a[m], fragment_b + 2);
            }
          }
        }
        b += columns * CONV_ROW_BYTES;
      }
    }
  }
}

/* Rows of x from row `above` on, activated, into shared memory; zeros beside the sequence and the channels. A
 * thread keeps its four channels and walks down the rows. */
static __device__ __forceinline__ void unit_load(const struct unit_job &job,
                                                 const struct conv_sequence &sequence, int64_t above,
                                                 int count, char *rows) {
  const int channels = job.channels, groups = job.inputs / 4;
  const int c = (int)threadIdx.x % groups * 4, beside = (int)blockDim.x / groups;
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
      const float *from = signal + (above + row) * channels;
      if (channels % 4 == 0) {
        float4 four = *(const float4 *)from;
        x[0] = four.x, x[1] = four.y, x[2] = four.z, x[3] = four.w;
      } else {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          x[i] = c + i < channels ? from[i] : 0;
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      x[i] = conv_snake(x[i], alpha[i], inverse[i]);
    }
    *(uint2 *)(rows + row * job.row_bytes + c * 2) =
        make_uint2(vamp_bf16_pack(x[0], x[1]), vamp_bf16_pack(x[2], x[3]));
  }
}

static __device__ __forceinline__ void unit_end(const struct unit_job &job, int64_t at, int n, float sum0,
                                                float sum1) {
  if (job.paired) {
    float2 x = *(const float2 *)(job.in + at), bias = *(const float2 *)(job.bias2 + n);
    float2 y = make_float2(job.scale * (x.x + (sum0 + bias.x)), job.scale * (x.y + (sum1 + bias.y)));
    if (job.accumulate) {
      float2 before = *(const float2 *)(job.out + at);
      y = make_float2(before.x + y.x, before.y + y.y);
    }
    *(float2 *)(job.out + at) = y;
    return;
  }
  for (int i = 0; i < 2 && n + i < job.channels; i++) {
    float y = job.scale * (job.in[at + i] + ((i ? sum1 : sum0) + job.bias2[n + i]));
    job.out[at + i] = job.accumulate ? job.out[at + i] + y : y;
  }
}

/* Warps of 32 x WN, WARPS_N side by side; WARPS_N * WN is at least the channels. */
template <int WARPS_M, int WARPS_N, int WN>
__global__ void __launch_bounds__(WARPS_M *WARPS_N * 32, 2) unit_kernel(const struct unit_job job) {
  constexpr int BM = WARPS_M * 32, BN = WARPS_N * WN, MT = 2, NT = WN / 8;
  VAMP_SHARED(char, shared);
  char *rows = shared + FUSED_STAGES * job.stage_bytes;
  const struct conv_sequence sequence = conv_find(job.table, blockIdx.x);
  const int64_t first = ((int64_t)blockIdx.x - sequence.tile) * (BM - job.halo);
  const int64_t hidden = first - job.halo / 2;
  const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  const int warp_row = warp / WARPS_N * 32, warp_column = warp % WARPS_N * WN;

  unit_load(job, sequence, hidden - (job.taps1 - 1) * job.dilation1 / 2, BM + (job.taps1 - 1) * job.dilation1,
            rows);
  /* The first barrier of unit_multiply lies between these writes and all reads. */
  const int a_offset = (warp_row + lane % 16) * job.row_bytes + lane / 16 * 16;
  const int b_offset = (warp_column + lane / 16 * 8 + lane % 8) * CONV_ROW_BYTES + lane / 8 % 2 * 16;
  const bool active = hidden + warp_row < sequence.rows;
  float sum[MT][NT][4];
  unit_multiply<MT, NT>(job, job.weight1, job.taps1, job.dilation1, BN, rows, a_offset, b_offset, shared,
                        active, sum);
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
        *(uint32_t *)(rows + row * job.row_bytes + n * 2) = inside ? vamp_bf16_pack(h0, h1) : 0;
      }
    }
  }
  const int64_t start = (sequence.in_begin + first) * job.channels;
  unit_multiply<MT, NT>(job, job.weight2, job.taps2, 1, BN, rows, a_offset, b_offset, shared,
                        first + warp_row < sequence.rows, sum);
#pragma unroll
  for (int j = 0; j < NT; j++) {
    const int n = warp_column + j * 8 + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < MT * 2; i++) {
      int row = warp_row + i * 8 + lane / 4;
      if (row < BM - job.halo && first + row < sequence.rows && n < job.channels) {
        unit_end(job, start + row * job.channels + n, n, sum[i / 2][j][i % 2 * 2],
                 sum[i / 2][j][i % 2 * 2 + 1]);
      }
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
  /* Narrow units would meet at a barrier after a few multiplications: several taps a step. */
  job->group = columns <= 32 ? 4 : columns <= 64 ? 2 : 1;
  job->row_bytes = job->inputs * 2 + 16;
  job->stage_bytes = job->group * columns * CONV_ROW_BYTES;
  int context = (job->taps1 - 1) * job->dilation1;
  int rows = fused_rows(shape->channels) + (context > job->halo ? context : job->halo);
  return (size_t)FUSED_STAGES * (size_t)job->stage_bytes + (size_t)rows * (size_t)job->row_bytes;
}

static bool fused_fits(const struct cuda_device *device, const struct vamp_unit_shape *shape) {
  struct unit_job job;
  return cuda_bf16(device) && shape->channels > 8 && shape->channels <= FUSED_LIMIT &&
         shape->kernel2 <= fused_rows(shape->channels) / 2 &&
         fused_geometry(shape, &job) <= cuda_shared_room(device);
}

template <int WARPS_M, int WARPS_N, int WN>
static int launch(struct cuda_device *device, const struct unit_job *job, int64_t tiles, size_t bytes) {
  CUDA_TRY(cuda_allow_shared((const void *)unit_kernel<WARPS_M, WARPS_N, WN>, bytes));
  VAMP_LAUNCH((unit_kernel<WARPS_M, WARPS_N, WN>), dim3((unsigned)tiles), dim3(WARPS_M * WARPS_N * 32), bytes,
              device->stream, *job);
  CUDA_TRY(cudaGetLastError());
  return 0;
}

static int run_fused(struct cuda_device *device, const struct cuda_unit *unit,
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
  job.paired = job.channels % 2 == 0;
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
  return u->way == UNIT_FUSED ? run_fused(device, u, packing, scale, accumulate, in, out)
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
  u->way = fused_fits(device, shape) ? UNIT_FUSED : UNIT_PAIR;
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
