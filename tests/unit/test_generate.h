/*
 * What the tests of the batch loop share: a tiny random model, clips and masks to run through it.
 *
 * The model's rates are chosen so that two seconds of "audio" are 100 frames: chunks are 500 and 150.
 */
#ifndef TEST_GENERATE_H
#define TEST_GENERATE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vamp/generate.h"

enum { CODEBOOKS = 5, COARSE = 2, VOCABULARY = 32, HOP = 8, RATE = 400 };

static const struct vamp_model_config tiny = {
    .name = "tiny",
    .codec = {.sample_rate = RATE,
              .encoder_dim = 4,
              .encoder_rate_count = 2,
              .encoder_rates = {2, 4},
              .decoder_dim = 64,
              .decoder_rate_count = 2,
              .decoder_rates = {4, 2},
              .n_codebooks = CODEBOOKS,
              .codebook_size = VOCABULARY,
              .codebook_dim = 4},
    .coarse = {.n_codebooks = COARSE,
               .n_layers = 2,
               .n_heads = 2,
               .embedding_dim = 48,
               .vocab_size = VOCABULARY,
               .latent_dim = 4},
    .fine = {.n_codebooks = CODEBOOKS,
             .n_conditioning_codebooks = COARSE,
             .n_layers = 1,
             .n_heads = 2,
             .embedding_dim = 32,
             .vocab_size = VOCABULARY,
             .latent_dim = 4},
};

struct fixture {
  struct vamp_device *device;
  struct vamp_model *model;
  struct vamp_loop *loop;
};

static inline void open_fixture(struct fixture *f, enum vamp_precision precision, int threads,
                                const struct vamp_loop_limits *limits) {
  struct vamp_error error = {0};
  struct vamp_device_options options = {.precision = precision, .precision_given = true, .threads = threads};
  if (vamp_cpu_open(&options, &f->device, &error) == VAMP_UNSUPPORTED) {
    skip(); /* no bf16 on this processor */
  }
  assert_int_equal(vamp_model_random(&tiny, 7, f->device, &f->model, &error), 0);
  assert_int_equal(vamp_loop_create(f->model, limits, &f->loop, &error), 0);
}

static inline void close_fixture(struct fixture *f) {
  vamp_loop_free(f->loop);
  vamp_model_free(f->model);
  f->device->close(f->device);
}

/* A clip and a mask, different for every `kind`. */
struct material {
  float *samples;
  size_t count;
  struct vamp_job job;
};

static inline void make_material(struct material *m, int kind, int frames) {
  *m = (struct material){.count = (size_t)frames * HOP - (size_t)(kind % HOP)};
  m->samples = malloc(sizeof *m->samples * m->count);
  for (size_t i = 0; i < m->count; i++) {
    m->samples[i] = 0.5f * sinf(0.01f * (float)(kind + 3) * (float)i) + 0.2f * cosf(0.37f * (float)i);
  }
  m->job = (struct vamp_job){
      .task = VAMP_TASK_VARIATION, .samples = m->samples, .sample_count = m->count, .passes = 1};
  vamp_sampling_defaults(&m->job.sampling);
  m->job.sampling.seed = 1000 + (uint64_t)kind;
  m->job.sampling.coarse_steps = 3 + kind % 3;
  m->job.user = (void *)(intptr_t)(kind + 1);
  struct vamp_mask *mask = &m->job.masks[0];
  *mask = (struct vamp_mask){CODEBOOKS, frames, malloc((size_t)(CODEBOOKS * frames))};
  for (int c = 0; c < CODEBOOKS; c++) {
    for (int t = 0; t < frames; t++) {
      mask->data[c * frames + t] = c >= COARSE || (t + kind) % 7 != 0;
    }
  }
}

static inline void free_material(struct material *m) {
  free(m->samples);
  for (int p = 0; p < m->job.passes; p++) {
    free(m->job.masks[p].data);
  }
}

/* Runs until every job is done; results[kind] by the job's `user`. */
static inline void run_all(struct vamp_loop *loop, int count, struct vamp_result **results) {
  struct vamp_event event;
  while (count > 0) {
    assert_true(vamp_loop_step(loop, NULL) >= 0);
    while (vamp_loop_next_event(loop, &event)) {
      assert_true(event.type == VAMP_EVENT_PROGRESS || event.type == VAMP_EVENT_DONE);
      assert_true(event.progress >= 0 && event.progress <= 1);
      if (event.type == VAMP_EVENT_DONE) {
        results[(intptr_t)event.user - 1] = event.result;
        count--;
      }
    }
  }
}

static inline struct vamp_result *run_one(struct vamp_loop *loop, const struct material *m) {
  struct vamp_result *results[64] = {NULL};
  uint64_t id;
  struct vamp_error error = {0};
  assert_int_equal(vamp_loop_submit(loop, &m->job, &id, &error), 0);
  run_all(loop, 1, results);
  return results[(intptr_t)m->job.user - 1];
}

static inline void assert_same(const struct vamp_result *a, const struct vamp_result *b) {
  size_t count = (size_t)a->codebooks * (size_t)a->frames;
  assert_int_equal(a->frames, b->frames);
  assert_int_equal(a->sample_count, b->sample_count);
  assert_memory_equal(a->codes, b->codes, sizeof *a->codes * count);
  assert_memory_equal(a->codes_before, b->codes_before, sizeof *a->codes * count);
  for (int p = 0; p < a->passes; p++) {
    assert_memory_equal(a->committed_step[p], b->committed_step[p], sizeof(int32_t) * count);
    assert_memory_equal(a->confidence[p], b->confidence[p], sizeof(float) * count);
  }
  assert_memory_equal(a->samples, b->samples, sizeof *a->samples * a->sample_count);
}

#endif
