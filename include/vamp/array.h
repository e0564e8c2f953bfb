/*
 * NumPy .npy files (format version 1.0 and 2.0, little-endian, C order), the form in which arrays
 * cross the command line. Source: numpy.lib.format.
 *
 * All functions may be called from any thread.
 */
#ifndef VAMP_ARRAY_H
#define VAMP_ARRAY_H

#include <stddef.h>
#include <stdint.h>

#include "vamp/error.h"

enum vamp_dtype { VAMP_F32, VAMP_F16, VAMP_BF16, VAMP_I32, VAMP_I64, VAMP_U8 };

size_t vamp_dtype_size(enum vamp_dtype dtype); /* bytes */

#define VAMP_ARRAY_MAX_DIMENSIONS 4

struct vamp_array {
  enum vamp_dtype dtype; /* .npy has no bf16 */
  int dimensions;        /* 0 .. 4 */
  size_t shape[VAMP_ARRAY_MAX_DIMENSIONS];
  void *data; /* row-major; owned, freed by vamp_array_free */
};

/* Number of elements. */
size_t vamp_array_count(const struct vamp_array *array);

/* Reads a file of at most 1 GiB (VAMP_LIMIT); float64 becomes float32 and every whole-number type but
 * uint8 int32 (out of range: VAMP_INVALID), bool becomes U8. VAMP_INVALID names the file and what is wrong
 * with its header: other types, big-endian numbers, Fortran order, a length that is not the header's. */
int vamp_array_read(const char *path, struct vamp_array *array, struct vamp_error *error);

/* The same from memory; `name` is what error messages call it. */
int vamp_array_read_memory(const void *bytes, size_t size, const char *name, struct vamp_array *array,
                           struct vamp_error *error);

/* Writes beside the final name and renames. VAMP_UNSUPPORTED for BF16. */
int vamp_array_write(const char *path, enum vamp_dtype dtype, int dimensions, const size_t *shape,
                     const void *data, struct vamp_error *error);

/* The same bytes in memory; *bytes is malloc'd and the caller's to free. */
int vamp_array_write_memory(enum vamp_dtype dtype, int dimensions, const size_t *shape, const void *data,
                            void **bytes, size_t *size, struct vamp_error *error);

void vamp_array_free(struct vamp_array *array);

/* IEEE 754 half and bfloat16 <-> float (round to nearest even). */
float vamp_half_to_float(uint16_t half);
float vamp_bfloat16_to_float(uint16_t bfloat16);
uint16_t vamp_float_to_bfloat16(float value);

#endif
