/*
 * The emulator of tests/cuda/emulator finds what it is for. Each test launches a kernel with one planted
 * fault and demands that it is reported as that fault, and the same kernel without the fault, which must
 * pass: a checker that complains of everything would be as useless as one that is silent. Every pair runs
 * with several orders of blocks and threads, for a race that shows only today is not found.
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

#define THREADS 128
#define ORDERS 5

static float *numbers;  /* [numbers_count], of the device */
static uint32_t *words; /* [THREADS], of the device */
static const int numbers_count = THREADS * 2;

static int set_up(void **) {
  emulator_report_aloud(false);
  return cudaMalloc(&numbers, numbers_count * sizeof *numbers) != cudaSuccess ||
         cudaMalloc(&words, THREADS * sizeof *words) != cudaSuccess;
}

static int tear_down(void **) {
  cudaFree(words);
  return cudaFree(numbers) != cudaSuccess;
}

/* `fault` is the planted fault's text, NULL where the kernel is right. */
static void expect(const char *fault) {
  assert_int_equal(cudaPeekAtLastError(), cudaSuccess);
  cudaError_t status = cudaDeviceSynchronize();
  if (!fault) {
    assert_string_equal(emulator_report(), "");
    assert_int_equal(status, cudaSuccess);
    return;
  }
  assert_int_equal(status, cudaErrorLaunchFailure);
  assert_int_equal(cudaGetLastError(), cudaErrorLaunchFailure);
  if (!strstr(emulator_report(), fault)) {
    print_error("reported \"%s\" instead of \"%s\"\n", emulator_report(), fault);
    fail();
  }
  cudaDeviceReset();
}

#define BOTH(kernel, grid, block, shared_bytes, fault, ...)                                                  \
  for (int order = 0; order < ORDERS; order++) {                                                             \
    VAMP_LAUNCH(kernel, grid, block, shared_bytes, 0, false, __VA_ARGS__);                                   \
    expect(NULL);                                                                                            \
    VAMP_LAUNCH(kernel, grid, block, shared_bytes, 0, true, __VA_ARGS__);                                    \
    expect(fault);                                                                                           \
  }

/* ---- barriers ---------------------------------------------------------------------------------- */

/* Reverses a row through shared memory. The fault: no barrier between writing and reading. */
static __global__ void reverse(bool fault, float *out) {
  VAMP_SHARED(float, row);
  row[threadIdx.x] = (float)threadIdx.x;
  if (!fault) {
    __syncthreads();
  }
  out[threadIdx.x] = row[blockDim.x - 1 - threadIdx.x];
}

/* A tile that is used twice. The fault: the second round writes while others still read the first. */
static __global__ void reuse(bool fault, float *out) {
  __shared__ float tile[THREADS];
  float sum = 0;
  for (int round = 0; round < 2; round++) {
    tile[threadIdx.x] = (float)round;
    __syncthreads();
    sum += tile[(threadIdx.x + 40) % THREADS];
    if (!fault) {
      __syncthreads();
    }
  }
  out[threadIdx.x] = sum;
}

/* Lanes exchange through shared memory. The fault: no __syncwarp between. */
static __global__ void exchange(bool fault, float *out) {
  __shared__ float lanes[THREADS];
  lanes[threadIdx.x] = 1;
  if (!fault) {
    __syncwarp();
  }
  out[threadIdx.x] = lanes[threadIdx.x ^ 1];
}

/* The same between warps, where __syncwarp is not enough. */
static __global__ void exchange_warps(bool fault, float *out) {
  __shared__ float lanes[THREADS];
  lanes[threadIdx.x] = 1;
  if (fault) {
    __syncwarp();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = lanes[threadIdx.x ^ 32];
}

static void test_missing_barriers(void **) {
  BOTH(reverse, 1, THREADS, THREADS * sizeof(float), "race", numbers)
  BOTH(reuse, 1, THREADS, 0, "race", numbers)
  BOTH(exchange, 1, THREADS, 0, "race", numbers)
  BOTH(exchange_warps, 1, THREADS, 0, "race", numbers)
}

/* The fault: half of the threads miss the barrier. */
static __global__ void half_barrier(bool fault, float *out) {
  if (!fault || threadIdx.x < THREADS / 2) {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

/* The fault: a thread returns before the barrier. */
static __global__ void early_return(bool fault, float *out) {
  if (fault && threadIdx.x == 7) {
    return;
  }
  __syncthreads();
  out[threadIdx.x] = 1;
}

static void test_divergent_barriers(void **) {
  BOTH(half_barrier, 1, THREADS, 0, "divergence", numbers)
  BOTH(early_return, 1, THREADS, 0, "divergence", numbers)
}

/* ---- races through device memory --------------------------------------------------------------- */

/* Blocks write their own rows. The fault: the last element is the next block's first. */
static __global__ void overlap(bool fault, float *out) {
  unsigned width = blockDim.x - 1;
  if (threadIdx.x < width || (fault && blockIdx.x == 0)) {
    out[blockIdx.x * width + threadIdx.x] = 1;
  }
}

/* In place. The fault: a block reads what its neighbour has or has not replaced. */
static __global__ void neighbour(bool fault, const float *in, float *out) {
  unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
  unsigned from = fault ? (at + blockDim.x) % (gridDim.x * blockDim.x) : at;
  float value = in[from];
  out[at] = value + 1;
}

/* Counting. The fault: not atomically. */
static __global__ void count(bool fault, uint32_t *total) {
  if (fault) {
    total[0]++;
  } else {
    atomicAdd(&total[0], 1u);
  }
}

static void test_races_between_blocks(void **) {
  BOTH(overlap, 2, THREADS / 2, 0, "race", numbers)
  assert_int_equal(cudaMemset(numbers, 0, numbers_count * sizeof *numbers), cudaSuccess);
  BOTH(neighbour, 2, THREADS, 0, "race", numbers, numbers)
  assert_int_equal(cudaMemset(words, 0, THREADS * sizeof *words), cudaSuccess);
  BOTH(count, 4, 32, 0, "race", words)
  BOTH(count, 4, 1, 0, "another block", words)
  uint32_t total;
  assert_int_equal(cudaMemset(words, 0, sizeof total), cudaSuccess);
  VAMP_LAUNCH(count, 4, 32, 0, 0, false, words);
  assert_int_equal(cudaMemcpy(&total, words, sizeof total, cudaMemcpyDeviceToHost), cudaSuccess);
  assert_int_equal(total, 128);
}

/* ---- bounds ------------------------------------------------------------------------------------ */

static __global__ void fill(bool fault, float *out, int count) {
  int at = (int)(blockIdx.x * blockDim.x + threadIdx.x);
  if (fault ? at <= count : at < count) {
    out[at] = 0;
  }
}

static __global__ void peek(bool fault, const float *in, float *out) {
  out[threadIdx.x] = in[(int)threadIdx.x - (fault ? 1 : 0)];
}

static __global__ void shared_end(bool fault, float *out) {
  VAMP_SHARED(float, row);
  row[threadIdx.x + (fault ? 1 : 0)] = 1;
  out[threadIdx.x] = 1;
}

static __global__ void static_end(bool fault, float *out) {
  __shared__ float row[THREADS];
  unsigned at = threadIdx.x + (fault && threadIdx.x == THREADS - 1 ? 1 : 0);
  row[at] = 1;
  out[threadIdx.x] = row[threadIdx.x];
}

static __global__ void wide(bool fault, const float *in, float4 *out) {
  out[threadIdx.x] = *(const float4 *)(in + (fault ? 1 : 0));
}

static __global__ void use_host(bool fault, const float *host, float *out) {
  out[threadIdx.x] = fault ? host[threadIdx.x] : 0;
}

static void test_bounds(void **) {
  float host[THREADS] = {0};
  float *odd;
  assert_int_equal(cudaMalloc(&odd, 99 * sizeof *odd), cudaSuccess);
  BOTH(fill, 2, THREADS, 0, "4 bytes out of bounds: 0 bytes behind", odd, 99)
  BOTH(peek, 1, 64, 0, "device memory", odd, numbers)
  BOTH(shared_end, 1, THREADS, THREADS * sizeof(float), "out of bounds: it has 512", numbers)
  BOTH(static_end, 1, THREADS, 0, "bounds of an array", numbers)
  BOTH(wide, 1, 32, 0, "misaligned", numbers, (float4 *)(void *)(numbers + 4))
  BOTH(use_host, 1, 32, 0, "is not device memory", host, numbers)
  float *freed = odd;
  assert_int_equal(cudaFree(odd), cudaSuccess);
  VAMP_LAUNCH(fill, 1, 32, 0, 0, false, freed, 32);
  expect("was freed");
}

/* Pieces of an arena are told apart. */
static void test_arena(void **) {
  unsigned char *arena;
  assert_int_equal(cudaMalloc(&arena, 4096), cudaSuccess);
  VAMP_MEMORY_GIVEN(arena, 4096);
  VAMP_MEMORY_TAKEN(arena, 400);
  VAMP_MEMORY_TAKEN(arena + 512, 400);
  float *first = (float *)(void *)arena;
  BOTH(fill, 1, THREADS, 0, "of device memory that", first, 100)
  VAMP_MEMORY_GIVEN(arena, 400);
  VAMP_LAUNCH(fill, 1, THREADS, 0, 0, false, first, 100);
  expect("was freed");
  assert_int_equal(cudaFree(arena), cudaSuccess);
}

/* What nobody wrote is NaN, in shared and in device memory. */
static __global__ void read_unwritten(float *out, const float *in) {
  VAMP_SHARED(float, row);
  out[threadIdx.x] = row[threadIdx.x];
  out[threadIdx.x + blockDim.x] = in[threadIdx.x];
}

static void test_poison(void **) {
  float *fresh, got[64];
  assert_int_equal(cudaMalloc(&fresh, sizeof got), cudaSuccess);
  VAMP_LAUNCH(read_unwritten, 1, 32, 128, 0, numbers, fresh);
  assert_int_equal(cudaMemcpy(got, numbers, sizeof got, cudaMemcpyDeviceToHost), cudaSuccess);
  for (int i = 0; i < 64; i++) {
    assert_true(isnan(got[i]));
  }
  assert_int_equal(cudaFree(fresh), cudaSuccess);
}

/* ---- collectives ------------------------------------------------------------------------------- */

/* The fault: only some lanes shuffle. */
static __global__ void sum_lanes(bool fault, float *out) {
  float value = 1;
  if (!fault || threadIdx.x % 32 < 20) {
    for (int step = 16; step > 0; step /= 2) {
      value += __shfl_xor_sync(0xffffffffu, value, step);
    }
  }
  out[threadIdx.x] = value;
}

/* The fault: lanes of one warp meet different collectives. */
static __global__ void mixed(bool fault, uint32_t *out) {
  uint32_t value;
  if (fault && threadIdx.x % 2) {
    value = __ballot_sync(0xffffffffu, 1);
  } else {
    value = __shfl_sync(0xffffffffu, threadIdx.x, 0);
  }
  out[threadIdx.x] = value;
}

static void test_divergent_collectives(void **) {
  BOTH(sum_lanes, 1, THREADS, 0, "divergence", numbers)
  BOTH(mixed, 1, THREADS, 0, "divergence", words)
}

/* ---- asynchronous copies ----------------------------------------------------------------------- */

enum copy_fault { COPY_NONE, COPY_NO_WAIT, COPY_NO_BARRIER, COPY_TOO_EARLY };

static __global__ void copy_tile(copy_fault fault, const float *in, float *out) {
  VAMP_SHARED(float, tile);
  int at = (int)threadIdx.x * 4;
  tile[at] = 1;
  if (fault != COPY_TOO_EARLY) {
    __syncthreads();
  }
  float before = tile[(at + 40) % (THREADS * 4)];
  __syncthreads();
  vamp_copy_async16(&tile[at], &in[at], threadIdx.x < 32);
  vamp_copy_commit();
  if (fault != COPY_NO_WAIT) {
    vamp_copy_wait(0);
  }
  if (fault != COPY_NO_BARRIER) {
    __syncthreads();
  }
  out[threadIdx.x] = tile[(at + 4) % (THREADS * 4)] + 0 * before;
  vamp_copy_wait(0);
}

static void test_copies(void **) {
  float in[THREADS], out[THREADS];
  for (int i = 0; i < THREADS; i++) {
    in[i] = (float)i;
  }
  assert_int_equal(cudaMemcpy(numbers, in, sizeof in, cudaMemcpyHostToDevice), cudaSuccess);
  float *to = numbers + THREADS;
  const char *faults[] = {NULL, "still filling", "race", "race"};
  for (int fault = COPY_NONE; fault <= COPY_TOO_EARLY; fault++) {
    for (int order = 0; order < ORDERS; order++) {
      if (fault == COPY_NO_BARRIER && order > 0) {
        continue; /* one thread may also come before the other's wait, which is another fault's text */
      }
      VAMP_LAUNCH(copy_tile, 1, THREADS, THREADS * 16, 0, (copy_fault)fault, numbers, to);
      if (fault == COPY_NO_BARRIER) {
        assert_int_equal(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
        assert_true(strstr(emulator_report(), "race") || strstr(emulator_report(), "still filling"));
        cudaDeviceReset();
        continue;
      }
      expect(faults[fault]);
    }
  }
  VAMP_LAUNCH(copy_tile, 1, THREADS, THREADS * 16, 0, COPY_NONE, numbers, to);
  assert_int_equal(cudaMemcpy(out, to, sizeof out, cudaMemcpyDeviceToHost), cudaSuccess);
  for (int i = 0; i < THREADS; i++) {
    assert_true(out[i] == (i + 1 < 32 ? in[(i + 1) * 4] : i + 1 < THREADS ? 0.0f : in[0]));
  }
}

/* ---- launches and streams ---------------------------------------------------------------------- */

static __global__ void one(float *out) {
  VAMP_SHARED(float, room);
  room[0] = 1;
  out[0] = room[0];
}

static void test_launches(void **) {
  VAMP_LAUNCH(one, 1, 1025, 4, 0, numbers);
  assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
  VAMP_LAUNCH(one, 0, 32, 4, 0, numbers);
  assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
  VAMP_LAUNCH(one, 1, 1, 64 << 10, 0, numbers);
  assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
  assert_int_equal(cudaFuncSetAttribute(one, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 << 10),
                   cudaSuccess);
  VAMP_LAUNCH(one, 1, 1, 64 << 10, 0, numbers);
  expect(NULL);
  assert_int_equal(cudaFuncSetAttribute(one, cudaFuncAttributeMaxDynamicSharedMemorySize, 128 << 10),
                   cudaErrorInvalidValue);
  cudaGetLastError();
}

/* 48 KiB and nothing beside them are what a kernel has that declares none of its own. */
static void test_shared_limit(void **) {
  cudaFuncSetAttribute(read_unwritten, cudaFuncAttributeMaxDynamicSharedMemorySize, 0);
  VAMP_LAUNCH(read_unwritten, 1, 1, 47 << 10, 0, numbers, numbers);
  expect(NULL);
  VAMP_LAUNCH(read_unwritten, 1, 1, 48 << 10, 0, numbers, numbers);
  assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
  assert_int_equal(
      cudaFuncSetAttribute(read_unwritten, cudaFuncAttributeMaxDynamicSharedMemorySize, 98 << 10),
      cudaSuccess);
  VAMP_LAUNCH(read_unwritten, 1, 1, 98 << 10, 0, numbers, numbers);
  expect(NULL);
  assert_int_equal(
      cudaFuncSetAttribute(read_unwritten, cudaFuncAttributeMaxDynamicSharedMemorySize, 99 << 10),
      cudaErrorInvalidValue);
  cudaGetLastError();
}

static __global__ void never_launched(float *out) {
  out[0] = 1;
}

/* What may not happen between begin and end of a capture voids it, and the stream is as good as before. */
static void test_forbidden_in_capture(void **) {
  enum { WAIT, EVENT, ALLOCATE, PIN, COPY, PAGEABLE, LOAD, NOTHING };
  static float host;
  for (int what = WAIT; what <= NOTHING; what++) {
    cudaStream_t stream;
    cudaEvent_t event;
    cudaGraph_t graph = NULL;
    float *memory = NULL;
    assert_int_equal(cudaStreamCreate(&stream), cudaSuccess);
    assert_int_equal(cudaEventCreate(&event), cudaSuccess);
    VAMP_LAUNCH(count, 1, 1, 0, stream, false, words);
    assert_int_equal(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    cudaError_t status = cudaSuccess;
    switch (what) {
    case WAIT:
      status = cudaStreamSynchronize(stream);
      break;
    case EVENT:
      status = cudaEventSynchronize(event);
      break;
    case ALLOCATE:
      status = cudaMalloc(&memory, 256);
      break;
    case PIN:
      status = cudaMallocHost(&memory, 256);
      break;
    case COPY:
      status = cudaMemcpy(numbers, &host, sizeof host, cudaMemcpyHostToDevice);
      break;
    case PAGEABLE:
      status = cudaMemcpyAsync(numbers, &host, sizeof host, cudaMemcpyHostToDevice, stream);
      break;
    case LOAD:
      VAMP_LAUNCH(never_launched, 1, 1, 0, stream, numbers);
      status = cudaGetLastError();
      break;
    }
    VAMP_LAUNCH(count, 1, 1, 0, stream, false, words);
    assert_int_equal(cudaGetLastError(), what == NOTHING ? cudaSuccess : cudaErrorStreamCaptureInvalidated);
    assert_int_equal(status, what == NOTHING ? cudaSuccess : cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaStreamEndCapture(stream, &graph),
                     what == NOTHING ? cudaSuccess : cudaErrorStreamCaptureInvalidated);
    assert_int_equal(graph != NULL, what == NOTHING);
    cudaGetLastError();
    VAMP_LAUNCH(count, 1, 1, 0, stream, false, words);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
    if (graph) {
      cudaGraphDestroy(graph);
    }
    cudaEventDestroy(event);
    cudaStreamDestroy(stream);
  }
}

/* A pinned buffer that is reused before the copy is made arrives changed; a graph repeats its work. */
static void test_streams(void **) {
  cudaStream_t stream;
  float *pinned, got;
  assert_int_equal(cudaStreamCreate(&stream), cudaSuccess);
  assert_int_equal(cudaMallocHost(&pinned, sizeof *pinned), cudaSuccess);
  *pinned = 1;
  assert_int_equal(cudaMemcpyAsync(numbers, pinned, sizeof *pinned, cudaMemcpyHostToDevice, stream),
                   cudaSuccess);
  *pinned = 2;
  assert_int_equal(cudaMemcpyAsync(&got, numbers, sizeof got, cudaMemcpyDeviceToHost, stream), cudaSuccess);
  assert_true(got == 2);

  cudaGraph_t graph;
  cudaGraphExec_t exec;
  assert_int_equal(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  VAMP_LAUNCH(count, 2, 1, 0, stream, false, words);
  assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  assert_int_equal(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
  assert_int_equal(cudaMemsetAsync(words, 0, sizeof *words, stream), cudaSuccess);
  uint32_t total;
  for (int i = 0; i < 3; i++) {
    assert_int_equal(cudaGraphLaunch(exec, stream), cudaSuccess);
  }
  assert_int_equal(cudaMemcpyAsync(&total, words, sizeof total, cudaMemcpyDeviceToHost, stream), cudaSuccess);
  assert_int_equal(total, 6);
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaFreeHost(pinned);
  cudaStreamDestroy(stream);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_missing_barriers),
      cmocka_unit_test(test_divergent_barriers),
      cmocka_unit_test(test_races_between_blocks),
      cmocka_unit_test(test_bounds),
      cmocka_unit_test(test_arena),
      cmocka_unit_test(test_poison),
      cmocka_unit_test(test_divergent_collectives),
      cmocka_unit_test(test_copies),
      cmocka_unit_test(test_launches),
      cmocka_unit_test(test_shared_limit),
      cmocka_unit_test(test_forbidden_in_capture),
      cmocka_unit_test(test_streams),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
