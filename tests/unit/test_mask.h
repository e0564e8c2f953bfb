/* What the tests of masks share: a mask from a line of JSON. */
#ifndef VAMP_TEST_MASK_H
#define VAMP_TEST_MASK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "vamp/mask.h"

enum { CODEBOOKS = 14, COARSE = 4, CLIP = 575 };

static inline struct vamp_mask_context context_of(int frames, uint64_t seed) {
  return (struct vamp_mask_context){
      .codebooks = CODEBOOKS,
      .coarse_codebooks = COARSE,
      .frames = frames,
      .sample_rate = 44100,
      .hop_length = 768,
      .seed = seed,
  };
}

static inline json_t *json_of(const char *text) {
  json_error_t problem;
  json_t *json = json_loads(text, JSON_DECODE_ANY, &problem);
  if (!json) {
    fail_msg("the test's JSON is wrong: %s: %s", problem.text, text);
  }
  return json;
}

/* Parses and builds; the first failure goes into *error. */
static inline int try_plan(const json_t *json, int frames, uint64_t seed, struct vamp_mask_plan **plan,
                           struct vamp_error *error) {
  struct vamp_mask_spec *spec = NULL;
  int status = vamp_mask_spec_parse(json, "/mask", &spec, error);
  if (status == 0) {
    struct vamp_mask_context context = context_of(frames, seed);
    status = vamp_mask_plan_build(spec, &context, plan, error);
    vamp_mask_spec_free(spec);
  }
  return status;
}

static inline struct vamp_mask_plan *plan_of_json(const json_t *json, int frames, uint64_t seed) {
  struct vamp_mask_plan *plan = NULL;
  struct vamp_error error = {0};
  if (try_plan(json, frames, seed, &plan, &error) != 0) {
    fail_msg("%s: %s", error.field, error.message);
  }
  return plan;
}

static inline struct vamp_mask_plan *plan_of(const char *text, int frames, uint64_t seed) {
  json_t *json = json_of(text);
  struct vamp_mask_plan *plan = plan_of_json(json, frames, seed);
  json_decref(json);
  return plan;
}

/* The first pass's cells [CODEBOOKS, frames], the caller's to free. */
static inline uint8_t *cells_of(const char *text, int frames, uint64_t seed) {
  struct vamp_mask_plan *plan = plan_of(text, frames, seed);
  const struct vamp_mask *mask = vamp_mask_plan_mask(plan, 0);
  assert_int_equal(mask->codebooks, CODEBOOKS);
  assert_int_equal(mask->frames, frames);
  size_t size = (size_t)CODEBOOKS * (size_t)frames;
  uint8_t *cells = test_malloc(size);
  memcpy(cells, mask->data, size);
  vamp_mask_plan_free(plan);
  for (size_t i = 0; i < size; i++) {
    assert_true(cells[i] <= 1);
  }
  return cells;
}

/* Masked tokens on the codebooks [low, high). */
static inline int64_t masked_in(const uint8_t *cells, int frames, int low, int high) {
  int64_t masked = 0;
  for (int64_t i = (int64_t)low * frames; i < (int64_t)high * frames; i++) {
    masked += cells[i];
  }
  return masked;
}

static inline bool same_cells(const uint8_t *a, const uint8_t *b, int frames) {
  return memcmp(a, b, (size_t)CODEBOOKS * (size_t)frames) == 0;
}

/* The two specs give the same mask. */
static inline void assert_same_mask(const char *a, const char *b, int frames, uint64_t seed) {
  uint8_t *first = cells_of(a, frames, seed), *second = cells_of(b, frames, seed);
  if (!same_cells(first, second, frames)) {
    fail_msg("not the same mask, seed %llu, %d frames:\n  %s\n  %s", (unsigned long long)seed, frames, a, b);
  }
  test_free(first);
  test_free(second);
}

/* The spec fails with `status` at `field`, with a message that has `part` in it. */
static inline void assert_fails_at(const char *text, int frames, int status, const char *field,
                                   const char *part) {
  json_t *json = json_of(text);
  struct vamp_mask_plan *plan = NULL;
  struct vamp_error error = {0};
  int got = try_plan(json, frames, 1, &plan, &error);
  if (got != status || strcmp(error.field, field) != 0 || !strstr(error.message, part) || plan) {
    fail_msg("%s\n  gave %d at \"%s\": %s\n  and not %d at \"%s\" with \"%s\"", text, got, error.field,
             error.message, status, field, part);
  }
  json_decref(json);
}

#endif
