/*
 * Fuzzing the .safetensors reader: any bytes at all must be opened or refused, and every tensor of an
 * opened file must be readable in whole.
 *
 * `make fuzz` runs it with clang's libFuzzer. With -DVAMP_FUZZ_REPLAY and any compiler it is a program
 * that runs the inputs in its files: fuzz_safetensors FILE...
 *
 * The input is copied into memory of its exact size, so that the sanitizers see a read past its end.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
  unsigned char *bytes = malloc(size ? size : 1);
  if (!bytes) {
    return 0;
  }
  memcpy(bytes, input, size);
  struct vamp_safetensors *file = NULL;
  struct vamp_error error = {0};
  int status = vamp_safetensors_open_memory(bytes, size, "fuzz.safetensors", &file, &error);
  if (status) {
    /* A refusal explains itself and names the file. */
    if (error.status != status || !strstr(error.message, "fuzz.safetensors")) {
      abort();
    }
  }
  for (size_t i = 0; !status && i < vamp_safetensors_count(file); i++) {
    const struct vamp_tensor *tensor = vamp_safetensors_tensor(file, i);
    if (vamp_safetensors_find(file, tensor->name) != tensor || (tensor->readable && tensor->count > size)) {
      abort();
    }
    float *values = malloc(tensor->readable && tensor->count ? tensor->count * sizeof *values : 1);
    if (values) {
      (void)vamp_tensor_to_float(file, tensor, values, &error);
    }
    free(values);
  }
  vamp_safetensors_close(file);
  free(bytes);
  return 0;
}

#ifdef VAMP_FUZZ_REPLAY
int main(int count, char **paths) {
  for (int i = 1; i < count; i++) {
    static uint8_t input[1 << 20];
    FILE *stream = fopen(paths[i], "rb");
    if (!stream) {
      perror(paths[i]);
      return 1;
    }
    size_t size = fread(input, 1, sizeof input, stream);
    fclose(stream);
    LLVMFuzzerTestOneInput(input, size);
  }
  return 0;
}
#endif
