/*
 * Reading .safetensors files.
 *
 * The format: 8 bytes, the header's length N as a little-endian unsigned integer; N bytes of JSON, an
 * object from tensor name to {"dtype", "shape", "data_offsets": [begin, end]}, besides an optional
 * "__metadata__"; then the data, to which the offsets are relative. Tensors are row-major and
 * little-endian, do not overlap and leave no byte of the data unclaimed.
 *
 * A file is read-only and may be used by several threads at once. Every error names the file, and the
 * tensor where there is one.
 */
#ifndef VAMP_ENGINE_MODEL_SAFETENSORS_H
#define VAMP_ENGINE_MODEL_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vamp/array.h"
#include "vamp/error.h"

#define VAMP_SAFETENSORS_MAX_HEADER ((uint64_t)16 << 20) /* bytes */
#define VAMP_SAFETENSORS_MAX_TENSORS 100000
#define VAMP_SAFETENSORS_MAX_RANK 8
#define VAMP_SAFETENSORS_MAX_NAME 256 /* bytes of a tensor's name */

struct vamp_safetensors;

/* One tensor of a file; belongs to the file. */
struct vamp_tensor {
  const char *name;
  const char *type_name; /* as in the header: "F32", "BF16", "I64", ... */
  bool readable;         /* F32, F16 or BF16: vamp_tensor_to_float takes it */
  enum vamp_dtype dtype; /* where readable */
  int rank;              /* 0 .. 8 */
  int64_t shape[VAMP_SAFETENSORS_MAX_RANK];
  size_t count;              /* elements: the product of the shape */
  size_t begin, end;         /* bytes, relative to the data */
  const unsigned char *data; /* any alignment */
};

/* Maps a file and checks its whole header; the data is not touched. VAMP_IO where it cannot be opened,
 * VAMP_INVALID where it is not right, VAMP_LIMIT where it is over a limit above. */
int vamp_safetensors_open(const char *path, struct vamp_safetensors **file, struct vamp_error *error);

/* The same for bytes in memory, which are borrowed until close. `name` is what errors call them. */
int vamp_safetensors_open_memory(const void *bytes, size_t size, const char *name,
                                 struct vamp_safetensors **file, struct vamp_error *error);

void vamp_safetensors_close(struct vamp_safetensors *file); /* NULL is fine */

const char *vamp_safetensors_name(const struct vamp_safetensors *file); /* for error messages */

/* Tensors in the order of their names; index 0 .. count-1. */
size_t vamp_safetensors_count(const struct vamp_safetensors *file);
const struct vamp_tensor *vamp_safetensors_tensor(const struct vamp_safetensors *file, size_t index);

/* NULL where there is none of this name. */
const struct vamp_tensor *vamp_safetensors_find(const struct vamp_safetensors *file, const char *name);

/* out float [tensor->count]. VAMP_UNSUPPORTED where the tensor is not readable; VAMP_INVALID where it
 * holds NaN or infinity (out is then filled with something). */
int vamp_tensor_to_float(const struct vamp_safetensors *file, const struct vamp_tensor *tensor, float *out,
                         struct vamp_error *error);

/* Tells the system that the tensor's pages will not be needed soon: they stop counting as this process's
 * memory, and are read again if used after all. */
void vamp_safetensors_release(const struct vamp_safetensors *file, const struct vamp_tensor *tensor);

/* "[2, 3, 4]" into text, which is cut where it does not fit; returns text. */
const char *vamp_shape_text(int rank, const int64_t *shape, char *text, size_t size);

#endif
