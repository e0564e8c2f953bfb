/*
 * Arrays and other files of the command line, checked on the way in, whole or not at all on the way out.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/audio/file.h"
#include "vamp/session.h"

/* "(4, 131)", as NumPy writes a shape. */
static void print_shape(const struct vamp_array *array, char *text, size_t size) {
  int used = snprintf(text, size, "(");
  for (int i = 0; i < array->dimensions && used > 0 && (size_t)used < size; i++) {
    used += snprintf(text + used, size - (size_t)used, "%s%zu", i ? ", " : "", array->shape[i]);
  }
  if (used > 0 && (size_t)used < size) {
    snprintf(text + used, size - (size_t)used, ")");
  }
}

/* Rows and columns of what should be [codebooks (or more), frames]. */
static int check_shape(const char *path, const char *what, int codebooks, bool more,
                       const struct vamp_array *array, struct vamp_error *error) {
  char shape[96];
  print_shape(array, shape, sizeof shape);
  bool right = array->dimensions == 2 && array->shape[1] > 0 && array->shape[1] <= VAMP_MASK_MAX_FRAMES &&
               (more ? array->shape[0] >= (size_t)codebooks : array->shape[0] == (size_t)codebooks);
  if (right) {
    return 0;
  }
  return vamp_fail(error, VAMP_INVALID,
                   "%s: %s must be an array [%d%s codebooks, frames], and this one is %s", path, what,
                   codebooks, more ? " or more" : "", shape);
}

int vamp_codes_read(const char *path, const struct vamp_codes_wanted *wanted, struct vamp_array *codes,
                    struct vamp_error *error) {
  struct vamp_array read = {0};
  int status = vamp_array_read(path, &read, error);
  if (status < 0) {
    return status;
  }
  if (read.dtype != VAMP_I32) {
    status = vamp_fail(error, VAMP_INVALID,
                       "%s: codes must be int32; convert them with codes.astype('int32')", path);
    goto err;
  }
  status = check_shape(path, "codes", wanted->codebooks, wanted->more, &read, error);
  if (status < 0) {
    goto err;
  }
  read.shape[0] = (size_t)wanted->codebooks; /* row-major: the lower codebooks come first */
  const int32_t *values = read.data;
  int32_t end = wanted->codebook_size + (wanted->allow_mask ? 1 : 0);
  for (size_t i = 0; i < vamp_array_count(&read); i++) {
    if (values[i] < 0 || values[i] >= end) {
      status = vamp_fail(error, VAMP_INVALID,
                         "%s: code %d at [%zu, %zu] is out of range; this model's codes are 0 to %d", path,
                         values[i], i / read.shape[1], i % read.shape[1], end - 1);
      goto err;
    }
  }
  *codes = read;
  return 0;
err:
  vamp_array_free(&read);
  return status;
}

int vamp_mask_read(const char *path, int codebooks, int frames, struct vamp_array *mask,
                   struct vamp_error *error) {
  struct vamp_array read = {0};
  int status = vamp_array_read(path, &read, error);
  if (status < 0) {
    return status;
  }
  if (read.dtype != VAMP_U8) {
    status = vamp_fail(error, VAMP_INVALID,
                       "%s: a mask must be uint8 or bool; convert it with mask.astype('uint8')", path);
    goto err;
  }
  status = check_shape(path, "the mask", codebooks, true, &read, error);
  if (status < 0) {
    goto err;
  }
  if (read.shape[1] != (size_t)frames) {
    status = vamp_fail(error, VAMP_INVALID, "%s: the mask has %zu frames and the codes have %d", path,
                       read.shape[1], frames);
    goto err;
  }
  read.shape[0] = (size_t)codebooks;
  const uint8_t *values = read.data;
  for (size_t i = 0; i < vamp_array_count(&read); i++) {
    if (values[i] > 1) {
      status =
          vamp_fail(error, VAMP_INVALID, "%s: a mask is 0 (keep) or 1 (regenerate), and [%zu, %zu] is %d",
                    path, i / read.shape[1], i % read.shape[1], values[i]);
      goto err;
    }
  }
  *mask = read;
  return 0;
err:
  vamp_array_free(&read);
  return status;
}

int vamp_codes_write(const char *path, const int32_t *codes, int codebooks, int frames,
                     struct vamp_error *error) {
  const size_t shape[2] = {(size_t)codebooks, (size_t)frames};
  return vamp_array_write(path, VAMP_I32, 2, shape, codes, error);
}

int vamp_bytes_write(const char *path, const void *data, size_t size, struct vamp_error *error) {
  if (strcmp(path, "-") == 0) {
    return fwrite(data, 1, size, stdout) == size
               ? 0
               : vamp_fail(error, VAMP_IO, "cannot write to standard output: %s", strerror(errno));
  }
  return vamp_file_write(path, data, size, error);
}

int vamp_json_write(const char *path, const json_t *json, struct vamp_error *error) {
  char *text = json ? json_dumps(json, JSON_REAL_PRECISION(15)) : NULL;
  if (!text) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory while writing %s", path);
  }
  size_t length = strlen(text);
  text[length] = '\n'; /* in place of the end; the length says where it ends */
  int status = vamp_bytes_write(path, text, length + 1, error);
  free(text);
  return status;
}

json_t *vamp_json_name(const char *name) {
  json_t *text = json_string(name);
  return text ? text : json_string("(a name that is not UTF-8)");
}

void vamp_json_print(json_t *object) {
  char *text = object ? json_dumps(object, JSON_REAL_PRECISION(15)) : NULL;
  if (text) {
    printf("%s\n", text);
    fflush(stdout);
  } else {
    fprintf(stderr, "vamp: out of memory\n");
  }
  free(text);
  json_decref(object);
}
