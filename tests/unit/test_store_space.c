/*
 * Space and retention: limits, what is forgotten for them and in which order, and disks that are really full.
 */
#include "tests/unit/test_store_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>

static void wait_milliseconds(long milliseconds) {
  nanosleep(&(struct timespec){.tv_nsec = milliseconds * 1000000}, NULL);
}

static struct vampd_store_usage usage_of(struct vampd_store *store) {
  struct vampd_store_usage usage;
  assert_int_equal(vampd_store_usage(store, &usage, NULL), VAMP_OK);
  return usage;
}

/* A job with `input` bytes of clip, which has `reserve` for its result. */
static int accept_sized(struct vampd_store *store, size_t input_size, int64_t reserve, char id[VAMPD_ID_SIZE],
                        struct vamp_error *error) {
  struct vampd_store_input input = {.media_type = "audio/wav"};
  assert_int_equal(vampd_store_new_id(input.id, NULL), VAMP_OK);
  input.size = input_size;
  input.bytes = calloc(1, input_size + 1);
  struct vampd_store_job job = new_job(input.id, "");
  memcpy(id, job.id, VAMPD_ID_SIZE);
  int status = vampd_store_accept(store, &input, 1, &job, 1, NULL, reserve, error);
  free((void *)input.bytes);
  return status;
}

static int finish_sized(struct vampd_store *store, const char *id, size_t size, struct vamp_error *error) {
  struct vampd_store_file file = {"audio.wav", calloc(1, size + 1), size};
  int status = vampd_store_finish(store, id, VAMPD_STATE_DONE, NULL, &file, 1, error);
  free((void *)file.data);
  return status;
}

/* Jobs of 1000 bytes of input and as much of result, one after the other. */
static void make_done(struct vampd_store *store, int count, char ids[][VAMPD_ID_SIZE]) {
  for (int i = 0; i < count; i++) {
    assert_int_equal(accept_sized(store, 1000, 1000, ids[i], NULL), VAMP_OK);
    wait_milliseconds(2);
    assert_int_equal(finish_sized(store, ids[i], 1000, NULL), VAMP_OK);
  }
}

static int fill_one(int file, void *user, struct vamp_error *error) {
  (void)user;
  (void)error;
  assert_int_equal(write(file, "x", 1), 1);
  return VAMP_OK;
}

/* ---- limits ------------------------------------------------------------------------------------------- */

static void test_max_bytes(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store *store = fixture->store;
  char id[VAMPD_ID_SIZE], other[VAMPD_ID_SIZE];
  vampd_store_set_limits(store, &(struct vampd_store_limits){.max_bytes = 10000});
  assert_true(vampd_store_has_room(store, 10000));
  assert_false(vampd_store_has_room(store, 10001));
  assert_false(vampd_store_has_room(store, -1));
  assert_false(vampd_store_has_room(store, INT64_MAX));
  assert_int_equal(accept_sized(store, 2000, 8001, id, &fixture->error), VAMP_SPACE);
  assert_true(strlen(fixture->error.message) > 20);
  assert_int_equal(accept_sized(store, 2000, INT64_MAX, id, NULL), VAMP_SPACE);
  assert_int_equal(accept_sized(store, 2000, -1, id, NULL), VAMP_INVALID);
  assert_int_equal(usage_of(store).jobs, 0);
  check_order(store, fixture->folder);
  assert_int_equal(accept_sized(store, 2000, 6000, id, NULL), VAMP_OK);
  assert_true(vampd_store_has_room(store, 2000));
  assert_false(vampd_store_has_room(store, 2001)); /* an unfinished job is never forgotten */
  assert_int_equal(accept_sized(store, 2001, 0, other, NULL), VAMP_SPACE);
  assert_int_equal(usage_of(store).bytes, 2000);
  assert_int_equal(usage_of(store).reserved, 6000);
  check_order(store, fixture->folder);
  /* A smaller result gives back what it did not need; one too large is refused, and the job stays. */
  assert_int_equal(finish_sized(store, id, 8001, &fixture->error), VAMP_SPACE);
  assert_int_equal(state_of(store, id), VAMPD_STATE_QUEUED);
  check_order(store, fixture->folder);
  assert_int_equal(finish_sized(store, id, 5000, NULL), VAMP_OK);
  assert_int_equal(usage_of(store).bytes, 7000);
  assert_int_equal(usage_of(store).reserved, 0);
  /* A file that can be made again forgets nothing for itself. */
  struct vampd_store_file file = {"mask.png", calloc(1, 3001), 3001};
  assert_int_equal(vampd_store_put_file(store, VAMPD_FOLDER_JOBS, id, &file, &fixture->error), VAMP_SPACE);
  assert_int_equal(state_of(store, id), VAMPD_STATE_DONE);
  check_order(store, fixture->folder);
  file.size = 3000;
  assert_int_equal(vampd_store_put_file(store, VAMPD_FOLDER_JOBS, id, &file, NULL), VAMP_OK);
  assert_int_equal(vampd_store_fill_file(store, VAMPD_FOLDER_JOBS, id, "x", fill_one, NULL, NULL),
                   VAMP_SPACE);
  free((void *)file.data);
  assert_int_equal(usage_of(store).bytes, 10000);
  check_order(store, fixture->folder);
}

/* What is reserved is the job's, even after the limit was lowered. */
static void test_reserved_stays(void **state) {
  struct fixture *fixture = *state;
  char id[VAMPD_ID_SIZE];
  assert_int_equal(accept_sized(fixture->store, 1000, 5000, id, NULL), VAMP_OK);
  vampd_store_set_limits(fixture->store, &(struct vampd_store_limits){.max_bytes = 100});
  vampd_store_close(fixture->store);
  fixture->store = open_store(fixture->folder, &(struct vampd_store_limits){.max_bytes = 100});
  assert_int_equal(usage_of(fixture->store).reserved, 5000);
  assert_int_equal(finish_sized(fixture->store, id, 5000, NULL), VAMP_OK);
  check_order(fixture->store, fixture->folder);
}

static void test_min_free_bytes(void **state) {
  struct fixture *fixture = *state;
  struct statvfs facts;
  char id[VAMPD_ID_SIZE];
  assert_int_equal(statvfs(fixture->folder, &facts), 0);
  int64_t available = (int64_t)(facts.f_bavail * facts.f_frsize);
  vampd_store_set_limits(fixture->store, &(struct vampd_store_limits){.min_free_bytes = 2 * available});
  assert_false(vampd_store_has_room(fixture->store, 0));
  assert_int_equal(accept_sized(fixture->store, 10, 0, id, &fixture->error), VAMP_SPACE);
  check_order(fixture->store, fixture->folder);
  vampd_store_set_limits(fixture->store, &(struct vampd_store_limits){.min_free_bytes = available / 2});
  assert_int_equal(accept_sized(fixture->store, 10, available, id, NULL), VAMP_SPACE);
  assert_int_equal(accept_sized(fixture->store, 10, 0, id, NULL), VAMP_OK);
}

/* ---- what is forgotten -------------------------------------------------------------------------------- */

static void check_which(struct vampd_store *store, char ids[][VAMPD_ID_SIZE], const char *there) {
  for (int i = 0; there[i]; i++) {
    assert_int_equal(state_of(store, ids[i]), there[i] == '1' ? (int)VAMPD_STATE_DONE : -1);
  }
}

static void test_oldest_make_room(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store *store = fixture->store;
  char ids[4][VAMPD_ID_SIZE], id[VAMPD_ID_SIZE];
  make_done(store, 4, ids);
  struct vampd_store_limits limits = {.max_bytes = 9000, .spare_seconds = 3600};
  vampd_store_set_limits(store, &limits);
  assert_int_equal(accept_sized(store, 600, 600, id, &fixture->error), VAMP_SPACE); /* all are too young */
  assert_false(vampd_store_has_room(store, 1200));
  check_which(store, ids, "1111");
  limits.spare_seconds = 0;
  vampd_store_set_limits(store, &limits);
  assert_true(vampd_store_has_room(store, 9000));
  check_which(store, ids, "1111"); /* asking forgets nothing */
  assert_int_equal(accept_sized(store, 9001, 0, id, NULL), VAMP_SPACE);
  check_which(store, ids, "1111"); /* nor does what cannot fit at all */
  assert_int_equal(accept_sized(store, 600, 600, id, NULL), VAMP_OK);
  check_which(store, ids, "0111");
  check_order(store, fixture->folder);
  assert_int_equal(accept_sized(store, 5800, 0, id, NULL), VAMP_OK);
  check_which(store, ids, "0001");
  assert_int_equal(usage_of(store).bytes + usage_of(store).reserved, 9000);
  assert_int_equal(accept_sized(store, 2001, 0, id, NULL), VAMP_SPACE);
  check_which(store, ids, "0001");
  check_order(store, fixture->folder);
}

/* Sets back when the finished jobs were finished. */
static void make_older(const char *folder, int seconds) {
  char path[PATH_MAX], sql[128];
  sqlite3 *database;
  assert_true(snprintf(path, sizeof path, "%s/vampd.db", folder) < (int)sizeof path);
  snprintf(sql, sizeof sql, "UPDATE jobs SET finished = finished - %d000 WHERE state > 0", seconds);
  assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
  assert_int_equal(sqlite3_exec(database, sql, NULL, NULL, NULL), SQLITE_OK);
  sqlite3_close(database);
}

static void test_retain_by_age(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store *store = fixture->store;
  char ids[70][VAMPD_ID_SIZE], young[1][VAMPD_ID_SIZE];
  struct vampd_store_job waiting;
  assert_int_equal(accept_one(store, 10, &waiting, NULL), VAMP_OK);
  make_done(store, 70, ids);
  make_older(fixture->folder, 1000);
  make_done(store, 1, young);
  assert_int_equal(vampd_store_retain(store, NULL), 0);
  vampd_store_set_limits(store, &(struct vampd_store_limits){.keep_seconds = 900});
  assert_int_equal(vampd_store_retain(store, &fixture->error), 70);
  assert_int_equal(state_of(store, ids[0]), -1);
  assert_int_equal(state_of(store, ids[69]), -1);
  assert_int_equal(state_of(store, young[0]), VAMPD_STATE_DONE);
  assert_int_equal(state_of(store, waiting.id), VAMPD_STATE_QUEUED);
  check_order(store, fixture->folder);
}

static void test_retain_for_space(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store *store = fixture->store;
  char ids[5][VAMPD_ID_SIZE];
  make_done(store, 5, ids);
  vampd_store_set_limits(store, &(struct vampd_store_limits){.max_bytes = 5000});
  assert_int_equal(vampd_store_retain(store, NULL), 3);
  check_which(store, ids, "00011");
  assert_int_equal(vampd_store_retain(store, NULL), 0);
  /* Here as much as is possible goes, even where it is not enough. */
  vampd_store_set_limits(store, &(struct vampd_store_limits){.min_free_bytes = INT64_MAX / 2});
  assert_int_equal(vampd_store_retain(store, NULL), 2);
  check_order(store, fixture->folder);
}

/* A sweep's age is that of its last job, and it goes as a whole, its files and input with it. */
static void test_sweep_goes_as_a_whole(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store *store = fixture->store;
  struct vampd_store_input input = new_input();
  struct vampd_store_job jobs[3];
  struct vampd_store_sweep sweep = {.points = 3, .grid = PARAMS};
  char ids[1][VAMPD_ID_SIZE];
  assert_int_equal(vampd_store_new_id(sweep.id, NULL), VAMP_OK);
  memcpy(sweep.input, input.id, VAMPD_ID_SIZE);
  for (int i = 0; i < 3; i++) {
    jobs[i] = new_job(input.id, "");
    memcpy(jobs[i].sweep, sweep.id, VAMPD_ID_SIZE);
  }
  assert_int_equal(vampd_store_accept(store, &input, 1, jobs, 3, &sweep, 0, NULL), VAMP_OK);
  free((void *)input.bytes);
  assert_int_equal(put_content(store, VAMPD_FOLDER_SWEEPS, sweep.id, "table.csv", NULL), VAMP_OK);
  assert_int_equal(finish_done(store, jobs[0].id, NULL), VAMP_OK);
  assert_int_equal(finish_done(store, jobs[1].id, NULL), VAMP_OK);
  wait_milliseconds(5);
  make_done(store, 1, ids);
  wait_milliseconds(5);
  vampd_store_set_limits(store, &(struct vampd_store_limits){.keep_seconds = 0.001});
  assert_int_equal(vampd_store_retain(store, NULL), 1); /* the job; the sweep is not finished */
  check_which(store, ids, "0");
  assert_int_equal(state_of(store, jobs[0].id), VAMPD_STATE_DONE);
  vampd_store_set_limits(store, &NO_LIMITS);
  make_done(store, 1, ids);
  wait_milliseconds(5);
  assert_int_equal(vampd_store_finish(store, jobs[2].id, VAMPD_STATE_FAILED, NULL, NULL, 0, NULL), VAMP_OK);
  /* The sweep is younger than the job now. One byte too many is in use: the job goes. */
  vampd_store_set_limits(store, &(struct vampd_store_limits){.max_bytes = usage_of(store).bytes - 1});
  assert_int_equal(vampd_store_retain(store, NULL), 1);
  check_which(store, ids, "0");
  vampd_store_set_limits(store, &(struct vampd_store_limits){.max_bytes = usage_of(store).bytes - 1});
  assert_int_equal(vampd_store_retain(store, NULL), 3);
  assert_int_equal(usage_of(store).bytes, 0);
  assert_int_equal(usage_of(store).jobs, 0);
  check_order(store, fixture->folder);
}

/* ---- disks that are full ------------------------------------------------------------------------------ */

/* Works until there is no room, and then checks that all is as it was, can be read, and gets well again. Runs
 * in a child, whose exit code tells: cmocka's checks would be lost in it. */
#define MUST(condition)                                                                                      \
  do {                                                                                                       \
    if (!(condition)) {                                                                                      \
      fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                                                \
      _exit(1);                                                                                              \
    }                                                                                                        \
  } while (0)

static void work_until_full(struct vampd_store *store, size_t size, char done[VAMPD_ID_SIZE]) {
  char id[VAMPD_ID_SIZE];
  struct vamp_error error;
  MUST(accept_sized(store, 1000, 0, done, NULL) == VAMP_OK);
  MUST(finish_sized(store, done, 1000, NULL) == VAMP_OK);
  int status = VAMP_OK, accepted = 0;
  struct vampd_store_usage before = usage_of(store);
  while (status == VAMP_OK && accepted < 10000) {
    before = usage_of(store);
    status = accept_sized(store, size, 0, id, &error);
    accepted += status == VAMP_OK;
  }
  MUST(status == VAMP_SPACE && error.status == VAMP_SPACE && strlen(error.message) > 20);
  struct vampd_store_usage after = usage_of(store);
  MUST(after.bytes == before.bytes && after.jobs == before.jobs && after.reserved == before.reserved);
  MUST(state_of(store, id) == -1 && state_of(store, done) == VAMPD_STATE_DONE);
  void *data;
  size_t length;
  MUST(vampd_store_read_file(store, VAMPD_FOLDER_JOBS, done, "audio.wav", 1000, &data, &length, NULL) ==
       VAMP_OK);
  free(data);
}

static void fill_disk(const char *folder) {
  char path[PATH_MAX], block[65536] = {1};
  MUST(snprintf(path, sizeof path, "%s/ballast", folder) < (int)sizeof path);
  int file = open(path, O_WRONLY | O_CREAT, 0600);
  MUST(file >= 0);
  for (size_t size = sizeof block; size > 0; size /= 2) {
    while (write(file, block, size) > 0) {
    }
  }
  close(file);
}

/* In a mount namespace of its own, so that nothing stays mounted whatever happens. 77: cannot be done here.
 */
static void on_a_small_disk(const char *folder) {
  if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
      mount("tmpfs", folder, "tmpfs", 0, "size=16m") != 0) {
    _exit(77);
  }
  char data[PATH_MAX], done[VAMPD_ID_SIZE], id[VAMPD_ID_SIZE], path[PATH_MAX + 16];
  MUST(snprintf(data, sizeof data, "%s/data", folder) < (int)sizeof data);
  struct vampd_store *store;
  MUST(vampd_store_open(data, &NO_LIMITS, &store, NULL) == VAMP_OK);
  work_until_full(store, 300000, done);
  fill_disk(folder); /* the last byte, by somebody else */
  MUST(accept_sized(store, 5000, 0, id, NULL) == VAMP_SPACE);
  struct vampd_store_usage usage = usage_of(store);
  MUST(usage.free_bytes == 0);
  /* A job can be begun and forgotten all the same: the log has its room. */
  struct vampd_store_job *jobs;
  int count;
  struct vampd_store_query query = {.state = VAMPD_STATE_QUEUED, .limit = 1};
  MUST(vampd_store_list(store, &query, &jobs, &count, NULL) == VAMP_OK && count == 1);
  MUST(vampd_store_begin(store, jobs[0].id, NULL, NULL) == VAMP_OK);
  MUST(finish_sized(store, jobs[0].id, 100000, NULL) == VAMP_SPACE);
  MUST(state_of(store, jobs[0].id) == VAMPD_STATE_QUEUED);
  MUST(vampd_store_finish(store, jobs[0].id, VAMPD_STATE_FAILED, NULL, NULL, 0, NULL) == VAMP_OK);
  MUST(vampd_store_forget(store, jobs[0].id, NULL) == VAMP_OK);
  free(jobs[0].params);
  free(jobs);
  MUST(accept_sized(store, 100000, 0, id, NULL) == VAMP_OK); /* its clip has made room */
  check_order(store, data);
  vampd_store_close(store);
  snprintf(path, sizeof path, "%s/ballast", folder);
  unlink(path);
  MUST(vampd_store_open(data, &NO_LIMITS, &store, NULL) == VAMP_OK);
  MUST(state_of(store, id) == VAMPD_STATE_QUEUED);
  check_order(store, data);
  vampd_store_close(store);
  _exit(0);
}

static int run_child(void (*work)(const char *folder), const char *folder) {
  int status;
  fflush(NULL);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    work(folder);
    _exit(2);
  }
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status));
  return WEXITSTATUS(status);
}

static void test_full_disk(void **state) {
  (void)state;
  char folder[PATH_MAX];
  make_quick_folder(folder);
  int code = run_child(on_a_small_disk, folder);
  remove_folder(folder);
  if (code == 77) {
    print_message("skipped: a small disk takes the right to mount one\n");
    skip();
  }
  assert_int_equal(code, 0);
}

/* A limit on the size of a file hits the database's log rather than the clips: writing a row fails where its
 * files did not. */
static void under_a_file_limit(const char *folder) {
  char done[VAMPD_ID_SIZE], id[VAMPD_ID_SIZE];
  struct vampd_store *store;
  signal(SIGXFSZ, SIG_IGN);
  MUST(vampd_store_open(folder, &NO_LIMITS, &store, NULL) == VAMP_OK);
  MUST(setrlimit(RLIMIT_FSIZE, &(struct rlimit){400000, RLIM_INFINITY}) == 0);
  work_until_full(store, 10, done);
  MUST(accept_sized(store, 400001, 0, id, NULL) == VAMP_SPACE);
  MUST(setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}) == 0);
  MUST(accept_sized(store, 400001, 0, id, NULL) == VAMP_OK);
  check_order(store, folder);
  vampd_store_close(store);
  _exit(0);
}

static void test_file_size_limit(void **state) {
  (void)state;
  char folder[PATH_MAX];
  make_quick_folder(folder);
  assert_int_equal(run_child(under_a_file_limit, folder), 0);
  struct vampd_store *store = open_store(folder, &NO_LIMITS);
  check_order(store, folder);
  vampd_store_close(store);
  remove_folder(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define WITH_STORE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
      WITH_STORE(test_max_bytes),
      WITH_STORE(test_reserved_stays),
      WITH_STORE(test_min_free_bytes),
      WITH_STORE(test_oldest_make_room),
      WITH_STORE(test_retain_by_age),
      WITH_STORE(test_retain_for_space),
      WITH_STORE(test_sweep_goes_as_a_whole),
      cmocka_unit_test(test_full_disk),
      cmocka_unit_test(test_file_size_limit),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
