/*
 * The store, function by function: reading rows and files, adding files, forgetting, and what a start
 * removes.
 */
#include "tests/unit/test_store_fixture.h"

#include <fcntl.h>

/* ---- reading ------------------------------------------------------------------------------------------ */

static void check_list(struct fixture *fixture, const struct vampd_store_query *query, const char *points) {
  struct vampd_store_job *jobs;
  int count = -1;
  assert_int_equal(vampd_store_list(fixture->store, query, &jobs, &count, &fixture->error), VAMP_OK);
  assert_int_equal(count, strlen(points));
  for (int i = 0; i < count; i++) {
    assert_int_equal(jobs[i].point, points[i] - '0');
    vampd_store_job_free(&jobs[i]);
  }
  free(jobs);
}

static void test_lists(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store_input input = new_input();
  struct vampd_store_job jobs[8];
  struct vampd_store_sweep sweep = {.owner = "a", .points = 3, .grid = PARAMS};
  assert_int_equal(vampd_store_new_id(sweep.id, NULL), VAMP_OK);
  memcpy(sweep.input, input.id, VAMPD_ID_SIZE);
  for (int i = 0; i < 8; i++) {
    jobs[i] = new_job(input.id, i % 2 ? "b" : "a");
    jobs[i].point = i;
  }
  for (int i = 5; i < 8; i++) { /* the sweep's, accepted last point first */
    jobs[i] = new_job(input.id, "a");
    jobs[i].point = 12 - i;
    memcpy(jobs[i].sweep, sweep.id, VAMPD_ID_SIZE);
  }
  assert_int_equal(vampd_store_accept(fixture->store, &input, 1, jobs, 8, &sweep, 0, &fixture->error),
                   VAMP_OK);
  free((void *)input.bytes);
  assert_int_equal(finish_done(fixture->store, jobs[0].id, NULL), VAMP_OK);
  assert_int_equal(finish_done(fixture->store, jobs[1].id, NULL), VAMP_OK);
  check_list(fixture, &(struct vampd_store_query){.any_state = true, .limit = 1000}, "56743210");
  check_list(fixture, &(struct vampd_store_query){.any_state = true, .limit = 3}, "567");
  check_list(fixture, &(struct vampd_store_query){.any_state = true, .limit = 3, .before = 6}, "432");
  check_list(fixture, &(struct vampd_store_query){.owner = "a", .any_state = true, .limit = 9}, "567420");
  check_list(fixture, &(struct vampd_store_query){.owner = "b", .any_state = true, .limit = 9}, "31");
  check_list(fixture, &(struct vampd_store_query){.owner = "c", .any_state = true, .limit = 9}, "");
  check_list(fixture, &(struct vampd_store_query){.owner = "a", .state = VAMPD_STATE_DONE, .limit = 9}, "0");
  check_list(fixture, &(struct vampd_store_query){.state = VAMPD_STATE_DONE, .limit = 9}, "10");
  check_list(fixture, &(struct vampd_store_query){.sweep = sweep.id, .any_state = true}, "567");
  check_list(fixture, &(struct vampd_store_query){.sweep = sweep.id, .any_state = true, .limit = 2}, "76");
  check_list(fixture, &(struct vampd_store_query){.sweep = sweep.id, .owner = "b", .any_state = true}, "");
  struct vampd_store_job *none = NULL;
  struct vampd_store_sweep *sweeps;
  int count = 5;
  assert_int_equal(
      vampd_store_list(fixture->store, &(struct vampd_store_query){.limit = 0}, &none, &count, NULL),
      VAMP_INVALID);
  assert_int_equal(
      vampd_store_list(fixture->store, &(struct vampd_store_query){.limit = 1001}, &none, &count, NULL),
      VAMP_INVALID);
  assert_true(!none && count == 5);
  assert_int_equal(vampd_store_list_sweeps(fixture->store, "b", 0, 10, &sweeps, &count, NULL), VAMP_OK);
  assert_int_equal(count, 0);
  free(sweeps);
  assert_int_equal(vampd_store_list_sweeps(fixture->store, NULL, 0, 10, &sweeps, &count, NULL), VAMP_OK);
  assert_int_equal(count, 1);
  assert_string_equal(sweeps[0].id, sweep.id);
  vampd_store_sweep_free(&sweeps[0]);
  free(sweeps);
  assert_int_equal(vampd_store_list_sweeps(fixture->store, "a", 1, 10, &sweeps, &count, NULL), VAMP_OK);
  assert_int_equal(count, 0);
  free(sweeps);
  assert_int_equal(vampd_store_list_sweeps(fixture->store, "a", 0, 0, &sweeps, &count, NULL), VAMP_INVALID);
}

static void test_owner_sees_only_own(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store_job job, found = {.point = 77};
  assert_int_equal(accept_one(fixture->store, 0, &job, NULL), VAMP_OK);
  assert_int_equal(vampd_store_job(fixture->store, job.id, "", &found, NULL), VAMP_OK);
  vampd_store_job_free(&found);
  found.point = 77;
  assert_int_equal(vampd_store_job(fixture->store, job.id, "b", &found, &fixture->error), VAMP_INVALID);
  assert_int_equal(vampd_store_job(fixture->store, job.input, NULL, &found, NULL), VAMP_INVALID);
  assert_int_equal(vampd_store_job(fixture->store, "' OR 1 --", NULL, &found, NULL), VAMP_INVALID);
  assert_int_equal(found.point, 77);
  struct vampd_store_input input;
  struct vampd_store_sweep sweep;
  assert_int_equal(vampd_store_input(fixture->store, job.id, &input, NULL), VAMP_INVALID);
  assert_int_equal(vampd_store_sweep(fixture->store, job.id, NULL, &sweep, NULL), VAMP_INVALID);
}

struct visit {
  struct vampd_store *store;
  int64_t last;
  int count, stop_after;
};

/* Writes to the store from inside, as a restart does that begins what it finds. */
static int visit_job(const struct vampd_store_job *job, void *user) {
  struct visit *visit = user;
  assert_true(job->number > visit->last);
  visit->last = job->number;
  visit->count++;
  int attempts;
  assert_int_equal(vampd_store_begin(visit->store, job->id, &attempts, NULL), VAMP_OK);
  assert_int_equal(vampd_store_finish(visit->store, job->id, VAMPD_STATE_FAILED, NULL, NULL, 0, NULL),
                   VAMP_OK);
  return visit->count == visit->stop_after;
}

static void test_each_unfinished(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store_input input = new_input();
  struct vampd_store_job jobs[150];
  for (int i = 0; i < 150; i++) {
    jobs[i] = new_job(input.id, "");
  }
  assert_int_equal(vampd_store_accept(fixture->store, &input, 1, jobs, 150, NULL, 0, &fixture->error),
                   VAMP_OK);
  free((void *)input.bytes);
  assert_int_equal(finish_done(fixture->store, jobs[3].id, NULL), VAMP_OK);
  struct visit visit = {.store = fixture->store, .stop_after = 10};
  assert_int_equal(vampd_store_each_unfinished(fixture->store, visit_job, &visit, NULL), VAMP_OK);
  assert_int_equal(visit.count, 10);
  assert_int_equal(visit.last, 11);
  visit = (struct visit){.store = fixture->store};
  assert_int_equal(vampd_store_each_unfinished(fixture->store, visit_job, &visit, NULL), VAMP_OK);
  assert_int_equal(visit.count, 139);
}

/* ---- files -------------------------------------------------------------------------------------------- */

static int fill_twice(int file, void *user, struct vamp_error *error) {
  (void)error;
  dprintf(file, "%s%s", (const char *)user, (const char *)user);
  return VAMP_OK;
}

static int fill_fails(int file, void *user, struct vamp_error *error) {
  dprintf(file, "half");
  return vamp_fail(error, VAMP_DEVICE, "%s", (const char *)user);
}

static void test_files_are_read(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store_job job;
  void *data = fixture;
  size_t size = 7;
  int64_t length = 0;
  assert_int_equal(accept_one(fixture->store, 0, &job, NULL), VAMP_OK);
  int file = vampd_store_open_file(fixture->store, VAMPD_FOLDER_INPUTS, job.input, "clip", &length, NULL);
  assert_true(file >= 0);
  assert_int_equal(length, content_size(job.input, "clip"));
  assert_true(fcntl(file, F_GETFD) & FD_CLOEXEC);
  close(file);
#define READ(folder, id, name, limit)                                                                        \
  vampd_store_read_file(fixture->store, folder, id, name, limit, &data, &size, &fixture->error)
  assert_int_equal(READ(VAMPD_FOLDER_INPUTS, job.input, "clip", (size_t)length - 1), VAMP_LIMIT);
  assert_int_equal(READ(VAMPD_FOLDER_INPUTS, job.input, "nothing", 10), VAMP_INVALID);
  assert_int_equal(READ(VAMPD_FOLDER_INPUTS, job.input, "../clip", 10), VAMP_INVALID);
  assert_int_equal(READ(VAMPD_FOLDER_INPUTS, "..", "vampd.db", 10), VAMP_INVALID);
  assert_int_equal(READ(VAMPD_FOLDER_JOBS, job.id, "audio.wav", 10), VAMP_INVALID);
  assert_int_equal(READ((enum vampd_folder)3, job.input, "clip", 10), VAMP_INVALID);
  assert_true(data == (void *)fixture && size == 7);
  assert_int_equal(READ(VAMPD_FOLDER_INPUTS, job.input, "clip", (size_t)length), VAMP_OK);
  assert_int_equal(size, length);
  free(data);
#undef READ
}

static void test_put_and_fill(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store_job job;
  struct vampd_store_usage before, after;
  assert_int_equal(accept_one(fixture->store, 0, &job, NULL), VAMP_OK);
  assert_int_equal(put_content(fixture->store, VAMPD_FOLDER_INPUTS, job.input, "tokens.npy", NULL), VAMP_OK);
  assert_true(is_whole(fixture->store, VAMPD_FOLDER_INPUTS, job.input, "tokens.npy"));
  /* A job that is not done has no files, nor has what is not there. */
  assert_int_equal(put_content(fixture->store, VAMPD_FOLDER_JOBS, job.id, "mask.png", NULL), VAMP_INVALID);
  assert_int_equal(put_content(fixture->store, VAMPD_FOLDER_SWEEPS, job.id, "a.zip", NULL), VAMP_INVALID);
  assert_int_equal(put_content(fixture->store, VAMPD_FOLDER_INPUTS, job.id, "a", &fixture->error),
                   VAMP_INVALID);
  assert_int_equal(put_content(fixture->store, VAMPD_FOLDER_INPUTS, job.input, "A", NULL), VAMP_INVALID);
  assert_int_equal(finish_done(fixture->store, job.id, NULL), VAMP_OK);
  assert_int_equal(vampd_store_usage(fixture->store, &before, NULL), VAMP_OK);
  assert_int_equal(vampd_store_fill_file(fixture->store, VAMPD_FOLDER_JOBS, job.id, "x.flac", fill_twice,
                                         (char[]){"abcde"}, &fixture->error),
                   VAMP_OK);
  assert_int_equal(vampd_store_usage(fixture->store, &after, NULL), VAMP_OK);
  assert_int_equal(after.bytes, before.bytes + 10);
  assert_int_equal(vampd_store_fill_file(fixture->store, VAMPD_FOLDER_JOBS, job.id, "x.flac", fill_twice,
                                         (char[]){"ab"}, NULL),
                   VAMP_OK);
  assert_int_equal(vampd_store_fill_file(fixture->store, VAMPD_FOLDER_JOBS, job.id, "x.flac", fill_fails,
                                         (char[]){"odd"}, &fixture->error),
                   VAMP_DEVICE);
  assert_string_equal(fixture->error.message, "odd");
  void *data;
  size_t size;
  assert_int_equal(
      vampd_store_read_file(fixture->store, VAMPD_FOLDER_JOBS, job.id, "x.flac", 4, &data, &size, NULL),
      VAMP_OK);
  assert_memory_equal(data, "abab", 4);
  free(data);
  assert_int_equal(vampd_store_usage(fixture->store, &after, NULL), VAMP_OK);
  assert_int_equal(after.bytes, before.bytes + 4);
  check_order(fixture->store, fixture->folder);
  reopen(fixture);
  check_order(fixture->store, fixture->folder);
  assert_int_equal(vampd_store_forget(fixture->store, job.id, NULL), VAMP_OK);
  assert_int_equal(put_content(fixture->store, VAMPD_FOLDER_JOBS, job.id, "mask.png", NULL), VAMP_INVALID);
  assert_int_equal(put_content(fixture->store, VAMPD_FOLDER_INPUTS, job.input, "tokens.npy", NULL),
                   VAMP_INVALID);
  check_order(fixture->store, fixture->folder);
}

/* ---- forgetting --------------------------------------------------------------------------------------- */

static void test_forget(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store_input input = new_input();
  struct vampd_store_job jobs[2] = {new_job(input.id, ""), new_job(input.id, "")}, third;
  assert_int_equal(vampd_store_accept(fixture->store, &input, 1, jobs, 2, NULL, 0, NULL), VAMP_OK);
  free((void *)input.bytes);
  third = new_job(input.id, ""); /* made from an input that is there */
  assert_int_equal(vampd_store_accept(fixture->store, NULL, 0, &third, 1, NULL, 0, NULL), VAMP_OK);
  assert_int_equal(vampd_store_forget(fixture->store, jobs[0].id, &fixture->error), VAMP_BUSY);
  assert_int_equal(vampd_store_forget(fixture->store, input.id, &fixture->error), VAMP_INVALID);
  assert_int_equal(vampd_store_forget(fixture->store, "..", &fixture->error), VAMP_INVALID);
  assert_int_equal(finish_done(fixture->store, jobs[0].id, NULL), VAMP_OK);
  int64_t size;
  int file = vampd_store_open_file(fixture->store, VAMPD_FOLDER_JOBS, jobs[0].id, "audio.wav", &size, NULL);
  assert_int_equal(vampd_store_forget(fixture->store, jobs[0].id, NULL), VAMP_OK);
  assert_int_equal(vampd_store_forget(fixture->store, jobs[0].id, NULL), VAMP_INVALID);
  assert_int_equal(state_of(fixture->store, jobs[0].id), -1);
  assert_int_equal(
      vampd_store_open_file(fixture->store, VAMPD_FOLDER_JOBS, jobs[0].id, "audio.wav", &size, NULL),
      VAMP_INVALID);
  char byte; /* who is reading it reads on */
  assert_int_equal(pread(file, &byte, 1, size - 1), 1);
  close(file);
  check_order(fixture->store, fixture->folder);
  assert_true(is_whole(fixture->store, VAMPD_FOLDER_INPUTS, input.id, "clip"));
  assert_int_equal(vampd_store_finish(fixture->store, jobs[1].id, VAMPD_STATE_CANCELLED, NULL, NULL, 0, NULL),
                   VAMP_OK);
  assert_int_equal(vampd_store_finish(fixture->store, third.id, VAMPD_STATE_CANCELLED, NULL, NULL, 0, NULL),
                   VAMP_OK);
  assert_int_equal(vampd_store_forget(fixture->store, jobs[1].id, NULL), VAMP_OK);
  assert_true(is_whole(fixture->store, VAMPD_FOLDER_INPUTS, input.id, "clip"));
  assert_int_equal(vampd_store_forget(fixture->store, third.id, NULL), VAMP_OK);
  assert_false(is_whole(fixture->store, VAMPD_FOLDER_INPUTS, input.id, "clip"));
  check_order(fixture->store, fixture->folder);
  struct vampd_store_job next; /* numbers are not given twice */
  assert_int_equal(accept_one(fixture->store, 0, &next, NULL), VAMP_OK);
  assert_int_equal(next.number, 4);
}

static void test_forget_sweep(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store_input input = new_input();
  struct vampd_store_job jobs[3], other;
  struct vampd_store_sweep sweep = {.points = 3, .grid = PARAMS};
  assert_int_equal(vampd_store_new_id(sweep.id, NULL), VAMP_OK);
  memcpy(sweep.input, input.id, VAMPD_ID_SIZE);
  for (int i = 0; i < 3; i++) {
    jobs[i] = new_job(input.id, "");
    memcpy(jobs[i].sweep, sweep.id, VAMPD_ID_SIZE);
  }
  assert_int_equal(vampd_store_accept(fixture->store, &input, 1, jobs, 3, &sweep, 0, NULL), VAMP_OK);
  free((void *)input.bytes);
  other = new_job(input.id, "");
  assert_int_equal(vampd_store_accept(fixture->store, NULL, 0, &other, 1, NULL, 0, NULL), VAMP_OK);
  assert_int_equal(put_content(fixture->store, VAMPD_FOLDER_SWEEPS, sweep.id, "archive.zip", NULL), VAMP_OK);
  assert_int_equal(put_content(fixture->store, VAMPD_FOLDER_SWEEPS, sweep.id, "archive.zip", NULL), VAMP_OK);
  assert_true(is_whole(fixture->store, VAMPD_FOLDER_SWEEPS, sweep.id, "archive.zip"));
  for (int i = 0; i < 3; i++) {
    assert_int_equal(vampd_store_forget_sweep(fixture->store, sweep.id, &fixture->error), VAMP_BUSY);
    assert_int_equal(finish_done(fixture->store, jobs[i].id, NULL), VAMP_OK);
    check_order(fixture->store, fixture->folder);
  }
  assert_int_equal(vampd_store_forget(fixture->store, jobs[1].id, NULL), VAMP_OK);
  assert_int_equal(vampd_store_forget_sweep(fixture->store, other.id, &fixture->error), VAMP_INVALID);
  assert_int_equal(vampd_store_forget_sweep(fixture->store, "x", &fixture->error), VAMP_INVALID);
  assert_int_equal(vampd_store_forget_sweep(fixture->store, sweep.id, NULL), VAMP_OK);
  assert_int_equal(vampd_store_forget_sweep(fixture->store, sweep.id, NULL), VAMP_INVALID);
  assert_int_equal(state_of(fixture->store, jobs[0].id), -1);
  check_order(fixture->store, fixture->folder);
  assert_true(is_whole(fixture->store, VAMPD_FOLDER_INPUTS, input.id, "clip"));
  assert_int_equal(state_of(fixture->store, other.id), VAMPD_STATE_QUEUED);
}

/* What a kill leaves is removed at the start, and what is not ours stays. */
static void test_leftovers_are_removed(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store_job done, queued;
  char path[PATH_MAX], kept[PATH_MAX], name[80], id[VAMPD_ID_SIZE];
  assert_int_equal(accept_one(fixture->store, 0, &done, NULL), VAMP_OK);
  assert_int_equal(accept_one(fixture->store, 0, &queued, NULL), VAMP_OK);
  assert_int_equal(finish_done(fixture->store, done.id, NULL), VAMP_OK);
  vampd_store_close(fixture->store);
  static const char *const KINDS[] = {"inputs", "jobs", "sweeps"};
  for (int i = 0; i < 3; i++) {
    snprintf(name, sizeof name, "%s/new.%d", KINDS[i], i);
    path_in(fixture, name, path);
    write_text(path, "half a file");
    snprintf(name, sizeof name, "%s/new.9", KINDS[i]);
    path_in(fixture, name, path);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(name, sizeof name, "%s/new.9/clip", KINDS[i]);
    path_in(fixture, name, path);
    write_text(path, "half a clip");
    assert_int_equal(vampd_store_new_id(id, NULL), VAMP_OK);
    snprintf(name, sizeof name, "%s/%s", KINDS[i], id);
    path_in(fixture, name, path);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(name, sizeof name, "%s/%s/clip", KINDS[i], id);
    path_in(fixture, name, path);
    write_text(path, "nobody's");
  }
  snprintf(name, sizeof name, "jobs/%s", queued.id); /* placed, but its row was not committed */
  path_in(fixture, name, path);
  assert_int_equal(mkdir(path, 0700), 0);
  snprintf(name, sizeof name, "jobs/%s/audio.flac", done.id); /* added, but the sum was not */
  path_in(fixture, name, path);
  write_text(path, "12345");
  path_in(fixture, "jobs/README", kept);
  write_text(kept, "mine");
  fixture->store = open_store(fixture->folder, &NO_LIMITS);
  assert_int_equal(access(kept, F_OK), 0);
  unlink(kept);
  check_order(fixture->store, fixture->folder);
  struct vampd_store_job found;
  assert_int_equal(vampd_store_job(fixture->store, done.id, NULL, &found, NULL), VAMP_OK);
  assert_int_equal(found.bytes, result_size(done.id) + 5);
  vampd_store_job_free(&found);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_lists, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_owner_sees_only_own, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_each_unfinished, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_files_are_read, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_put_and_fill, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_forget, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_forget_sweep, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_leftovers_are_removed, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
