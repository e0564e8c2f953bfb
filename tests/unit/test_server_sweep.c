/*
 * A sweep as it is answered, at the moments at which its rows and the house do not agree.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/access/access.h"
#include "server/jobs/live.h"
#include "server/jobs/sweep.h"

enum { POINTS = 4 };

static int number_of(const json_t *states, const char *name) {
  return (int)json_integer_value(json_object_get(states, name));
}

/* A job that is done in the store leaves the house a moment later. Meanwhile it was counted twice: a progress
 * of more than 1, and fewer than no jobs in the queue. */
static void test_done_and_still_in_the_house(void **state) {
  (void)state;
  struct vampd_house_limits limits = {.running = 8, .preparing = 8, .running_seconds = 1000};
  struct vamp_event nearly = {.type = VAMP_EVENT_PROGRESS, .phase = VAMP_DECODING, .progress = 0.9F};
  struct vampd_house *house;
  struct vampd_access *access;
  struct vampd_caller *caller;
  char grid[] = "{}", params[] = "{\"params\":{}}";
  struct vampd_store_job jobs[POINTS];
  assert_int_equal(vampd_house_create(&limits, &house, NULL), VAMP_OK);
  assert_int_equal(vampd_access_create(&access, NULL), VAMP_OK);
  assert_int_equal(vampd_access_find(access, "", &caller, NULL), VAMP_OK);
  for (int i = 0; i < POINTS; i++) {
    double cost = 10;
    jobs[i] = (struct vampd_store_job){
        .number = i + 1, .point = i, .sweep = "sweep", .seconds = 1, .params = params};
    snprintf(jobs[i].id, sizeof jobs[i].id, "%024x", (unsigned)i);
    snprintf(jobs[i].input, sizeof jobs[i].input, "%024x", (unsigned)i);
    assert_int_equal(vampd_house_enter(house, &jobs[i], &cost, 1, false, caller, NULL), VAMP_OK);
    vampd_house_lock(house);
    struct vampd_live *live = vampd_house_take(house, 0);
    assert_non_null(live);
    vampd_live_progress(live, &nearly, 0);
    vampd_house_unlock(house);
    jobs[i].state = i < POINTS - 1 ? VAMPD_STATE_DONE : VAMPD_STATE_QUEUED;
  }
  struct vampd_sweep sweep = {
      .row = {.id = "sweep", .points = POINTS, .grid = grid}, .jobs = jobs, .count = POINTS};
  sweep.row.states[VAMPD_STATE_DONE] = POINTS - 1;
  sweep.row.states[VAMPD_STATE_QUEUED] = 1;
  memcpy(sweep.row.last, jobs[POINTS - 1].id, sizeof sweep.row.last);
  for (int brief = 0; brief < 2; brief++) {
    json_t *document = vampd_sweep_document(&sweep, house, 0, brief);
    const json_t *states = json_object_get(document, "states");
    assert_non_null(document);
    double progress = json_number_value(json_object_get(document, "progress"));
    assert_true(progress > 0.9 && progress <= 1);
    assert_int_equal(number_of(states, "running"), 1);
    assert_int_equal(number_of(states, "queued"), 0);
    assert_int_equal(number_of(states, "done"), POINTS - 1);
    json_decref(document);
  }
  for (int i = 0; i < POINTS; i++) {
    vampd_house_lock(house);
    vampd_house_leave(vampd_house_find(house, jobs[i].id), NULL, NULL);
    vampd_house_unlock(house);
  }
  vampd_house_free(house);
  vampd_access_free(access);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_done_and_still_in_the_house)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
