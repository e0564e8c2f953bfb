/*
 * Device memory: one range of addresses, of which cudaMalloc hands out pieces with a gap behind each, and for
 * each piece the exact bytes that may be touched. What was freed stays untouchable as long as the range
 * lasts: the search for room goes round. Copies are checked like accesses.
 *
 * The device is one of compute capability 8.6 with VAMP_EMULATOR_MEMORY bytes (1 GiB): of the targets the one
 * with the least shared memory a block. A piece of more than 64 MiB is not poisoned, for it will be an arena,
 * which says VAMP_MEMORY_TAKEN of its own pieces.
 */
#include <map>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "internal.h"

#define GAP ((size_t)4096)
#define ALIGNMENT ((size_t)256)
#define POISONED_BELOW ((size_t)64 << 20)
#define SPAN_FACTOR 4
#define SHARED_OPTIN ((size_t)99 << 10)

emulator_space device_memory;

static size_t total_bytes, used_bytes, cursor;
static std::map<size_t, size_t> *pieces; /* offset to bytes */
static std::map<const char *, size_t> *pinned;

static void *reserve(size_t bytes) {
  void *mapped =
      mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) {
    emulator_host_fault(NULL, "cannot reserve %zu bytes of addresses for device memory", bytes);
  }
  return mapped;
}

void emulator_memory_start(void) {
  if (pieces) {
    return;
  }
  const char *memory = getenv("VAMP_EMULATOR_MEMORY");
  total_bytes = memory ? strtoull(memory, NULL, 10) : (size_t)1 << 30;
  size_t span = (total_bytes * SPAN_FACTOR + ((size_t)1 << 26)) & ~(ALIGNMENT - 1);
  device_memory.base = (unsigned char *)reserve(span);
  device_memory.granules = (unsigned char *)reserve(span / EMULATOR_GRANULE);
  device_memory.cells = (emulator_cell *)reserve(span / 2 * sizeof(emulator_cell));
  device_memory.span = span;
  pieces = new std::map<size_t, size_t>;
  pinned = new std::map<const char *, size_t>;
}

static void mark(size_t offset, size_t bytes, bool live) {
  unsigned char *granules = device_memory.granules + offset / EMULATOR_GRANULE;
  size_t whole = bytes / EMULATOR_GRANULE, rest = bytes % EMULATOR_GRANULE;
  memset(granules, live ? EMULATOR_GRANULE : EMULATOR_FREED, whole);
  if (rest) {
    granules[whole] = live ? (unsigned char)rest : EMULATOR_FREED;
  }
}

bool emulator_is_device(const void *address) {
  return (size_t)((const unsigned char *)address - device_memory.base) < device_memory.span;
}

bool emulator_is_pinned(const void *address) {
  auto after = pinned->upper_bound((const char *)address);
  if (after == pinned->begin()) {
    return false;
  }
  --after;
  return (size_t)((const char *)address - after->first) < after->second;
}

size_t emulator_shared_limit(void) {
  return SHARED_OPTIN;
}

/* The first gap at or behind the cursor that is wide enough, from the start again after the end. */
static bool find_room(size_t bytes, size_t *offset) {
  for (int round = 0; round < 2; round++) {
    size_t at = cursor;
    for (auto piece = pieces->lower_bound(at); piece != pieces->end(); ++piece) {
      if (at + bytes <= piece->first) {
        break;
      }
      at = (piece->first + piece->second + GAP + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
    }
    if (at + bytes + GAP <= device_memory.span) {
      *offset = at;
      return true;
    }
    cursor = GAP;
  }
  return false;
}

cudaError_t emulator_malloc(void **memory, size_t bytes) {
  emulator_lock lock = emulator_api_lock();
  if (emulator_capture_forbids("cudaMalloc")) {
    return cudaErrorStreamCaptureUnsupported;
  }
  if (bytes == 0) {
    *memory = NULL;
    return cudaSuccess;
  }
  size_t offset;
  cursor = cursor < GAP ? GAP : cursor;
  if (bytes > total_bytes - used_bytes || !find_room(bytes, &offset)) {
    return emulator_error(cudaErrorMemoryAllocation);
  }
  (*pieces)[offset] = bytes;
  used_bytes += bytes;
  cursor = (offset + bytes + GAP + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
  mark(offset, bytes, true);
  if (bytes <= POISONED_BELOW) {
    memset(device_memory.base + offset, EMULATOR_POISON, bytes);
  }
  *memory = device_memory.base + offset;
  return cudaSuccess;
}

cudaError_t cudaFree(void *memory) {
  emulator_lock lock = emulator_api_lock();
  if (!memory) {
    return cudaSuccess;
  }
  if (emulator_capture_forbids("cudaFree")) {
    return cudaErrorStreamCaptureUnsupported;
  }
  emulator_drain();
  auto piece = pieces->find((size_t)((unsigned char *)memory - device_memory.base));
  if (piece == pieces->end()) {
    emulator_host_fault(__builtin_return_address(0), "cudaFree of %p, which cudaMalloc did not give", memory);
  }
  mark(piece->first, piece->second, false);
  size_t pages = (size_t)4095, begin = (piece->first + pages) & ~pages;
  size_t end = (piece->first + piece->second) & ~pages;
  if (end > begin) {
    madvise(device_memory.base + begin, end - begin, MADV_DONTNEED);
  }
  used_bytes -= piece->second;
  pieces->erase(piece);
  return cudaSuccess;
}

void emulator_memory_taken(void *memory, size_t bytes) {
  emulator_lock lock = emulator_api_lock();
  emulator_drain();
  mark((size_t)((unsigned char *)memory - device_memory.base), bytes, true);
  memset(memory, EMULATOR_POISON, bytes);
}

void emulator_memory_given(void *memory, size_t bytes) {
  emulator_lock lock = emulator_api_lock();
  emulator_drain();
  mark((size_t)((unsigned char *)memory - device_memory.base), bytes, false);
}

cudaError_t emulator_malloc_host(void **memory, size_t bytes) {
  emulator_lock lock = emulator_api_lock();
  if (emulator_capture_forbids("cudaMallocHost")) {
    return cudaErrorStreamCaptureUnsupported;
  }
  *memory = malloc(bytes ? bytes : 1);
  if (!*memory) {
    return emulator_error(cudaErrorMemoryAllocation);
  }
  memset(*memory, EMULATOR_POISON, bytes);
  (*pinned)[(const char *)*memory] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory) {
  emulator_lock lock = emulator_api_lock();
  if (emulator_capture_forbids("cudaFreeHost")) {
    return cudaErrorStreamCaptureUnsupported;
  }
  emulator_drain();
  if (memory && pinned->erase((const char *)memory) == 0) {
    emulator_host_fault(__builtin_return_address(0), "cudaFreeHost of %p, which is not pinned", memory);
  }
  free(memory);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
  emulator_lock lock = emulator_api_lock();
  *available = total_bytes - used_bytes;
  *total = total_bytes;
  return cudaSuccess;
}

/* ---- the device -------------------------------------------------------------------------------- */

static int attribute_value(cudaDeviceAttr attribute) {
  switch (attribute) {
  case cudaDevAttrMaxThreadsPerBlock:
    return EMULATOR_MAX_THREADS;
  case cudaDevAttrMaxSharedMemoryPerBlock:
    return (int)EMULATOR_SHARED_DEFAULT;
  case cudaDevAttrMultiProcessorCount:
    return 4;
  case cudaDevAttrIntegrated:
    return 0;
  case cudaDevAttrComputeCapabilityMajor:
    return 8;
  case cudaDevAttrComputeCapabilityMinor:
    return 6;
  case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
    return 100 << 10;
  case cudaDevAttrMaxSharedMemoryPerBlockOptin:
    return (int)SHARED_OPTIN;
  }
  return 0;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
  if (device < 0 || device >= emulator_devices()) {
    return emulator_error(cudaErrorInvalidDevice);
  }
  *value = attribute_value(attribute);
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device) {
  if (device < 0 || device >= emulator_devices()) {
    return emulator_error(cudaErrorInvalidDevice);
  }
  emulator_lock lock = emulator_api_lock();
  *properties = {};
  bool other = getenv("VAMP_EMULATOR_MIXED") && device > 0; /* a machine with devices of several kinds */
  snprintf(properties->name, sizeof properties->name, other ? "another emulated device" : "emulated device");
  properties->major = attribute_value(cudaDevAttrComputeCapabilityMajor);
  properties->minor = attribute_value(cudaDevAttrComputeCapabilityMinor);
  properties->totalGlobalMem = total_bytes;
  properties->sharedMemPerBlock = EMULATOR_SHARED_DEFAULT;
  properties->sharedMemPerBlockOptin = SHARED_OPTIN;
  properties->sharedMemPerMultiprocessor = (size_t)100 << 10;
  properties->multiProcessorCount = attribute_value(cudaDevAttrMultiProcessorCount);
  properties->warpSize = EMULATOR_WARP;
  properties->maxThreadsPerBlock = EMULATOR_MAX_THREADS;
  properties->regsPerBlock = 65536;
  properties->l2CacheSize = 4 << 20;
  return cudaSuccess;
}
