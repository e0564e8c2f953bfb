/*
 * .safetensors files, as something a stranger may have made.
 *
 * The file is mapped, not read: start-up touches the header alone, weights come in page by page while
 * they are turned into float, and the pages are handed back right after (vamp_safetensors_release), so
 * that the peak is one tensor and not one file. Reading with pread() into a buffer would need no less
 * code and would hold every tensor twice. The price of mapping is that a file which another program
 * shortens while it is in use kills the process; model folders are replaced by renaming, never in place.
 *
 * The order of the checks is what makes the header safe to parse. Its length is compared with the limit
 * and with the file before a byte of it is looked at; its commas are counted before the JSON library
 * sees it, because commas are what its memory grows with; then each tensor is checked alone (name,
 * type, shape, size, range), and last all of them together (no overlap, no gap) in the order of their
 * offsets. After open, a tensor's data pointer and count can be trusted.
 *
 * A JSON error would only say "invalid token near 'NaN'"; tensor_before() finds out whose token it was.
 */
#include "engine/model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A tensor has at most 11 commas: between its three fields, in the shape, in the offsets, after it. */
#define MAX_COMMAS (12 * (size_t)VAMP_SAFETENSORS_MAX_TENSORS)

struct vamp_safetensors {
  char name[161]; /* short enough to leave room for a sentence in an error */
  const unsigned char *bytes;
  size_t size;
  bool mapped; /* bytes are ours to unmap */
  const unsigned char *data;
  size_t data_size;
  json_t *header;              /* owns the tensors' names */
  struct vamp_tensor *tensors; /* [count], by name */
  size_t count;
};

struct type {
  const char *name;
  size_t size;
  bool readable;
  enum vamp_dtype dtype;
};

static const struct type types[] = {
    {"F32", 4, true, VAMP_F32}, {"F16", 2, true, VAMP_F16}, {"BF16", 2, true, VAMP_BF16},
    {"F64", 8, false, 0},       {"I64", 8, false, 0},       {"U64", 8, false, 0},
    {"I32", 4, false, 0},       {"U32", 4, false, 0},       {"I16", 2, false, 0},
    {"U16", 2, false, 0},       {"I8", 1, false, 0},        {"U8", 1, false, 0},
    {"BOOL", 1, false, 0},      {"F8_E5M2", 1, false, 0},   {"F8_E4M3", 1, false, 0},
};

static const struct type *find_type(const char *name) {
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    if (strcmp(types[i].name, name) == 0) {
      return &types[i];
    }
  }
  return NULL;
}

/* ---- one tensor --------------------------------------------------------------------------------- */

/* Names go into messages and onto terminals. */
static bool name_is_clean(const char *name) {
  for (const unsigned char *c = (const unsigned char *)name; *c; c++) {
    if (*c < 0x20 || *c == 0x7f) {
      return false;
    }
  }
  return name[0] && strlen(name) <= VAMP_SAFETENSORS_MAX_NAME;
}

static int parse_shape(const struct vamp_safetensors *file, const json_t *shape, struct vamp_tensor *tensor,
                       struct vamp_error *error) {
  if (!json_is_array(shape) || json_array_size(shape) > VAMP_SAFETENSORS_MAX_RANK) {
    return vamp_fail(error, VAMP_INVALID, "%s: tensor '%s': shape is not a list of at most %d dimensions",
                     file->name, tensor->name, VAMP_SAFETENSORS_MAX_RANK);
  }
  tensor->rank = (int)json_array_size(shape);
  tensor->count = 1;
  for (int i = 0; i < tensor->rank; i++) {
    const json_t *dimension = json_array_get(shape, (size_t)i);
    if (!json_is_integer(dimension) || json_integer_value(dimension) < 0) {
      return vamp_fail(error, VAMP_INVALID,
                       "%s: tensor '%s': dimension %d is not a whole number of 0 or more", file->name,
                       tensor->name, i);
    }
    tensor->shape[i] = (int64_t)json_integer_value(dimension);
    if (__builtin_mul_overflow(tensor->count, (size_t)tensor->shape[i], &tensor->count)) {
      return vamp_fail(error, VAMP_INVALID,
                       "%s: tensor '%s': its shape has more elements than can be counted", file->name,
                       tensor->name);
    }
  }
  return 0;
}

static int parse_offsets(const struct vamp_safetensors *file, const json_t *offsets, size_t item_size,
                         struct vamp_tensor *tensor, struct vamp_error *error) {
  const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
  if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end) ||
      json_integer_value(begin) < 0 || json_integer_value(end) < json_integer_value(begin)) {
    return vamp_fail(error, VAMP_INVALID,
                     "%s: tensor '%s': data_offsets is not [begin, end] with 0 <= begin <= end", file->name,
                     tensor->name);
  }
  if ((uint64_t)json_integer_value(end) > file->data_size) {
    return vamp_fail(
        error, VAMP_INVALID,
        "%s: tensor '%s': its data ends at byte %lld, but the file holds %zu bytes of data: was it "
        "copied whole?",
        file->name, tensor->name, (long long)json_integer_value(end), file->data_size);
  }
  tensor->begin = (size_t)json_integer_value(begin);
  tensor->end = (size_t)json_integer_value(end);
  size_t wanted;
  if (__builtin_mul_overflow(tensor->count, item_size, &wanted) || wanted != tensor->end - tensor->begin) {
    return vamp_fail(error, VAMP_INVALID, "%s: tensor '%s': %zu elements of %s do not fit its %zu bytes",
                     file->name, tensor->name, tensor->count, tensor->type_name, tensor->end - tensor->begin);
  }
  tensor->data = file->data + tensor->begin;
  return 0;
}

static int parse_tensor(const struct vamp_safetensors *file, const char *name, const json_t *entry,
                        struct vamp_tensor *tensor, struct vamp_error *error) {
  if (!name_is_clean(name)) {
    return vamp_fail(error, VAMP_INVALID,
                     "%s: a tensor's name is empty, over %d bytes long, or has a control character in it",
                     file->name, VAMP_SAFETENSORS_MAX_NAME);
  }
  *tensor = (struct vamp_tensor){.name = name};
  const char *type_name = json_string_value(json_object_get(entry, "dtype"));
  const struct type *type = type_name ? find_type(type_name) : NULL;
  if (!type) {
    return vamp_fail(error, VAMP_INVALID, "%s: tensor '%s': dtype is missing or unknown ('%.16s')",
                     file->name, name, type_name ? type_name : "");
  }
  tensor->type_name = type->name;
  tensor->readable = type->readable;
  tensor->dtype = type->dtype;
  int status = parse_shape(file, json_object_get(entry, "shape"), tensor, error);
  return status ? status
                : parse_offsets(file, json_object_get(entry, "data_offsets"), type->size, tensor, error);
}

/* ---- all tensors -------------------------------------------------------------------------------- */

static int by_name(const void *left, const void *right) {
  return strcmp(((const struct vamp_tensor *)left)->name, ((const struct vamp_tensor *)right)->name);
}

static int by_offset(const void *left, const void *right) {
  const struct vamp_tensor *a = left, *b = right;
  if (a->begin != b->begin) {
    return a->begin < b->begin ? -1 : 1;
  }
  /* An empty tensor stands before the one that begins at the same byte. */
  return a->end != b->end ? (a->end < b->end ? -1 : 1) : strcmp(a->name, b->name);
}

/* The tensors, sorted by offset, must tile the data. */
static int check_layout(const struct vamp_safetensors *file, struct vamp_error *error) {
  size_t at = 0;
  for (size_t i = 0; i < file->count; i++) {
    const struct vamp_tensor *tensor = &file->tensors[i];
    if (tensor->begin < at) {
      return vamp_fail(error, VAMP_INVALID, "%s: tensor '%s': its data overlaps that of '%s'", file->name,
                       tensor->name, file->tensors[i - 1].name);
    }
    if (tensor->begin > at) {
      return vamp_fail(error, VAMP_INVALID,
                       "%s: tensor '%s': the %zu bytes before its data belong to no tensor", file->name,
                       tensor->name, tensor->begin - at);
    }
    at = tensor->end;
  }
  if (at != file->data_size) {
    return vamp_fail(error, VAMP_INVALID, "%s: the last %zu bytes of the file belong to no tensor",
                     file->name, file->data_size - at);
  }
  return 0;
}

static int parse_tensors(struct vamp_safetensors *file, struct vamp_error *error) {
  size_t entries = json_object_size(file->header);
  if (entries > VAMP_SAFETENSORS_MAX_TENSORS) {
    return vamp_fail(error, VAMP_LIMIT, "%s: %zu tensors; at most %d are read", file->name, entries,
                     VAMP_SAFETENSORS_MAX_TENSORS);
  }
  file->tensors = calloc(entries ? entries : 1, sizeof *file->tensors);
  if (!file->tensors) {
    return vamp_fail(error, VAMP_MEMORY, "%s: out of memory", file->name);
  }
  const char *name;
  json_t *entry;
  json_object_foreach(file->header, name, entry) {
    if (strcmp(name, "__metadata__") == 0) {
      continue;
    }
    int status = parse_tensor(file, name, entry, &file->tensors[file->count], error);
    if (status) {
      return status;
    }
    file->count++;
  }
  qsort(file->tensors, file->count, sizeof *file->tensors, by_offset);
  int status = check_layout(file, error);
  qsort(file->tensors, file->count, sizeof *file->tensors, by_name);
  return status;
}

/* ---- the header --------------------------------------------------------------------------------- */

/* Copies the key of the outermost object that stands last before `position`: the tensor whose entry a
 * JSON error is in. Understands just enough JSON for that; name is "" where there is none. */
static void tensor_before(const char *header, size_t position, char *name, size_t name_size) {
  int depth = 0;
  name[0] = '\0';
  for (size_t i = 0; i < position; i++) {
    if (header[i] == '{' || header[i] == '[') {
      depth++;
    } else if (header[i] == '}' || header[i] == ']') {
      depth--;
    } else if (header[i] == '"') {
      size_t length = 0;
      for (i++; i < position && header[i] != '"'; i++) {
        if (header[i] == '\\' && i + 1 < position) {
          i++;
        }
        if (depth == 1 && length + 1 < name_size) {
          name[length++] = header[i] > 0x20 && header[i] < 0x7f ? header[i] : '?';
        }
      }
      if (depth == 1) {
        name[length] = '\0';
      }
    }
  }
}

static int parse_header(struct vamp_safetensors *file, const char *header, size_t length,
                        struct vamp_error *error) {
  size_t commas = 0;
  for (size_t i = 0; i < length; i++) {
    commas += header[i] == ',';
  }
  if (commas > MAX_COMMAS) {
    return vamp_fail(error, VAMP_LIMIT, "%s: the header lists more values than %d tensors have", file->name,
                     VAMP_SAFETENSORS_MAX_TENSORS);
  }
  json_error_t problem;
  file->header = json_loadb(header, length, JSON_REJECT_DUPLICATES, &problem);
  if (!file->header) {
    char name[VAMP_SAFETENSORS_MAX_NAME];
    size_t position = problem.position > 0 ? (size_t)problem.position : 0;
    tensor_before(header, position < length ? position : length, name, sizeof name);
    return vamp_fail(error, VAMP_INVALID, "%s: tensor '%.100s': the header is not valid JSON: %.100s",
                     file->name, name, problem.text);
  }
  if (!json_is_object(file->header)) {
    return vamp_fail(error, VAMP_INVALID, "%s: the header is not a JSON object", file->name);
  }
  return 0;
}

static int parse(struct vamp_safetensors *file, struct vamp_error *error) {
  if (file->size < 8) {
    return vamp_fail(error, VAMP_INVALID, "%s: %zu bytes are too few for a .safetensors file", file->name,
                     file->size);
  }
  uint64_t length = 0;
  for (int i = 7; i >= 0; i--) {
    length = length << 8 | file->bytes[i];
  }
  if (length > VAMP_SAFETENSORS_MAX_HEADER) {
    return vamp_fail(error, VAMP_LIMIT,
                     "%s: announces a header of %llu bytes; at most %llu are read: is it a "
                     ".safetensors file?",
                     file->name, (unsigned long long)length, (unsigned long long)VAMP_SAFETENSORS_MAX_HEADER);
  }
  if (length > file->size - 8) {
    return vamp_fail(error, VAMP_INVALID,
                     "%s: announces a header of %llu bytes but ends after %zu: was it copied "
                     "whole?",
                     file->name, (unsigned long long)length, file->size - 8);
  }
  file->data = file->bytes + 8 + length;
  file->data_size = file->size - 8 - (size_t)length;
  int status = parse_header(file, (const char *)file->bytes + 8, (size_t)length, error);
  return status ? status : parse_tensors(file, error);
}

/* ---- open and close ----------------------------------------------------------------------------- */

int vamp_safetensors_open_memory(const void *bytes, size_t size, const char *name,
                                 struct vamp_safetensors **file, struct vamp_error *error) {
  struct vamp_safetensors *opened = calloc(1, sizeof *opened);
  if (!opened) {
    return vamp_fail(error, VAMP_MEMORY, "%s: out of memory", name);
  }
  const char *slash = strrchr(name, '/');
  snprintf(opened->name, sizeof opened->name, "%s",
           strlen(name) >= sizeof opened->name && slash ? slash + 1 : name);
  opened->bytes = bytes;
  opened->size = size;
  int status = parse(opened, error);
  if (status) {
    vamp_safetensors_close(opened);
    return status;
  }
  *file = opened;
  return 0;
}

/* Maps a whole regular file, which may be empty (then *bytes is NULL). */
static int map(const char *path, void **bytes, size_t *size, struct vamp_error *error) {
  int status = 0;
  /* O_NONBLOCK: opening a named pipe must not wait for a writer. */
  int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    return vamp_fail(error, VAMP_IO, "%s: cannot be opened: %s", path, strerror(errno));
  }
  struct stat about;
  if (fstat(descriptor, &about) < 0 || !S_ISREG(about.st_mode)) {
    status = vamp_fail(error, VAMP_IO, "%s: is not a regular file", path);
    goto err;
  }
  *size = (size_t)about.st_size;
  *bytes = NULL;
  if (*size > 0) {
    *bytes = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (*bytes == MAP_FAILED) {
      status = vamp_fail(error, VAMP_IO, "%s: cannot be mapped: %s", path, strerror(errno));
    }
  }
err:
  close(descriptor);
  return status;
}

int vamp_safetensors_open(const char *path, struct vamp_safetensors **file, struct vamp_error *error) {
  void *bytes = NULL;
  size_t size = 0;
  int status = map(path, &bytes, &size, error);
  if (status) {
    return status;
  }
  struct vamp_safetensors *opened;
  status = vamp_safetensors_open_memory(bytes, size, path, &opened, error);
  if (status) {
    if (bytes) {
      munmap(bytes, size);
    }
    return status;
  }
  opened->mapped = true;
  *file = opened;
  return 0;
}

void vamp_safetensors_close(struct vamp_safetensors *file) {
  if (!file) {
    return;
  }
  if (file->mapped) {
    munmap((void *)(uintptr_t)file->bytes, file->size);
  }
  json_decref(file->header);
  free(file->tensors);
  free(file);
}

/* ---- what is in it ------------------------------------------------------------------------------ */

const char *vamp_safetensors_name(const struct vamp_safetensors *file) {
  return file->name;
}

size_t vamp_safetensors_count(const struct vamp_safetensors *file) {
  return file->count;
}

const struct vamp_tensor *vamp_safetensors_tensor(const struct vamp_safetensors *file, size_t index) {
  return index < file->count ? &file->tensors[index] : NULL;
}

const struct vamp_tensor *vamp_safetensors_find(const struct vamp_safetensors *file, const char *name) {
  struct vamp_tensor wanted = {.name = name};
  return bsearch(&wanted, file->tensors, file->count, sizeof wanted, by_name);
}

const char *vamp_shape_text(int rank, const int64_t *shape, char *text, size_t size) {
  size_t length = (size_t)snprintf(text, size, "[");
  for (int i = 0; i < rank && length < size; i++) {
    length += (size_t)snprintf(text + length, size - length, "%s%lld", i ? ", " : "", (long long)shape[i]);
  }
  if (length < size) {
    snprintf(text + length, size - length, "]");
  }
  return text;
}

void vamp_safetensors_release(const struct vamp_safetensors *file, const struct vamp_tensor *tensor) {
  long page = sysconf(_SC_PAGESIZE);
  if (!file->mapped || page <= 0 || tensor->begin == tensor->end) {
    return;
  }
  uintptr_t from = (uintptr_t)tensor->data & ~((uintptr_t)page - 1);
  uintptr_t to = (uintptr_t)tensor->data + (tensor->end - tensor->begin);
  /* Only a hint: where it fails, memory is held longer than it had to be. */
  (void)madvise((void *)from, to - from, MADV_DONTNEED);
}

/* ---- values ------------------------------------------------------------------------------------- */

/* The loops below convert `count` values at any alignment, write the bits of a float, and return whether
 * one is NaN or infinite: all bits of its exponent set. memcpy is how C loads from any alignment; the
 * pragma has the compiler vectorise even at -O2 (10^8 values on an AVX-512 server: 0.03 s instead of 0.08
 * to 0.14 s). */

static bool convert_float(const unsigned char *in, size_t count, float *out) {
  uint32_t bad = 0;
#pragma omp simd reduction(| : bad)
  for (size_t i = 0; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, in + 4 * i, 4);
    bad |= (bits & 0x7f800000u) == 0x7f800000u;
    memcpy(out + i, &bits, 4);
  }
  return bad;
}

static bool convert_bfloat16(const unsigned char *in, size_t count, float *out) {
  uint32_t bad = 0;
#pragma omp simd reduction(| : bad)
  for (size_t i = 0; i < count; i++) {
    uint16_t half;
    memcpy(&half, in + 2 * i, 2);
    uint32_t bits = (uint32_t)half << 16;
    bad |= (bits & 0x7f800000u) == 0x7f800000u;
    memcpy(out + i, &bits, 4);
  }
  return bad;
}

/* A half's exponent and mantissa, moved to where a float has them and multiplied by 2^(127-15), are its
 * magnitude: subnormal halves become subnormal floats for a moment, and come out exact. */
static bool convert_half(const unsigned char *in, size_t count, float *out) {
  uint32_t bad = 0;
#pragma omp simd reduction(| : bad)
  for (size_t i = 0; i < count; i++) {
    uint16_t half;
    memcpy(&half, in + 2 * i, 2);
    uint32_t sign = (half & 0x8000u) << 16, bits = (half & 0x7fffu) << 13;
    bad |= (half & 0x7c00u) == 0x7c00u;
    float magnitude;
    memcpy(&magnitude, &bits, 4);
    magnitude *= 0x1p112f;
    memcpy(&bits, &magnitude, 4);
    bits |= sign;
    memcpy(out + i, &bits, 4);
  }
  return bad;
}

int vamp_tensor_to_float(const struct vamp_safetensors *file, const struct vamp_tensor *tensor, float *out,
                         struct vamp_error *error) {
  if (!tensor->readable) {
    return vamp_fail(error, VAMP_UNSUPPORTED, "%s: tensor '%s': weights are F32, F16 or BF16, not %s",
                     file->name, tensor->name, tensor->type_name);
  }
  bool bad = tensor->dtype == VAMP_F32   ? convert_float(tensor->data, tensor->count, out)
             : tensor->dtype == VAMP_F16 ? convert_half(tensor->data, tensor->count, out)
                                         : convert_bfloat16(tensor->data, tensor->count, out);
  if (bad) {
    return vamp_fail(error, VAMP_INVALID, "%s: tensor '%s': holds NaN or infinity", file->name, tensor->name);
  }
  return 0;
}
