/*
 * Remasking by a backend, against a plain reading of vamp/backend.h: the masked positions sorted by
 * confidence and then by place, of which the first keep_masked stay.
 */
#ifndef VAMP_TEST_TRIAL_REMASK_H
#define VAMP_TEST_TRIAL_REMASK_H

#include "tests/unit/cpu_sequences.h"

struct place {
  float confidence;
  int64_t at; /* in [frame, predicted codebook] order */
};

static inline int by_confidence(const void *a, const void *b) {
  const struct place *x = a, *y = b;
  return x->confidence < y->confidence ? -1 : x->confidence > y->confidence ? 1 : x->at < y->at ? -1 : 1;
}

static inline void check_remasked(const struct scene *scene, const char *name, const struct arrays *got) {
  const struct arrays *was = &scene->arrays;
  int codebooks = scene->codebooks, predicted = scene->predicted, given = codebooks - predicted;
  int64_t rows = scene_rows(scene);
  int32_t *tokens = taken(malloc(4 * (size_t)(rows * codebooks + 1)));
  int32_t *committed = taken(malloc(4 * (size_t)(rows * predicted + 1)));
  struct place *places = taken(malloc(sizeof *places * (size_t)(rows * predicted + 1)));
  memcpy(tokens, was->tokens, 4 * (size_t)(rows * codebooks));
  memcpy(committed, was->committed, 4 * (size_t)(rows * predicted));
  for (int s = 0; s < scene->count; s++) {
    int masked = 0;
    for (int64_t at = scene->offsets[s] * predicted; at < scene->offsets[s + 1] * predicted; at++) {
      if (scene_masked(scene, at / predicted, (int)(at % predicted))) {
        places[masked++] = (struct place){was->confidence[at], at};
      }
    }
    qsort(places, (size_t)masked, sizeof *places, by_confidence);
    for (int i = scene->sequence[s].keep_masked; i < masked; i++) {
      int64_t at = places[i].at;
      tokens[at / predicted * codebooks + given + at % predicted] = was->sampled[at];
      committed[at] = scene->sequence[s].step;
    }
  }
  for (int64_t at = 0; at < rows * predicted; at++) {
    int64_t cell = at / predicted * codebooks + given + at % predicted;
    if (got->tokens[cell] != tokens[cell] || got->committed[at] != committed[at]) {
      fail_msg("%s: row %d, codebook %d: token %d, committed %d, and not %d, %d", name, (int)(at / predicted),
               (int)(given + at % predicted), got->tokens[cell], got->committed[at], tokens[cell],
               committed[at]);
    }
  }
  assert_memory_equal(got->tokens, tokens, 4 * (size_t)(rows * codebooks));
  /* The rest of the state is predict's. */
  assert_memory_equal(got->sampled, was->sampled, 4 * (size_t)(rows * predicted));
  assert_memory_equal(got->probability, was->probability, 4 * (size_t)(rows * predicted));
  assert_memory_equal(got->confidence, was->confidence, 4 * (size_t)(rows * predicted));
  free(tokens);
  free(committed);
  free(places);
}

/* All of them, none, half, one, all but one: */
static inline int keep_of(int masked, int way) {
  switch (way % 5) {
  case 0:
    return masked / 2;
  case 1:
    return 0;
  case 2:
    return masked > 1 ? masked - 1 : 0;
  case 3:
    return masked > 0 ? 1 : 0;
  default:
    return masked;
  }
}

/* `levels`: confidences are drawn from so many values; 0: from all. */
static inline void check_remask(void **state, int given, int predicted, double share, int levels, int count,
                                const int *lengths) {
  for (int way = 0; way < 5; way++) {
    uint64_t seed = (uint64_t)way + 1;
    struct scene scene = scene_make(given + predicted, predicted, 1024, count, lengths, share, seed);
    for (int64_t i = 0; levels > 0 && i < scene_rows(&scene) * predicted; i++) {
      int level = random_below(&seed, levels);
      scene.arrays.confidence[i] = level == 0 ? -INFINITY : -0.5f * (float)level;
    }
    for (int s = 0; s < scene.count; s++) {
      scene.sequence[s].keep_masked = keep_of(scene.sequence[s].masked, way + s);
      scene.sequence[s].step = 3 + s;
    }
    scene_check(state, &scene, false, check_remasked);
    scene_free(&scene);
  }
}

#endif
