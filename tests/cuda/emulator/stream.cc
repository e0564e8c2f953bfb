/*
 * Streams, events, graphs and launches: see cuda_runtime.h here. A stream is a list of work; a graph is such
 * a list kept; the list is worked off when somebody waits. All streams are worked off together, stream by
 * stream, which is one of the orders a device may choose, and events make the others wait as they must.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <list>
#include <map>
#include <set>
#include <thread>
#include <utility>

#include "internal.h"

#define MAX_GRID_YZ 65535u
#define MAX_BLOCK_Z 64u

typedef std::list<std::shared_ptr<emulator_work>> work_list;

struct emulator_stream {
  work_list queue;
  int device = 0;
  bool capturing = false, invalid = false; /* invalid: the capture will come to nothing */
  std::thread::id capturer;
  work_list captured;
};
struct emulator_graph {
  work_list work;
};
struct emulator_event {
  double seconds;
  emulator_stream *stream; /* where it was recorded last */
};

static std::list<emulator_stream *> *streams;
static emulator_stream *default_stream;
static std::map<std::pair<int, const void *>, size_t> *shared_allowed; /* by device and kernel */
static std::set<std::pair<int, const void *>> *loaded; /* device and kernel, launched before */
static cudaError_t last_error, sticky_error;
static bool draining;
static thread_local int current_device;

emulator_lock emulator_api_lock(void) {
  static std::recursive_mutex mutex;
  emulator_lock lock(mutex);
  if (!streams) {
    streams = new std::list<emulator_stream *>;
    default_stream = new emulator_stream;
    streams->push_back(default_stream);
    shared_allowed = new std::map<std::pair<int, const void *>, size_t>;
    loaded = new std::set<std::pair<int, const void *>>;
    const char *seed = getenv("VAMP_EMULATOR_SEED"), *unchecked = getenv("VAMP_EMULATOR_UNCHECKED");
    const char *eager = getenv("VAMP_EMULATOR_EAGER");
    machine.random = ((seed ? strtoull(seed, NULL, 10) : 1) + 1) * 0x9E3779B97F4A7C15ull;
    machine.unchecked = unchecked && *unchecked == '1';
    machine.eager = eager && *eager == '1';
    emulator_memory_start();
  }
  return lock;
}

cudaError_t emulator_error(cudaError_t error) {
  if (error != cudaSuccess) {
    last_error = error;
  }
  return error;
}

/* ---- queues ------------------------------------------------------------------------------------ */

cudaError_t emulator_drain(void) {
  if (draining) {
    return sticky_error;
  }
  draining = true;
  for (emulator_stream *stream : *streams) {
    while (!stream->queue.empty()) {
      std::shared_ptr<emulator_work> work = stream->queue.front();
      stream->queue.pop_front();
      if (sticky_error == cudaSuccess && !work->run()) {
        sticky_error = cudaErrorLaunchFailure;
      }
    }
  }
  draining = false;
  return emulator_error(sticky_error);
}

cudaError_t emulator_enqueue(cudaStream_t stream, std::shared_ptr<emulator_work> work) {
  if (stream && stream->device != current_device) {
    fprintf(stderr, "emulator: work for a stream of device %d while device %d is current\n", stream->device,
            current_device);
    return emulator_error(cudaErrorInvalidResourceHandle);
  }
  stream = stream ? stream : default_stream;
  if (sticky_error != cudaSuccess) {
    return emulator_error(sticky_error);
  }
  if (stream->invalid) {
    return emulator_error(cudaErrorStreamCaptureInvalidated);
  }
  if (stream->capturing) {
    stream->captured.push_back(work);
    return cudaSuccess;
  }
  stream->queue.push_back(work);
  return machine.eager ? emulator_drain() : cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
  emulator_lock lock = emulator_api_lock();
  *stream = new emulator_stream;
  (*stream)->device = current_device;
  streams->push_back(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
  return cudaStreamCreateWithFlags(stream, 0);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  emulator_lock lock = emulator_api_lock();
  cudaError_t status = emulator_drain();
  streams->remove(stream);
  delete stream;
  return status;
}

/* cudaStreamCaptureModeThreadLocal: others may do as they like. */
bool emulator_capture_forbids(const char *what) {
  bool forbidden = false;
  for (emulator_stream *stream : *streams) {
    if (stream->capturing && stream->capturer == std::this_thread::get_id()) {
      stream->invalid = forbidden = true;
    }
  }
  if (forbidden) {
    fprintf(stderr, "emulator: %s while a stream is being captured\n", what);
    emulator_error(cudaErrorStreamCaptureUnsupported);
  }
  return forbidden;
}

/* A capture forbids to wait, for what it would wait for does not run. */
static cudaError_t wait_all(const char *what) {
  return emulator_capture_forbids(what) ? cudaErrorStreamCaptureUnsupported : emulator_drain();
}

cudaError_t cudaStreamSynchronize(cudaStream_t) {
  emulator_lock lock = emulator_api_lock();
  return wait_all("cudaStreamSynchronize");
}

cudaError_t cudaStreamQuery(cudaStream_t) {
  emulator_lock lock = emulator_api_lock();
  return wait_all("cudaStreamQuery");
}

cudaError_t cudaDeviceSynchronize(void) {
  emulator_lock lock = emulator_api_lock();
  return wait_all("cudaDeviceSynchronize");
}

/* ---- copies ------------------------------------------------------------------------------------ */

struct copy_work : emulator_work {
  void *to;
  const void *from;
  size_t to_pitch, from_pitch, width, height;
  cudaMemcpyKind kind;
  std::vector<unsigned char> staged; /* pageable memory of the host, as it was at the call */

  static void check(const void *address, size_t bytes, bool device, const char *what) {
    if (device ? !emulator_is_live(address, bytes) : emulator_is_device(address)) {
      emulator_host_fault(NULL, "cudaMemcpy %s %zu bytes at %p, which %s", what, bytes, address,
                          device ? "are not within one live piece of device memory" : "is device memory");
    }
  }
  bool run() override {
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    for (size_t i = 0; i < height; i++) {
      unsigned char *target = (unsigned char *)to + i * to_pitch;
      const unsigned char *source = (const unsigned char *)from + i * from_pitch;
      check(target, width, to_device, "to");
      check(source, width, from_device, "from");
      memmove(target, staged.empty() ? source : &staged[i * width], width);
    }
    return true;
  }
};

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  emulator_lock lock = emulator_api_lock();
  if (width == 0 || height == 0) {
    return cudaSuccess;
  }
  if (kind == cudaMemcpyDefault) {
    kind = emulator_is_device(to)
               ? emulator_is_device(from) ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice
           : emulator_is_device(from) ? cudaMemcpyDeviceToHost
                                      : cudaMemcpyHostToHost;
  }
  std::shared_ptr<copy_work> work = std::make_shared<copy_work>();
  work->to = to;
  work->from = from;
  work->to_pitch = to_pitch;
  work->from_pitch = from_pitch;
  work->width = width;
  work->height = height;
  work->kind = kind;
  bool capturing = (stream ? stream : default_stream)->capturing;
  const void *of_host = kind == cudaMemcpyHostToDevice ? from : kind == cudaMemcpyDeviceToHost ? to : NULL;
  if (capturing && of_host && !emulator_is_pinned(of_host)) {
    emulator_capture_forbids("a copy of pageable memory");
    return cudaErrorStreamCaptureUnsupported;
  }
  if (kind == cudaMemcpyHostToDevice && !capturing && !emulator_is_pinned(from)) {
    for (size_t i = 0; i < height; i++) {
      const unsigned char *row = (const unsigned char *)from + i * from_pitch;
      work->staged.insert(work->staged.end(), row, row + width);
    }
  }
  cudaError_t status = emulator_enqueue(stream, work);
  /* Into pageable memory a copy is done when the call returns. */
  bool done = kind == cudaMemcpyDeviceToHost && !capturing && !emulator_is_pinned(to);
  return status == cudaSuccess && done ? emulator_drain() : status;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  emulator_lock lock = emulator_api_lock();
  if (emulator_capture_forbids("cudaMemcpy")) {
    return cudaErrorStreamCaptureUnsupported;
  }
  cudaError_t status = cudaMemcpyAsync(to, from, bytes, kind, default_stream);
  return status == cudaSuccess ? emulator_drain() : status;
}

struct set_work : emulator_work {
  void *memory;
  int value;
  size_t bytes;
  bool run() override {
    copy_work::check(memory, bytes, true, "(memset) to");
    memset(memory, value, bytes);
    return true;
  }
};

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream) {
  emulator_lock lock = emulator_api_lock();
  std::shared_ptr<set_work> work = std::make_shared<set_work>();
  work->memory = memory;
  work->value = value;
  work->bytes = bytes;
  return emulator_enqueue(stream, work);
}

cudaError_t cudaMemset(void *memory, int value, size_t bytes) {
  emulator_lock lock = emulator_api_lock();
  if (emulator_capture_forbids("cudaMemset")) {
    return cudaErrorStreamCaptureUnsupported;
  }
  return cudaMemsetAsync(memory, value, bytes, default_stream);
}

cudaError_t emulator_memcpy_to_symbol(void *symbol, const void *from, size_t bytes, size_t offset) {
  emulator_lock lock = emulator_api_lock();
  cudaError_t status = emulator_drain();
  memcpy((unsigned char *)symbol + offset, from, bytes);
  return status;
}

/* ---- launches ---------------------------------------------------------------------------------- */

struct launch_work : emulator_work {
  emulator_call call;
  bool run() override {
    return emulator_run_call(call);
  }
};

cudaError_t emulator_function_attribute(const void *kernel, cudaFuncAttribute attribute, int value) {
  emulator_lock lock = emulator_api_lock();
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    if (value < 0 || (size_t)value + EMULATOR_SHARED_STATIC > emulator_shared_limit()) {
      return emulator_error(cudaErrorInvalidValue);
    }
    (*shared_allowed)[{current_device, kernel}] = (size_t)value;
  }
  return cudaSuccess;
}

/* VAMP_EMULATOR_NO_IMAGE: a plugin that was built for other devices. */
cudaError_t emulator_function_attributes(cudaFuncAttributes *attributes) {
  *attributes = {};
  return getenv("VAMP_EMULATOR_NO_IMAGE") ? emulator_error(cudaErrorNoKernelImageForDevice) : cudaSuccess;
}

cudaError_t emulator_occupancy(int *blocks, int block_size, size_t shared_bytes) {
  int by_threads = 1536 / (block_size > 0 ? block_size : 1);
  int by_shared = (int)((size_t)(100 << 10) / (shared_bytes + 1024));
  *blocks = by_threads < by_shared ? by_threads : by_shared;
  return cudaSuccess;
}

void emulator_launch_call(const emulator_call &call, cudaStream_t stream) {
  emulator_lock lock = emulator_api_lock();
  size_t threads = (size_t)call.block.x * call.block.y * call.block.z;
  if (threads == 0 || threads > EMULATOR_MAX_THREADS || call.block.z > MAX_BLOCK_Z || call.grid.x == 0 ||
      call.grid.x > INT32_MAX || call.grid.y == 0 || call.grid.y > MAX_GRID_YZ || call.grid.z == 0 ||
      call.grid.z > MAX_GRID_YZ) {
    fprintf(stderr, "emulator: %s: a launch of (%u, %u, %u) blocks of (%u, %u, %u) threads\n", call.name,
            call.grid.x, call.grid.y, call.grid.z, call.block.x, call.block.y, call.block.z);
    emulator_error(cudaErrorInvalidConfiguration);
    return;
  }
  auto allowed = shared_allowed->find({current_device, call.kernel});
  size_t limit = allowed == shared_allowed->end() ? 0 : allowed->second;
  if (call.shared_bytes > limit && call.shared_bytes + EMULATOR_SHARED_STATIC > EMULATOR_SHARED_DEFAULT) {
    fprintf(stderr, "emulator: %s: %zu bytes of shared memory without cudaFuncSetAttribute\n", call.name,
            call.shared_bytes);
    emulator_error(cudaErrorInvalidValue);
    return;
  }
  /* A kernel is loaded when it is launched first, which may have to wait for the device. */
  if (loaded->insert({current_device, call.kernel}).second && (stream ? stream : default_stream)->capturing) {
    loaded->erase({current_device, call.kernel});
    emulator_capture_forbids(call.name);
    return;
  }
  std::shared_ptr<launch_work> work = std::make_shared<launch_work>();
  work->call = call;
  emulator_enqueue(stream, work);
}

/* ---- events ------------------------------------------------------------------------------------ */

struct record_work : emulator_work {
  emulator_event *event;
  bool run() override {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    event->seconds = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    return true;
  }
};

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
  *event = new emulator_event();
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event) {
  return cudaEventCreateWithFlags(event, 0);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  emulator_lock lock = emulator_api_lock();
  cudaError_t status = emulator_drain();
  delete event;
  return status;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  emulator_lock lock = emulator_api_lock();
  std::shared_ptr<record_work> work = std::make_shared<record_work>();
  work->event = event;
  event->stream = stream ? stream : default_stream;
  return emulator_enqueue(stream, work);
}

/* What was recorded is done now, and so the waiting stream need not wait; in a capture one stream is all
 * there is. */
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  emulator_lock lock = emulator_api_lock();
  stream = stream ? stream : default_stream;
  if (stream->capturing || (event->stream && event->stream->capturing)) {
    return stream == event->stream ? cudaSuccess : emulator_error(cudaErrorNotSupported);
  }
  return emulator_drain();
}

cudaError_t cudaEventSynchronize(cudaEvent_t) {
  emulator_lock lock = emulator_api_lock();
  return wait_all("cudaEventSynchronize");
}

cudaError_t cudaEventQuery(cudaEvent_t) {
  emulator_lock lock = emulator_api_lock();
  return wait_all("cudaEventQuery");
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  emulator_lock lock = emulator_api_lock();
  cudaError_t status = emulator_drain();
  *milliseconds = (float)((end->seconds - begin->seconds) * 1e3);
  return status;
}

/* ---- graphs ------------------------------------------------------------------------------------ */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  emulator_lock lock = emulator_api_lock();
  if (!stream || stream->capturing) {
    return emulator_error(cudaErrorInvalidValue);
  }
  stream->capturing = true;
  stream->invalid = false;
  stream->capturer = std::this_thread::get_id();
  stream->captured.clear();
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
  emulator_lock lock = emulator_api_lock();
  if (!stream || !stream->capturing) {
    return emulator_error(cudaErrorInvalidValue);
  }
  const char *capture = getenv("VAMP_EMULATOR_CAPTURE"); /* 0: a driver that cannot */
  bool invalid = stream->invalid || (capture && *capture == '0');
  stream->capturing = stream->invalid = false;
  if (invalid) {
    *graph = NULL;
    stream->captured.clear();
    return emulator_error(cudaErrorStreamCaptureInvalidated);
  }
  *graph = new emulator_graph;
  (*graph)->work.swap(stream->captured);
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status) {
  emulator_lock lock = emulator_api_lock();
  *status = stream && stream->capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long) {
  *exec = new emulator_graph(*graph);
  return cudaSuccess;
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo *result) {
  emulator_lock lock = emulator_api_lock();
  exec->work = graph->work;
  result->result = 0;
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  emulator_lock lock = emulator_api_lock();
  cudaError_t status = cudaSuccess;
  for (const std::shared_ptr<emulator_work> &work : exec->work) {
    status = status == cudaSuccess ? emulator_enqueue(stream, work) : status;
  }
  return status;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) {
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

/* ---- the rest ---------------------------------------------------------------------------------- */

cudaError_t cudaGetLastError(void) {
  emulator_lock lock = emulator_api_lock();
  cudaError_t error = last_error;
  last_error = sticky_error;
  return error;
}

cudaError_t cudaPeekAtLastError(void) {
  emulator_lock lock = emulator_api_lock();
  return last_error;
}

cudaError_t cudaDeviceReset(void) {
  emulator_lock lock = emulator_api_lock();
  emulator_drain();
  last_error = sticky_error = cudaSuccess;
  emulator_report_forget();
  return cudaSuccess;
}

/* Several devices are one memory and one machine behind several numbers. */
int emulator_devices(void) {
  const char *text = getenv("VAMP_EMULATOR_DEVICES");
  int count = text ? atoi(text) : 1;
  return count < 1 ? 1 : count;
}

cudaError_t cudaGetDeviceCount(int *count) {
  *count = emulator_devices();
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= emulator_devices()) {
    return emulator_error(cudaErrorInvalidDevice);
  }
  current_device = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device) {
  *device = current_device;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

const char *cudaGetErrorName(cudaError_t error) {
  switch (error) {
  case cudaSuccess:
    return "cudaSuccess";
  case cudaErrorMemoryAllocation:
    return "cudaErrorMemoryAllocation";
  case cudaErrorLaunchFailure:
    return "cudaErrorLaunchFailure";
  case cudaErrorInvalidConfiguration:
    return "cudaErrorInvalidConfiguration";
  case cudaErrorInvalidValue:
    return "cudaErrorInvalidValue";
  case cudaErrorStreamCaptureUnsupported:
    return "cudaErrorStreamCaptureUnsupported";
  case cudaErrorStreamCaptureInvalidated:
    return "cudaErrorStreamCaptureInvalidated";
  default:
    return "an error of the emulator";
  }
}

const char *cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorLaunchFailure && emulator_report()[0] ? emulator_report()
                                                                 : cudaGetErrorName(error);
}
