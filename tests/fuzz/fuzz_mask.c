/*
 * Whatever JSON comes as a mask, it ends in one error with a pointer or in a mask whose own answer builds
 * it again.
 *
 * The first byte chooses the length of the clip; the rest is the JSON. Pictures are left to the unit
 * tests: they depend on the mask's numbers alone and would slow this down a hundredfold.
 *
 *   clang -g -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -Iinclude -I. tests/fuzz/fuzz_mask.c \
 *     engine/mask/[a-z]*.c engine/error/error.c $(pkg-config --cflags --libs jansson cairo) -lm -o fuzz_mask
 *   ./fuzz_mask -max_len=4096 tests/fuzz/corpus/mask
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vamp/mask.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition) {
  if (!condition) {
    abort();
  }
}

/* An error's texts go out as JSON strings, so they must be UTF-8. */
static void check_error(int status, const struct vamp_error *error) {
  require(status == VAMP_INVALID || status == VAMP_LIMIT || status == VAMP_UNSUPPORTED);
  require(error->status == status && error->message[0] != '\0');
  json_t *texts = json_pack("[s, s]", error->field, error->message);
  require(texts != NULL);
  json_decref(texts);
}

static int build(const json_t *json, struct vamp_mask_context *context, struct vamp_mask_plan **plan) {
  struct vamp_mask_spec *spec = NULL;
  struct vamp_error error = {0};
  int status = vamp_mask_spec_parse(json, "/mask", &spec, &error);
  if (status == 0) {
    status = vamp_mask_plan_build(spec, context, plan, &error);
    vamp_mask_spec_free(spec);
  }
  if (status != 0) {
    check_error(status, &error);
  }
  return status;
}

/* The tree and seed of a pass's answer give its mask again. */
static void check_pass(const struct vamp_mask_plan *plan, int pass, struct vamp_mask_context context) {
  const struct vamp_mask *mask = vamp_mask_plan_mask(plan, pass);
  size_t tokens = (size_t)mask->codebooks * (size_t)mask->frames;
  for (size_t i = 0; i < tokens; i++) {
    require(mask->data[i] <= 1);
  }
  json_t *answer = vamp_mask_plan_json(plan, pass, NULL);
  require(answer != NULL);
  context.seed = (uint64_t)json_integer_value(json_object_get(answer, "seed"));
  struct vamp_mask_plan *again = NULL;
  require(build(json_object_get(answer, "tree"), &context, &again) == 0);
  require(memcmp(mask->data, vamp_mask_plan_mask(again, 0)->data, tokens) == 0);
  vamp_mask_plan_free(again);
  json_decref(answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1) {
    return 0;
  }
  struct vamp_mask_context context = {
      .codebooks = 14,
      .coarse_codebooks = 4,
      .frames = 1 + data[0],
      .sample_rate = 44100,
      .hop_length = 768,
      .seed = size,
  };
  json_t *json = json_loadb((const char *)data + 1, size - 1, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
  if (!json) {
    return 0;
  }
  struct vamp_mask_plan *plan = NULL;
  if (build(json, &context, &plan) == 0) {
    for (int pass = 0; pass < vamp_mask_plan_passes(plan); pass++) {
      check_pass(plan, pass, context);
    }
  }
  vamp_mask_plan_free(plan);
  json_decref(json);
  return 0;
}
