/*
 * Fuzz target: what a stranger sends, up to the point where audio would be decoded.
 *
 * The first byte chooses the door: a JSON text as parameters (bounded parser, request, mask of 200 frames,
 * its document), a multipart body, base64, or an Accept header. Whatever comes, the answer is a result or
 * an error with a message: a crash, a leak or a sanitizer's report is a bug.
 *
 *   clang -g -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -Iinclude -I. tests/fuzz/fuzz_request.c \
 *     server/{base64,json,multipart,negotiate}.c engine/{request,mask,audio,error}/[a-z]*.c \
 *     engine/generate/sampling.c -lsndfile -lsoxr -lebur128 -ljansson -lcairo -lm -o fuzz_request
 *   ./fuzz_request -max_total_time=60 tests/fuzz/corpus/fuzz_request
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/base64.h"
#include "server/http/json.h"
#include "server/http/multipart.h"
#include "server/http/negotiate.h"
#include "vamp/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An error that says nothing is as wrong as a crash. */
static void expect_message(int status, const struct vamp_error *error) {
  if (status != VAMP_OK && error->message[0] == '\0') {
    abort();
  }
}

static void fuzz_parameters(const uint8_t *data, size_t size) {
  struct vamp_model_config config = {.name = "fuzz"};
  config.codec.sample_rate = 44100;
  config.codec.hop_length = 768;
  config.codec.n_codebooks = 14;
  config.codec.codebook_size = 1024;
  config.coarse.n_codebooks = 4;
  struct vamp_request request = {0};
  struct vamp_variation variation = {0};
  struct vamp_error error = {0};
  json_t *params = NULL;
  int status = vampd_json_parse(data, size, "The input", &params, &error);
  if (status == VAMP_OK) {
    status = vamp_request_parse(params, &request, &error);
  }
  if (status == VAMP_OK) {
    status = vamp_variation_prepare_frames(&request, 200, &config, &variation, &error);
  }
  if (status == VAMP_OK) {
    json_decref(vamp_variation_mask_json(&variation, NULL));
  }
  expect_message(status, &error);
  vamp_variation_free(&variation);
  vamp_request_free(&request);
  json_decref(params);
}

static void fuzz_multipart(const uint8_t *data, size_t size) {
  static const char TYPE[] = "multipart/form-data; boundary=XX";
  struct vampd_part parts[VAMPD_MULTIPART_MAX_PARTS];
  struct vamp_error error = {0};
  int count = 0;
  int status = vampd_multipart_parse(TYPE, (const char *)data, size, parts, &count, &error);
  expect_message(status, &error);
  for (int i = 0; status == VAMP_OK && i < count; i++) {
    const char *begin = (const char *)data;
    if (parts[i].data < begin || parts[i].data + parts[i].size > begin + size) {
      abort();
    }
  }
}

/* What decodes must encode to the very same text. */
static void fuzz_base64(const uint8_t *data, size_t size) {
  void *bytes;
  size_t count, length;
  struct vamp_error error = {0};
  int status = vampd_base64_decode((const char *)data, size, &bytes, &count, &error);
  expect_message(status, &error);
  if (status != VAMP_OK) {
    return;
  }
  char *text = vampd_base64_encode(bytes, count, &length);
  if (text && (length != size || memcmp(text, data, size) != 0)) {
    abort();
  }
  free(text);
  free(bytes);
}

/* The bytes as two headers, Accept and Content-Type. */
static void fuzz_headers(const uint8_t *data, size_t size) {
  static const char *const OFFERS[] = {"audio/wav", "application/json", NULL};
  char *text = malloc(size + 1);
  if (!text) {
    return;
  }
  memcpy(text, data, size);
  text[size] = '\0';
  int chosen = vampd_negotiate(text, OFFERS);
  if (chosen < -1 || chosen > 1) {
    abort();
  }
  static const char BODY[] = "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--XX--";
  struct vampd_part parts[VAMPD_MULTIPART_MAX_PARTS];
  struct vamp_error error = {0};
  int count;
  expect_message(vampd_multipart_parse(text, BODY, sizeof BODY - 1, parts, &count, &error), &error);
  vampd_media_type_is(text, "application/json");
  free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static void (*const DOORS[])(const uint8_t *, size_t) = {fuzz_parameters, fuzz_multipart, fuzz_base64,
                                                           fuzz_headers};
  if (size > 0) {
    /* A copy of the exact size: reading one byte beyond it is then seen. */
    uint8_t *copy = malloc(size > 1 ? size - 1 : 1);
    if (copy) {
      memcpy(copy, data + 1, size - 1);
      DOORS[data[0] % 4](copy, size - 1);
      free(copy);
    }
  }
  return 0;
}
