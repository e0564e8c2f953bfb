/*
 * The store, function by function: opening, accepting, running. What goes in comes out, before and after a
 * restart, and every refusal leaves it as it was. Reading and forgetting are in test_store_read.c, space and
 * retention in test_store_space.c, kills and faults in test_store_kill.c and test_store_faults.c.
 */
#include "tests/unit/test_store_fixture.h"

#include <fcntl.h>

/* ---- ids and opening ---------------------------------------------------------------------------------- */

static void test_ids(void **state) {
  (void)state;
  char ids[100][VAMPD_ID_SIZE];
  for (int i = 0; i < 100; i++) {
    assert_int_equal(vampd_store_new_id(ids[i], NULL), VAMP_OK);
    assert_true(vampd_store_is_id(ids[i]));
    for (int j = 0; j < i; j++) {
      assert_string_not_equal(ids[i], ids[j]);
    }
  }
  static const char *const WRONG[] = {NULL,
                                      "",
                                      "0123456789abcdef0123456",
                                      "0123456789abcdef012345678",
                                      "0123456789ABCDEF01234567",
                                      "../0123456789abcdef01234",
                                      "0123456789abcdef0123456\n"};
  for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
    assert_false(vampd_store_is_id(WRONG[i]));
  }
  assert_true(vampd_store_is_id("0123456789abcdef01234567"));
}

static void refuse_open(const char *folder, int status, const char *about) {
  struct vampd_store *store = (struct vampd_store *)folder;
  struct vamp_error error = {0};
  assert_int_equal(vampd_store_open(folder, &NO_LIMITS, &store, &error), status);
  assert_ptr_equal(store, folder);
  assert_int_equal(error.status, status);
  assert_non_null(strstr(error.message, about));
}

static void run_sql(const struct fixture *fixture, const char *sql) {
  char path[PATH_MAX];
  sqlite3 *database;
  path_in(fixture, "vampd.db", path);
  assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
  assert_int_equal(sqlite3_exec(database, sql, NULL, NULL, NULL), SQLITE_OK);
  sqlite3_close(database);
}

static void test_open_refuses(void **state) {
  struct fixture *fixture = *state;
  char path[PATH_MAX];
  vampd_store_close(fixture->store);
  fixture->store = NULL;
  run_sql(fixture, "PRAGMA user_version = 2");
  refuse_open(fixture->folder, VAMP_INVALID, "version 2");
  run_sql(fixture, "PRAGMA user_version = 1; PRAGMA application_id = 5");
  refuse_open(fixture->folder, VAMP_INVALID, "not a database of vampd");
  path_in(fixture, "vampd.db", path);
  char text[8192];
  memset(text, 'x', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  write_text(path, text);
  refuse_open(fixture->folder, VAMP_INVALID, "damaged");
  path_in(fixture, "vampd.db/below", path);
  refuse_open(path, VAMP_IO, "folder");
}

/* A page in the middle is overwritten after a kill: the check that follows finds it. */
static void test_open_finds_damage_after_a_kill(void **state) {
  struct fixture *fixture = *state;
  char path[PATH_MAX], zeros[4096];
  for (int i = 0; i < 40; i++) {
    struct vampd_store_job job;
    assert_int_equal(accept_one(fixture->store, 0, &job, NULL), VAMP_OK);
  }
  vampd_store_close(fixture->store);
  fixture->store = NULL;
  path_in(fixture, "vampd.db", path);
  int file = open(path, O_WRONLY);
  assert_true(file >= 0);
  memset(zeros, 0x55, sizeof zeros);
  for (int page = 2; page < 6; page++) {
    assert_int_equal(pwrite(file, zeros, sizeof zeros, page * 4096L), sizeof zeros);
  }
  close(file);
  path_in(fixture, "vampd.db-wal", path);
  write_text(path, "");
  refuse_open(fixture->folder, VAMP_INVALID, "damaged");
}

/* Damage that nobody looked for when the store was opened, for it had been closed well: a job that cannot be
 * read is not one that was never there. */
static void test_damage_later_on(void **state) {
  struct fixture *fixture = *state;
  char path[PATH_MAX], rubbish[4096];
  struct vampd_store_job job, found;
  for (int i = 0; i < 40; i++) {
    assert_int_equal(accept_one(fixture->store, 0, &job, NULL), VAMP_OK);
  }
  vampd_store_close(fixture->store);
  fixture->store = NULL;
  fixture->store = open_store(fixture->folder, &NO_LIMITS);
  path_in(fixture, "vampd.db", path);
  int file = open(path, O_RDWR);
  struct stat facts;
  assert_true(file >= 0 && fstat(file, &facts) == 0);
  memset(rubbish, 0x55, sizeof rubbish);
  for (off_t at = sizeof rubbish; at < facts.st_size; at += (off_t)sizeof rubbish) {
    assert_int_equal(pwrite(file, rubbish, sizeof rubbish, at), sizeof rubbish);
  }
  close(file);
  assert_int_equal(vampd_store_job(fixture->store, job.id, NULL, &found, &fixture->error), VAMP_IO);
  assert_non_null(strstr(fixture->error.message, "damaged"));
}

/* ---- accepting ---------------------------------------------------------------------------------------- */

static void check_job(struct vampd_store *store, const struct vampd_store_job *job) {
  struct vampd_store_job found;
  assert_int_equal(vampd_store_job(store, job->id, NULL, &found, NULL), VAMP_OK);
  assert_string_equal(found.id, job->id);
  assert_int_equal(found.number, job->number);
  assert_string_equal(found.owner, job->owner);
  assert_string_equal(found.input, job->input);
  assert_string_equal(found.sweep, job->sweep);
  assert_int_equal(found.point, job->point);
  assert_int_equal(found.created, job->created);
  assert_true(found.seconds == job->seconds);
  assert_string_equal(found.params, job->params);
  assert_int_equal(found.state, VAMPD_STATE_QUEUED);
  assert_int_equal(found.attempts, 0);
  assert_int_equal(found.started, 0);
  assert_int_equal(found.finished, 0);
  assert_int_equal(found.bytes, 0);
  assert_null(found.outcome);
  vampd_store_job_free(&found);
}

static void test_accept_is_read_back(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store_input inputs[2] = {new_input(), new_input()}, found;
  struct vampd_store_job jobs[3] = {new_job(inputs[0].id, "lab"), new_job(inputs[1].id, "lab"),
                                    new_job(inputs[0].id, "lab")};
  char grid[] = "{\"mask.mask_ratio\":[0.1,0.3]}";
  struct vampd_store_sweep sweep = {.owner = "lab", .points = 2, .grid = grid};
  assert_int_equal(vampd_store_new_id(sweep.id, NULL), VAMP_OK);
  memcpy(sweep.input, inputs[0].id, VAMPD_ID_SIZE);
  memcpy(jobs[0].sweep, sweep.id, VAMPD_ID_SIZE);
  memcpy(jobs[2].sweep, sweep.id, VAMPD_ID_SIZE);
  jobs[2].point = 1;
  assert_int_equal(vampd_store_accept(fixture->store, inputs, 2, jobs, 3, &sweep, 1000, &fixture->error),
                   VAMP_OK);
  assert_true(jobs[0].number == 1 && jobs[1].number == 2 && jobs[2].number == 3 && sweep.number == 1);
  assert_true(jobs[0].created > 1600000000000 && sweep.created == jobs[0].created);
  for (int again = 0; again < 2; again++) {
    for (int i = 0; i < 3; i++) {
      check_job(fixture->store, &jobs[i]);
    }
    for (int i = 0; i < 2; i++) {
      assert_int_equal(vampd_store_input(fixture->store, inputs[i].id, &found, NULL), VAMP_OK);
      assert_string_equal(found.media_type, inputs[i].media_type);
      assert_string_equal(found.name, inputs[i].name);
      assert_true(found.seconds == inputs[i].seconds && found.size == inputs[i].size && !found.bytes);
      assert_true(is_whole(fixture->store, VAMPD_FOLDER_INPUTS, inputs[i].id, "clip"));
    }
    struct vampd_store_sweep read;
    assert_int_equal(vampd_store_sweep(fixture->store, sweep.id, "lab", &read, NULL), VAMP_OK);
    assert_true(read.points == 2 && read.number == 1 && read.created == sweep.created);
    assert_string_equal(read.grid, sweep.grid);
    assert_string_equal(read.input, inputs[0].id);
    vampd_store_sweep_free(&read);
    struct vampd_store_usage usage;
    assert_int_equal(vampd_store_usage(fixture->store, &usage, NULL), VAMP_OK);
    assert_int_equal(usage.reserved, 1000);
    assert_int_equal(usage.bytes, inputs[0].size + inputs[1].size);
    check_order(fixture->store, fixture->folder);
    reopen(fixture);
  }
  free((void *)inputs[0].bytes);
  free((void *)inputs[1].bytes);
}

static void refuse_accept(struct fixture *fixture, const struct vampd_store_input *inputs, int input_count,
                          struct vampd_store_job *jobs, int job_count, struct vampd_store_sweep *sweep) {
  struct vampd_store_job before = jobs[0];
  assert_int_equal(
      vampd_store_accept(fixture->store, inputs, input_count, jobs, job_count, sweep, 10, &fixture->error),
      VAMP_INVALID);
  assert_true(strlen(fixture->error.message) > 10);
  assert_memory_equal(&before, &jobs[0], sizeof before);
  check_order(fixture->store, fixture->folder);
  struct vampd_store_usage usage;
  assert_int_equal(vampd_store_usage(fixture->store, &usage, NULL), VAMP_OK);
  assert_int_equal(usage.jobs, 1);
  assert_int_equal(usage.reserved, 0);
}

static void test_accept_refuses(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store_job there;
  assert_int_equal(accept_one(fixture->store, 0, &there, NULL), VAMP_OK);
  struct vampd_store_input inputs[2] = {new_input(), new_input()};
  struct vampd_store_job good[2] = {new_job(inputs[0].id, ""), new_job(inputs[1].id, "")}, jobs[2];
#define FRESH memcpy(jobs, good, sizeof jobs)
  FRESH;
  refuse_accept(fixture, inputs, 2, jobs, 0, NULL);
  refuse_accept(fixture, inputs, -1, jobs, 1, NULL);
  refuse_accept(fixture, inputs, 2, jobs, 1, NULL); /* the second input is nobody's */
  snprintf(jobs[1].id, sizeof jobs[1].id, "../../etc");
  refuse_accept(fixture, inputs, 2, jobs, 2, NULL);
  FRESH;
  jobs[1].params = NULL;
  refuse_accept(fixture, inputs, 2, jobs, 2, NULL);
  FRESH; /* the second job is there already: the first must not be accepted either */
  memcpy(jobs[1].id, there.id, VAMPD_ID_SIZE);
  refuse_accept(fixture, inputs, 2, jobs, 2, NULL);
  FRESH; /* an input that is not there */
  assert_int_equal(vampd_store_new_id(jobs[1].input, NULL), VAMP_OK);
  refuse_accept(fixture, inputs, 1, jobs, 2, NULL);
  FRESH; /* an input's id that is in use: what is there stays */
  struct vampd_store_input taken = inputs[0];
  memcpy(taken.id, there.input, VAMPD_ID_SIZE);
  memcpy(jobs[0].input, there.input, VAMPD_ID_SIZE);
  refuse_accept(fixture, &taken, 1, jobs, 1, NULL);
  assert_true(is_whole(fixture->store, VAMPD_FOLDER_INPUTS, there.input, "clip"));
  FRESH; /* a sweep without jobs, and a job of another sweep */
  struct vampd_store_sweep sweep = {.grid = PARAMS};
  assert_int_equal(vampd_store_new_id(sweep.id, NULL), VAMP_OK);
  memcpy(sweep.input, inputs[0].id, VAMPD_ID_SIZE);
  refuse_accept(fixture, inputs, 2, jobs, 2, &sweep);
  assert_int_equal(vampd_store_new_id(jobs[0].sweep, NULL), VAMP_OK);
  refuse_accept(fixture, inputs, 2, jobs, 2, &sweep);
  refuse_accept(fixture, inputs, 2, jobs, 2, NULL);
#undef FRESH
  memcpy(jobs, good, sizeof jobs); /* nothing of all that stands in the way of the right one */
  assert_int_equal(vampd_store_accept(fixture->store, inputs, 2, jobs, 2, NULL, 0, &fixture->error), VAMP_OK);
  free((void *)inputs[0].bytes);
  free((void *)inputs[1].bytes);
}

/* ---- running ------------------------------------------------------------------------------------------ */

static void test_begin(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store_job job, found;
  int attempts = 0;
  assert_int_equal(accept_one(fixture->store, 0, &job, NULL), VAMP_OK);
  assert_int_equal(vampd_store_begin(fixture->store, job.id, &attempts, NULL), VAMP_OK);
  assert_int_equal(attempts, 1);
  reopen(fixture);
  assert_int_equal(vampd_store_begin(fixture->store, job.id, &attempts, NULL), VAMP_OK);
  assert_int_equal(attempts, 2);
  assert_int_equal(vampd_store_job(fixture->store, job.id, NULL, &found, NULL), VAMP_OK);
  assert_int_equal(found.attempts, 2);
  assert_true(found.started >= found.created && found.finished == 0);
  vampd_store_job_free(&found);
  assert_int_equal(vampd_store_finish(fixture->store, job.id, VAMPD_STATE_CANCELLED, NULL, NULL, 0, NULL),
                   VAMP_OK);
  assert_int_equal(vampd_store_begin(fixture->store, job.id, &attempts, &fixture->error), VAMP_CANCELLED);
  assert_int_equal(vampd_store_begin(fixture->store, job.input, &attempts, &fixture->error), VAMP_CANCELLED);
  assert_int_equal(vampd_store_begin(fixture->store, "x", &attempts, &fixture->error), VAMP_CANCELLED);
  assert_int_equal(attempts, 2);
}

static void test_finish(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store_job done, failed, found;
  char path[PATH_MAX], name[64];
  assert_int_equal(accept_one(fixture->store, 100000, &done, NULL), VAMP_OK);
  assert_int_equal(accept_one(fixture->store, 500, &failed, NULL), VAMP_OK);
  /* What an earlier attempt, or anybody, left in the folder is replaced. */
  snprintf(name, sizeof name, "jobs/%s", done.id);
  path_in(fixture, name, path);
  assert_int_equal(mkdir(path, 0700), 0);
  snprintf(name, sizeof name, "jobs/%s/junk", done.id);
  path_in(fixture, name, path);
  write_text(path, "junk");
  assert_int_equal(finish_done(fixture->store, done.id, &fixture->error), VAMP_OK);
  assert_int_equal(
      vampd_store_finish(fixture->store, failed.id, VAMPD_STATE_FAILED, "{\"type\":\"x\"}", NULL, 0, NULL),
      VAMP_OK);
  for (int again = 0; again < 2; again++) {
    assert_int_equal(vampd_store_job(fixture->store, done.id, NULL, &found, NULL), VAMP_OK);
    assert_int_equal(found.state, VAMPD_STATE_DONE);
    assert_int_equal(found.bytes, result_size(done.id));
    assert_true(found.finished >= found.created);
    assert_string_equal(found.outcome, "{\"lufs\":-24}");
    vampd_store_job_free(&found);
    for (int i = 0; i < RESULT_FILES; i++) {
      assert_true(is_whole(fixture->store, VAMPD_FOLDER_JOBS, done.id, RESULT_NAMES[i]));
    }
    int64_t size;
    assert_int_equal(vampd_store_open_file(fixture->store, VAMPD_FOLDER_JOBS, done.id, "junk", &size, NULL),
                     VAMP_INVALID);
    assert_int_equal(vampd_store_job(fixture->store, failed.id, NULL, &found, NULL), VAMP_OK);
    assert_int_equal(found.state, VAMPD_STATE_FAILED);
    assert_string_equal(found.outcome, "{\"type\":\"x\"}");
    vampd_store_job_free(&found);
    /* The end is the end. */
    assert_int_equal(finish_done(fixture->store, done.id, &fixture->error), VAMP_CANCELLED);
    assert_int_equal(finish_done(fixture->store, failed.id, &fixture->error), VAMP_CANCELLED);
    struct vampd_store_usage usage;
    assert_int_equal(vampd_store_usage(fixture->store, &usage, NULL), VAMP_OK);
    assert_true(usage.reserved == 0 && usage.unfinished == 0 && usage.jobs == 2);
    check_order(fixture->store, fixture->folder);
    reopen(fixture);
  }
}

static void test_finish_refuses(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store_job job;
  struct vampd_store_file file = {"audio.wav", "RIFF", 4};
  assert_int_equal(accept_one(fixture->store, 0, &job, NULL), VAMP_OK);
#define REFUSED(state_, file_, count_)                                                                       \
  assert_int_equal(vampd_store_finish(fixture->store, job.id, state_, NULL, file_, count_, &fixture->error), \
                   VAMP_INVALID)
  REFUSED(VAMPD_STATE_QUEUED, NULL, 0);
  REFUSED((enum vampd_state)17, NULL, 0);
  REFUSED(VAMPD_STATE_FAILED, &file, 1);
  REFUSED(VAMPD_STATE_DONE, &file, -1);
  static const char *const NAMES[] = {NULL,  "",          "..",  ".hidden", "../x",
                                      "a/b", "Audio.wav", "a b", "\xc3\xa4"};
  for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
    file.name = NAMES[i];
    REFUSED(VAMPD_STATE_DONE, &file, 1);
  }
  file = (struct vampd_store_file){"audio.wav", NULL, 4};
  REFUSED(VAMPD_STATE_DONE, &file, 1);
#undef REFUSED
  struct vampd_store_file twice[2] = {{"a", "1", 1}, {"a", "2", 1}};
  assert_true(vampd_store_finish(fixture->store, job.id, VAMPD_STATE_DONE, NULL, twice, 2, NULL) < 0);
  assert_int_equal(
      vampd_store_finish(fixture->store, "nothing", VAMPD_STATE_DONE, NULL, NULL, 0, &fixture->error),
      VAMP_CANCELLED);
  assert_int_equal(vampd_store_finish(fixture->store, job.input, VAMPD_STATE_DONE, NULL, NULL, 0, NULL),
                   VAMP_CANCELLED);
  check_order(fixture->store, fixture->folder);
  assert_int_equal(state_of(fixture->store, job.id), VAMPD_STATE_QUEUED);
  assert_int_equal(vampd_store_finish(fixture->store, job.id, VAMPD_STATE_DONE, NULL, NULL, 0, NULL),
                   VAMP_OK);
  check_order(fixture->store, fixture->folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_ids),
      cmocka_unit_test_setup_teardown(test_open_refuses, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_open_finds_damage_after_a_kill, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_damage_later_on, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_accept_is_read_back, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_accept_refuses, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_begin, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_finish, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_finish_refuses, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
