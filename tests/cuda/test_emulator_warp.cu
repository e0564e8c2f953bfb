/*
 * The emulator's warp: shuffles, votes and reductions do what CUDA's manual says, and a matrix product made
 * of ldmatrix and mma is the matrix product. The fragments are not tested against the emulator's own idea of
 * them: tiles are loaded as a kernel would, by ldmatrix or by the element as the manual numbers them, and the
 * product's elements are stored as the manual numbers them, so a mistake in any of the three shows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include <cmocka.h>
}

#include "cuda/launch.cuh"
#include "cuda/mma.cuh"

#define FULL 0xffffffffu

template <class T> static T *device_new(size_t count) {
  T *memory;
  assert_int_equal(cudaMalloc(&memory, count * sizeof(T)), cudaSuccess);
  return memory;
}

template <class T> static void fetch(T *to, T *from, size_t count) {
  assert_int_equal(cudaMemcpy(to, from, count * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
  assert_int_equal(cudaFree(from), cudaSuccess);
}

/* ---- matrices ---------------------------------------------------------------------------------- */

/* Small whole numbers, so that bf16 and tf32 hold them and every sum is exact. */
static __device__ int a_element(int row, int k) {
  return (row * 7 + k * 3 + row * k) % 11 - 5;
}
static __device__ int b_element(int k, int column) {
  return (k * 5 + column * 2 + k * column) % 13 - 6;
}

enum { M = 16, N = 8, STRIDE = 24 /* elements from row to row: a multiple of 16 bytes */ };

static __device__ void store(const float d[4], float *out) {
  int group = (int)threadIdx.x / 4, pair = (int)threadIdx.x % 4;
  for (int i = 0; i < 4; i++) {
    out[(group + i / 2 * 8) * N + pair * 2 + i % 2] = d[i];
  }
}

/* A [16, 16] by ldmatrix x4; B by ldmatrix x2 out of [n, k], or transposed out of [k, n]. */
static __global__ void multiply_bf16(bool transposed, float *out) {
  VAMP_SHARED(__nv_bfloat16, tiles);
  __nv_bfloat16 *a = tiles, *b = tiles + M * STRIDE;
  int lane = (int)threadIdx.x;
  for (int i = lane; i < M * 16; i += 32) {
    a[i / 16 * STRIDE + i % 16] = __float2bfloat16((float)a_element(i / 16, i % 16));
  }
  for (int i = lane; i < 16 * N; i += 32) {
    int k = i / N, n = i % N;
    b[transposed ? k * STRIDE + n : n * STRIDE + k] = __float2bfloat16((float)b_element(k, n));
  }
  __syncwarp();
  uint32_t af[4], bf[2];
  /* Matrices 0 and 1 are the upper and lower rows of columns 0..7, 2 and 3 those of columns 8..15. */
  vamp_ldmatrix_x4(af, a + lane % 16 * STRIDE + lane / 16 * 8);
  if (transposed) {
    vamp_ldmatrix_x2_trans(bf, b + lane % 16 * STRIDE);
  } else {
    vamp_ldmatrix_x2(bf, b + lane % 8 * STRIDE + lane / 8 % 2 * 8);
  }
  float d[4] = {100, 100, 100, 100};
  vamp_mma_bf16(d, af, bf);
  store(d, out);
}

static __global__ void multiply_tf32(bool rounded, float *out) {
  int group = (int)threadIdx.x / 4, pair = (int)threadIdx.x % 4;
  uint32_t a[4], b[2];
  for (int i = 0; i < 4; i++) {
    float value = (float)a_element(group + i % 2 * 8, pair + i / 2 * 4);
    a[i] = rounded ? vamp_tf32(value) : __float_as_uint(value);
  }
  for (int i = 0; i < 2; i++) {
    /* The lower 13 bits must not count. */
    b[i] = __float_as_uint((float)b_element(pair + i * 4, group)) | (rounded ? 0 : 0x1fff);
  }
  float d[4] = {100, 100, 100, 100};
  vamp_mma_tf32(d, a, b);
  store(d, out);
}

static void check_product(float *device, int depth) {
  float got[M * N];
  fetch(got, device, M * N);
  for (int i = 0; i < M; i++) {
    for (int j = 0; j < N; j++) {
      int wanted = 100;
      for (int k = 0; k < depth; k++) {
        wanted += a_element(i, k) * b_element(k, j);
      }
      assert_true(got[i * N + j] == (float)wanted);
    }
  }
}

static void test_matrix_products(void **) {
  for (int variant = 0; variant < 2; variant++) {
    float *out = device_new<float>(M * N);
    VAMP_LAUNCH(multiply_bf16, 1, 32, 2 * M * STRIDE * 2, 0, variant == 1, out);
    check_product(out, 16);
    out = device_new<float>(M * N);
    VAMP_LAUNCH(multiply_tf32, 1, 32, 0, 0, variant == 1, out);
    check_product(out, 8);
  }
}

static __global__ void load_x4(bool transposed, uint32_t *out) {
  __shared__ __align__(16) uint16_t tile[32][8]; /* four matrices, one below the other */
  int lane = (int)threadIdx.x;
  for (int i = 0; i < 8; i++) {
    tile[lane][i] = (uint16_t)(lane * 8 + i);
  }
  __syncwarp();
  uint32_t r[4];
  if (transposed) {
    vamp_ldmatrix_x4_trans(r, tile[lane]);
  } else {
    vamp_ldmatrix_x4(r, tile[lane]);
  }
  for (int i = 0; i < 4; i++) {
    out[lane * 4 + i] = r[i];
  }
}

static void test_ldmatrix(void **) {
  for (int transposed = 0; transposed < 2; transposed++) {
    uint32_t *out = device_new<uint32_t>(128), got[128];
    VAMP_LAUNCH(load_x4, 1, 32, 0, 0, transposed == 1, out);
    fetch(got, out, 128);
    for (uint32_t lane = 0; lane < 32; lane++) {
      for (uint32_t matrix = 0; matrix < 4; matrix++) {
        uint32_t row = lane / 4, column = lane % 4 * 2, step = transposed ? 8 : 1;
        uint32_t low = matrix * 64 + (transposed ? column * 8 + row : row * 8 + column);
        assert_int_equal(got[lane * 4 + matrix], low | (low + step) << 16);
      }
    }
  }
}

/* ---- lanes ------------------------------------------------------------------------------------- */

enum { LANE_VALUES = 12 };

static __global__ void lanes(int *out) {
  int lane = (int)threadIdx.x % 32, *mine = out + threadIdx.x * LANE_VALUES;
  mine[0] = __shfl_sync(FULL, lane, 5);
  mine[1] = __shfl_sync(FULL, lane, lane + 1);
  mine[2] = __shfl_up_sync(FULL, lane, 3);
  mine[3] = __shfl_down_sync(FULL, lane, 3);
  mine[4] = __shfl_xor_sync(FULL, lane, 9);
  mine[5] = __shfl_xor_sync(FULL, lane, 4, 8);
  mine[6] = __shfl_up_sync(FULL, lane, 1, 4);
  mine[7] = (int)__ballot_sync(FULL, lane % 3 == 0);
  mine[8] = __any_sync(FULL, lane == 31) + 2 * __all_sync(FULL, lane < 32) + 4 * __any_sync(FULL, lane > 31);
  mine[9] = __reduce_add_sync(FULL, lane);
  mine[10] = (int)(__shfl_xor_sync(FULL, (double)lane + 0.5, 1) * 2);
  mine[11] = __syncthreads_count(threadIdx.x % 5 == 0);
}

static void test_lanes(void **) {
  enum { THREADS = 96 };
  int *out = device_new<int>(THREADS * LANE_VALUES), got[THREADS * LANE_VALUES];
  VAMP_LAUNCH(lanes, 1, THREADS, 0, 0, out);
  fetch(got, out, THREADS * LANE_VALUES);
  for (int thread = 0; thread < THREADS; thread++) {
    int lane = thread % 32;
    const int *mine = got + thread * LANE_VALUES;
    assert_int_equal(mine[0], 5);
    assert_int_equal(mine[1], (lane + 1) % 32);
    assert_int_equal(mine[2], lane < 3 ? lane : lane - 3);
    assert_int_equal(mine[3], lane > 28 ? lane : lane + 3);
    assert_int_equal(mine[4], lane ^ 9);
    assert_int_equal(mine[5], lane ^ 4);
    assert_int_equal(mine[6], lane % 4 == 0 ? lane : lane - 1);
    assert_int_equal(mine[7], 0x49249249);
    assert_int_equal(mine[8], 3);
    assert_int_equal(mine[9], 496);
    assert_int_equal(mine[10], (lane ^ 1) * 2 + 1);
    assert_int_equal(mine[11], 20);
  }
}

/* ---- numbers ----------------------------------------------------------------------------------- */

static void test_bf16(void **) {
  assert_int_equal(__bfloat16_as_ushort(__float2bfloat16(1.0f)), 0x3f80);
  assert_int_equal(__bfloat16_as_ushort(__float2bfloat16(__uint_as_float(0x3f808000))), 0x3f80); /* to even */
  assert_int_equal(__bfloat16_as_ushort(__float2bfloat16(__uint_as_float(0x3f818000))), 0x3f82);
  assert_int_equal(__bfloat16_as_ushort(__float2bfloat16(__uint_as_float(0x3f808001))), 0x3f81);
  assert_int_equal(__bfloat16_as_ushort(__float2bfloat16(__uint_as_float(0x7f7fffff))),
                   0x7f80); /* infinity */
  assert_true(isnan(__bfloat162float(__float2bfloat16(NAN))));
  assert_int_equal(vamp_bf16_pack(1.0f, -2.0f), 0xc0003f80);
  assert_int_equal(vamp_tf32(__uint_as_float(0x3f801000)), 0x3f802000); /* ties away from zero */
  assert_int_equal(vamp_tf32(__uint_as_float(0x3f800fff)), 0x3f800000);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_matrix_products),
      cmocka_unit_test(test_ldmatrix),
      cmocka_unit_test(test_lanes),
      cmocka_unit_test(test_bf16),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
