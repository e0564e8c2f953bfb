/*
 * The jobs that are not finished: whose turn it is, what is before whom, and the numbers of their events.
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
#include "server/access/keys.h"
#include "server/http/stream.h"
#include "server/jobs/live.h"
#include "server/jobs/outlook.h"

struct place {
  struct vampd_house *house;
  struct vampd_access *access;
  struct vampd_caller *callers[3]; /* of priority 5, 5 and 10 */
  int64_t number;
};

static int set_up(void **state) {
  struct place *place = calloc(1, sizeof *place);
  struct vampd_house_limits limits = {.running = 8, .preparing = 1000, .running_seconds = 1000};
  struct vampd_key keys[3] = {{.name = "one", .hash = {1}, .allowance.priority = 5},
                              {.name = "two", .hash = {2}, .allowance.priority = 5},
                              {.name = "ten", .hash = {3}, .allowance.priority = 10}};
  struct vampd_keys file = {3, keys};
  struct vamp_error error;
  assert_non_null(place);
  assert_int_equal(vampd_house_create(&limits, &place->house, &error), VAMP_OK);
  assert_int_equal(vampd_access_create(&place->access, &error), VAMP_OK);
  assert_int_equal(vampd_access_load(place->access, &file, &error), VAMP_OK);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(vampd_access_find(place->access, keys[i].name, &place->callers[i], &error), VAMP_OK);
  }
  *state = place;
  return 0;
}

static int tear_down(void **state) {
  struct place *place = *state;
  vampd_house_free(place->house);
  vampd_access_free(place->access);
  free(place);
  return 0;
}

/* A job of `seconds`, and 10 times as much work, on clip number `input`. */
static const char *enter(struct place *place, int caller, int input, double seconds) {
  static char id[VAMPD_ID_SIZE];
  struct vampd_store_job job = {.number = ++place->number, .seconds = seconds};
  struct vamp_error error;
  snprintf(job.id, sizeof job.id, "%024x", (unsigned)place->number);
  snprintf(job.input, sizeof job.input, "%024x", (unsigned)input);
  memcpy(id, job.id, sizeof id);
  double cost = 10 * seconds;
  assert_int_equal(vampd_house_enter(place->house, &job, &cost, 1, false, place->callers[caller], &error),
                   VAMP_OK);
  return id;
}

/* The number of the job that goes next; 0 where none may. */
static int take(struct place *place, double now) {
  vampd_house_lock(place->house);
  struct vampd_live *live = vampd_house_take(place->house, now);
  int number = live ? (int)live->number : 0;
  vampd_house_unlock(place->house);
  return number;
}

static struct vampd_live *find(struct place *place, int number) {
  char id[VAMPD_ID_SIZE];
  snprintf(id, sizeof id, "%024x", (unsigned)number);
  return vampd_house_find(place->house, id);
}

static void leave(struct place *place, int number) {
  vampd_house_lock(place->house);
  vampd_house_leave(find(place, number), NULL, NULL);
  vampd_house_unlock(place->house);
}

static void put_back(struct place *place, int number, double not_before) {
  vampd_house_lock(place->house);
  vampd_house_put_back(find(place, number), not_before);
  vampd_house_unlock(place->house);
}

static struct vampd_live_facts facts(struct place *place, int number) {
  char id[VAMPD_ID_SIZE];
  struct vampd_live_facts found;
  snprintf(id, sizeof id, "%024x", (unsigned)number);
  assert_true(vampd_house_facts(place->house, id, &found));
  return found;
}

static void count(struct place *place, int queued, int running) {
  int is_queued, is_running;
  vampd_house_count(place->house, &is_queued, &is_running);
  assert_int_equal(is_queued, queued);
  assert_int_equal(is_running, running);
}

/* ---- whose turn -------------------------------------------------------------------------------------------
 */

static void test_oldest_first(void **state) {
  struct place *place = *state;
  assert_int_equal(take(place, 0), 0);
  for (int i = 0; i < 5; i++) {
    enter(place, 0, i, 1);
  }
  count(place, 5, 0);
  for (int i = 1; i <= 5; i++) {
    assert_int_equal(take(place, 0), i);
  }
  assert_int_equal(take(place, 0), 0);
  count(place, 0, 5);
  leave(place, 3);
  count(place, 0, 4);
  assert_null(find(place, 3));
}

static void test_callers_in_turn(void **state) {
  struct place *place = *state;
  for (int i = 0; i < 20; i++) {
    enter(place, 0, i, 1); /* 1 .. 20 */
  }
  for (int i = 0; i < 6; i++) {
    enter(place, 1, 20 + i, 1); /* 21 .. 26 */
  }
  static const int ORDER[] = {1, 21, 2, 22, 3, 23, 4, 24};
  for (size_t i = 0; i < 8; i++) {
    assert_int_equal(take(place, 0), ORDER[i]);
  }
  assert_int_equal(take(place, 0), 0); /* the limit of 8 */
  leave(place, 22);
  assert_int_equal(take(place, 0), 25);
  leave(place, 1);
  assert_int_equal(take(place, 0), 5);
}

static void test_priority_is_weight(void **state) {
  struct place *place = *state;
  for (int i = 0; i < 10; i++) {
    enter(place, 0, 2 * i, 1);     /* odd numbers */
    enter(place, 2, 2 * i + 1, 1); /* even ones, of twice the weight */
  }
  int even = 0;
  for (int i = 0; i < 6; i++) {
    int number = take(place, 0);
    assert_true(number > 0);
    even += number % 2 == 0;
  }
  assert_int_equal(even, 4);
}

/* One caller has filled the house; another has nothing in it, and does not wait. */
static void test_a_place_for_who_comes_next(void **state) {
  struct place *place = *state;
  for (int i = 0; i < 20; i++) {
    enter(place, 0, i, 1);
  }
  for (int i = 0; i < 8; i++) {
    assert_true(take(place, 0) > 0);
  }
  assert_int_equal(take(place, 0), 0);
  enter(place, 1, 20, 1);
  enter(place, 1, 21, 1);
  assert_int_equal(take(place, 0), 21);
  assert_int_equal(take(place, 0), 0);
}

static void test_seconds_are_bounded(void **state) {
  struct place *place = *state;
  enter(place, 0, 0, 5000); /* more than all may be, but nothing else is there */
  enter(place, 0, 1, 1);
  enter(place, 1, 2, 600);
  enter(place, 1, 3, 600);
  assert_int_equal(take(place, 0), 1);
  assert_int_equal(take(place, 0), 3);
  assert_int_equal(take(place, 0), 0);
  leave(place, 1);
  assert_int_equal(take(place, 0), 2); /* 600 and 1 */
  assert_int_equal(take(place, 0), 0); /* not 1201 */
  leave(place, 3);
  assert_int_equal(take(place, 0), 4);
}

/* ---- back, and out ----------------------------------------------------------------------------------------
 */

/* Jobs that are being prepared stand in the workers' line with requests that somebody waits for: only a few
 * at once. */
static void test_few_are_prepared_at_once(void **state) {
  struct place *place = *state;
  struct vampd_house_limits limits = {.running = 8, .preparing = 2, .running_seconds = 1000};
  vampd_house_set_limits(place->house, &limits);
  const char *first = strdup(enter(place, 0, 1, 10));
  for (int i = 2; i <= 4; i++) {
    enter(place, 0, i, 10);
  }
  assert_int_equal(take(place, 0), 1);
  assert_int_equal(take(place, 0), 2);
  assert_int_equal(take(place, 0), 0);
  vampd_house_lock(place->house);
  vampd_live_enter_phase(vampd_house_find(place->house, first), VAMPD_PHASE_ENCODING);
  vampd_house_unlock(place->house);
  assert_int_equal(take(place, 0), 3);
  assert_int_equal(take(place, 0), 0);
  /* One that leaves, and one that goes back, make room as well. */
  char id[VAMPD_ID_SIZE];
  snprintf(id, sizeof id, "%024x", 3u);
  vampd_house_lock(place->house);
  vampd_house_leave(vampd_house_find(place->house, id), "failed", NULL);
  vampd_house_unlock(place->house);
  assert_int_equal(take(place, 0), 4);
  snprintf(id, sizeof id, "%024x", 2u);
  vampd_house_lock(place->house);
  vampd_house_put_back(vampd_house_find(place->house, id), 0);
  vampd_house_unlock(place->house);
  assert_int_equal(take(place, 0), 2);
  free((void *)first);
}

static void test_put_back(void **state) {
  struct place *place = *state;
  for (int i = 0; i < 3; i++) {
    enter(place, 0, i, 1);
  }
  assert_int_equal(take(place, 10), 1);
  put_back(place, 1, 20);
  count(place, 3, 0);
  assert_int_equal(facts(place, 1).phase, VAMPD_PHASE_QUEUED);
  assert_int_equal(facts(place, 1).place, 0);
  assert_int_equal(facts(place, 2).place, 1);
  assert_int_equal(take(place, 19.9), 2); /* others do not wait for it */
  assert_int_equal(take(place, 20), 1);   /* and then it is first */
  assert_int_equal(take(place, 20), 3);
}

static void test_cancelled_in_the_queue(void **state) {
  struct place *place = *state;
  for (int i = 0; i < 3; i++) {
    enter(place, 0, i, 1);
  }
  assert_int_equal(take(place, 0), 1);
  vampd_house_lock(place->house);
  assert_false(vampd_house_take_queued(find(place, 1)));
  assert_true(vampd_house_take_queued(find(place, 2)));
  assert_false(vampd_house_take_queued(find(place, 2)));
  vampd_house_unlock(place->house);
  count(place, 1, 2);
  assert_int_equal(take(place, 0), 3);
  leave(place, 2);
  count(place, 0, 2);
}

/* ---- one clip, many jobs ----------------------------------------------------------------------------------
 */

static void test_encoded_once(void **state) {
  struct place *place = *state;
  for (int i = 0; i < 3; i++) {
    enter(place, 0, 7, 1);
  }
  enter(place, 0, 8, 1);
  assert_int_equal(take(place, 0), 1);
  assert_true(find(place, 1)->encodes);
  assert_int_equal(take(place, 0),
                   4); /* 2 and 3 wait for the tokens; alone on its clip, it encodes for itself */
  assert_false(find(place, 4)->encodes);
  assert_int_equal(take(place, 0), 0);
  put_back(place, 1, 50); /* it has not done it: another has to */
  assert_int_equal(take(place, 0), 2);
  assert_true(find(place, 2)->encodes);
  vampd_house_lock(place->house);
  struct vampd_live *second = find(place, 2);
  second->input->codes = calloc(1, sizeof *second->input->codes);
  second->input->encoding = second->encodes = false;
  vampd_house_unlock(place->house);
  assert_int_equal(take(place, 50), 1);
  assert_int_equal(take(place, 50), 3);
  assert_false(find(place, 3)->encodes);
  leave(place, 1);
  leave(place, 2);
  leave(place, 3); /* the last of them takes the tokens along */
}

static void test_encoder_leaves(void **state) {
  struct place *place = *state;
  enter(place, 0, 7, 1);
  enter(place, 0, 7, 1);
  enter(place, 0, 7, 1);
  assert_int_equal(take(place, 0), 1);
  assert_int_equal(take(place, 0), 0);
  leave(place, 1);
  assert_int_equal(take(place, 0), 2);
  assert_true(find(place, 2)->encodes);
}

/* ---- places -----------------------------------------------------------------------------------------------
 */

static void test_places(void **state) {
  struct place *place = *state;
  for (int i = 0; i < 4; i++) {
    enter(place, 0, i, 1); /* 1 .. 4 */
  }
  enter(place, 1, 4, 1); /* 5 */
  assert_int_equal(facts(place, 1).place, 0);
  assert_int_equal(facts(place, 2).place, 2); /* 1, and the other's first */
  assert_int_equal(facts(place, 4).place, 4);
  assert_int_equal(facts(place, 5).place, 0);
  assert_int_equal(take(place, 0), 1);
  assert_int_equal(facts(place, 1).place, -1);
  assert_int_equal(facts(place, 2).place, 0);
  assert_true(facts(place, 1).remaining > 9.99 && facts(place, 1).remaining < 10.01);
  assert_true(facts(place, 3).remaining > 29.99 &&
              facts(place, 3).remaining < 30.01); /* 1 runs, 2 is before */
}

/* Far back a place is estimated; it stays within the queue, and ascends near the head. */
static void test_places_far_back(void **state) {
  struct place *place = *state;
  const int most = 2000;
  for (int i = 0; i < most; i++) {
    enter(place, 0, i, 1);
  }
  int before = -1;
  for (int i = 1; i <= most; i++) {
    int at = facts(place, i).place;
    assert_true(at >= before && at < most);
    before = at;
  }
  assert_int_equal(facts(place, 100).place, 99);
  assert_int_equal(facts(place, most).place, most - 1);
  assert_true(vampd_house_work(place->house) > 10 * most - 1);
}

/* Places are kept for those that may come: who asks meanwhile sees them taken. */
static void test_expected_jobs_have_their_place(void **state) {
  struct place *place = *state;
  struct vampd_store_job job = {.number = 100, .seconds = 1, .id = "f", .input = "f"};
  struct vamp_error error;
  const double cost = 1;
  int queued, running;
  enter(place, 0, 1, 1);
  assert_int_equal(take(place, 0), 1);
  enter(place, 0, 2, 1);
  assert_true(vampd_house_expect(place->house, 3, 5, &queued, &running));
  assert_true(queued == 1 && running == 1);
  assert_false(vampd_house_expect(place->house, 2, 5, &queued, &running));
  assert_int_equal(queued, 4);
  assert_true(vampd_house_expect(place->house, 1, 5, &queued, &running));
  assert_false(vampd_house_expect(place->house, 1, 5, &queued, &running));
  count(place, 1, 1); /* they are not there yet */
  assert_int_equal(vampd_house_enter(place->house, &job, &cost, 1, true, place->callers[0], &error), VAMP_OK);
  assert_false(vampd_house_expect(place->house, 1, 5, &queued, &running));
  vampd_house_expect_no_more(place->house, 3);
  assert_true(vampd_house_expect(place->house, 3, 5, &queued, &running));
  assert_int_equal(queued, 2);
  vampd_house_expect_no_more(place->house, 3);
}

/* What is said of a sweep without a look at its jobs is what they add up to. */
static void test_facts_of_a_sweep(void **state) {
  struct place *place = *state;
  struct vampd_store_job jobs[6] = {0};
  double costs[6];
  struct vamp_error error;
  for (int i = 0; i < 6; i++) {
    jobs[i] = (struct vampd_store_job){.number = i + 1, .seconds = 1};
    snprintf(jobs[i].id, sizeof jobs[i].id, "%024x", (unsigned)(i + 1));
    snprintf(jobs[i].input, sizeof jobs[i].input, "%024x", (unsigned)i);
    snprintf(jobs[i].sweep, sizeof jobs[i].sweep, "%s", i == 0 ? "other" : "sweep");
    costs[i] = 10 * (i + 1);
  }
  assert_int_equal(vampd_house_enter(place->house, jobs, costs, 6, false, place->callers[0], &error),
                   VAMP_OK);
  assert_int_equal(vampd_house_sweep(place->house, "sweep", jobs[5].id).running, 0);
  for (int i = 1; i <= 3; i++) {
    assert_int_equal(take(place, 0), i);
  }
  vampd_house_lock(place->house);
  find(place, 3)->progress = 0.5F;
  vampd_house_unlock(place->house);
  struct vampd_sweep_facts found = vampd_house_sweep(place->house, "sweep", jobs[5].id);
  assert_int_equal(found.running, 2);
  assert_true(found.progress > 0.499 && found.progress < 0.501);
  assert_true(found.remaining > 0 && found.remaining == facts(place, 6).remaining);
  assert_int_equal(vampd_house_phase(place->house, jobs[2].id), VAMPD_PHASE_PREPARING);
  assert_int_equal(vampd_house_phase(place->house, jobs[5].id), VAMPD_PHASE_QUEUED);
  for (int i = 4; i <= 6; i++) {
    assert_int_equal(take(place, 0), i);
  }
  found = vampd_house_sweep(place->house, "sweep", jobs[5].id); /* the slowest of those that run */
  assert_int_equal(found.running, 5);
  assert_true(found.remaining == facts(place, 6).remaining);
  for (int i = 2; i <= 6; i++) {
    leave(place, i);
  }
  found = vampd_house_sweep(place->house, "sweep", "");
  assert_true(found.running == 0 && found.remaining <= 0);
}

/* ---- events -----------------------------------------------------------------------------------------------
 */

static void test_numbers_ascend(void **state) {
  (void)state;
  struct vampd_events events = {0};
  int64_t before = 0;
  for (int attempt = 0; attempt < 3; attempt++) {
    vampd_events_begin(&events, attempt);
    for (int i = 0; i < 10; i++) {
      int64_t number = vampd_events_number(&events);
      assert_true(number > before);
      assert_true(number > attempt * (int64_t)VAMPD_EVENTS_AN_ATTEMPT);
      assert_true(number < vampd_events_final(attempt));
      before = number;
    }
    vampd_events_begin(&events, attempt); /* again the same: numbers go on */
    assert_int_equal(vampd_events_number(&events), before + 1);
    before++;
  }
}

/* So many steps that the numbers run out: they never reach the next attempt's, or the last event's. */
static void test_numbers_run_out(void **state) {
  (void)state;
  struct vampd_events events = {0};
  vampd_events_begin(&events, 1);
  for (int i = 0; i < VAMPD_EVENTS_AN_ATTEMPT + 10; i++) {
    assert_true(vampd_events_number(&events) < vampd_events_final(1));
  }
  vampd_events_begin(&events, 2);
  assert_int_equal(vampd_events_number(&events), 2 * (int64_t)VAMPD_EVENTS_AN_ATTEMPT + 1);
}

static void test_listeners(void **state) {
  (void)state;
  struct vampd_events events = {0};
  struct vampd_stream *stay = vampd_stream_create(), *go = vampd_stream_create();
  assert_int_equal(vampd_events_listen(&events, stay, NULL), VAMP_OK);
  assert_int_equal(vampd_events_listen(&events, go, NULL), VAMP_OK);
  assert_true(vampd_events_heard(&events));
  vampd_events_tell(&events, 1, "state", json_pack("{s:i}", "a", 1), false);
  vampd_stream_break(go);
  vampd_events_keep_alive(&events); /* the writer's reference of the one that has gone is given back */
  vampd_stream_release(go);
  assert_true(vampd_events_heard(&events));
  vampd_events_tell(&events, 2, "done", json_pack("{s:i}", "a", 2), true);
  assert_false(vampd_events_heard(&events));
  assert_true(vampd_stream_closed(stay));
  vampd_stream_release(stay);
}

/* Whoever may break a stream holds it: the writer and libmicrohttpd may have let go before. */
static void test_a_kept_stream_outlives_its_users(void **state) {
  (void)state;
  struct vampd_stream *stream = vampd_stream_create();
  vampd_stream_keep(stream);
  vampd_stream_end(stream);
  vampd_stream_release(stream);
  vampd_stream_release(stream);
  vampd_stream_break(stream);
  assert_true(vampd_stream_closed(stream));
  vampd_stream_release(stream);
}

#define WITH_A_HOUSE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_A_HOUSE(test_oldest_first),
      WITH_A_HOUSE(test_callers_in_turn),
      WITH_A_HOUSE(test_priority_is_weight),
      WITH_A_HOUSE(test_a_place_for_who_comes_next),
      WITH_A_HOUSE(test_seconds_are_bounded),
      WITH_A_HOUSE(test_few_are_prepared_at_once),
      WITH_A_HOUSE(test_put_back),
      WITH_A_HOUSE(test_cancelled_in_the_queue),
      WITH_A_HOUSE(test_encoded_once),
      WITH_A_HOUSE(test_encoder_leaves),
      WITH_A_HOUSE(test_expected_jobs_have_their_place),
      WITH_A_HOUSE(test_facts_of_a_sweep),
      WITH_A_HOUSE(test_places),
      WITH_A_HOUSE(test_places_far_back),
      cmocka_unit_test(test_numbers_ascend),
      cmocka_unit_test(test_numbers_run_out),
      cmocka_unit_test(test_listeners),
      cmocka_unit_test(test_a_kept_stream_outlives_its_users),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
