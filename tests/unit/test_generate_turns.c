/*
 * Whose turn it is in the batch loop, and for how much: fairness, cancelling, limits, want of memory, a lost
 * device.
 */
#include "tests/unit/test_generate.h"

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
  /* A chunk keeps its first frame whatever the mask says, so a masked token must be one, too. */
  m.job.frames = 150;
  m.job.masks[0].data[0] = 1;
  first->codes_before[0] = INT32_MAX;
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

/* What is left to do falls by what each turn did, and with a job that leaves. */
static void work_that_is_left_is_known(void **state) {
  (void)state;
  struct fixture f;
  struct material m[2];
  struct vamp_event event;
  uint64_t id[2];
  double whole = 0;
  open_fixture(&f, VAMP_PRECISION_FP32, 2, NULL);
  assert_true(vamp_loop_work(f.loop) <= 0);
  for (int i = 0; i < 2; i++) {
    make_material(&m[i], i, 60 + 40 * i);
    assert_int_equal(vamp_loop_submit(f.loop, &m[i].job, &id[i], NULL), 0);
    whole += vamp_job_cost(m[i].job.task, m[i].job.masks[0].frames, m[i].job.passes, &m[i].job.sampling);
    assert_float_equal(vamp_loop_work(f.loop), whole, 1e-6 * whole);
  }
  struct vamp_loop_turn turn;
  assert_int_equal(vamp_loop_step(f.loop, NULL), 1);
  vamp_loop_last_turn(f.loop, &turn);
  assert_true(turn.cost > 0);
  assert_float_equal(vamp_loop_work(f.loop), whole - turn.cost, 1e-6 * whole);
  vamp_loop_cancel(f.loop, id[1]);
  assert_int_equal(vamp_loop_step(f.loop, NULL), 1);
  assert_true(vamp_loop_work(f.loop) > 0 && vamp_loop_work(f.loop) < 0.6 * whole);
  while (vamp_loop_jobs(f.loop) > 0) {
    vamp_loop_step(f.loop, NULL);
  }
  while (vamp_loop_next_event(f.loop, &event)) {
    vamp_result_free(event.result);
  }
  assert_true(vamp_loop_work(f.loop) <= 0);
  free_material(&m[0]);
  free_material(&m[1]);
  close_fixture(&f);
}

static const struct vamp_operations *real_operations;
static int embeds_refused;

/* A device with memory for 150 rows of a step. */
static int narrow_embed(struct vamp_device *device, const struct vamp_weight *embedding,
                        const struct vamp_packing *packing, const struct vamp_sequence *sequences, float *x) {
  if (packing->offsets[packing->count] > 150) {
    embeds_refused++;
    return VAMP_MEMORY;
  }
  return real_operations->embed(device, embedding, packing, sequences, x);
}

/* Jobs that are too much together for the device's memory are done in smaller turns, and nobody can tell. */
static void want_of_memory_makes_turns_smaller(void **state) {
  (void)state;
  struct fixture f;
  struct material m[4];
  struct vamp_result *alone[4], *together[4];
  uint64_t id;
  open_fixture(&f, VAMP_PRECISION_FP32, 2, NULL);
  for (int i = 0; i < 4; i++) {
    make_material(&m[i], i, 100 - i);
    alone[i] = run_one(f.loop, &m[i]);
  }
  real_operations = f.device->ops;
  struct vamp_operations narrow = *real_operations;
  narrow.embed = narrow_embed;
  f.device->ops = &narrow;
  for (int i = 0; i < 4; i++) {
    assert_int_equal(vamp_loop_submit(f.loop, &m[i].job, &id, NULL), 0);
  }
  run_all(f.loop, 4, together);
  f.device->ops = real_operations;
  assert_true(embeds_refused > 0);
  for (int i = 0; i < 4; i++) {
    assert_same(together[i], alone[i]);
    vamp_result_free(together[i]);
    vamp_result_free(alone[i]);
    free_material(&m[i]);
  }
  /* One that is too much alone fails, and the device is not lost. */
  struct material large;
  struct vamp_event event = {0};
  make_material(&large, 5, 200);
  f.device->ops = &narrow;
  assert_int_equal(vamp_loop_submit(f.loop, &large.job, &id, NULL), 0);
  while (event.type == VAMP_EVENT_PROGRESS) {
    assert_int_equal(vamp_loop_step(f.loop, NULL), 1);
    while (vamp_loop_next_event(f.loop, &event)) {
    }
  }
  f.device->ops = real_operations;
  assert_int_equal(event.type, VAMP_EVENT_FAILED);
  assert_int_equal(event.error.status, VAMP_MEMORY);
  free_material(&large);
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
      cmocka_unit_test(a_short_job_does_not_wait_for_a_long_one),
      cmocka_unit_test(a_short_job_takes_twice_its_time_and_a_step),
      cmocka_unit_test(weight_decides_the_share),
      cmocka_unit_test(from_codes_as_from_samples),
      cmocka_unit_test(want_of_memory_makes_turns_smaller),
      cmocka_unit_test(a_long_job_is_not_starved_beside_another_client),
      cmocka_unit_test(level_clients_run_each_job_once_a_turn),
      cmocka_unit_test(a_cancelled_job_leaves_at_the_next_step),
      cmocka_unit_test(work_that_is_left_is_known),
      cmocka_unit_test(a_device_lost_between_steps_is_lost),
      cmocka_unit_test(a_full_queue_refuses),
      cmocka_unit_test(bad_submissions_are_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
