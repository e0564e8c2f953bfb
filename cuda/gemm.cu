/*
 * See gemm.cuh.
 *
 * bfloat16 and tf32: a block of eight warps makes 128 x 128 of the result, a warp 64 x 32 of it in 64
 * registers. Pieces of 32 (16) along k travel by cp.async through a ring of three stages in 48 KiB, so that
 * the next two are on their way while one is multiplied. A row of a piece is 64 bytes, four chunks of 16;
 * chunk c of row r lies at c ^ (r / 2 % 4), which puts any eight rows that an ldmatrix reads into eight
 * different groups of banks.
 *
 * float: 64 x 64 by 256 threads of 4 x 4, plain multiply-adds. True fp32, for parity; no tensor core is
 * involved.
 *
 * Each element is one chain over k in steps of 16 (bf16, inside the instruction), 8 (tf32) or 1 (float), from
 * the first to the last, whatever the tile, its place in it or the rows beside it: the promise of
 * vamp/backend.h.
 */
#include "cuda/gemm.cuh"
#include "cuda/mma.cuh"

enum {
  row_bytes = 64,
  stages = 3,
  chunks = row_bytes / 16,
  stage_bytes = (GEMM_ROWS + GEMM_COLUMNS) * row_bytes
};

/* Byte offset of a chunk of 16 bytes in a piece. */
static __device__ __forceinline__ int chunk_at(int row, int chunk) {
  return row * row_bytes + ((chunk ^ (row >> 1 & 3)) << 4);
}

/* Elements that are not aligned, or end early. */
template <typename T> static __device__ void chunk_slow(char *to, const T *from, int left, bool valid) {
  T *t = (T *)to;
  for (int i = 0; i < 16 / (int)sizeof(T); i++) {
    t[i] = valid && i < left ? from[i] : T(0.0f);
  }
}

/* The rows a thread copies: tid / 4 and 64 below, of a and of the weight. */
template <typename T> struct sources {
  const T *row[4];
  bool valid[4];
};

template <typename T>
static __device__ __forceinline__ void load_stage(const struct sources<T> *s, char *stage, int piece, int k) {
  const int each = 16 / (int)sizeof(T); /* elements of a chunk */
  int chunk = (int)threadIdx.x % chunks, row = (int)threadIdx.x / chunks;
  int column = (piece * chunks + chunk) * each;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    char *to = stage + (i / 2) * GEMM_ROWS * row_bytes + chunk_at(row + i % 2 * 64, chunk);
    if (k % each == 0) {
      vamp_copy_async16(to, s->row[i] + column, s->valid[i] && column < k);
    } else {
      chunk_slow(to, s->row[i] + column, k - column, s->valid[i]);
    }
  }
}

template <typename T>
static __device__ __forceinline__ void multiply_stage(const char *stage, float sum[4][4][4]) {
  int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  const char *a = stage, *b = stage + GEMM_ROWS * row_bytes;
#pragma unroll
  for (int step = 0; step < chunks / 2; step++) {
    uint32_t left[4][4], right[2][4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      vamp_ldmatrix_x4(left[i], a + chunk_at(warp / 4 * 64 + i * 16 + lane % 16, step * 2 + lane / 16));
    }
#pragma unroll
    for (int j = 0; j < 2; j++) {
      int row = warp % 4 * 32 + j * 16 + lane / 16 * 8 + lane % 8;
      vamp_ldmatrix_x4(right[j], b + chunk_at(row, step * 2 + lane / 8 % 2));
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
      for (int j = 0; j < 4; j++) {
        if (sizeof(T) == 2) {
          vamp_mma_bf16(sum[i][j], left[i], right[j / 2] + j % 2 * 2);
        } else {
          vamp_mma_tf32(sum[i][j], left[i], right[j / 2] + j % 2 * 2);
        }
      }
    }
  }
}

static __device__ void store_tile(const struct gemm *g, int group, int rows, float sum[4][4][4]) {
  int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
#pragma unroll
  for (int i = 0; i < 4; i++) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        int row = warp / 4 * 64 + i * 16 + lane / 4 + e / 2 * 8;
        int column = (int)blockIdx.x * GEMM_COLUMNS + warp % 4 * 32 + j * 8 + lane % 4 * 2 + e % 2;
        if (row < rows && column < g->columns) {
          float bias = g->bias ? g->bias[(size_t)group * (size_t)g->columns + (size_t)column] : 0.0f;
          g->out[((size_t)blockIdx.y * GEMM_ROWS + (size_t)row) * (size_t)g->columns + (size_t)column] =
              sum[i][j][e] + bias;
        }
      }
    }
  }
}

template <typename T> static __global__ void __launch_bounds__(256, 2) gemm_mma(struct gemm g) {
  VAMP_SHARED(char, shared);
  int group, first, rows;
  if (!gemm_find(&g, g.first_tile + (int)blockIdx.y, &group, &first, &rows)) {
    return;
  }
  struct sources<T> s;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    int row = (int)threadIdx.x / chunks + i % 2 * 64, column = (int)blockIdx.x * GEMM_COLUMNS + row;
    if (i < 2) {
      s.valid[i] = row < rows;
      int at = s.valid[i] ? first + row : first;
      at = g.list ? g.list[(size_t)group * (size_t)g.capacity + (size_t)at] : at;
      s.row[i] = (const T *)g.a + (size_t)at * (size_t)g.k;
    } else {
      s.valid[i] = column < g.columns;
      size_t at = (size_t)group * (size_t)g.columns + (size_t)(s.valid[i] ? column : 0);
      s.row[i] = (const T *)g.weight + at * (size_t)g.k;
    }
  }
  float sum[4][4][4] = {};
  const int depth = row_bytes / (int)sizeof(T);
  int pieces = (g.k + depth - 1) / depth;
  for (int p = 0; p < stages - 1; p++) {
    if (p < pieces) {
      load_stage(&s, shared + p * stage_bytes, p, g.k);
    }
    vamp_copy_commit();
  }
  for (int p = 0; p < pieces; p++) {
    vamp_copy_wait(stages - 2);
    __syncthreads();
    int next = p + stages - 1;
    if (next < pieces) {
      load_stage(&s, shared + next % stages * stage_bytes, next, g.k);
    }
    vamp_copy_commit();
    multiply_stage<T>(shared + p % stages * stage_bytes, sum);
  }
  store_tile(&g, group, rows, sum);
}

enum { small = 64, small_depth = 16 };

/* A quarter of a tile of GEMM_ROWS x GEMM_COLUMNS: blockIdx.z says which. */
static __global__ void __launch_bounds__(256) gemm_fp32(struct gemm g) {
  __shared__ float a[small_depth][small + 4], b[small_depth][small + 4];
  int group, first, rows;
  if (!gemm_find(&g, g.first_tile + (int)blockIdx.y, &group, &first, &rows)) {
    return;
  }
  int top = (int)blockIdx.z / 2 * small, left = (int)blockIdx.x * GEMM_COLUMNS + (int)blockIdx.z % 2 * small;
  int row = (int)threadIdx.x / 16 * 4, column = (int)threadIdx.x % 16 * 4;
  const float *weight = (const float *)g.weight + (size_t)group * (size_t)g.columns * (size_t)g.k;
  float sum[4][4] = {};
  for (int piece = 0; piece < g.k; piece += small_depth) {
    for (int i = (int)threadIdx.x; i < small * small_depth; i += 256) {
      int r = i / small_depth, d = i % small_depth;
      float x = 0, w = 0;
      if (top + r < rows && piece + d < g.k) {
        int at = first + top + r;
        at = g.list ? g.list[(size_t)group * (size_t)g.capacity + (size_t)at] : at;
        x = ((const float *)g.a)[(size_t)at * (size_t)g.k + (size_t)(piece + d)];
      }
      if (left + r < g.columns && piece + d < g.k) {
        w = weight[(size_t)(left + r) * (size_t)g.k + (size_t)(piece + d)];
      }
      a[d][r] = x;
      b[d][r] = w;
    }
    __syncthreads();
    for (int d = 0; d < small_depth; d++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
          sum[i][j] = __fmaf_rn(a[d][row + i], b[d][column + j], sum[i][j]);
        }
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < 4; i++) {
    for (int j = 0; j < 4; j++) {
      int c = left + column + j;
      if (top + row + i < rows && c < g.columns) {
        float bias = g.bias ? g.bias[(size_t)group * (size_t)g.columns + (size_t)c] : 0.0f;
        g.out[((size_t)blockIdx.y * GEMM_ROWS + (size_t)(top + row + i)) * (size_t)g.columns + (size_t)c] =
            sum[i][j] + bias;
      }
    }
  }
}

int cuda_gemm(struct cuda_device *device, const struct gemm *g, int tiles) {
  if (tiles <= 0) {
    return 0;
  }
  dim3 grid((unsigned)((g->columns + GEMM_COLUMNS - 1) / GEMM_COLUMNS), (unsigned)tiles,
            device->base.precision == VAMP_PRECISION_FP32 ? 4 : 1);
  if (tiles > 65535) {
    return VAMP_LIMIT;
  }
  if (cuda_bf16(device)) {
    CUDA_TRY(cuda_allow_shared((const void *)gemm_mma<__nv_bfloat16>, stages * stage_bytes));
    VAMP_LAUNCH(gemm_mma<__nv_bfloat16>, grid, dim3(256), stages * stage_bytes, device->stream, *g);
  } else if (cuda_tf32(device)) {
    CUDA_TRY(cuda_allow_shared((const void *)gemm_mma<float>, stages * stage_bytes));
    VAMP_LAUNCH(gemm_mma<float>, grid, dim3(256), stages * stage_bytes, device->stream, *g);
  } else {
    VAMP_LAUNCH(gemm_fp32, grid, dim3(256), 0, device->stream, *g);
  }
  CUDA_TRY(cudaGetLastError());
  return 0;
}
