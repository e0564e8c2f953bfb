/*
 * Drawing candidates by a backend, against a plain reading of docs/model.md: the logits in double, the
 * filters by sorting, and the token found by walking through the kept ones until the running sum passes the
 * random number. So a draw is checked exactly, not by its frequency alone; a frequency test of the whole
 * follows all the same, for the reading could share a mistake with the program.
 *
 * Where a filter's decision hangs by less than float's rounding a position is left out, and only few may be.
 */
#ifndef VAMP_TEST_TRIAL_PREDICT_H
#define VAMP_TEST_TRIAL_PREDICT_H

#include "tests/unit/cpu_sequences.h"

#include "vamp/random.h"

/* Of a logit, or of a draw; sums of probabilities are ten times as exact. */
static const double doubt = 2e-5;

/* ---- the reference ------------------------------------------------------------------------------ */

/* One position's distribution. */
struct reading {
  int count;                   /* the vocabulary */
  double logit[1024], p[1024]; /* p: of softmax(logits) among the kept; 0 where not kept */
  bool kept[1024];
  double margin; /* of the closest decision */
};

struct ranked {
  double key;
  int token;
};

static inline int by_key(const void *a, const void *b) {
  const struct ranked *x = a, *y = b;
  return x->key < y->key ? -1 : x->key > y->key ? 1 : x->token - y->token;
}

/* p of the kept ones adds up to 1 again. */
static inline void renormalise(struct reading *r) {
  double total = 0;
  for (int v = 0; v < r->count; v++) {
    r->p[v] = r->kept[v] ? r->p[v] : 0;
    total += r->p[v];
  }
  for (int v = 0; v < r->count; v++) {
    r->p[v] /= total;
  }
}

/* Keeps, of the kept ones in ascending order of `key`, the first that together reach `mass`, and at least
 * `least`; with mass > 1 just `least`. */
static inline void keep_first(struct reading *r, const double *key, double mass, int least) {
  struct ranked order[1024];
  int candidates = 0, keep = 0;
  for (int v = 0; v < r->count; v++) {
    if (r->kept[v]) {
      order[candidates++] = (struct ranked){key[v], v};
    }
  }
  qsort(order, (size_t)candidates, sizeof order[0], by_key);
  double sum = 0;
  while (keep < candidates && (keep < least || (mass <= 1 && sum < mass))) {
    if (mass <= 1 && keep >= least) {
      r->margin = fmin(r->margin, 10 * fabs(mass - sum));
    }
    sum += r->p[order[keep++].token];
  }
  if (mass <= 1 && keep > least) {
    r->margin = fmin(r->margin, 10 * fabs(mass - sum));
  }
  if (keep < candidates) {
    r->margin = fmin(r->margin, order[keep].key - order[keep - 1].key);
  }
  for (int i = keep; i < candidates; i++) {
    r->kept[order[i].token] = false;
  }
  renormalise(r);
}

static inline void read_logits(const struct scene *scene, int64_t row, int c, struct reading *r) {
  double largest = -INFINITY;
  r->count = scene->vocabulary;
  r->margin = INFINITY;
  for (int v = 0; v < r->count; v++) {
    int channel = c * scene->vocabulary + v;
    r->logit[v] = scene->bias ? (double)scene->bias[channel] : 0;
    for (int i = 0; i < scene->k; i++) {
      r->logit[v] += (double)scene->x[row * scene->k + i] * (double)scene->weight[channel * scene->k + i];
    }
    largest = fmax(largest, r->logit[v]);
  }
  for (int v = 0; v < r->count; v++) {
    r->p[v] = exp(r->logit[v] - largest);
    r->kept[v] = true;
  }
  renormalise(r);
}

static inline void filter(const struct vamp_sequence *sequence, struct reading *r) {
  double key[1024], entropy = 0;
  for (int v = 0; v < r->count; v++) {
    key[v] = -r->logit[v];
  }
  if (sequence->top_k > 0) {
    keep_first(r, key, 2, sequence->top_k);
  }
  if (sequence->top_p < 1) {
    keep_first(r, key, (double)sequence->top_p, 1);
  }
  if (sequence->typical_mass > 0) {
    for (int v = 0; v < r->count; v++) {
      entropy -= r->kept[v] && r->p[v] > 0 ? r->p[v] * log(r->p[v]) : 0;
    }
    for (int v = 0; v < r->count; v++) {
      key[v] = fabs(-log(r->p[v]) - entropy);
    }
    keep_first(r, key, (double)sequence->typical_mass, sequence->typical_min > 1 ? sequence->typical_min : 1);
  }
}

/* Leaves in p softmax(logits / temperature) of what is kept; the token must be the one that the random
 * number falls on (or the likeliest), with its probability and confidence. */
static inline void check_candidate(const struct vamp_sequence *sequence, const struct reading *filtered,
                                   int frame, int codebook, const char *name, int token, double probability,
                                   double confidence) {
  struct reading r = *filtered;
  double largest = -INFINITY, before = 0;
  for (int v = 0; v < r.count; v++) {
    largest = r.kept[v] ? fmax(largest, r.logit[v]) : largest;
  }
  for (int v = 0; v < r.count; v++) {
    r.p[v] = exp((r.logit[v] - largest) / (double)sequence->temperature);
  }
  renormalise(&r);
  if (token < 0 || token >= r.count || !r.kept[token]) {
    fail_msg("%s: frame %d, codebook %d: token %d was filtered out", name, frame, codebook, token);
  }
  struct vamp_random4 random =
      vamp_philox(sequence->seed, (uint32_t)frame, (uint32_t)(codebook + 256 * sequence->step),
                  sequence->counter, sequence->stream);
  double u = (double)vamp_uniform(random.word[0]);
  double gumbel = -log(-log((double)vamp_uniform(random.word[1])));
  for (int v = 0; v < token; v++) {
    before += r.p[v];
  }
  bool drawn = sequence->argmax ? r.logit[token] >= largest - doubt
                                : u >= before - doubt && u <= before + r.p[token] + doubt;
  double information = log(r.p[token]) + (double)sequence->noise * gumbel;
  if (!drawn || !(fabs(probability - r.p[token]) <= 1e-4 * r.p[token]) ||
      !(fabs(confidence - information) <= 2e-4 * (1 + fabs(information)))) {
    fail_msg("%s: frame %d, codebook %d: token %d (from %.6f to %.6f, drawn by %.6f), probability %.6g and "
             "not %.6g, confidence %.6g and not %.6g",
             name, frame, codebook, token, before, before + r.p[token], u, probability, r.p[token],
             confidence, information);
  }
}

static inline void check_predicted(const struct scene *scene, const char *name, const struct arrays *got) {
  const struct arrays *was = &scene->arrays;
  int64_t rows = scene_rows(scene);
  int masked = 0, doubtful = 0;
  struct reading *r = taken(malloc(sizeof *r));
  assert_memory_equal(got->tokens, was->tokens, 4 * (size_t)(rows * scene->codebooks));
  assert_memory_equal(got->committed, was->committed, 4 * (size_t)(rows * scene->predicted));
  for (int s = 0; s < scene->count; s++) {
    for (int64_t row = scene->offsets[s]; row < scene->offsets[s + 1]; row++) {
      for (int c = 0; c < scene->predicted; c++) {
        int64_t at = row * scene->predicted + c;
        if (!scene_masked(scene, row, c)) {
          assert_int_equal(got->sampled[at], was->sampled[at]);
          assert_memory_equal(&got->probability[at], &was->probability[at], 4);
          assert_memory_equal(&got->confidence[at], &was->confidence[at], 4);
          continue;
        }
        masked++;
        read_logits(scene, row, c, r);
        filter(&scene->sequence[s], r);
        if (r->margin < doubt) {
          doubtful++;
          continue;
        }
        check_candidate(&scene->sequence[s], r, (int)(row - scene->offsets[s]),
                        scene->codebooks - scene->predicted + c, name, got->sampled[at],
                        (double)got->probability[at], (double)got->confidence[at]);
      }
    }
  }
  free(r);
  if (doubtful * 20 > masked) {
    fail_msg("%s: %d of %d positions are too close to call", name, doubtful, masked);
  }
}

/* ---- scenes ------------------------------------------------------------------------------------- */

/* Logits of about +-loudness. */
static inline struct scene predict_scene(int given, int predicted, int vocabulary, int k, double loudness,
                                         double share, int count, const int *lengths) {
  struct scene scene = scene_make(given + predicted, predicted, vocabulary, count, lengths, share,
                                  (uint64_t)vocabulary + (uint64_t)k);
  size_t channels = (size_t)predicted * (size_t)vocabulary;
  scene.k = k;
  scene.x = random_floats((size_t)scene_rows(&scene) * (size_t)k, 1, 1);
  scene.weight = random_weights(channels * (size_t)k, k / (loudness * loudness), 2);
  scene.bias = random_floats(channels, 0.5, 3);
  return scene;
}

/* Settings of the filters; the high temperature draws from all that they leave. */
static inline void check_filters(void **state, int vocabulary, float temperature, int count,
                                 const struct vamp_sequence *settings, int frames) {
  for (int i = 0; i < count; i++) {
    struct scene scene = predict_scene(1, 2, vocabulary, 24, 4, 0.8, 1, &frames);
    for (int s = 0; s < scene.count; s++) {
      struct vamp_sequence *sequence = &scene.sequence[s];
      sequence->temperature = temperature;
      sequence->top_k = settings[i].top_k;
      sequence->top_p = settings[i].top_p;
      sequence->typical_mass = settings[i].typical_mass;
      sequence->typical_min = settings[i].typical_min;
      sequence->argmax = settings[i].argmax;
    }
    scene_check(state, &scene, true, check_predicted);
    scene_free(&scene);
  }
}

/* ---- equal logits ------------------------------------------------------------------------------- */

static inline void check_first(const struct scene *scene, const char *name, const struct arrays *got) {
  for (int64_t i = 0; i < scene_rows(scene) * scene->predicted; i++) {
    if (got->sampled[i] != 0 || !(fabs((double)got->probability[i] * scene->vocabulary - 1) < 1e-5)) {
      fail_msg("%s: token %d with probability %g", name, got->sampled[i], (double)got->probability[i]);
    }
  }
}

/* ---- frequency ---------------------------------------------------------------------------------- */

/* Every row of the scene is the same: over the frames tokens are as frequent as they are likely. */
static inline void check_frequency(const struct scene *scene, const char *name, const struct arrays *got) {
  struct reading *r = taken(malloc(sizeof *r));
  int64_t frames = scene_rows(scene);
  for (int c = 0; c < scene->predicted; c++) {
    int seen[64] = {0};
    double surprise = 0;
    for (int64_t row = 0; row < frames; row++) {
      seen[got->sampled[row * scene->predicted + c]]++;
    }
    read_logits(scene, 0, c, r);
    for (int v = 0; v < scene->vocabulary; v++) {
      double expected = r->p[v] * (double)frames;
      surprise += (seen[v] - expected) * (seen[v] - expected) / expected;
    }
    /* Chi-square of 63 degrees of freedom: 63 on average, above 130 once in a million. */
    if (surprise > 130) {
      fail_msg("%s: codebook %d: tokens are not as frequent as they are likely (%g)", name, c, surprise);
    }
  }
  free(r);
}

#endif
