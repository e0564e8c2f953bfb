/*
 * Reading rows: through the reader's connection, which sees the last commit and waits for no writer.
 *
 * Every call copies what it found and lets the connection go before it returns or calls back: a statement
 * left open would keep the log from starting over, and a callback may want to write.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/store/internal.h"

#define LIMIT_MAX 1000
#define UNFINISHED_AT_ONCE 64

static void copy_text(sqlite3_stmt *row, int column, char *to, size_t size) {
  const char *text = (const char *)sqlite3_column_text(row, column);
  snprintf(to, size, "%s", text ? text : "");
}

/* A malloc'd copy; NULL for NULL, and then *failed tells whether memory ran out. */
static char *copy_long(sqlite3_stmt *row, int column, bool *failed) {
  if (sqlite3_column_type(row, column) == SQLITE_NULL) {
    return NULL;
  }
  const char *text = (const char *)sqlite3_column_text(row, column);
  char *copy = text ? strdup(text) : NULL;
  *failed = *failed || !copy;
  return copy;
}

/* ---- rows --------------------------------------------------------------------------------------------- */

/* In the order of the columns of JOB in database.c. */
static int read_job(sqlite3_stmt *row, void *into, struct vamp_error *error) {
  struct vampd_store_job *job = into;
  bool failed = false;
  memset(job, 0, sizeof *job);
  copy_text(row, 0, job->id, sizeof job->id);
  job->number = sqlite3_column_int64(row, 1);
  copy_text(row, 2, job->owner, sizeof job->owner);
  copy_text(row, 3, job->input, sizeof job->input);
  copy_text(row, 4, job->sweep, sizeof job->sweep);
  job->point = sqlite3_column_int(row, 5);
  job->state = (enum vampd_state)sqlite3_column_int(row, 6);
  job->attempts = sqlite3_column_int(row, 7);
  job->created = sqlite3_column_int64(row, 8);
  job->started = sqlite3_column_int64(row, 9);
  job->finished = sqlite3_column_int64(row, 10);
  job->seconds = sqlite3_column_double(row, 11);
  job->bytes = sqlite3_column_int64(row, 12);
  job->params = copy_long(row, 13, &failed);
  job->outcome = copy_long(row, 14, &failed);
  if (failed) {
    vampd_store_job_free(job);
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while reading a job.");
  }
  return VAMP_OK;
}

/* Likewise of SWEEP. */
static int read_sweep(sqlite3_stmt *row, void *into, struct vamp_error *error) {
  struct vampd_store_sweep *sweep = into;
  bool failed = false;
  memset(sweep, 0, sizeof *sweep);
  copy_text(row, 0, sweep->id, sizeof sweep->id);
  sweep->number = sqlite3_column_int64(row, 1);
  copy_text(row, 2, sweep->owner, sizeof sweep->owner);
  copy_text(row, 3, sweep->input, sizeof sweep->input);
  sweep->created = sqlite3_column_int64(row, 4);
  sweep->points = sqlite3_column_int(row, 5);
  sweep->grid = copy_long(row, 6, &failed);
  for (int state = 0; state < VAMPD_STATE_COUNT; state++) {
    sweep->states[state] = sqlite3_column_int(row, 7 + state);
  }
  copy_text(row, 7 + VAMPD_STATE_COUNT, sweep->last, sizeof sweep->last);
  if (failed) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while reading a sweep.");
  }
  return VAMP_OK;
}

static int read_input(sqlite3_stmt *row, void *into, struct vamp_error *error) {
  (void)error;
  struct vampd_store_input *input = into;
  memset(input, 0, sizeof *input);
  copy_text(row, 0, input->id, sizeof input->id);
  copy_text(row, 1, input->media_type, sizeof input->media_type);
  copy_text(row, 2, input->name, sizeof input->name);
  input->seconds = sqlite3_column_double(row, 3);
  input->size = (size_t)sqlite3_column_int64(row, 4);
  return VAMP_OK;
}

void vampd_store_job_free(struct vampd_store_job *job) {
  free(job->params);
  free(job->outcome);
  job->params = job->outcome = NULL;
}

size_t vampd_store_job_text(const struct vampd_store_job *job) {
  return (job->params ? strlen(job->params) : 0) + (job->outcome ? strlen(job->outcome) : 0);
}

void vampd_store_sweep_free(struct vampd_store_sweep *sweep) {
  free(sweep->grid);
  sweep->grid = NULL;
}

static void free_job(void *job) {
  vampd_store_job_free(job);
}

static void free_sweep(void *sweep) {
  vampd_store_sweep_free(sweep);
}

/* ---- one ---------------------------------------------------------------------------------------------- */

typedef int read_row(sqlite3_stmt *row, void *into, struct vamp_error *error);

/* The first row of a statement whose parameters are bound. The mutex is held. `into` changes on success only:
 * readers fill `scratch`, as large. */
static int read_one(struct vampd_store *store, enum vampd_sql sql, read_row *read, void *into, void *scratch,
                    size_t size, const char *what, struct vamp_error *error) {
  int status = vampd_database_next(&store->reader, sql, error);
  if (status == 0) {
    return vamp_fail(error, VAMP_INVALID, "There is no such %s.", what);
  }
  if (status == 1) {
    status = read(store->reader.statements[sql], scratch, error);
    vampd_database_done(&store->reader, sql);
  }
  if (status == VAMP_OK) {
    memcpy(into, scratch, size);
  }
  return status;
}

int vampd_store_job(struct vampd_store *store, const char *id, const char *owner, struct vampd_store_job *job,
                    struct vamp_error *error) {
  struct vampd_store_job found;
  pthread_mutex_lock(&store->reader.mutex);
  int status = vampd_database_bind(&store->reader, VAMPD_SQL_JOB, error, "tt", id, owner);
  if (status == VAMP_OK) {
    status = read_one(store, VAMPD_SQL_JOB, read_job, job, &found, sizeof found, "job", error);
  }
  pthread_mutex_unlock(&store->reader.mutex);
  return status;
}

int vampd_store_input(struct vampd_store *store, const char *id, struct vampd_store_input *input,
                      struct vamp_error *error) {
  struct vampd_store_input found;
  pthread_mutex_lock(&store->reader.mutex);
  int status = vampd_database_bind(&store->reader, VAMPD_SQL_INPUT, error, "t", id);
  if (status == VAMP_OK) {
    status = read_one(store, VAMPD_SQL_INPUT, read_input, input, &found, sizeof found, "input", error);
  }
  pthread_mutex_unlock(&store->reader.mutex);
  return status;
}

int vampd_store_sweep(struct vampd_store *store, const char *id, const char *owner,
                      struct vampd_store_sweep *sweep, struct vamp_error *error) {
  struct vampd_store_sweep found;
  pthread_mutex_lock(&store->reader.mutex);
  int status = vampd_database_bind(&store->reader, VAMPD_SQL_SWEEP, error, "tt", id, owner);
  if (status == VAMP_OK) {
    status = read_one(store, VAMPD_SQL_SWEEP, read_sweep, sweep, &found, sizeof found, "sweep", error);
  }
  pthread_mutex_unlock(&store->reader.mutex);
  return status;
}

/* ---- many --------------------------------------------------------------------------------------------- */

/* What rows become. */
struct kind {
  size_t size; /* of the struct */
  read_row *read;
  void (*release)(void *);
  size_t (*text)(const void *); /* bytes of its long texts */
};

static size_t job_text(const void *job) {
  return vampd_store_job_text(job);
}

static const struct kind JOBS = {sizeof(struct vampd_store_job), read_job, free_job, job_text};
static const struct kind SWEEPS = {sizeof(struct vampd_store_sweep), read_sweep, free_sweep, NULL};

/* All rows of a statement whose parameters are bound, as a malloc'd array; where `most` is not 0, only until
 * their texts come to as much. The mutex is held. */
static int read_all(struct vampd_store *store, enum vampd_sql sql, const struct kind *kind, size_t most,
                    void **rows, int *count, struct vamp_error *error) {
  char *array = NULL;
  size_t size = kind->size, used = 0, capacity = 0, text = 0;
  int status;
  while ((status = vampd_database_next(&store->reader, sql, error)) == 1) {
    if (used == capacity) {
      size_t larger = capacity ? 2 * capacity : 16;
      char *grown = realloc(array, larger * size);
      if (!grown) {
        status = vamp_fail(error, VAMP_MEMORY, "Out of memory while listing jobs.");
        break;
      }
      array = grown;
      capacity = larger;
    }
    status = kind->read(store->reader.statements[sql], array + used * size, error);
    if (status != VAMP_OK) {
      break;
    }
    text += most > 0 ? kind->text(array + used * size) : 0;
    used++;
    if (most > 0 && text >= most) {
      vampd_database_done(&store->reader, sql);
      break;
    }
  }
  if (status != VAMP_OK) {
    vampd_database_done(&store->reader, sql);
    for (size_t i = 0; i < used; i++) {
      kind->release(array + i * size);
    }
    free(array);
    return status;
  }
  *rows = array;
  *count = (int)used;
  return VAMP_OK;
}

int vampd_store_list(struct vampd_store *store, const struct vampd_store_query *query,
                     struct vampd_store_job **jobs, int *count, struct vamp_error *error) {
  bool all = query->sweep && query->limit == 0;
  if (!all && (query->limit < 1 || query->limit > LIMIT_MAX)) {
    return vamp_fail(error, VAMP_INVALID, "limit must be from 1 to %d.", LIMIT_MAX);
  }
  int64_t before = query->before > 0 ? query->before : INT64_MAX;
  struct vampd_database *reader = &store->reader;
  enum vampd_sql sql = query->sweep   ? VAMPD_SQL_JOBS_OF_SWEEP
                       : query->owner ? VAMPD_SQL_JOBS_OF_OWNER
                                      : VAMPD_SQL_JOBS;
  sql = all ? VAMPD_SQL_POINTS : query->any_state ? sql : sql + 1;
  pthread_mutex_lock(&reader->mutex);
  int status = all ? vampd_database_bind(reader, sql, error, "tt", query->sweep, query->owner)
                   : vampd_database_bind(reader, sql, error, "ttnin", query->owner, query->sweep,
                                         (int)query->state, before, query->limit);
  void *rows = NULL;
  if (status == VAMP_OK) {
    status = read_all(store, sql, &JOBS, query->text, &rows, count, error);
  }
  pthread_mutex_unlock(&reader->mutex);
  if (status == VAMP_OK) {
    *jobs = rows;
  }
  return status;
}

int vampd_store_list_sweeps(struct vampd_store *store, const char *owner, int64_t before, int limit,
                            struct vampd_store_sweep **sweeps, int *count, struct vamp_error *error) {
  if (limit < 1 || limit > LIMIT_MAX) {
    return vamp_fail(error, VAMP_INVALID, "limit must be from 1 to %d.", LIMIT_MAX);
  }
  struct vampd_database *reader = &store->reader;
  enum vampd_sql sql = owner ? VAMPD_SQL_SWEEPS_OF_OWNER : VAMPD_SQL_SWEEPS;
  before = before > 0 ? before : INT64_MAX;
  void *rows = NULL;
  pthread_mutex_lock(&reader->mutex);
  int status = owner ? vampd_database_bind(reader, sql, error, "tin", owner, before, limit)
                     : vampd_database_bind(reader, sql, error, "in", before, limit);
  if (status == VAMP_OK) {
    status = read_all(store, sql, &SWEEPS, 0, &rows, count, error);
  }
  pthread_mutex_unlock(&reader->mutex);
  if (status == VAMP_OK) {
    *sweeps = rows;
  }
  return status;
}

int vampd_store_each_unfinished(struct vampd_store *store,
                                int (*each)(const struct vampd_store_job *job, void *user), void *user,
                                struct vamp_error *error) {
  int64_t after = 0;
  int status = VAMP_OK, count = UNFINISHED_AT_ONCE;
  bool stop = false;
  while (count == UNFINISHED_AT_ONCE && !stop) {
    void *rows = NULL;
    pthread_mutex_lock(&store->reader.mutex);
    status = vampd_database_bind(&store->reader, VAMPD_SQL_JOBS_UNFINISHED, error, "in", after,
                                 UNFINISHED_AT_ONCE);
    if (status == VAMP_OK) {
      status = read_all(store, VAMPD_SQL_JOBS_UNFINISHED, &JOBS, 0, &rows, &count, error);
    }
    pthread_mutex_unlock(&store->reader.mutex);
    if (status != VAMP_OK) {
      return status;
    }
    struct vampd_store_job *jobs = rows;
    for (int i = 0; i < count; i++) {
      after = jobs[i].number;
      stop = stop || each(&jobs[i], user) != 0;
      vampd_store_job_free(&jobs[i]);
    }
    free(rows);
  }
  return status;
}
