/*
 * The part of CUDA's runtime that cuda/ uses, for g++: declarations with CUDA's names and meanings, whose
 * definitions in tests/cuda/emulator run kernels on the processor. See tests/cuda/emulator/internal.h for
 * how.
 *
 * Work on a stream is queued and done when somebody waits for it, for a device may be as late as that: who
 * reuses pinned memory too early, or reads a result without waiting, finds out here.
 * VAMP_EMULATOR_EAGER=1 does it at once. A fault makes the launch, and every call after it, fail with
 * cudaErrorLaunchFailure, as on a device.
 */
#ifndef EMULATOR_CUDA_RUNTIME_H
#define EMULATOR_CUDA_RUNTIME_H

#include <memory>
#include <stddef.h>
#include <stdint.h>
#include <tuple>
#include <type_traits>
#include <utility>

#define CUDART_VERSION 12000

#include "emulator_device.h"
#include "emulator_vector.h"

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorInvalidDevice = 101,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorNotReady = 600,
  cudaErrorLaunchFailure = 719,
  cudaErrorNotSupported = 801,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
};

const char *cudaGetErrorString(cudaError_t error);
const char *cudaGetErrorName(cudaError_t error);
cudaError_t cudaGetLastError(void);
cudaError_t cudaPeekAtLastError(void);

/* ---- devices ----------------------------------------------------------------------------------- */

struct cudaDeviceProp {
  char name[256];
  int major, minor;
  size_t totalGlobalMem;
  size_t sharedMemPerBlock, sharedMemPerBlockOptin, sharedMemPerMultiprocessor;
  int multiProcessorCount, warpSize, maxThreadsPerBlock, regsPerBlock, l2CacheSize;
};

enum cudaDeviceAttr {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrMaxSharedMemoryPerBlock = 8,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrIntegrated = 18,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};

cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device);
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaDeviceSynchronize(void);
cudaError_t cudaDeviceReset(void); /* also forgets a fault; memory stays */

/* ---- memory ------------------------------------------------------------------------------------ */

enum cudaMemcpyKind {
  cudaMemcpyHostToHost = 0,
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4,
};

typedef struct emulator_stream *cudaStream_t;
typedef struct emulator_event *cudaEvent_t;
typedef struct emulator_graph *cudaGraph_t;
typedef struct emulator_graph *cudaGraphExec_t;

#define cudaHostAllocDefault 0u
#define cudaHostAllocPortable 1u
#define cudaHostAllocMapped 2u
#define cudaHostAllocWriteCombined 4u

cudaError_t emulator_malloc(void **memory, size_t bytes);
cudaError_t emulator_malloc_host(void **memory, size_t bytes);
template <class T> inline cudaError_t cudaMalloc(T **memory, size_t bytes) {
  return emulator_malloc((void **)(void *)memory, bytes);
}
template <class T> inline cudaError_t cudaMallocHost(T **memory, size_t bytes, unsigned = 0) {
  return emulator_malloc_host((void **)(void *)memory, bytes);
}
template <class T> inline cudaError_t cudaHostAlloc(T **memory, size_t bytes, unsigned) {
  return emulator_malloc_host((void **)(void *)memory, bytes);
}
cudaError_t cudaFree(void *memory);
cudaError_t cudaFreeHost(void *memory);
cudaError_t cudaMemGetInfo(size_t *available, size_t *total);
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = 0);
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream = 0);
cudaError_t cudaMemset(void *memory, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream = 0);
cudaError_t emulator_memcpy_to_symbol(void *symbol, const void *from, size_t bytes, size_t offset);
template <class T>
inline cudaError_t cudaMemcpyToSymbol(T &symbol, const void *from, size_t bytes, size_t offset = 0,
                                      cudaMemcpyKind = cudaMemcpyHostToDevice) {
  return emulator_memcpy_to_symbol((void *)&symbol, from, bytes, offset);
}

/* ---- streams, events, graphs ------------------------------------------------------------------- */

#define cudaStreamDefault 0u
#define cudaStreamNonBlocking 1u
#define cudaEventDefault 0u
#define cudaEventBlockingSync 1u
#define cudaEventDisableTiming 2u

enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal = 0,
  cudaStreamCaptureModeThreadLocal = 1,
  cudaStreamCaptureModeRelaxed = 2,
};

enum cudaStreamCaptureStatus {
  cudaStreamCaptureStatusNone = 0,
  cudaStreamCaptureStatusActive = 1,
  cudaStreamCaptureStatusInvalidated = 2,
};

struct cudaGraphExecUpdateResultInfo {
  int result;
};

cudaError_t cudaStreamCreate(cudaStream_t *stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreate(cudaEvent_t *event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = 0);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end);

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags = 0);
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo *result);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);

/* ---- kernels ----------------------------------------------------------------------------------- */

enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9,
};

cudaError_t emulator_function_attribute(const void *kernel, cudaFuncAttribute attribute, int value);
cudaError_t emulator_occupancy(int *blocks, int block_size, size_t shared_bytes);
template <class... P>
inline cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value) {
  return emulator_function_attribute((const void *)kernel, attribute, value);
}
inline cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value) {
  return emulator_function_attribute(kernel, attribute, value);
}
template <class... P>
inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void (*)(P...), int block_size,
                                                                 size_t shared_bytes) {
  return emulator_occupancy(blocks, block_size, shared_bytes);
}

struct cudaFuncAttributes {
  size_t sharedSizeBytes;
  int numRegs;
};

cudaError_t emulator_function_attributes(cudaFuncAttributes *attributes);

template <class... P>
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, void (*kernel)(P...)) {
  (void)kernel;
  return emulator_function_attributes(attributes);
}

/* A launch: `run` calls the kernel with the arguments in `arguments`, once for each thread. */
struct emulator_call {
  const char *name;
  const void *kernel;
  dim3 grid, block;
  size_t shared_bytes;
  void (*run)(const void *kernel, const void *arguments);
  std::shared_ptr<void> arguments;
  size_t argument_bytes;
};

void emulator_launch_call(const emulator_call &call, cudaStream_t stream);

template <class... P> static void emulator_run(const void *kernel, const void *arguments) {
  std::apply((void (*)(P...))kernel, *(const std::tuple<std::decay_t<P>...> *)arguments);
}

template <class... P, class... A>
inline void emulator_launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block,
                            size_t shared_bytes, cudaStream_t stream, A &&...arguments) {
  typedef std::tuple<std::decay_t<P>...> tuple;
  static_assert(sizeof(tuple) <= 4096, "a kernel's parameters take at most 4 KiB");
  static_assert((std::is_trivially_copyable_v<std::decay_t<P>> && ...), "parameters are copied as bytes");
  emulator_call call = {name,
                        (const void *)kernel,
                        grid,
                        block,
                        shared_bytes,
                        emulator_run<P...>,
                        std::make_shared<tuple>(std::forward<A>(arguments)...),
                        sizeof(tuple)};
  emulator_launch_call(call, stream);
}

void emulator_memory_taken(void *memory, size_t bytes);
void emulator_memory_given(void *memory, size_t bytes);

/* The text of the last fault, "" where there was none since the last cudaDeviceReset. */
const char *emulator_report(void);
/* Whether reports go to standard error too, as they do at first; off for tests that plant faults. */
void emulator_report_aloud(bool aloud);

#endif
