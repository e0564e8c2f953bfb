/*
 * Accepting jobs: what is noted of them before the store is asked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/api/accept.h"

#define ROOM 600

struct desk {
  struct vampd_device_facts facts;
  struct vampd_acceptance acceptance;
};

static int set_up(void **state) {
  struct desk *desk = calloc(1, sizeof *desk);
  assert_non_null(desk);
  strcpy(desk->facts.model.name, "tiny");
  desk->facts.model.codec.sample_rate = 44100;
  desk->facts.model.codec.hop_length = 768;
  struct vampd_acceptance *acceptance = &desk->acceptance;
  *acceptance = (struct vampd_acceptance){.facts = &desk->facts, .clip_count = 1, .job_room = ROOM};
  acceptance->clips = calloc(1, sizeof *acceptance->clips);
  acceptance->clip_reserves = calloc(1, sizeof *acceptance->clip_reserves);
  acceptance->jobs = calloc(ROOM, sizeof *acceptance->jobs);
  acceptance->costs = calloc(ROOM, sizeof *acceptance->costs);
  assert_true(acceptance->clips && acceptance->clip_reserves && acceptance->jobs && acceptance->costs);
  acceptance->clips[0].seconds = 2;
  acceptance->clip_reserves[0] = 1000;
  *state = desk;
  return 0;
}

static int tear_down(void **state) {
  struct desk *desk = *state;
  vampd_acceptance_end(&desk->acceptance);
  free(desk);
  return 0;
}

/* Notes a job with so many bytes of parameters, and a few more. */
static int note(struct desk *desk, size_t length, struct vamp_error *error) {
  char *text = calloc(1, length + 1);
  assert_non_null(text);
  memset(text, 'x', length);
  json_t *params = json_pack("{s:i, s:s}", "seed", 1, "mask", text);
  free(text);
  int status = vampd_acceptance_job(&desk->acceptance, 0, params, NULL, error);
  json_decref(params);
  return status;
}

static void test_sums(void **state) {
  struct desk *desk = *state;
  struct vamp_error error = {0};
  for (int i = 0; i < 3; i++) {
    assert_int_equal(note(desk, 10, &error), VAMP_OK);
    assert_int_equal(desk->acceptance.jobs[i].point, i);
    assert_true(desk->acceptance.costs[i] > 0);
    assert_non_null(strstr(desk->acceptance.jobs[i].params, "\"model\":\"tiny\""));
  }
  assert_int_equal(desk->acceptance.job_count, 3);
  assert_int_equal(desk->acceptance.reserve, 3000);
  assert_true(desk->acceptance.audio_seconds > 5.99 && desk->acceptance.audio_seconds < 6.01);
}

static void test_a_job_has_a_bound(void **state) {
  struct desk *desk = *state;
  struct vamp_error error = {0};
  assert_int_equal(note(desk, 250 << 10, &error), VAMP_OK);
  assert_int_equal(note(desk, 256 << 10, &error), VAMP_LIMIT);
}

/* Every point of a sweep keeps all parameters: 60 KiB of them became a quarter of a gigabyte. */
static void test_a_request_has_a_bound(void **state) {
  struct desk *desk = *state;
  struct vamp_error error = {0};
  int status = VAMP_OK, count = 0;
  for (; count < ROOM && status == VAMP_OK; count++) {
    status = note(desk, 60 << 10, &error);
  }
  assert_int_equal(status, VAMP_LIMIT);
  assert_in_range(count, 250, 280);
}

#define WITH_A_DESK(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_A_DESK(test_sums),
      WITH_A_DESK(test_a_job_has_a_bound),
      WITH_A_DESK(test_a_request_has_a_bound),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
