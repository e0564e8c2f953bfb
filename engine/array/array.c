/*
 * .npy files.
 *
 * Arrays come from numpy in whatever type the user's script happened to have: codes as int64, because
 * that is numpy's default, masks as bool, anything as float64. Asking for a conversion first would be
 * pedantry, so every whole-number type becomes int32 and every float float32, with an error where a value
 * does not fit. float16 is kept, because somebody chose it. Columns-first ("Fortran") order and big-endian
 * bytes, which no one has by accident, are turned away with the line of Python that mends them.
 *
 * A file's length must be exactly what its header says: a file that was cut short, or that something else
 * was appended to, is not the array that somebody meant.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/array/internal.h"
#include "engine/audio/file.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "array.c copies little-endian numbers as they are"
#endif

#define MAX_BYTES ((uint64_t)1 << 30)
#define MAX_HEADER 65536

size_t vamp_dtype_size(enum vamp_dtype dtype) {
  switch (dtype) {
  case VAMP_F32:
  case VAMP_I32:
    return 4;
  case VAMP_F16:
  case VAMP_BF16:
    return 2;
  case VAMP_I64:
    return 8;
  case VAMP_U8:
    return 1;
  }
  return 0;
}

size_t vamp_array_count(const struct vamp_array *array) {
  size_t count = 1;
  for (int i = 0; i < array->dimensions; i++) {
    count *= array->shape[i];
  }
  return count;
}

void vamp_array_free(struct vamp_array *array) {
  if (array) {
    free(array->data);
    *array = (struct vamp_array){0};
  }
}

/* ---- types ---------------------------------------------------------------------------------------- */

/* Converts one element; false where it does not fit. */
typedef bool converter(const void *from, void *to);

static bool from_bool(const void *from, void *to) {
  *(uint8_t *)to = *(const uint8_t *)from != 0;
  return true;
}

static bool from_double(const void *from, void *to) {
  double value;
  memcpy(&value, from, sizeof value);
  float narrow = (float)value;
  memcpy(to, &narrow, sizeof narrow);
  return isfinite(narrow) || !isfinite(value);
}

static bool put_integer(int64_t value, void *to) {
  int32_t narrow = (int32_t)value;
  memcpy(to, &narrow, sizeof narrow);
  return narrow == value;
}

static bool from_int8(const void *from, void *to) {
  return put_integer(*(const int8_t *)from, to);
}

static bool from_int16(const void *from, void *to) {
  int16_t value;
  memcpy(&value, from, sizeof value);
  return put_integer(value, to);
}

static bool from_uint16(const void *from, void *to) {
  uint16_t value;
  memcpy(&value, from, sizeof value);
  return put_integer(value, to);
}

static bool from_uint32(const void *from, void *to) {
  uint32_t value;
  memcpy(&value, from, sizeof value);
  return put_integer(value, to);
}

static bool from_int64(const void *from, void *to) {
  int64_t value;
  memcpy(&value, from, sizeof value);
  return put_integer(value, to);
}

static bool from_uint64(const void *from, void *to) {
  uint64_t value;
  memcpy(&value, from, sizeof value);
  return value <= INT32_MAX && put_integer((int64_t)value, to);
}

struct element_type {
  const char *descr;
  size_t size;
  enum vamp_dtype dtype; /* what it becomes */
  converter *convert;    /* NULL: as it is */
};

static const struct element_type element_types[] = {
    {"<f4", 4, VAMP_F32, NULL},        {"<f2", 2, VAMP_F16, NULL},        {"<f8", 8, VAMP_F32, from_double},
    {"<i4", 4, VAMP_I32, NULL},        {"<i8", 8, VAMP_I32, from_int64},  {"|b1", 1, VAMP_U8, from_bool},
    {"|u1", 1, VAMP_U8, NULL},         {"|i1", 1, VAMP_I32, from_int8},   {"<i2", 2, VAMP_I32, from_int16},
    {"<u2", 2, VAMP_I32, from_uint16}, {"<u4", 4, VAMP_I32, from_uint32}, {"<u8", 8, VAMP_I32, from_uint64},
};

static const struct element_type *find_type(const char *descr) {
  for (size_t i = 0; i < sizeof element_types / sizeof *element_types; i++) {
    if (strcmp(element_types[i].descr, descr) == 0) {
      return &element_types[i];
    }
  }
  return NULL;
}

/* ---- reading -------------------------------------------------------------------------------------- */

struct reading {
  int descriptor;
  const char *memory; /* instead of a file, where it is not NULL */
  const char *path;
  uint64_t size;   /* of the file */
  uint64_t offset; /* of the next byte */
};

static int read_next(struct reading *reading, void *bytes, size_t count, struct vamp_error *error) {
  if (reading->memory) {
    if (count > reading->size - reading->offset) {
      return vamp_fail(error, VAMP_INVALID, "%s ends too early", vamp_file_label(reading->path).text);
    }
    memcpy(bytes, reading->memory + reading->offset, count);
    reading->offset += count;
    return 0;
  }
  for (size_t got = 0; got < count;) {
    ssize_t part = pread(reading->descriptor, (char *)bytes + got, count - got, (off_t)reading->offset);
    if (part < 0 && errno == EINTR) {
      continue;
    }
    if (part <= 0) {
      return vamp_fail(error, VAMP_IO, "cannot read %s: %s", vamp_file_label(reading->path).text,
                       part < 0 ? strerror(errno) : "it became shorter");
    }
    got += (size_t)part;
    reading->offset += (uint64_t)part;
  }
  return 0;
}

static int fail_header(const struct reading *reading, const char *wrong, struct vamp_error *error) {
  return vamp_fail(error, VAMP_INVALID, "%s cannot be read as a .npy array: %s",
                   vamp_file_label(reading->path).text, wrong);
}

static int read_header(struct reading *reading, struct vamp_npy_header *header, struct vamp_error *error) {
  unsigned char start[12] = {0}; /* magic, version, and a length of 2 or 4 bytes */
  if (reading->size < 10) {
    return fail_header(reading, "it is too short to have a header", error);
  }
  int status = read_next(reading, start, 10, error);
  if (status) {
    return status;
  }
  if (memcmp(start, "\x93NUMPY", 6) != 0) {
    return fail_header(reading, "it does not begin with numpy's signature", error);
  }
  if ((start[6] != 1 && start[6] != 2) || start[7] != 0) {
    return fail_header(reading, "its format version is neither 1.0 nor 2.0", error);
  }
  size_t length = (size_t)start[8] | (size_t)start[9] << 8;
  if (start[6] == 2) {
    if (reading->size < 12) {
      return fail_header(reading, "it is too short to have a header", error);
    }
    if ((status = read_next(reading, start + 10, 2, error))) {
      return status;
    }
    length |= (size_t)start[10] << 16 | (size_t)start[11] << 24;
  }
  if (length > MAX_HEADER || length > reading->size - reading->offset) {
    return fail_header(reading, "its header is longer than the file, or than any array of numbers needs",
                       error);
  }
  char *text = malloc(length + 1);
  if (!text) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory while reading %s",
                     vamp_file_label(reading->path).text);
  }
  status = read_next(reading, text, length, error);
  if (!status) {
    const char *wrong = vamp_npy_header_parse(text, length, header);
    status = wrong ? fail_header(reading, wrong, error) : 0;
  }
  free(text);
  return status;
}

/* Checks the header against the file and fills in all of `array` but its data. */
static int check_header(const struct reading *reading, const struct vamp_npy_header *header,
                        struct vamp_array *array, const struct element_type **type,
                        struct vamp_error *error) {
  *type = find_type(header->type);
  if (!*type) {
    return vamp_fail(
        error, VAMP_INVALID,
        "%s holds elements of type \"%s\"; convert them first: numpy.save(FILE, a.astype('<f4'))",
        vamp_file_label(reading->path).text, vamp_file_label(header->type).text);
  }
  uint64_t count = 1, largest = 0;
  for (int i = 0; i < header->dimensions; i++) {
    uint64_t extent = header->shape[i];
    largest = extent > largest ? extent : largest;
    if (extent > MAX_BYTES || (extent > 0 && count > MAX_BYTES / extent)) {
      return fail_header(reading, "its shape is larger than the file", error);
    }
    count *= extent;
    array->shape[i] = header->shape[i];
  }
  if (header->fortran_order && count != largest && header->dimensions > 1) {
    return fail_header(
        reading, "it is in Fortran order; save it with numpy.save(FILE, numpy.ascontiguousarray(a))", error);
  }
  uint64_t announced = count * (*type)->size, present = reading->size - reading->offset;
  if (announced != present) {
    return vamp_fail(error, VAMP_INVALID, "%s announces %" PRIu64 " bytes of elements and holds %" PRIu64,
                     vamp_file_label(reading->path).text, announced, present);
  }
  if (count * vamp_dtype_size((*type)->dtype) > MAX_BYTES) {
    return vamp_fail(error, VAMP_LIMIT, "%s would take more than 1 GiB as int32",
                     vamp_file_label(reading->path).text);
  }
  array->dtype = (*type)->dtype;
  array->dimensions = header->dimensions;
  return 0;
}

static int read_converted(struct reading *reading, const struct element_type *type, unsigned char *data,
                          size_t count, struct vamp_error *error) {
  unsigned char block[4096];
  size_t size = vamp_dtype_size(type->dtype), capacity = sizeof block / type->size;
  for (size_t first = 0; first < count; first += capacity) {
    size_t part = count - first < capacity ? count - first : capacity;
    int status = read_next(reading, block, part * type->size, error);
    if (status) {
      return status;
    }
    for (size_t i = 0; i < part; i++) {
      if (!type->convert(block + i * type->size, data + (first + i) * size)) {
        return vamp_fail(error, VAMP_INVALID, "element %zu of %s does not fit into %s", first + i,
                         vamp_file_label(reading->path).text, type->dtype == VAMP_F32 ? "float32" : "int32");
      }
    }
  }
  return 0;
}

static int read_array(struct reading *reading, struct vamp_array *array, struct vamp_error *error) {
  struct vamp_npy_header header = {.dimensions = 0};
  struct vamp_array made = {0};
  const struct element_type *type = NULL;
  const char *path = reading->path;
  int status;
  if (reading->size > MAX_BYTES) {
    return vamp_fail(error, VAMP_LIMIT, "%s is larger than 1 GiB", vamp_file_label(path).text);
  }
  if ((status = read_header(reading, &header, error)) ||
      (status = check_header(reading, &header, &made, &type, error))) {
    goto err;
  }
  size_t count = vamp_array_count(&made), bytes = count * vamp_dtype_size(made.dtype);
  made.data = malloc(bytes ? bytes : 1);
  if (!made.data) {
    status = vamp_fail(error, VAMP_MEMORY, "out of memory while reading %s", vamp_file_label(path).text);
    goto err;
  }
  status = type->convert ? read_converted(reading, type, made.data, count, error)
                         : read_next(reading, made.data, bytes, error);
  if (status) {
    goto err;
  }
  *array = made;
  return 0;
err:
  vamp_array_free(&made);
  return status;
}

int vamp_array_read(const char *path, struct vamp_array *array, struct vamp_error *error) {
  struct reading reading = {.descriptor = -1, .path = path};
  int status = vamp_file_open(path, &reading.descriptor, &reading.size, error);
  if (!status) {
    status = read_array(&reading, array, error);
    close(reading.descriptor);
  }
  return status;
}

int vamp_array_read_memory(const void *bytes, size_t size, const char *name, struct vamp_array *array,
                           struct vamp_error *error) {
  struct reading reading = {.descriptor = -1, .memory = bytes, .path = name, .size = size};
  return read_array(&reading, array, error);
}

/* ---- writing -------------------------------------------------------------------------------------- */

static const char *descr_of(enum vamp_dtype dtype) {
  switch (dtype) {
  case VAMP_F32:
    return "<f4";
  case VAMP_F16:
    return "<f2";
  case VAMP_I32:
    return "<i4";
  case VAMP_I64:
    return "<i8";
  case VAMP_U8:
    return "|u1";
  case VAMP_BF16:
    break;
  }
  return NULL;
}

#define HEADER_ROOM 256

/* Magic, version 1.0, length and dictionary, padded with spaces so that the elements begin at a multiple
 * of 64 bytes. Returns how long it is: at most HEADER_ROOM. */
static size_t format_header(char *header, const char *descr, int dimensions, const size_t *shape) {
  static const char start[8] = {'\x93', 'N', 'U', 'M', 'P', 'Y', 1, 0};
  char extents[4 * 24] = "";
  for (int i = 0, length = 0; i < dimensions; i++) {
    const char *comma = i > 0 ? ", " : "";
    length += snprintf(extents + length, sizeof extents - (size_t)length, "%s%zu", comma, shape[i]);
  }
  int text =
      snprintf(header + 10, HEADER_ROOM - 10, "{'descr': '%s', 'fortran_order': False, 'shape': (%s%s), }",
               descr, extents, dimensions == 1 ? "," : "");
  size_t used = 10 + (size_t)text, total = (used + 1 + 63) / 64 * 64;
  memset(header + used, ' ', total - used);
  header[total - 1] = '\n';
  memcpy(header, start, sizeof start);
  header[8] = (char)((total - 10) & 0xFF);
  header[9] = (char)((total - 10) >> 8);
  return total;
}

int vamp_array_write_memory(enum vamp_dtype dtype, int dimensions, const size_t *shape, const void *data,
                            void **bytes, size_t *size, struct vamp_error *error) {
  const char *descr = descr_of(dtype);
  if (!descr) {
    return vamp_fail(error, VAMP_UNSUPPORTED, ".npy files cannot hold this element type; write float32");
  }
  if (dimensions < 0 || dimensions > VAMP_ARRAY_MAX_DIMENSIONS) {
    return vamp_fail(error, VAMP_INVALID, "an array of %d dimensions cannot be written; at most %d",
                     dimensions, VAMP_ARRAY_MAX_DIMENSIONS);
  }
  char header[HEADER_ROOM];
  size_t length = format_header(header, descr, dimensions, shape);
  size_t body = vamp_dtype_size(dtype);
  for (int i = 0; i < dimensions; i++) {
    if (__builtin_mul_overflow(body, shape[i], &body)) {
      return vamp_fail(error, VAMP_LIMIT, "the array is too large to be written");
    }
  }
  char *made = body > SIZE_MAX - length ? NULL : malloc(length + body);
  if (!made) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory while writing an array of %zu bytes", body);
  }
  memcpy(made, header, length);
  if (body > 0) {
    memcpy(made + length, data, body);
  }
  *bytes = made;
  *size = length + body;
  return 0;
}

int vamp_array_write(const char *path, enum vamp_dtype dtype, int dimensions, const size_t *shape,
                     const void *data, struct vamp_error *error) {
  void *bytes = NULL;
  size_t size = 0;
  int status = vamp_array_write_memory(dtype, dimensions, shape, data, &bytes, &size, error);
  if (status) {
    return status;
  }
  status = vamp_file_write(path, bytes, size, error);
  free(bytes);
  return status;
}
