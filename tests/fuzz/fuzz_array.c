/*
 * Fuzz target: .npy arrays, which come from scripts of the command line's users and in requests for decoding.
 *
 * Whatever bytes come, they are refused with a reason, or are an array that holds no more elements than bytes
 * came, of a type that can be worked with, and that is the same after it was written and read again. The
 * input is copied into memory of its exact size, so that the sanitizers see a read past its end.
 *
 *   make fuzz
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vamp/array.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition) {
  if (!condition) {
    abort();
  }
}

static void check_array(const struct vamp_array *array) {
  void *written = NULL;
  size_t size = 0, bytes = vamp_array_count(array) * vamp_dtype_size(array->dtype);
  struct vamp_array again = {0};
  require(array->dtype != VAMP_I64 && array->dtype != VAMP_BF16); /* they become, and are, something else */
  require(vamp_array_write_memory(array->dtype, array->dimensions, array->shape, array->data, &written, &size,
                                  NULL) == 0);
  require(size % 64 == bytes % 64); /* elements begin at a multiple of 64 bytes */
  require(vamp_array_read_memory(written, size, "again.npy", &again, NULL) == 0);
  require(again.dtype == array->dtype && again.dimensions == array->dimensions);
  require(memcmp(again.shape, array->shape, (size_t)array->dimensions * sizeof *again.shape) == 0);
  require(bytes == 0 || memcmp(again.data, array->data, bytes) == 0);
  vamp_array_free(&again);
  free(written);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  unsigned char *bytes = malloc(size ? size : 1);
  if (!bytes) {
    return 0;
  }
  if (size) {
    memcpy(bytes, data, size);
  }
  struct vamp_array array = {0};
  struct vamp_error error = {0};
  int status = vamp_array_read_memory(bytes, size, "fuzz.npy", &array, &error);
  if (status) {
    require(error.status == status && strstr(error.message, "fuzz.npy") && !array.data);
  } else {
    require(array.dimensions >= 0 && array.dimensions <= VAMP_ARRAY_MAX_DIMENSIONS &&
            vamp_array_count(&array) <= size);
    check_array(&array);
  }
  vamp_array_free(&array);
  free(bytes);
  return 0;
}
