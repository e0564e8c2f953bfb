/*
 * Drawing candidates for masked tokens and choosing which of them stay (docs/model.md, "Generation").
 *
 * The classifier runs only on masked positions: for each sequence and codebook the rows still masked
 * are gathered, pushed through that codebook's 1024 columns in tiles, and sampled while their logits are
 * in the cache. A position's draw is keyed by what it is for (vamp/random.h), never by when it happens.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/internal.h"
#include "vamp/random.h"

/* In double and rounded, which is the nearest float but once in millions: so all backends agree, and all
 * versions of the C library, whose logf differ in the last bit. */
static float logarithm(float x) {
  return (float)log((double)x);
}

struct ranked {
  float p;
  int32_t token;
};

static int by_probability(const void *a, const void *b) {
  const struct ranked *x = a, *y = b;
  if (x->p != y->p) {
    return x->p < y->p ? 1 : -1;
  }
  return x->token < y->token ? -1 : 1;
}

/* top_k, then top_p on what is left of a descending list of probabilities that sums to `total`. */
static int keep_top(const struct vamp_sequence *s, const struct ranked *list, int count, float total) {
  if (s->top_k > 0 && s->top_k < count) {
    count = s->top_k;
    total = 0;
    for (int i = 0; i < count; i++) {
      total += list[i].p;
    }
  }
  if (s->top_p < 1) {
    float reached = 0;
    for (int i = 0; i < count; i++) {
      reached += list[i].p;
      if (reached >= s->top_p * total) {
        return i + 1;
      }
    }
  }
  return count;
}

/* Typical filtering (Meister et al. 2023): reorders the first `count` of the list by how far each
 * token's information is from the entropy and returns how many reach the mass, at least typical_min. */
static int keep_typical(const struct vamp_sequence *s, struct ranked *list, int count, float *distance) {
  float total = 0, entropy = 0, reached = 0;
  for (int i = 0; i < count; i++) {
    total += list[i].p;
  }
  for (int i = 0; i < count; i++) {
    float p = list[i].p / total;
    entropy -= p > 0 ? p * logarithm(p) : 0;
  }
  for (int i = 0; i < count; i++) {
    distance[i] = fabsf(-logarithm(list[i].p > 0 ? list[i].p / total : FLT_MIN) - entropy);
  }
  /* Information rises along the list, so the farthest is always one of its ends: drop the farther end
   * until the middle would no longer hold the mass. */
  int low = 0, high = count;
  reached = total;
  while (high - low > 1 && high - low > s->typical_min) {
    bool from_low = distance[low] > distance[high - 1];
    float p = list[from_low ? low : high - 1].p;
    if (reached - p < s->typical_mass * total) {
      break;
    }
    reached -= p;
    from_low ? low++ : high--;
  }
  memmove(list, list + low, sizeof *list * (size_t)(high - low));
  return high - low;
}

/* p [vocabulary] = exp(logits / temperature) of what the filters leave, 0 elsewhere; returns its sum. The
 * filters look at the model's own probabilities. The exponents are measured from the largest logit that is
 * left: from one that was dropped a low temperature would put all others beyond what a float can tell apart.
 */
static float filter(const struct simd *simd, const struct vamp_sequence *s, int vocabulary,
                    const float *logits, float *p, struct ranked *list, float *other) {
  float total = simd->exp_sum(logits, vocabulary, 1.0f, other);
  for (int v = 0; v < vocabulary; v++) {
    list[v] = (struct ranked){other[v], v};
  }
  qsort(list, (size_t)vocabulary, sizeof *list, by_probability);
  int kept = keep_top(s, list, vocabulary, total);
  if (s->typical_mass > 0) {
    kept = keep_typical(s, list, kept, other);
  }
  for (int v = 0; v < vocabulary; v++) {
    other[v] = -INFINITY;
  }
  for (int i = 0; i < kept; i++) {
    other[list[i].token] = logits[list[i].token];
  }
  simd->exp_sum(other, vocabulary, 1.0f / s->temperature, p);
  total = 0;
  for (int v = 0; v < vocabulary; v++) {
    p[v] = other[v] != -INFINITY ? p[v] : 0.0f;
    total += p[v];
  }
  return total;
}

/* Room for one row: probabilities, ranks, and what the filters work on. */
static size_t row_scratch(int vocabulary) {
  size_t v = (size_t)vocabulary;
  return cpu_carved((v + 16) * sizeof(float)) + cpu_carved(v * sizeof(struct ranked)) +
         cpu_carved((v + 16) * sizeof(float));
}

static void draw(const struct cpu_device *device, const struct vamp_sequence *s, int frame, int codebook,
                 int vocabulary, const float *logits, size_t at, char *pad) {
  float *p = cpu_carve(&pad, sizeof(float) * ((size_t)vocabulary + 16));
  struct ranked *list = cpu_carve(&pad, sizeof(struct ranked) * (size_t)vocabulary);
  float *other = cpu_carve(&pad, sizeof(float) * ((size_t)vocabulary + 16));
  struct vamp_random4 random = vamp_philox(
      s->seed, (uint32_t)frame, (uint32_t)codebook + 256u * (uint32_t)s->step, s->counter, s->stream);
  bool filters = s->top_k > 0 || s->top_p < 1 || s->typical_mass > 0;
  float total = filters ? filter(device->simd, s, vocabulary, logits, p, list, other)
                        : device->simd->exp_sum(logits, vocabulary, 1.0f / s->temperature, p);
  int token = 0;
  if (s->argmax) {
    for (int v = 1; v < vocabulary; v++) {
      token = p[v] > p[token] ? v : token;
    }
  } else {
    float goal = vamp_uniform(random.word[0]) * total, reached = 0;
    for (int v = 0; v < vocabulary; v++) {
      if (p[v] > 0) {
        token = v; /* rounding may leave the goal just out of reach: then the last possible one */
        reached += p[v];
        if (reached > goal) {
          break;
        }
      }
    }
  }
  float probability = p[token] / total;
  float noise = s->noise > 0 ? -s->noise * logarithm(-logarithm(vamp_uniform(random.word[1]))) : 0;
  s->sampled[at] = token;
  s->probability[at] = probability;
  s->confidence[at] = logarithm(probability > FLT_MIN ? probability : FLT_MIN) + noise;
}

struct prediction {
  const struct cpu_device *device;
  const struct cpu_linear *classifier;
  int codebooks, predicted, vocabulary;
  const struct vamp_packing *packing;
  const struct vamp_sequence *sequences;
  const char *x;
};

static size_t predict_scratch(const struct prediction *j) {
  size_t row = j->device->base.act_size * (size_t)j->classifier->k;
  return cpu_carved(row * ONEDNN_MAX_ROWS) + cpu_carved(sizeof(int) * ONEDNN_MAX_ROWS) +
         cpu_carved(sizeof(float) * ONEDNN_MAX_ROWS * (size_t)j->vocabulary) +
         cpu_carved(sizeof(float) * ONEDNN_MAX_ROWS * (size_t)j->classifier->tile_n) +
         row_scratch(j->vocabulary) + cpu_linear_scratch(j->device);
}

/* Logits of `rows` gathered positions of codebook c, [rows, vocabulary]. */
static int classify(const struct prediction *j, int c, int rows, const void *gathered, float *logits,
                    float *tile, void *pad) {
  const struct cpu_linear *l = j->classifier;
  int first = c * j->vocabulary / l->tile_n, last = ((c + 1) * j->vocabulary - 1) / l->tile_n;
  for (int t = first; t <= last; t++) {
    int status = cpu_linear_tile(l, t, rows, gathered, tile, pad);
    if (status) {
      return status;
    }
    int from = t * l->tile_n > c * j->vocabulary ? t * l->tile_n : c * j->vocabulary;
    int to = (t + 1) * l->tile_n < (c + 1) * j->vocabulary ? (t + 1) * l->tile_n : (c + 1) * j->vocabulary;
    for (int r = 0; r < rows; r++) {
      float *out = logits + (size_t)r * (size_t)j->vocabulary + (from - c * j->vocabulary);
      const float *in = tile + (size_t)r * (size_t)l->tile_n + (from - t * l->tile_n);
      for (int n = 0; n < to - from; n++) {
        out[n] = in[n] + (l->bias ? l->bias[from + n] : 0.0f);
      }
    }
  }
  return 0;
}

/* Item: sequence * predicted + codebook, counted from the first predicted one. */
static int predict_item(void *context, int64_t item, int thread) {
  const struct prediction *j = context;
  const struct vamp_sequence *s = &j->sequences[item / j->predicted];
  int64_t first = j->packing->offsets[item / j->predicted];
  int frames = (int)(j->packing->offsets[item / j->predicted + 1] - first);
  int c = (int)(item % j->predicted), conditioning = j->codebooks - j->predicted;
  size_t row = j->device->base.act_size * (size_t)j->classifier->k;
  char *pad = cpu_scratch(j->device, thread);
  char *gathered = cpu_carve(&pad, row * ONEDNN_MAX_ROWS);
  int *frame = cpu_carve(&pad, sizeof *frame * ONEDNN_MAX_ROWS);
  float *logits = cpu_carve(&pad, sizeof *logits * ONEDNN_MAX_ROWS * (size_t)j->vocabulary);
  float *tile = cpu_carve(&pad, sizeof *tile * ONEDNN_MAX_ROWS * (size_t)j->classifier->tile_n);
  char *one = cpu_carve(&pad, row_scratch(j->vocabulary));
  int rows = 0;
  for (int t = 0; t < frames; t++) {
    if (s->tokens[(size_t)t * (size_t)j->codebooks + (size_t)(conditioning + c)] == j->vocabulary) {
      memcpy(gathered + (size_t)rows * row, j->x + (size_t)(first + t) * row, row);
      frame[rows++] = t;
    }
    if (rows == ONEDNN_MAX_ROWS || (t == frames - 1 && rows > 0)) {
      int status = classify(j, c, rows, gathered, logits, tile, pad);
      if (status) {
        return status;
      }
      for (int r = 0; r < rows; r++) {
        draw(j->device, s, frame[r], conditioning + c, j->vocabulary,
             logits + (size_t)r * (size_t)j->vocabulary, (size_t)frame[r] * (size_t)j->predicted + (size_t)c,
             one);
      }
      rows = 0;
    }
  }
  return 0;
}

int cpu_predict(struct vamp_device *base, const struct vamp_weight *classifier, int codebooks, int predicted,
                int vocabulary, const struct vamp_packing *packing, const struct vamp_sequence *sequences,
                const void *x) {
  struct cpu_device *device = cpu_device(base);
  struct prediction j = {.device = device,
                         .classifier = (const struct cpu_linear *)classifier,
                         .codebooks = codebooks,
                         .predicted = predicted,
                         .vocabulary = vocabulary,
                         .packing = packing,
                         .sequences = sequences,
                         .x = x};
  int status = 0;
  /* Any number of rows may still be masked: build every class. */
  for (int rows = 1; rows <= ONEDNN_MAX_ROWS && !status; rows = onednn_row_class(rows) + 1) {
    status = cpu_linear_prepare(j.classifier, rows, NULL);
  }
  if (!status) {
    status = cpu_scratch_reserve(device, predict_scratch(&j));
  }
  return status ? status : cpu_pool_run(device->pool, (int64_t)packing->count * predicted, predict_item, &j);
}

/* ---- remasking ------------------------------------------------------------------------------------ */

struct position {
  float confidence;
  uint32_t at; /* frame * predicted + codebook */
};

static int by_confidence(const void *a, const void *b) {
  const struct position *x = a, *y = b;
  if (x->confidence != y->confidence) {
    return x->confidence < y->confidence ? -1 : 1;
  }
  return x->at < y->at ? -1 : 1;
}

struct remask_job {
  int codebooks, predicted, vocabulary;
  const struct vamp_packing *packing;
  const struct vamp_sequence *sequences;
};

/* Item: a sequence. */
static int remask_item(void *context, int64_t item, int thread) {
  (void)thread;
  const struct remask_job *j = context;
  const struct vamp_sequence *s = &j->sequences[item];
  size_t frames = (size_t)(j->packing->offsets[item + 1] - j->packing->offsets[item]);
  size_t predicted = (size_t)j->predicted, codebooks = (size_t)j->codebooks, count = 0;
  size_t conditioning = codebooks - predicted, positions = frames * predicted;
  struct position *list = calloc(positions ? positions : 1, sizeof *list);
  if (!list) {
    return VAMP_MEMORY;
  }
  for (size_t at = 0; at < positions; at++) {
    if (s->tokens[at / predicted * codebooks + conditioning + at % predicted] == j->vocabulary) {
      list[count++] = (struct position){s->confidence[at], (uint32_t)at};
    }
  }
  if (s->keep_masked > 0) {
    qsort(list, count, sizeof *list, by_confidence);
  }
  for (size_t i = (size_t)s->keep_masked; i < count; i++) {
    size_t at = list[i].at;
    s->tokens[at / predicted * codebooks + conditioning + at % predicted] = s->sampled[at];
    s->committed[at] = s->step;
  }
  free(list);
  return 0;
}

int cpu_remask(struct vamp_device *device, int codebooks, int predicted, int vocabulary,
               const struct vamp_packing *packing, const struct vamp_sequence *sequences) {
  struct remask_job j = {codebooks, predicted, vocabulary, packing, sequences};
  return cpu_pool_run(cpu_device(device)->pool, packing->count, remask_item, &j);
}
