/*
 * Copies between host and device.
 *
 * Everything small goes through a ring of pinned slots: the host's bytes are copied into a slot at once, the
 * device fetches them when its queue gets there, and the caller goes on. So preparing the next step never
 * waits for the current one, unless the host runs more than a ring ahead. What is larger than a slot
 * (weights, audio) goes slot by slot. To hand the driver pageable memory instead would be no quicker, for it
 * does the same, and when it has read that memory is a question of driver and machine.
 */
#include <stdlib.h>
#include <string.h>

#include "cuda/internal.h"

int cuda_staging_open(struct cuda_device *device) {
  struct cuda_staging *s = &device->staging;
  void *memory = NULL;
  int status = CUDA_CHECK(cudaMallocHost((void **)&s->host, (size_t)CUDA_SLOTS * CUDA_SLOT_BYTES));
  if (!status) {
    status = cuda_allocate(device, (size_t)CUDA_SLOTS * CUDA_SLOT_BYTES, &memory);
    s->device = (char *)memory;
  }
  for (int i = 0; i < CUDA_SLOTS && !status; i++) {
    status =
        CUDA_CHECK(cudaEventCreateWithFlags(&s->done[i], cudaEventDisableTiming | cudaEventBlockingSync));
  }
  return status;
}

void cuda_staging_close(struct cuda_device *device) {
  struct cuda_staging *s = &device->staging;
  for (int i = 0; i < CUDA_SLOTS; i++) {
    if (s->done[i]) {
      cudaEventDestroy(s->done[i]);
    }
  }
  cuda_release(device, s->device);
  if (s->host) {
    cudaFreeHost(s->host);
  }
}

/* The next slot, free to be written. */
static int slot_take(struct cuda_device *device, int *slot) {
  struct cuda_staging *s = &device->staging;
  *slot = s->next;
  s->next = (s->next + 1) % CUDA_SLOTS;
  if (s->used[*slot]) {
    CUDA_TRY(cudaEventSynchronize(s->done[*slot]));
  }
  return 0;
}

static int slot_send(struct cuda_device *device, int slot, void *to, const void *from, size_t bytes) {
  struct cuda_staging *s = &device->staging;
  char *pinned = s->host + (size_t)slot * CUDA_SLOT_BYTES;
  memcpy(pinned, from, bytes);
  CUDA_TRY(cudaMemcpyAsync(to, pinned, bytes, cudaMemcpyHostToDevice, device->stream));
  CUDA_TRY(cudaEventRecord(s->done[slot], device->stream));
  s->used[slot] = true;
  return 0;
}

int cuda_upload(struct cuda_device *device, void *to, const void *from, size_t bytes) {
  int slot, status = 0;
  for (size_t at = 0; at < bytes && !status; at += CUDA_SLOT_BYTES) {
    size_t piece = bytes - at < CUDA_SLOT_BYTES ? bytes - at : (size_t)CUDA_SLOT_BYTES;
    status = slot_take(device, &slot);
    if (!status) {
      status = slot_send(device, slot, (char *)to + at, (const char *)from + at, piece);
    }
  }
  return status;
}

int cuda_stage(struct cuda_device *device, const void *from, size_t bytes, const void **memory) {
  if (bytes > CUDA_SLOT_BYTES) {
    return VAMP_MEMORY;
  }
  int slot, status = slot_take(device, &slot);
  if (status) {
    return status;
  }
  *memory = device->staging.device + (size_t)slot * CUDA_SLOT_BYTES;
  return bytes ? slot_send(device, slot, device->staging.device + (size_t)slot * CUDA_SLOT_BYTES, from, bytes)
               : 0;
}

int cuda_upload_new(struct cuda_device *device, const void *from, size_t bytes, void **memory) {
  void *to;
  int status = cuda_allocate(device, bytes ? bytes : 1, &to);
  if (status) {
    return status;
  }
  status = cuda_upload(device, to, from, bytes);
  if (status) {
    cuda_release(device, to);
    return status;
  }
  *memory = to;
  return 0;
}

/* Round to nearest even; weights are finite. */
static uint16_t bf16_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  bits += 0x7fffu + (bits >> 16 & 1u);
  return (uint16_t)(bits >> 16);
}

/* Round to nearest, ties away from zero, as vamp_tf32 does. */
static float tf32_rounded(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  bits = (bits + 0x1000u) & 0xffffe000u;
  memcpy(&value, &bits, sizeof bits);
  return value;
}

int cuda_upload_act(struct cuda_device *device, const float *from, size_t count, void **memory) {
  size_t size = device->base.act_size;
  if (!cuda_bf16(device) && !cuda_tf32(device)) {
    return cuda_upload_new(device, from, size * count, memory);
  }
  void *rounded = malloc(size * (count ? count : 1));
  if (!rounded) {
    return VAMP_MEMORY;
  }
  for (size_t i = 0; i < count; i++) {
    if (cuda_bf16(device)) {
      ((uint16_t *)rounded)[i] = bf16_bits(from[i]);
    } else {
      ((float *)rounded)[i] = tf32_rounded(from[i]);
    }
  }
  int status = cuda_upload_new(device, rounded, size * count, memory);
  free(rounded);
  return status;
}
