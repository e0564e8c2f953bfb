/*
 * For tests of the store: a temporary folder, jobs to put into it, and a look from outside.
 *
 * Every file's bytes follow from the id and the name it has, so whoever finds one can tell whether it is
 * whole. The look from outside uses neither the store nor its memory: it reads the folders and, through a
 * connection of its own, the database.
 */
#ifndef TEST_STORE_FIXTURE_H
#define TEST_STORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <ftw.h>
#include <limits.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/store/store.h"

#define UNUSED __attribute__((unused))

static const struct vampd_store_limits NO_LIMITS UNUSED = {0};

/* ---- folders ------------------------------------------------------------------------------------------ */

static void UNUSED make_folder(char folder[PATH_MAX]) {
  const char *parent = getenv("TMPDIR");
  snprintf(folder, PATH_MAX, "%s/vampd-store-XXXXXX", parent && *parent ? parent : "/tmp");
  assert_non_null(mkdtemp(folder));
}

/* The same in memory where there is such a place: for tests that make hundreds of stores, and to which it
 * does not matter what a disk has, since what a kill loses is not what a power cut does. */
static void UNUSED make_quick_folder(char folder[PATH_MAX]) {
  if (!getenv("TMPDIR") && access("/dev/shm", W_OK) == 0) {
    snprintf(folder, PATH_MAX, "/dev/shm/vampd-store-XXXXXX");
    assert_non_null(mkdtemp(folder));
  } else {
    make_folder(folder);
  }
}

static int remove_entry(const char *path, const struct stat *facts, int type, struct FTW *at) {
  (void)facts;
  (void)type;
  (void)at;
  return remove(path);
}

static void UNUSED remove_folder(const char *folder) {
  nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static struct vampd_store *UNUSED open_store(const char *folder, const struct vampd_store_limits *limits) {
  struct vampd_store *store = NULL;
  struct vamp_error error = {0};
  if (vampd_store_open(folder, limits, &store, &error) != VAMP_OK) {
    fail_msg("cannot open: %s", error.message);
  }
  return store;
}

/* ---- a test's store --------------------------------------------------------------------------------------
 */

struct fixture {
  char folder[PATH_MAX];
  struct vampd_store *store;
  struct vamp_error error;
};

static int UNUSED set_up(void **state) {
  struct fixture *fixture = calloc(1, sizeof *fixture);
  make_folder(fixture->folder);
  fixture->store = open_store(fixture->folder, &NO_LIMITS);
  *state = fixture;
  return 0;
}

static int UNUSED tear_down(void **state) {
  struct fixture *fixture = *state;
  vampd_store_close(fixture->store);
  remove_folder(fixture->folder);
  free(fixture);
  return 0;
}

static void UNUSED reopen(struct fixture *fixture) {
  vampd_store_close(fixture->store);
  fixture->store = open_store(fixture->folder, &NO_LIMITS);
}

static void UNUSED path_in(const struct fixture *fixture, const char *name, char path[PATH_MAX]) {
  assert_true(snprintf(path, PATH_MAX, "%s/%s", fixture->folder, name) < PATH_MAX);
}

static void UNUSED write_text(const char *path, const char *text) {
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(text, file);
  fclose(file);
}

/* ---- contents ----------------------------------------------------------------------------------------- */

static uint32_t mix(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

static uint32_t hash_text(const char *text, uint32_t hash) {
  for (; *text; text++) {
    hash = mix(hash + (unsigned char)*text);
  }
  return hash;
}

static size_t UNUSED content_size(const char *id, const char *name) {
  return hash_text(name, hash_text(id, 1)) % 9000;
}

/* The bytes of a file; freed by the caller. */
static unsigned char *UNUSED content(const char *id, const char *name, size_t size) {
  unsigned char *bytes = malloc(size + 1);
  uint32_t x = hash_text(name, hash_text(id, 2));
  for (size_t i = 0; i < size; i++) {
    x = x * 1664525u + 1013904223u;
    bytes[i] = (unsigned char)(x >> 24);
  }
  return bytes;
}

/* Whether a file is there with the bytes that it must have. */
static bool UNUSED is_whole(struct vampd_store *store, enum vampd_folder folder, const char *id,
                            const char *name) {
  void *data;
  size_t size, right = content_size(id, name);
  if (vampd_store_read_file(store, folder, id, name, 1 << 20, &data, &size, NULL) != VAMP_OK) {
    return false;
  }
  unsigned char *bytes = content(id, name, right);
  bool same = size == right && memcmp(data, bytes, size) == 0;
  free(bytes);
  free(data);
  return same;
}

/* ---- jobs --------------------------------------------------------------------------------------------- */

#define RESULT_FILES 3
static const char *const RESULT_NAMES[RESULT_FILES] UNUSED = {"audio.wav", "mask.json", "tokens.npy"};
static char PARAMS[] UNUSED = "{\"seed\":7}";

/* An input with fresh id; its bytes are freed by the caller. */
static struct vampd_store_input UNUSED new_input(void) {
  struct vampd_store_input input = {.media_type = "audio/wav", .name = "piano – take 2.wav", .seconds = 1.5};
  assert_int_equal(vampd_store_new_id(input.id, NULL), VAMP_OK);
  input.size = content_size(input.id, "clip");
  input.bytes = content(input.id, "clip", input.size);
  return input;
}

static struct vampd_store_job UNUSED new_job(const char *input, const char *owner) {
  struct vampd_store_job job = {.seconds = 1.5, .params = PARAMS};
  assert_int_equal(vampd_store_new_id(job.id, NULL), VAMP_OK);
  snprintf(job.input, sizeof job.input, "%s", input);
  snprintf(job.owner, sizeof job.owner, "%s", owner);
  return job;
}

/* Accepts one job with an input of its own. */
static int UNUSED accept_one(struct vampd_store *store, int64_t reserve, struct vampd_store_job *job,
                             struct vamp_error *error) {
  struct vampd_store_input input = new_input();
  *job = new_job(input.id, "");
  int status = vampd_store_accept(store, &input, 1, job, 1, NULL, reserve, error);
  free((void *)input.bytes);
  return status;
}

static int64_t UNUSED result_size(const char *id) {
  int64_t size = 0;
  for (int i = 0; i < RESULT_FILES; i++) {
    size += (int64_t)content_size(id, RESULT_NAMES[i]);
  }
  return size;
}

static int UNUSED finish_done(struct vampd_store *store, const char *id, struct vamp_error *error) {
  struct vampd_store_file files[RESULT_FILES];
  for (int i = 0; i < RESULT_FILES; i++) {
    size_t size = content_size(id, RESULT_NAMES[i]);
    files[i] = (struct vampd_store_file){RESULT_NAMES[i], content(id, RESULT_NAMES[i], size), size};
  }
  int status = vampd_store_finish(store, id, VAMPD_STATE_DONE, "{\"lufs\":-24}", files, RESULT_FILES, error);
  for (int i = 0; i < RESULT_FILES; i++) {
    free((void *)files[i].data);
  }
  return status;
}

static int UNUSED put_content(struct vampd_store *store, enum vampd_folder folder, const char *id,
                              const char *name, struct vamp_error *error) {
  struct vampd_store_file file = {name, NULL, content_size(id, name)};
  unsigned char *bytes = content(id, name, file.size);
  file.data = bytes;
  int status = vampd_store_put_file(store, folder, id, &file, error);
  free(bytes);
  return status;
}

/* The state of a job, or -1 where there is none. */
static int UNUSED state_of(struct vampd_store *store, const char *id) {
  struct vampd_store_job job;
  if (vampd_store_job(store, id, NULL, &job, NULL) != VAMP_OK) {
    return -1;
  }
  int state = (int)job.state;
  vampd_store_job_free(&job);
  return state;
}

/* ---- from outside ------------------------------------------------------------------------------------- */

/* Every file in KIND/ID/ of a data folder; an entry that is not an id fails the test. */
static int64_t tree_bytes(const char *folder, const char *kind, int *ids) {
  char path[PATH_MAX];
  int64_t bytes = 0;
  assert_true(snprintf(path, sizeof path, "%s/%s", folder, kind) < (int)sizeof path);
  DIR *entries = opendir(path);
  assert_non_null(entries);
  for (struct dirent *entry = readdir(entries); entry; entry = readdir(entries)) {
    if (entry->d_name[0] == '.') {
      continue;
    }
    if (!vampd_store_is_id(entry->d_name)) {
      fail_msg("%s/%s is left over", kind, entry->d_name);
    }
    (*ids)++;
    char inner[PATH_MAX];
    assert_true(snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name) < (int)sizeof inner);
    DIR *files = opendir(inner);
    assert_non_null(files);
    for (struct dirent *file = readdir(files); file; file = readdir(files)) {
      struct stat facts;
      if (file->d_name[0] != '.') {
        assert_int_equal(fstatat(dirfd(files), file->d_name, &facts, 0), 0);
        bytes += facts.st_size;
      }
    }
    closedir(files);
  }
  closedir(entries);
  return bytes;
}

static int64_t database_number(sqlite3 *database, const char *sql) {
  sqlite3_stmt *statement = NULL;
  assert_int_equal(sqlite3_prepare_v2(database, sql, -1, &statement, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
  int64_t number = sqlite3_column_int64(statement, 0);
  sqlite3_finalize(statement);
  return number;
}

/* That an open store at rest is in order: the database sound, sums right, no file without a row, no row
 * without its files. */
static void UNUSED check_order(struct vampd_store *store, const char *folder) {
  char path[PATH_MAX];
  sqlite3 *database = NULL;
  sqlite3_stmt *statement = NULL;
  assert_true(snprintf(path, sizeof path, "%s/vampd.db", folder) < (int)sizeof path);
  assert_int_equal(sqlite3_open_v2(path, &database, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_prepare_v2(database, "PRAGMA integrity_check", -1, &statement, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
  assert_string_equal((const char *)sqlite3_column_text(statement, 0), "ok");
  sqlite3_finalize(statement);
  assert_int_equal(sqlite3_prepare_v2(database, "PRAGMA foreign_key_check", -1, &statement, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_step(statement), SQLITE_DONE);
  sqlite3_finalize(statement);

  int inputs = 0, jobs = 0, sweeps = 0;
  int64_t input_bytes = tree_bytes(folder, "inputs", &inputs);
  int64_t job_bytes = tree_bytes(folder, "jobs", &jobs);
  int64_t sweep_bytes = tree_bytes(folder, "sweeps", &sweeps);
  assert_int_equal(inputs, database_number(database, "SELECT count(*) FROM inputs"));
  assert_int_equal(jobs, database_number(database, "SELECT count(*) FROM jobs WHERE state = 1"));
  assert_true(sweeps <= database_number(database, "SELECT count(*) FROM sweeps"));
  assert_int_equal(input_bytes, database_number(database, "SELECT ifnull(sum(bytes), 0) FROM inputs"));
  assert_int_equal(job_bytes, database_number(database, "SELECT ifnull(sum(bytes), 0) FROM jobs"));
  assert_int_equal(sweep_bytes, database_number(database, "SELECT ifnull(sum(bytes), 0) FROM sweeps"));
  assert_int_equal(0, database_number(database, "SELECT count(*) FROM inputs WHERE id NOT IN"
                                                " (SELECT input FROM jobs UNION SELECT input FROM sweeps)"));
  assert_int_equal(0, database_number(database,
                                      "SELECT count(*) FROM sweeps WHERE unfinished <>"
                                      " (SELECT count(*) FROM jobs WHERE sweep = sweeps.id AND state = 0)"
                                      " OR (finished > 0) <> (unfinished = 0)"));
  struct vampd_store_usage usage;
  assert_int_equal(vampd_store_usage(store, &usage, NULL), VAMP_OK);
  assert_int_equal(usage.bytes, input_bytes + job_bytes + sweep_bytes);
  assert_int_equal(usage.reserved, database_number(database, "SELECT ifnull(sum(reserved), 0) FROM jobs"));
  assert_int_equal(usage.jobs, database_number(database, "SELECT count(*) FROM jobs"));
  assert_int_equal(usage.unfinished, database_number(database, "SELECT count(*) FROM jobs WHERE state = 0"));
  assert_true(usage.free_bytes > 0);
  sqlite3_close(database);
}

#endif
