/*
 * Device memory that a graph reuses from call to call: a few buffers that only grow.
 */
#ifndef VAMP_ENGINE_MODEL_WORKSPACE_H
#define VAMP_ENGINE_MODEL_WORKSPACE_H

#include <stddef.h>

#include "vamp/backend.h"

struct workspace_buffer {
  void *memory; /* device */
  size_t size;
};

/* Makes the buffer at least `bytes`; its contents are lost when it grows. */
static inline int workspace_reserve(struct vamp_device *device, struct workspace_buffer *buffer, size_t bytes,
                                    struct vamp_error *error) {
  if (buffer->size >= bytes && buffer->memory) {
    return 0;
  }
  device->ops->release(device, buffer->memory);
  *buffer = (struct workspace_buffer){NULL, 0};
  int status = device->ops->allocate(device, bytes, &buffer->memory, error);
  if (!status) {
    buffer->size = bytes;
  }
  return status;
}

static inline void workspace_free(struct vamp_device *device, struct workspace_buffer *buffer) {
  device->ops->release(device, buffer->memory);
  *buffer = (struct workspace_buffer){NULL, 0};
}

#endif
