/*
 * Whole stages of generation on the CUDA backend through the engine's batch loop, on a tiny random model with
 * heads of 64: the CPU backend's tokens in fp32; a job alone and among others, to the bit; and steps that run
 * from a recording (cuda/graph.cu) against the same steps kernel by kernel. That recordings are used at all
 * is counted: the engine does not call linear() in a step that is replayed.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dlfcn.h>

#include "vamp/generate.h"

enum { CODEBOOKS = 5, COARSE = 2, VOCABULARY = 48, MOST_FRAMES = 200 };

static const struct vamp_model_config tiny = {
    .name = "tiny",
    .codec = {.sample_rate = 400,
              .encoder_dim = 4,
              .encoder_rate_count = 2,
              .encoder_rates = {2, 4},
              .decoder_dim = 16,
              .decoder_rate_count = 2,
              .decoder_rates = {4, 2},
              .n_codebooks = CODEBOOKS,
              .codebook_size = VOCABULARY,
              .codebook_dim = 4},
    .coarse = {.n_codebooks = COARSE,
               .n_layers = 2,
               .n_heads = 2,
               .embedding_dim = 128,
               .vocab_size = VOCABULARY,
               .latent_dim = 4},
    .fine = {.n_codebooks = CODEBOOKS,
             .n_conditioning_codebooks = COARSE,
             .n_layers = 1,
             .n_heads = 2,
             .embedding_dim = 40,
             .vocab_size = VOCABULARY,
             .latent_dim = 4},
};

/* ---- a device whose products are counted ------------------------------------------------------------ */

static int (*real_linear)(struct vamp_device *, const struct vamp_weight *, enum vamp_epilogue,
                          const struct vamp_packing *, const void *, void *);
static int linear_calls;

static int counted_linear(struct vamp_device *device, const struct vamp_weight *linear,
                          enum vamp_epilogue epilogue, const struct vamp_packing *packing, const void *in,
                          void *out) {
  linear_calls++;
  return real_linear(device, linear, epilogue, packing, in, out);
}

struct fixture {
  struct vamp_device *device;
  struct vamp_operations operations;
  struct vamp_model *model;
  struct vamp_loop *loop;
};

static const struct vamp_plugin *plugin(void) {
  const char *path = getenv("VAMP_TEST_PLUGIN");
  void *object = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
  const struct vamp_plugin *found = object ? dlsym(object, VAMP_PLUGIN_SYMBOL) : NULL;
  if (!found) {
    fail_msg("VAMP_TEST_PLUGIN names no plugin to test");
  }
  return found;
}

static void open_fixture(struct fixture *f, bool cuda, enum vamp_precision precision) {
  struct vamp_error error = {0};
  struct vamp_device_options options = {.precision = precision, .precision_given = true, .threads = 1};
  int status =
      cuda ? plugin()->open(&options, &f->device, &error) : vamp_cpu_open(&options, &f->device, &error);
  if (status) {
    fail_msg("%s", error.message);
  }
  f->operations = *f->device->ops;
  real_linear = f->operations.linear;
  f->operations.linear = counted_linear;
  f->device->ops = &f->operations;
  assert_int_equal(vamp_model_random(&tiny, 7, f->device, &f->model, &error), 0);
  assert_int_equal(vamp_loop_create(f->model, NULL, &f->loop, &error), 0);
}

static void close_fixture(struct fixture *f) {
  vamp_loop_free(f->loop);
  vamp_model_free(f->model);
  f->device->close(f->device);
}

/* ---- jobs ------------------------------------------------------------------------------------------- */

struct material {
  int32_t codes[CODEBOOKS * MOST_FRAMES];
  uint8_t mask[CODEBOOKS * MOST_FRAMES];
  struct vamp_job job;
};

/* A job of one sequence, different for every `kind`. */
static void make_material(struct material *m, enum vamp_task task, int kind, int frames) {
  int codebooks = task == VAMP_TASK_COARSE ? COARSE : CODEBOOKS;
  for (int i = 0; i < codebooks * frames; i++) {
    m->codes[i] = (i * 31 + kind * 17 + i / 7) % VOCABULARY;
    bool given = task == VAMP_TASK_FINE && i / frames < COARSE;
    m->mask[i] = !given && (i + kind) % 5 != 0;
  }
  m->job = (struct vamp_job){.task = task,
                             .codes = m->codes,
                             .codebooks = codebooks,
                             .frames = frames,
                             .passes = 1,
                             .user = (void *)(intptr_t)(kind + 1)};
  m->job.masks[0] = (struct vamp_mask){codebooks, frames, m->mask};
  vamp_sampling_defaults(&m->job.sampling);
  m->job.sampling.seed = 1000 + (uint64_t)kind;
  m->job.sampling.coarse_steps = 3 + kind % 2;
  m->job.sampling.fine_steps = 2;
  if (kind % 4 == 1) {
    m->job.sampling.top_k = 9;
  }
  if (kind % 4 == 3) {
    m->job.sampling.typical_mass = 0.4f;
    m->job.sampling.typical_min_tokens = 3;
  }
}

/* Submits them all at once; results[kind] by the job's `user`. */
static void run_all(struct vamp_loop *loop, int count, const struct material *materials,
                    struct vamp_result **results) {
  struct vamp_event event;
  struct vamp_error error = {0};
  uint64_t id;
  for (int i = 0; i < count; i++) {
    if (vamp_loop_submit(loop, &materials[i].job, &id, &error)) {
      fail_msg("%s", error.message);
    }
  }
  while (count > 0) {
    assert_true(vamp_loop_step(loop, NULL) >= 0);
    while (vamp_loop_next_event(loop, &event)) {
      if (event.type == VAMP_EVENT_FAILED) {
        fail_msg("%s", event.error.message);
      }
      if (event.type == VAMP_EVENT_DONE) {
        results[(intptr_t)event.user - 1] = event.result;
        count--;
      }
    }
  }
}

static void assert_same(const struct vamp_result *a, const struct vamp_result *b, bool confidence) {
  if (!a || !b) {
    fail_msg("a job came to no result");
    return; /* not reached; tells an analyser so */
  }
  size_t count = (size_t)a->codebooks * (size_t)a->frames;
  assert_int_equal(a->frames, b->frames);
  assert_memory_equal(a->codes, b->codes, sizeof *a->codes * count);
  assert_memory_equal(a->committed_step[0], b->committed_step[0], sizeof(int32_t) * count);
  if (confidence) {
    assert_memory_equal(a->confidence[0], b->confidence[0], sizeof(float) * count);
  }
}

/* Lengths around the tiles of 64; together they fall into several size classes as jobs leave. */
static const int FRAMES[] = {70, 1, 130, 33};
enum { JOBS = 4 };

static void make_jobs(struct material *materials, enum vamp_task task) {
  for (int i = 0; i < JOBS; i++) {
    make_material(&materials[i], task, i, FRAMES[i]);
  }
}

static void free_results(struct vamp_result **results) {
  for (int i = 0; i < JOBS; i++) {
    vamp_result_free(results[i]);
    results[i] = NULL;
  }
}

/* ---- tests ------------------------------------------------------------------------------------------ */

static const enum vamp_task TASKS[] = {VAMP_TASK_COARSE, VAMP_TASK_FINE};

static void tokens_are_those_of_the_cpu(void **state) {
  (void)state;
  struct material *materials = malloc(sizeof *materials * JOBS);
  struct vamp_result *want[JOBS] = {NULL}, *got[JOBS] = {NULL};
  struct fixture cpu, cuda;
  assert_non_null(materials);
  for (int t = 0; t < 2; t++) {
    make_jobs(materials, TASKS[t]);
    open_fixture(&cpu, false, VAMP_PRECISION_FP32);
    run_all(cpu.loop, JOBS, materials, want);
    close_fixture(&cpu);
    open_fixture(&cuda, true, VAMP_PRECISION_FP32);
    run_all(cuda.loop, JOBS, materials, got);
    close_fixture(&cuda);
    for (int i = 0; i < JOBS; i++) {
      assert_same(got[i], want[i], false);
    }
    free_results(want);
    free_results(got);
  }
  free(materials);
}

/* The coarse model has heads of 64 and runs on tensor cores in bf16 and tf32; the fine one has heads of 20.
 */
static void jobs_do_not_see_each_other(void **state) {
  (void)state;
  static const enum vamp_precision PRECISIONS[] = {VAMP_PRECISION_BF16, VAMP_PRECISION_FP32,
                                                   VAMP_PRECISION_TF32};
  struct material *materials = malloc(sizeof *materials * JOBS);
  struct vamp_result *together[JOBS] = {NULL}, *alone[JOBS] = {NULL};
  struct fixture f;
  assert_non_null(materials);
  for (int t = 0; t < 3; t++) {
    make_jobs(materials, TASKS[t % 2]);
    open_fixture(&f, true, PRECISIONS[t]);
    run_all(f.loop, JOBS, materials, together);
    for (int i = 0; i < JOBS; i++) {
      run_all(f.loop, 1, &materials[i], alone);
      assert_same(alone[i], together[i], true);
    }
    close_fixture(&f);
    free_results(together);
    free_results(alone);
  }
  free(materials);
}

/* One job of six steps: its first step runs kernel by kernel, the second is recorded, four are replayed. The
 * same job again, and another of the same size class, are replayed from the beginning; one that filters runs
 * other kernels and has a recording of its own. */
static void a_step_is_recorded_once(void **state) {
  (void)state;
  enum { KINDS = 3 };
  struct material *m = malloc(sizeof *m * KINDS);
  struct vamp_result *plain[JOBS] = {NULL}, *recorded[JOBS] = {NULL};
  struct fixture f;
  int per_step = 4 * tiny.coarse.n_layers;
  assert_non_null(m);
  make_material(&m[0], VAMP_TASK_COARSE, 0, 100);
  make_material(&m[1], VAMP_TASK_COARSE, 2, 90);
  make_material(&m[2], VAMP_TASK_COARSE, 1, 95);
  m[0].job.sampling.coarse_steps = m[1].job.sampling.coarse_steps = m[2].job.sampling.coarse_steps = 6;
  setenv("VAMP_CUDA_GRAPHS", "0", 1);
  open_fixture(&f, true, VAMP_PRECISION_BF16);
  unsetenv("VAMP_CUDA_GRAPHS");
  linear_calls = 0;
  for (int i = 0; i < KINDS; i++) {
    run_all(f.loop, 1, &m[i], plain);
  }
  assert_int_equal(linear_calls, KINDS * 6 * per_step);
  close_fixture(&f);
  open_fixture(&f, true, VAMP_PRECISION_BF16);
  for (int round = 0; round < 2; round++) {
    for (int i = 0; i < KINDS; i++) {
      linear_calls = 0;
      run_all(f.loop, 1, &m[i], recorded);
      assert_int_equal(linear_calls, round == 0 && i != 1 ? 2 * per_step : 0);
    }
    for (int i = 0; i < KINDS; i++) {
      assert_same(recorded[i], plain[i], true);
    }
    free_results(recorded);
  }
  close_fixture(&f);
  free_results(plain);
  free(m);
}

/* A driver that cannot record (the emulator's, on demand) costs time and no job. */
static void steps_that_cannot_be_recorded(void **state) {
  (void)state;
  struct material *m = malloc(sizeof *m);
  struct vamp_result *plain[JOBS] = {NULL}, *got[JOBS] = {NULL};
  struct fixture f;
  assert_non_null(m);
  make_material(m, VAMP_TASK_COARSE, 0, 100);
  m->job.sampling.coarse_steps = 4;
  open_fixture(&f, true, VAMP_PRECISION_BF16);
  run_all(f.loop, 1, m, plain);
  close_fixture(&f);
  open_fixture(&f, true, VAMP_PRECISION_BF16);
  setenv("VAMP_EMULATOR_CAPTURE", "0", 1);
  run_all(f.loop, 1, m, got);
  unsetenv("VAMP_EMULATOR_CAPTURE");
  close_fixture(&f);
  assert_same(got[0], plain[0], true);
  free_results(plain);
  free_results(got);
  free(m);
}

/* A larger job in between moves what recordings know: the buffers of the same stage, or, of the other one,
 * the scratch memory that both share. */
static void recordings_survive_growth(void **state) {
  (void)state;
  struct material *m = malloc(sizeof *m * 2);
  struct vamp_result *first[JOBS] = {NULL}, *again[JOBS] = {NULL};
  struct fixture f;
  assert_non_null(m);
  for (int t = 0; t < 2; t++) {
    make_material(&m[0], VAMP_TASK_COARSE, 0, 20);
    make_material(&m[1], TASKS[t], 1, MOST_FRAMES);
    open_fixture(&f, true, VAMP_PRECISION_BF16);
    run_all(f.loop, 1, &m[0], first);
    run_all(f.loop, 1, &m[1], first);
    run_all(f.loop, 1, &m[0], again);
    assert_same(again[0], first[0], true);
    close_fixture(&f);
    free_results(first);
    free_results(again);
  }
  free(m);
}

/* So do the tables of a batch, when it has more sequences than any before. */
static void recordings_survive_a_crowd(void **state) {
  (void)state;
  enum { CROWD = 70 };
  struct material *m = malloc(sizeof *m * (CROWD + 1));
  struct vamp_result *first[JOBS] = {NULL}, *again[JOBS] = {NULL}, *crowd[CROWD + 2] = {NULL};
  struct fixture f;
  assert_non_null(m);
  make_material(&m[0], VAMP_TASK_COARSE, 0, 20);
  for (int i = 1; i <= CROWD; i++) {
    make_material(&m[i], VAMP_TASK_COARSE, i, 1);
    m[i].job.sampling.coarse_steps = 1;
  }
  open_fixture(&f, true, VAMP_PRECISION_BF16);
  /* Buffers are as large as they will be, or they would say of themselves that they moved. */
  make_material(&m[1], VAMP_TASK_COARSE, 1, CROWD);
  run_all(f.loop, 1, &m[1], crowd);
  make_material(&m[1], VAMP_TASK_COARSE, 1, 1);
  vamp_result_free(crowd[1]);
  run_all(f.loop, 1, &m[0], first);
  run_all(f.loop, CROWD, m + 1, crowd);
  run_all(f.loop, 1, &m[0], again);
  assert_same(again[0], first[0], true);
  close_fixture(&f);
  free_results(first);
  free_results(again);
  for (int i = 1; i <= CROWD; i++) {
    vamp_result_free(crowd[i]);
  }
  free(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(tokens_are_those_of_the_cpu), cmocka_unit_test(jobs_do_not_see_each_other),
      cmocka_unit_test(a_step_is_recorded_once),     cmocka_unit_test(steps_that_cannot_be_recorded),
      cmocka_unit_test(recordings_survive_growth),   cmocka_unit_test(recordings_survive_a_crowd),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
