/*
 * The store with many jobs: what a statement looks at, what cancelling a sweep costs, what is known of a
 * sweep without its rows.
 *
 * Time is not measured here. What grows with everybody's jobs shows in SQLite's plan of a statement, and what
 * waits for the disk in the number of times that it is waited for.
 */
#include "tests/unit/test_store_fixture.h"

#include <sys/syscall.h>

#include "server/store/internal.h"

#define POINTS 300

static int commits; /* SQLite ends each with one of these */

int fdatasync(int file) {
  commits++;
  return (int)syscall(SYS_fdatasync, file);
}

/* ---- plans -------------------------------------------------------------------------------------------- */

/* Those that are meant to go through a whole table, or an index in its order. */
static bool may_scan(int sql) {
  return sql == VAMPD_SQL_TOTALS || sql == VAMPD_SQL_JOB_OLDEST || sql == VAMPD_SQL_SWEEP_OLDEST;
}

static void check_plan(sqlite3 *database, int number, const char *sql) {
  char *question = sqlite3_mprintf("EXPLAIN QUERY PLAN %s", sql);
  sqlite3_stmt *plan = NULL;
  assert_int_equal(sqlite3_prepare_v2(database, question, -1, &plan, NULL), SQLITE_OK);
  while (sqlite3_step(plan) == SQLITE_ROW) {
    const char *step = (const char *)sqlite3_column_text(plan, 3);
    bool all = strncmp(step, "SCAN", 4) == 0 && strcmp(step, "SCAN CONSTANT ROW") != 0;
    if ((all && !may_scan(number)) || strstr(step, "TEMP B-TREE")) {
      fail_msg("%s\n%s", sql, step);
    }
  }
  sqlite3_finalize(plan);
  sqlite3_free(question);
}

/* Nothing is found by looking at everything, and nothing is sorted. */
static void test_plans(void **state) {
  struct fixture *fixture = *state;
  for (int i = 0; i < VAMPD_SQL_COUNT; i++) {
    struct vampd_database *database =
        i < VAMPD_SQL_WRITER_COUNT ? &fixture->store->writer : &fixture->store->reader;
    check_plan(database->handle, i, sqlite3_sql(database->statements[i]));
  }
}

/* A store that was made before there were these indexes has them after a start. */
static void test_indexes_are_added(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store_job job;
  char path[PATH_MAX];
  sqlite3 *database = NULL;
  assert_int_equal(accept_one(fixture->store, 0, &job, &fixture->error), VAMP_OK);
  vampd_store_close(fixture->store);
  path_in(fixture, "vampd.db", path);
  assert_int_equal(sqlite3_open_v2(path, &database, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
  assert_int_equal(
      sqlite3_exec(database,
                   "DROP INDEX jobs_of_state; DROP INDEX jobs_of_owner_state; DROP INDEX jobs_of_sweep_state;"
                   "CREATE INDEX jobs_unfinished ON jobs(number) WHERE state = 0",
                   NULL, NULL, NULL),
      SQLITE_OK);
  sqlite3_close(database);
  fixture->store = open_store(fixture->folder, &NO_LIMITS);
  test_plans(state);
  assert_int_equal(state_of(fixture->store, job.id), VAMPD_STATE_QUEUED);
  check_order(fixture->store, fixture->folder);
}

/* ---- sweeps ------------------------------------------------------------------------------------------- */

struct made_sweep {
  struct vampd_store_sweep row;
  struct vampd_store_job jobs[POINTS];
  const char *ids[POINTS];
};

static struct made_sweep *make_sweep(struct fixture *fixture, int64_t reserve) {
  struct made_sweep *made = calloc(1, sizeof *made);
  struct vampd_store_input input = new_input();
  made->row = (struct vampd_store_sweep){.points = POINTS, .grid = PARAMS};
  assert_int_equal(vampd_store_new_id(made->row.id, NULL), VAMP_OK);
  memcpy(made->row.input, input.id, VAMPD_ID_SIZE);
  for (int i = 0; i < POINTS; i++) {
    made->jobs[i] = new_job(input.id, "");
    made->jobs[i].point = i;
    memcpy(made->jobs[i].sweep, made->row.id, VAMPD_ID_SIZE);
    made->ids[i] = made->jobs[i].id;
  }
  assert_int_equal(
      vampd_store_accept(fixture->store, &input, 1, made->jobs, POINTS, &made->row, reserve, NULL), VAMP_OK);
  free((void *)input.bytes);
  return made;
}

static void check_states(struct fixture *fixture, int queued, int done, int failed, int cancelled,
                         const char *last) {
  struct vampd_store_sweep *sweeps;
  int count;
  assert_int_equal(vampd_store_list_sweeps(fixture->store, NULL, 0, 10, &sweeps, &count, NULL), VAMP_OK);
  assert_int_equal(count, 1);
  const int expected[VAMPD_STATE_COUNT] = {queued, done, failed, cancelled};
  assert_memory_equal(sweeps[0].states, expected, sizeof expected);
  assert_string_equal(sweeps[0].last, last);
  vampd_store_sweep_free(&sweeps[0]);
  free(sweeps);
}

static void test_states_of_a_sweep(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store *store = fixture->store;
  struct made_sweep *sweep = make_sweep(fixture, 0);
  check_states(fixture, POINTS, 0, 0, 0, sweep->ids[POINTS - 1]);
  assert_int_equal(finish_done(store, sweep->ids[0], NULL), VAMP_OK);
  assert_int_equal(finish_done(store, sweep->ids[1], NULL), VAMP_OK);
  assert_int_equal(vampd_store_finish(store, sweep->ids[POINTS - 1], VAMPD_STATE_FAILED, "{}", NULL, 0, NULL),
                   VAMP_OK);
  assert_int_equal(vampd_store_finish(store, sweep->ids[7], VAMPD_STATE_CANCELLED, "{}", NULL, 0, NULL),
                   VAMP_OK);
  check_states(fixture, POINTS - 4, 2, 1, 1, sweep->ids[POINTS - 2]);
  assert_int_equal(vampd_store_forget(store, sweep->ids[1], NULL), VAMP_OK);
  assert_int_equal(vampd_store_cancel(store, sweep->ids, POINTS, "{}", NULL), VAMP_OK);
  check_states(fixture, 0, 1, 1, POINTS - 3, "");
  free(sweep);
}

/* One commit, whatever the number; what is finished or unknown stays what it is. */
static void test_cancelling_many(void **state) {
  struct fixture *fixture = *state;
  struct vampd_store *store = fixture->store;
  struct made_sweep *sweep = make_sweep(fixture, 1000 * POINTS + 7);
  struct vampd_store_job other, found;
  struct vampd_store_usage usage;
  assert_int_equal(accept_one(store, 500, &other, NULL), VAMP_OK);
  assert_int_equal(vampd_store_begin(store, sweep->ids[2], NULL, NULL), VAMP_OK);
  assert_int_equal(finish_done(store, sweep->ids[3], NULL), VAMP_OK);
  const char *ids[POINTS];
  memcpy(ids, sweep->ids, sizeof ids);
  ids[5] = "0123456789abcdef01234567"; /* unknown */
  ids[6] = ids[4];                     /* twice */
  commits = 0;
  assert_int_equal(vampd_store_cancel(store, ids, POINTS, "{\"title\":\"x\"}", &fixture->error), VAMP_OK);
  assert_int_equal(commits, 1);
  check_states(fixture, 2, 1, 0, POINTS - 3, sweep->ids[6]);
  assert_int_equal(state_of(store, sweep->ids[3]), VAMPD_STATE_DONE);
  assert_int_equal(state_of(store, other.id), VAMPD_STATE_QUEUED);
  assert_int_equal(vampd_store_job(store, sweep->ids[2], NULL, &found, NULL), VAMP_OK);
  assert_true(found.attempts == 1 && found.finished > 0);
  assert_string_equal(found.outcome, "{\"title\":\"x\"}");
  vampd_store_job_free(&found);
  assert_int_equal(vampd_store_usage(store, &usage, NULL), VAMP_OK);
  assert_int_equal(usage.unfinished, 3);
  assert_int_equal(usage.reserved, 1001 + 1001 + 500); /* the remainder of 7 is the first seven's */
  check_order(store, fixture->folder);
  assert_int_equal(vampd_store_cancel(store, ids, POINTS, "{}", &fixture->error),
                   VAMP_OK); /* nothing is left */
  assert_int_equal(vampd_store_cancel(store, sweep->ids, POINTS, "{}", &fixture->error), VAMP_OK);
  assert_int_equal(vampd_store_forget_sweep(store, sweep->row.id, NULL), VAMP_OK);
  check_order(store, fixture->folder);
  free(sweep);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_plans, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_indexes_are_added, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_states_of_a_sweep, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_cancelling_many, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
