/*
 * The batch loop on a tiny random model: the schedule, what a job may and may not change, the promise
 * that nothing else in the batch matters.
 */
#include "tests/unit/test_generate.h"

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
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
