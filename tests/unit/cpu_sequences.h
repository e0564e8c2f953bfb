/*
 * What the tests of predict and remask share: sequences of tokens with their state, on the host and on a
 * device. A scene packs several; scene_run() takes some of them through an operation on a device and brings
 * all their arrays back, so that a test can ask what changed and what did not.
 */
#ifndef VAMP_TEST_CPU_SEQUENCES_H
#define VAMP_TEST_CPU_SEQUENCES_H

#include "tests/unit/cpu_reference.h"

/* The arrays of all sequences, end to end; per sequence on the device. */
struct arrays {
  int32_t *tokens;                 /* [rows, codebooks] */
  int32_t *sampled, *committed;    /* [rows, predicted] */
  float *probability, *confidence; /* [rows, predicted] */
};

struct scene {
  int codebooks, predicted, vocabulary, count;
  int64_t offsets[MAX_SEQUENCES + 1];
  struct vamp_sequence sequence[MAX_SEQUENCES]; /* the parameters; no arrays */
  struct arrays arrays;
  /* predict alone */
  int k;
  float *x, *weight, *bias; /* [rows, k], [predicted * vocabulary, k], [predicted * vocabulary] */
};

static inline struct arrays arrays_make(int64_t rows, int codebooks, int predicted) {
  size_t all = (size_t)(rows * codebooks) + 1, some = (size_t)(rows * predicted) + 1;
  return (struct arrays){taken(calloc(all, 4)), taken(calloc(some, 4)), taken(calloc(some, 4)),
                         taken(calloc(some, 4)), taken(calloc(some, 4))};
}

static inline void arrays_free(struct arrays *arrays) {
  free(arrays->tokens);
  free(arrays->sampled);
  free(arrays->committed);
  free(arrays->probability);
  free(arrays->confidence);
}

static inline int64_t scene_rows(const struct scene *scene) {
  return scene->offsets[scene->count];
}

/* Is codebook c (of the predicted) of this packed row masked? */
static inline bool scene_masked(const struct scene *scene, int64_t row, int c) {
  int given = scene->codebooks - scene->predicted;
  return scene->arrays.tokens[row * scene->codebooks + given + c] == scene->vocabulary;
}

/* Sequences of these lengths; tokens are masked with the probability `share` (the given codebooks too: that
 * must not matter), the rest of the state is random. `share` of 1 and 0 are exact. */
static inline struct scene scene_make(int codebooks, int predicted, int vocabulary, int count,
                                      const int *lengths, double share, uint64_t seed) {
  struct scene scene = {
      .codebooks = codebooks, .predicted = predicted, .vocabulary = vocabulary, .count = count};
  for (int s = 0; s < count; s++) {
    scene.offsets[s + 1] = scene.offsets[s] + lengths[s];
  }
  int64_t rows = scene_rows(&scene);
  scene.arrays = arrays_make(rows, codebooks, predicted);
  for (int64_t i = 0; i < rows * codebooks; i++) {
    bool masked = random_share(&seed) < share;
    scene.arrays.tokens[i] = masked ? vocabulary : random_below(&seed, vocabulary);
  }
  for (int64_t i = 0; i < rows * predicted; i++) {
    scene.arrays.sampled[i] = random_below(&seed, vocabulary);
    scene.arrays.committed[i] = random_below(&seed, 5) - 1;
    scene.arrays.probability[i] = (float)random_share(&seed);
    scene.arrays.confidence[i] = (float)(-10 * random_share(&seed));
  }
  for (int s = 0; s < count; s++) {
    int masked = 0;
    for (int64_t row = scene.offsets[s]; row < scene.offsets[s + 1]; row++) {
      for (int c = 0; c < predicted; c++) {
        masked += scene_masked(&scene, row, c);
      }
    }
    scene.sequence[s] = (struct vamp_sequence){.temperature = 1,
                                               .top_p = 1,
                                               .masked = masked,
                                               .seed = random_word(&seed),
                                               .counter = (uint32_t)random_word(&seed),
                                               .stream = 1 + (uint32_t)(s % 2),
                                               .step = s};
  }
  return scene;
}

static inline void scene_free(struct scene *scene) {
  arrays_free(&scene->arrays);
  free(scene->x);
  free(scene->weight);
  free(scene->bias);
}

/* ---- on a device -------------------------------------------------------------------------------- */

struct transfer {
  void *host;
  void *device;
  size_t bytes;
};

enum { TRANSFERS = 5 };

/* The five arrays of sequence s, as they lie in `arrays`. */
static inline void sequence_transfers(const struct scene *scene, int s, const struct arrays *arrays,
                                      struct vamp_sequence *sequence, struct transfer *transfers) {
  int64_t row = scene->offsets[s], rows = scene->offsets[s + 1] - row;
  int64_t all = row * scene->codebooks, some = row * scene->predicted;
  size_t all_bytes = 4 * (size_t)(rows * scene->codebooks), bytes = 4 * (size_t)(rows * scene->predicted);
  transfers[0] = (struct transfer){arrays->tokens + all, sequence->tokens, all_bytes};
  transfers[1] = (struct transfer){arrays->sampled + some, sequence->sampled, bytes};
  transfers[2] = (struct transfer){arrays->committed + some, sequence->committed, bytes};
  transfers[3] = (struct transfer){arrays->probability + some, sequence->probability, bytes};
  transfers[4] = (struct transfer){arrays->confidence + some, sequence->confidence, bytes};
}

/* Runs predict (with `classifier`) or remask (NULL) on the sequences first .. first + count - 1. What comes
 * back is a whole scene's arrays, of which the others are as they were; the caller's to free. */
static inline struct arrays scene_run(const struct scene *scene, const struct setting *setting,
                                      struct vamp_device *device, const struct vamp_weight *classifier,
                                      int first, int count) {
  struct vamp_sequence sequences[MAX_SEQUENCES];
  int64_t offsets[MAX_SEQUENCES + 1] = {0}, rows = scene_rows(scene);
  struct transfer transfers[TRANSFERS];
  struct arrays got = arrays_make(rows, scene->codebooks, scene->predicted);
  memcpy(got.tokens, scene->arrays.tokens, 4 * (size_t)(rows * scene->codebooks));
  memcpy(got.sampled, scene->arrays.sampled, 4 * (size_t)(rows * scene->predicted));
  memcpy(got.committed, scene->arrays.committed, 4 * (size_t)(rows * scene->predicted));
  memcpy(got.probability, scene->arrays.probability, 4 * (size_t)(rows * scene->predicted));
  memcpy(got.confidence, scene->arrays.confidence, 4 * (size_t)(rows * scene->predicted));
  for (int s = 0; s < count; s++) {
    offsets[s + 1] = offsets[s] + scene->offsets[first + s + 1] - scene->offsets[first + s];
    sequences[s] = scene->sequence[first + s];
    sequence_transfers(scene, first + s, &got, &sequences[s], transfers);
    sequences[s].tokens = device_array(device, transfers[0].host, transfers[0].bytes);
    sequences[s].sampled = device_array(device, transfers[1].host, transfers[1].bytes);
    sequences[s].committed = device_array(device, transfers[2].host, transfers[2].bytes);
    sequences[s].probability = device_array(device, transfers[3].host, transfers[3].bytes);
    sequences[s].confidence = device_array(device, transfers[4].host, transfers[4].bytes);
  }
  struct vamp_packing packing = {count, offsets};
  int status;
  if (classifier) {
    size_t bytes;
    const float *from = scene->x + scene->offsets[first] * scene->k;
    void *host = guarded(from, (size_t)(offsets[count] * scene->k), setting->bf16, 0x7FC07FC0u, &bytes);
    char *x = device_array(device, host, bytes);
    status = device->ops->predict(device, classifier, scene->codebooks, scene->predicted, scene->vocabulary,
                                  &packing, sequences, x + GUARD * (setting->bf16 ? 2 : 4));
    device->ops->wait(device);
    device->ops->release(device, x);
    free(host);
  } else {
    status = device->ops->remask(device, scene->codebooks, scene->predicted, scene->vocabulary, &packing,
                                 sequences);
  }
  assert_int_equal(status, 0);
  assert_int_equal(device->ops->wait(device), 0);
  for (int s = 0; s < count; s++) {
    sequence_transfers(scene, first + s, &got, &sequences[s], transfers);
    for (int i = 0; i < TRANSFERS; i++) {
      assert_int_equal(
          device->ops->download(device, transfers[i].host, transfers[i].device, transfers[i].bytes), 0);
      device->ops->release(device, transfers[i].device);
    }
  }
  return got;
}

/* Are sequence s's arrays the same bits in both? */
static inline bool same_sequence(const struct scene *scene, int s, const struct arrays *a,
                                 const struct arrays *b) {
  struct vamp_sequence none = {0};
  struct transfer left[TRANSFERS], right[TRANSFERS];
  sequence_transfers(scene, s, a, &none, left);
  sequence_transfers(scene, s, b, &none, right);
  bool same = true;
  for (int i = 0; i < TRANSFERS; i++) {
    same = same && memcmp(left[i].host, right[i].host, left[i].bytes) == 0;
  }
  return same;
}

/* Every setting, one thread and two, together and alone: `check` looks at the first result, the others must
 * be the same bits. `predict`: with the scene's classifier; else remask. */
static inline void scene_check(void **state, const struct scene *scene, bool predict,
                               void (*check)(const struct scene *scene, const char *name,
                                             const struct arrays *got)) {
  const struct devices *devices = *state;
  for (int i = 0; i < devices->count; i++) {
    const struct setting *setting = &devices->setting[i];
    struct arrays first = {NULL, NULL, NULL, NULL, NULL};
    for (int t = 0; t < THREADS; t++) {
      struct vamp_device *device = setting->device[t];
      struct vamp_weight *classifier = NULL;
      if (predict) {
        int channels = scene->predicted * scene->vocabulary;
        assert_int_equal(device->ops->linear_create(device, channels, scene->k, false, scene->weight,
                                                    scene->bias, &classifier, NULL),
                         0);
      }
      struct arrays got = scene_run(scene, setting, device, classifier, 0, scene->count);
      if (t == 0) {
        check(scene, setting->name, &got);
      }
      for (int s = 0; s < scene->count; s++) {
        struct arrays alone = scene_run(scene, setting, device, classifier, s, 1);
        if (!same_sequence(scene, s, &got, &alone)) {
          fail_msg("%s: sequence %d is not the same alone", setting->name, s);
        }
        if (t > 0 && !same_sequence(scene, s, &got, &first)) {
          fail_msg("%s: sequence %d: one thread and two differ", setting->name, s);
        }
        arrays_free(&alone);
      }
      device->ops->weight_free(device, classifier);
      arrays_free(&first);
      first = got;
    }
    arrays_free(&first);
  }
}

#endif
