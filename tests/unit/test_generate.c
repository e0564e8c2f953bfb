/*
 * The batch loop on a tiny random model: the schedule, what a job may and may not change, the promise
 * that nothing else in the batch matters, fairness, cancelling, limits.
 *
 * The model's rates are chosen so that two seconds of "audio" are 100 frames: chunks are 500 and 150.
 */
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

static void open_fixture(struct fixture *f, enum vamp_precision precision, int threads,
                         const struct vamp_loop_limits *limits) {
  struct vamp_error error = {0};
  struct vamp_device_options options = {.precision = precision, .precision_given = true, .threads = threads};
  if (vamp_cpu_open(&options, &f->device, &error) == VAMP_UNSUPPORTED) {
    skip(); /* no bf16 on this processor */
  }
  assert_int_equal(vamp_model_random(&tiny, 7, f->device, &f->model, &error), 0);
  assert_int_equal(vamp_loop_create(f->model, limits, &f->loop, &error), 0);
}

static void close_fixture(struct fixture *f) {
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

static void make_material(struct material *m, int kind, int frames) {
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

static void free_material(struct material *m) {
  free(m->samples);
  for (int p = 0; p < m->job.passes; p++) {
    free(m->job.masks[p].data);
  }
}

/* Runs until every job is done; results[kind] by the job's `user`. */
static void run_all(struct vamp_loop *loop, int count, struct vamp_result **results) {
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

static struct vamp_result *run_one(struct vamp_loop *loop, const struct material *m) {
  struct vamp_result *results[64] = {NULL};
  uint64_t id;
  struct vamp_error error = {0};
  assert_int_equal(vamp_loop_submit(loop, &m->job, &id, &error), 0);
  run_all(loop, 1, results);
  return results[(intptr_t)m->job.user - 1];
}

static void assert_same(const struct vamp_result *a, const struct vamp_result *b) {
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

/* ---- the schedule --------------------------------------------------------------------------------- */

static void schedule_follows_the_cosine(void **state) {
  (void)state;
  /* 100 masked, 4 steps: floor(100 cos(pi/8)), floor(100 cos(pi/4)), floor(100 cos(3 pi/8)), 0 */
  const int32_t expected[4] = {92, 70, 38, 0};
  int32_t now = 100;
  for (int step = 0; step < 4; step++) {
    now = vamp_schedule_keep_masked(step, 4, 100, now);
    assert_int_equal(now, expected[step]);
  }
}

static void schedule_makes_progress_on_few_tokens(void **state) {
  (void)state;
  int32_t now = 3;
  for (int step = 0; step < 12; step++) {
    int32_t keep = vamp_schedule_keep_masked(step, 12, 3, now);
    assert_true(keep <= now && (step < 11 ? keep >= 1 : keep == 0));
    now = keep;
  }
  assert_int_equal(vamp_schedule_keep_masked(0, 1, 50, 50), 0);
}

/* ---- what a job changes --------------------------------------------------------------------------- */

static void only_masked_tokens_change(void **state) {
  (void)state;
  struct fixture f;
  struct material m;
  open_fixture(&f, VAMP_PRECISION_FP32, 2, NULL);
  make_material(&m, 1, 120);
  struct vamp_result *r = run_one(f.loop, &m);
  int changed = 0;
  for (int c = 0; c < CODEBOOKS; c++) {
    for (int t = 0; t < 120; t++) {
      int at = c * 120 + t;
      /* The chunk keeps tokens, so its first and last frame stay in the coarse codebooks. */
      bool edge = c < COARSE && (t == 0 || t == 119);
      bool masked = m.job.masks[0].data[at] && !edge;
      assert_int_equal(r->committed_step[0][at] >= 0, masked);
      assert_true(r->confidence[0][at] > 0 && r->confidence[0][at] <= 1);
      assert_in_range(r->codes[at], 0, VOCABULARY - 1);
      if (!masked) {
        assert_int_equal(r->codes[at], r->codes_before[at]);
        assert_true(r->confidence[0][at] == 1.0f);
      } else {
        int steps = c < COARSE ? m.job.sampling.coarse_steps : m.job.sampling.fine_steps;
        assert_in_range(r->committed_step[0][at], 0, steps - 1);
      }
      changed += r->codes[at] != r->codes_before[at];
    }
  }
  assert_true(changed > 100);
  assert_int_equal(r->sample_count, m.count);
  vamp_result_free(r);
  free_material(&m);
  close_fixture(&f);
}

static void steps_commit_what_the_schedule_says(void **state) {
  (void)state;
  struct fixture f;
  struct material m;
  open_fixture(&f, VAMP_PRECISION_FP32, 2, NULL);
  make_material(&m, 0, 90);
  m.job.sampling.coarse_steps = 5;
  memset(m.job.masks[0].data, 1, (size_t)(CODEBOOKS * 90)); /* keeps nothing: edges are open as well */
  struct vamp_result *r = run_one(f.loop, &m);
  int32_t now = COARSE * 90;
  for (int step = 0; step < 5; step++) {
    int32_t keep = vamp_schedule_keep_masked(step, 5, COARSE * 90, now), committed = 0;
    for (int i = 0; i < COARSE * 90; i++) {
      committed += r->committed_step[0][i] == step;
    }
    assert_int_equal(committed, now - keep);
    now = keep;
  }
  vamp_result_free(r);
  free_material(&m);
  close_fixture(&f);
}

static void an_empty_mask_is_the_round_trip(void **state) {
  (void)state;
  struct fixture f;
  struct material m;
  open_fixture(&f, VAMP_PRECISION_FP32, 2, NULL);
  make_material(&m, 2, 70);
  memset(m.job.masks[0].data, 0, (size_t)(CODEBOOKS * 70));
  struct vamp_result *r = run_one(f.loop, &m);
  struct vamp_job decode = {
      .task = VAMP_TASK_DECODE, .codes = r->codes_before, .codebooks = CODEBOOKS, .frames = 70};
  vamp_sampling_defaults(&decode.sampling);
  decode.user = (void *)1;
  struct material again = {.job = decode};
  struct vamp_result *round_trip = run_one(f.loop, &again);
  assert_memory_equal(r->codes, r->codes_before, sizeof(int32_t) * CODEBOOKS * 70);
  assert_memory_equal(r->samples, round_trip->samples, sizeof(float) * r->sample_count);
  vamp_result_free(r);
  vamp_result_free(round_trip);
  free_material(&m);
  close_fixture(&f);
}

static void passes_build_on_each_other(void **state) {
  (void)state;
  struct fixture f;
  struct material m;
  open_fixture(&f, VAMP_PRECISION_FP32, 2, NULL);
  make_material(&m, 3, 60);
  m.job.passes = 2;
  m.job.masks[1] = (struct vamp_mask){CODEBOOKS, 60, calloc(CODEBOOKS, 60)};
  memset(m.job.masks[1].data + 4 * 60, 1, 60); /* only the last codebook */
  struct vamp_result *r = run_one(f.loop, &m);
  assert_memory_equal(r->pass_before[0], r->codes_before, sizeof(int32_t) * CODEBOOKS * 60);
  assert_memory_equal(r->pass_after[0], r->pass_before[1], sizeof(int32_t) * CODEBOOKS * 60);
  assert_memory_equal(r->pass_after[1], r->codes, sizeof(int32_t) * CODEBOOKS * 60);
  assert_memory_equal(r->codes, r->pass_before[1], sizeof(int32_t) * 4 * 60);
  assert_memory_not_equal(r->codes, r->codes_before, sizeof(int32_t) * 4 * 60);
  vamp_result_free(r);
  free_material(&m);
  close_fixture(&f);
}

static void seeds_decide(void **state) {
  (void)state;
  struct fixture f;
  struct material m;
  open_fixture(&f, VAMP_PRECISION_FP32, 2, NULL);
  make_material(&m, 4, 80);
  struct vamp_result *first = run_one(f.loop, &m), *second = run_one(f.loop, &m);
  m.job.sampling.seed++;
  struct vamp_result *other = run_one(f.loop, &m);
  assert_same(first, second);
  assert_memory_not_equal(first->codes, other->codes, sizeof(int32_t) * CODEBOOKS * 80);
  vamp_result_free(first);
  vamp_result_free(second);
  vamp_result_free(other);
  free_material(&m);
  close_fixture(&f);
}

/* ---- the promise ---------------------------------------------------------------------------------- */

static void check_promise(enum vamp_precision precision) {
  enum { JOBS = 8 };
  /* Long enough for several chunks of both stages, short enough to share tiles, and in between. */
  static const int frames[JOBS] = {700, 33, 1, 150, 151, 512, 64, 9};
  struct fixture alone, together;
  struct material m[JOBS];
  struct vamp_result *single[JOBS], *batch[JOBS];
  open_fixture(&alone, precision, 1, NULL);
  open_fixture(&together, precision, 2, NULL);
  for (int j = 0; j < JOBS; j++) {
    make_material(&m[j], j, frames[j]);
    single[j] = run_one(alone.loop, &m[j]);
  }
  for (int j = 0; j < JOBS; j++) {
    uint64_t id;
    m[j].job.client = (uint32_t)(j % 3);
    assert_int_equal(vamp_loop_submit(together.loop, &m[j].job, &id, NULL), 0);
  }
  run_all(together.loop, JOBS, batch);
  for (int j = 0; j < JOBS; j++) {
    assert_same(single[j], batch[j]);
    vamp_result_free(single[j]);
    vamp_result_free(batch[j]);
    free_material(&m[j]);
  }
  close_fixture(&alone);
  close_fixture(&together);
}

static void bytes_do_not_depend_on_the_batch_fp32(void **state) {
  (void)state;
  check_promise(VAMP_PRECISION_FP32);
}

static void bytes_do_not_depend_on_the_batch_bf16(void **state) {
  (void)state;
  check_promise(VAMP_PRECISION_BF16);
}

static void segments_join_without_a_seam(void **state) {
  (void)state;
  struct fixture f;
  struct material m;
  enum { FRAMES = 900 };
  open_fixture(&f, VAMP_PRECISION_FP32, 2, NULL);
  make_material(&m, 5, FRAMES);
  int32_t *whole = malloc(sizeof *whole * FRAMES * CODEBOOKS),
          *parts = malloc(sizeof *parts * FRAMES * CODEBOOKS);
  float *whole_audio = malloc(sizeof *whole_audio * FRAMES * HOP);
  float *parts_audio = malloc(sizeof *parts_audio * FRAMES * HOP);
  assert_int_equal(vamp_model_segments(f.model, FRAMES), 1);
  assert_int_equal(vamp_model_encode(f.model, m.samples, m.count, whole, NULL, NULL, NULL), 0);
  assert_int_equal(vamp_model_decode(f.model, whole, FRAMES, whole_audio, NULL, NULL), 0);
  f.device->codec_rows = 250;
  assert_true(vamp_model_segments(f.model, FRAMES) > 3);
  assert_int_equal(vamp_model_encode(f.model, m.samples, m.count, parts, NULL, NULL, NULL), 0);
  assert_int_equal(vamp_model_decode(f.model, whole, FRAMES, parts_audio, NULL, NULL), 0);
  assert_memory_equal(whole, parts, sizeof *whole * FRAMES * CODEBOOKS);
  for (int i = 0; i < FRAMES * HOP; i++) {
    assert_true(fabsf(whole_audio[i] - parts_audio[i]) < 1e-5f);
  }
  free(whole);
  free(parts);
  free(whole_audio);
  free(parts_audio);
  free_material(&m);
  close_fixture(&f);
}

/* ---- turns, cancelling, limits --------------------------------------------------------------------- */

static void a_short_job_does_not_wait_for_a_long_one(void **state) {
  (void)state;
  struct fixture f;
  struct material long_one, short_one;
  struct vamp_event event;
  uint64_t id;
  open_fixture(&f, VAMP_PRECISION_FP32, 2, NULL);
  f.device->step_rows = 500; /* so that the long job alone fills every turn */
  f.device->codec_rows = 500;
  make_material(&long_one, 0, 5000);
  make_material(&short_one, 1, 40);
  for (int same_client = 0; same_client < 2; same_client++) {
    short_one.job.client = same_client ? 0 : 9;
    assert_int_equal(vamp_loop_submit(f.loop, &long_one.job, &id, NULL), 0);
    for (int i = 0; i < 5; i++) {
      assert_int_equal(vamp_loop_step(f.loop, NULL), 1);
    }
    assert_int_equal(vamp_loop_submit(f.loop, &short_one.job, &id, NULL), 0);
    /* Alone it takes encode, coarse and fine steps, decode; it may take twice the turns plus one. */
    int turns = 0, alone = 2 + short_one.job.sampling.coarse_steps + short_one.job.sampling.fine_steps;
    bool short_done = false, long_done = false;
    while (!long_done) {
      assert_int_equal(vamp_loop_step(f.loop, NULL), 1);
      turns += !short_done;
      while (vamp_loop_next_event(f.loop, &event)) {
        bool done = event.type == VAMP_EVENT_DONE;
        short_done = short_done || (done && event.user == short_one.job.user);
        long_done = long_done || (done && event.user == long_one.job.user);
        vamp_result_free(event.result);
      }
    }
    assert_true(short_done);
    assert_true(turns <= 2 * alone + 1);
  }
  free_material(&long_one);
  free_material(&short_one);
  close_fixture(&f);
}

/* Work done by the turns of the loop until the job of `user` is done; *largest is the most of one turn. */
static double work_until_done(struct fixture *f, const void *user, double *largest) {
  struct vamp_event event;
  double work = 0;
  for (bool done = false; !done;) {
    struct vamp_loop_turn turn;
    assert_int_equal(vamp_loop_step(f->loop, NULL), 1);
    vamp_loop_last_turn(f->loop, &turn);
    work += turn.cost;
    *largest = turn.cost > *largest ? turn.cost : *largest;
    while (vamp_loop_next_event(f->loop, &event)) {
      done = done || (event.type == VAMP_EVENT_DONE && event.user == user);
      vamp_result_free(event.result);
    }
  }
  return work;
}

/* In work and not in turns: a turn must not be filled up with the others', be they one client's many jobs, or
 * the client's own long ones. */
static void a_short_job_takes_twice_its_time_and_a_step(void **state) {
  (void)state;
  struct fixture f;
  struct material long_one, short_one;
  uint64_t id;
  open_fixture(&f, VAMP_PRECISION_FP32, 2, NULL);
  f.device->step_rows = 600;
  f.device->codec_rows = 600;
  make_material(&long_one, 0, 3000);
  make_material(&short_one, 1, 100);
  double largest = 0;
  assert_int_equal(vamp_loop_submit(f.loop, &short_one.job, &id, NULL), 0);
  double alone = work_until_done(&f, short_one.job.user, &largest);
  for (int kind = 0; kind < 3; kind++) {
    short_one.job.client = kind == 0 ? 0 : 9;
    for (int i = 0; i < (kind == 2 ? 6 : 1); i++) {
      long_one.job.user = (void *)(intptr_t)(100 + i);
      assert_int_equal(vamp_loop_submit(f.loop, &long_one.job, &id, NULL), 0);
    }
    largest = 0;
    for (int i = 0; i < 5; i++) {
      struct vamp_loop_turn turn;
      assert_int_equal(vamp_loop_step(f.loop, NULL), 1);
      vamp_loop_last_turn(f.loop, &turn);
      largest = turn.cost > largest ? turn.cost : largest;
    }
    assert_int_equal(vamp_loop_submit(f.loop, &short_one.job, &id, NULL), 0);
    double beside = work_until_done(&f, short_one.job.user, &largest);
    assert_true(beside <= 2.05 * alone + largest);
    while (vamp_loop_step(f.loop, NULL) == 1) {
      struct vamp_event event;
      while (vamp_loop_next_event(f.loop, &event)) {
        vamp_result_free(event.result);
      }
    }
  }
  free_material(&long_one);
  free_material(&short_one);
  close_fixture(&f);
}

/* Two clients, equal jobs, one of them of three times the weight: it gets three times as much. */
static void weight_decides_the_share(void **state) {
  (void)state;
  struct fixture f;
  struct material m;
  struct vamp_event event;
  uint64_t id;
  double had[2] = {0, 0};
  open_fixture(&f, VAMP_PRECISION_FP32, 2, NULL);
  f.device->step_rows = 100;
  make_material(&m, 0, 100);
  m.job.sampling.coarse_steps = 200;
  for (int client = 0; client < 2; client++) {
    m.job.client = (uint32_t)client;
    m.job.weight = client ? 3.0f : 1.0f;
    m.job.user = (void *)(intptr_t)client;
    assert_int_equal(vamp_loop_submit(f.loop, &m.job, &id, NULL), 0);
  }
  for (int i = 0; i < 100; i++) {
    assert_int_equal(vamp_loop_step(f.loop, NULL), 1);
    while (vamp_loop_next_event(f.loop, &event)) {
      had[(intptr_t)event.user] = (double)event.progress;
    }
  }
  assert_true(had[1] > 2.5 * had[0] && had[1] < 3.5 * had[0]);
  free_material(&m);
  close_fixture(&f);
}

/* A clip that has been encoded before need not be again, and nobody can tell. */
static void from_codes_as_from_samples(void **state) {
  (void)state;
  struct fixture f;
  struct material m;
  struct vamp_result *first, *second;
  open_fixture(&f, VAMP_PRECISION_FP32, 2, NULL);
  make_material(&m, 2, 150);
  first = run_one(f.loop, &m);
  m.job.samples = NULL;
  m.job.codes = first->codes_before;
  m.job.codebooks = CODEBOOKS;
  m.job.frames = 150;
  second = run_one(f.loop, &m);
  assert_int_equal(first->sample_count, second->sample_count);
  assert_memory_equal(first->samples, second->samples, sizeof(float) * first->sample_count);
  assert_memory_equal(first->codes, second->codes, sizeof(int32_t) * CODEBOOKS * 150);
  assert_memory_equal(first->codes_before, second->codes_before, sizeof(int32_t) * CODEBOOKS * 150);
  assert_true(second->seconds.encode == 0);
  vamp_result_free(second);
  uint64_t id;
  m.job.frames = 149; /* not as many as the samples make */
  assert_int_equal(vamp_loop_submit(f.loop, &m.job, &id, NULL), VAMP_INVALID);
  vamp_result_free(first);
  free_material(&m);
  close_fixture(&f);
}

/* Two clients whose turns cost the same take them alternately; that must not tie either of them to one
 * half of its own jobs' turns. */
static void a_long_job_is_not_starved_beside_another_client(void **state) {
  (void)state;
  enum { FRAMES = 60, STEPS = 20 };
  struct fixture f;
  struct vamp_event event;
  uint64_t id, long_id;
  uint8_t mask[COARSE * FRAMES];
  static const int32_t codes[COARSE * FRAMES] = {0};
  memset(mask, 1, sizeof mask);
  open_fixture(&f, VAMP_PRECISION_FP32, 1, NULL);
  f.device->step_rows = FRAMES;
  struct vamp_job job = {.task = VAMP_TASK_COARSE,
                         .codes = codes,
                         .codebooks = COARSE,
                         .frames = FRAMES,
                         .masks = {{COARSE, FRAMES, mask}}};
  vamp_sampling_defaults(&job.sampling);
  job.sampling.coarse_steps = STEPS;
  assert_int_equal(vamp_loop_submit(f.loop, &job, &long_id, NULL), 0);
  job.client = 1;
  job.sampling.coarse_steps = 256;
  assert_int_equal(vamp_loop_submit(f.loop, &job, &id, NULL), 0);
  job.client = 0;
  job.sampling.coarse_steps = 2;
  bool long_done = false;
  for (int turn = 0; !long_done; turn++) {
    assert_true(turn < 5 * STEPS); /* a quarter of the turns, and some to spare */
    if (vamp_loop_jobs(f.loop) < 3) {
      assert_int_equal(vamp_loop_submit(f.loop, &job, &id, NULL), 0); /* the stream of short ones */
    }
    assert_int_equal(vamp_loop_step(f.loop, NULL), 1);
    while (vamp_loop_next_event(f.loop, &event)) {
      long_done = long_done || (event.type == VAMP_EVENT_DONE && event.job == long_id);
      vamp_result_free(event.result);
    }
  }
  close_fixture(&f);
}

/* All clients begin level, so that nothing but the jobs themselves puts them in order. */
static void level_clients_run_each_job_once_a_turn(void **state) {
  (void)state;
  enum { JOBS = 3, MOST = 100 };
  static const int frames[JOBS] = {MOST, 90, 50};
  static const uint32_t clients[JOBS] = {0, 1, 0};
  static const int32_t codes[COARSE * MOST] = {0};
  struct fixture alone, together;
  struct vamp_result *single[JOBS], *batch[JOBS];
  struct material m[JOBS];
  uint8_t mask[COARSE * MOST];
  memset(mask, 1, sizeof mask);
  open_fixture(&alone, VAMP_PRECISION_FP32, 1, NULL);
  open_fixture(&together, VAMP_PRECISION_FP32, 1, NULL);
  for (int j = 0; j < JOBS; j++) {
    m[j] = (struct material){.job = {.task = VAMP_TASK_COARSE,
                                     .codes = codes,
                                     .codebooks = COARSE,
                                     .frames = frames[j],
                                     .masks = {{COARSE, frames[j], mask}},
                                     .client = clients[j],
                                     .user = (void *)(intptr_t)(j + 1)}};
    vamp_sampling_defaults(&m[j].job.sampling);
    m[j].job.sampling.coarse_steps = 3;
    single[j] = run_one(alone.loop, &m[j]);
  }
  for (int j = 0; j < JOBS; j++) {
    uint64_t id;
    assert_int_equal(vamp_loop_submit(together.loop, &m[j].job, &id, NULL), 0);
  }
  for (int step = 0; step < 3; step++) {
    assert_int_equal(vamp_loop_jobs(together.loop), JOBS);
    assert_int_equal(vamp_loop_step(together.loop, NULL), 1); /* all of them fit into one turn */
  }
  assert_int_equal(vamp_loop_jobs(together.loop), 0);
  run_all(together.loop, JOBS, batch);
  for (int j = 0; j < JOBS; j++) {
    size_t size = sizeof(int32_t) * COARSE * (size_t)frames[j];
    assert_memory_equal(single[j]->codes, batch[j]->codes, size);
    assert_memory_equal(single[j]->committed_step[0], batch[j]->committed_step[0], size);
    vamp_result_free(single[j]);
    vamp_result_free(batch[j]);
  }
  close_fixture(&alone);
  close_fixture(&together);
}

static void a_cancelled_job_leaves_at_the_next_step(void **state) {
  (void)state;
  struct fixture f;
  struct material m, other;
  struct vamp_event event;
  uint64_t id, other_id;
  open_fixture(&f, VAMP_PRECISION_FP32, 2, NULL);
  make_material(&m, 0, 100);
  make_material(&other, 1, 100);
  assert_int_equal(vamp_loop_submit(f.loop, &m.job, &id, NULL), 0);
  assert_int_equal(vamp_loop_submit(f.loop, &other.job, &other_id, NULL), 0);
  for (int i = 0; i < 3; i++) {
    vamp_loop_step(f.loop, NULL);
  }
  vamp_loop_cancel(f.loop, id);
  vamp_loop_cancel(f.loop, 123456); /* nobody */
  vamp_loop_step(f.loop, NULL);
  bool cancelled = false;
  while (vamp_loop_next_event(f.loop, &event)) {
    cancelled = cancelled || (event.type == VAMP_EVENT_CANCELLED && event.job == id);
  }
  assert_true(cancelled);
  assert_int_equal(vamp_loop_jobs(f.loop), 1);
  struct vamp_result *results[2] = {NULL}, *single;
  run_all(f.loop, 1, results);
  single = run_one(f.loop, &other);
  assert_same(results[1], single); /* who left made no difference to who stayed */
  vamp_result_free(results[1]);
  vamp_result_free(single);
  free_material(&m);
  free_material(&other);
  close_fixture(&f);
}

static int broken_download(struct vamp_device *device, void *to_host, const void *from, size_t bytes) {
  (void)device, (void)to_host, (void)from, (void)bytes;
  return VAMP_DEVICE;
}

/* A device that is lost when a stage's tokens are fetched is lost: with a message, and for everybody. */
static void a_device_lost_between_steps_is_lost(void **state) {
  (void)state;
  enum { FRAMES = 30, JOBS = 2 };
  static const int32_t codes[COARSE * FRAMES] = {0};
  struct fixture f;
  struct vamp_event event;
  struct vamp_error error = {0};
  uint64_t id;
  uint8_t mask[COARSE * FRAMES];
  memset(mask, 1, sizeof mask);
  open_fixture(&f, VAMP_PRECISION_FP32, 1, NULL);
  struct vamp_operations broken = *f.device->ops;
  broken.download = broken_download;
  f.device->ops = &broken;
  struct vamp_job job = {.task = VAMP_TASK_COARSE,
                         .codes = codes,
                         .codebooks = COARSE,
                         .frames = FRAMES,
                         .masks = {{COARSE, FRAMES, mask}}};
  vamp_sampling_defaults(&job.sampling);
  for (int j = 0; j < JOBS; j++) {
    job.sampling.coarse_steps = j + 1;
    assert_int_equal(vamp_loop_submit(f.loop, &job, &id, NULL), 0);
  }
  assert_int_equal(vamp_loop_step(f.loop, &error), VAMP_DEVICE); /* the first job's only step */
  assert_true(error.status == VAMP_DEVICE && error.message[0]);
  assert_int_equal(vamp_loop_step(f.loop, &error), VAMP_DEVICE);
  int failed = 0;
  while (vamp_loop_next_event(f.loop, &event)) {
    if (event.type == VAMP_EVENT_FAILED) {
      assert_true(event.error.status == VAMP_DEVICE && event.error.message[0]);
      failed++;
    }
  }
  assert_int_equal(failed, JOBS);
  assert_int_equal(vamp_loop_jobs(f.loop), 0);
  close_fixture(&f);
}

static void a_full_queue_refuses(void **state) {
  (void)state;
  struct fixture f;
  struct material m;
  struct vamp_loop_limits limits = {.max_jobs = 2, .max_frames = 110};
  struct vamp_error error = {0};
  uint64_t id;
  open_fixture(&f, VAMP_PRECISION_FP32, 1, &limits);
  make_material(&m, 0, 100);
  assert_int_equal(vamp_loop_submit(f.loop, &m.job, &id, &error), 0);
  assert_int_equal(vamp_loop_submit(f.loop, &m.job, &id, &error), 0);
  assert_int_equal(vamp_loop_submit(f.loop, &m.job, &id, &error), VAMP_BUSY);
  /* Both come to an end, and there is room again. */
  struct vamp_event event;
  int done = 0;
  while (done < 2) {
    assert_int_equal(vamp_loop_step(f.loop, &error), 1);
    while (vamp_loop_next_event(f.loop, &event)) {
      done += event.type == VAMP_EVENT_DONE;
      vamp_result_free(event.result);
    }
  }
  assert_int_equal(vamp_loop_submit(f.loop, &m.job, &id, &error), 0);
  struct material too_long;
  make_material(&too_long, 0, 120);
  struct vamp_loop *other;
  assert_int_equal(vamp_loop_create(f.model, &limits, &other, &error), 0);
  assert_int_equal(vamp_loop_submit(other, &too_long.job, &id, &error), VAMP_LIMIT);
  vamp_loop_free(other);
  free_material(&m);
  free_material(&too_long);
  close_fixture(&f); /* with a job still inside */
}

static void bad_submissions_are_refused(void **state) {
  (void)state;
  struct fixture f;
  struct material m;
  struct vamp_error error = {0};
  uint64_t id;
  open_fixture(&f, VAMP_PRECISION_FP32, 1, NULL);
  make_material(&m, 0, 50);
  struct vamp_job job = m.job;
  job.sample_count = 0;
  assert_int_equal(vamp_loop_submit(f.loop, &job, &id, &error), VAMP_INVALID);
  job = m.job;
  job.masks[0].frames = 49;
  assert_int_equal(vamp_loop_submit(f.loop, &job, &id, &error), VAMP_INVALID);
  job = m.job;
  job.passes = 0;
  assert_int_equal(vamp_loop_submit(f.loop, &job, &id, &error), VAMP_INVALID);
  job = m.job;
  job.sampling.temperature = NAN;
  assert_int_equal(vamp_loop_submit(f.loop, &job, &id, &error), VAMP_INVALID);
  assert_string_equal(error.field, "/sampling/temperature");
  job = m.job;
  job.sampling.coarse_steps = 1000000;
  assert_int_equal(vamp_loop_submit(f.loop, &job, &id, &error), VAMP_INVALID);
  int32_t codes[CODEBOOKS * 4] = {0};
  codes[7] = VOCABULARY;
  job = (struct vamp_job){.task = VAMP_TASK_DECODE, .codes = codes, .codebooks = CODEBOOKS, .frames = 4};
  vamp_sampling_defaults(&job.sampling);
  assert_int_equal(vamp_loop_submit(f.loop, &job, &id, &error), VAMP_INVALID);
  codes[7] = -1;
  assert_int_equal(vamp_loop_submit(f.loop, &job, &id, &error), VAMP_INVALID);
  /* A mask over what fine is conditioned on opens nothing: those tokens are used as they are. */
  uint8_t all[CODEBOOKS * 4];
  memset(all, 1, sizeof all);
  job.task = VAMP_TASK_FINE;
  job.masks[0] = (struct vamp_mask){CODEBOOKS, 4, all};
  assert_int_equal(vamp_loop_submit(f.loop, &job, &id, &error), VAMP_INVALID);
  codes[7] = 0;
  codes[COARSE * 4] = -1; /* masked, so it does not matter */
  assert_int_equal(vamp_loop_submit(f.loop, &job, &id, &error), 0);
  vamp_loop_cancel(f.loop, id);
  assert_int_equal(vamp_loop_step(f.loop, &error), 0);
  assert_int_equal(vamp_loop_jobs(f.loop), 0);
  assert_int_equal(vamp_loop_step(f.loop, &error), 0);
  free_material(&m);
  close_fixture(&f);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(schedule_follows_the_cosine),
      cmocka_unit_test(schedule_makes_progress_on_few_tokens),
      cmocka_unit_test(only_masked_tokens_change),
      cmocka_unit_test(steps_commit_what_the_schedule_says),
      cmocka_unit_test(an_empty_mask_is_the_round_trip),
      cmocka_unit_test(passes_build_on_each_other),
      cmocka_unit_test(seeds_decide),
      cmocka_unit_test(bytes_do_not_depend_on_the_batch_fp32),
      cmocka_unit_test(bytes_do_not_depend_on_the_batch_bf16),
      cmocka_unit_test(segments_join_without_a_seam),
      cmocka_unit_test(a_short_job_does_not_wait_for_a_long_one),
      cmocka_unit_test(a_short_job_takes_twice_its_time_and_a_step),
      cmocka_unit_test(weight_decides_the_share),
      cmocka_unit_test(from_codes_as_from_samples),
      cmocka_unit_test(a_long_job_is_not_starved_beside_another_client),
      cmocka_unit_test(level_clients_run_each_job_once_a_turn),
      cmocka_unit_test(a_cancelled_job_leaves_at_the_next_step),
      cmocka_unit_test(a_device_lost_between_steps_is_lost),
      cmocka_unit_test(a_full_queue_refuses),
      cmocka_unit_test(bad_submissions_are_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
