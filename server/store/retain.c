/*
 * Forgetting: one job, one sweep, what is too old, what must go to make room.
 *
 * The unit is a job that belongs to no sweep, or a whole sweep with its jobs; an input goes with the last row
 * that names it. Rows are deleted in a transaction, files after it: a kill between the two leaves files
 * without a row, which the next start removes. Nothing makes files go before rows.
 *
 * To find out whether forgetting would make enough room, it is done, in a transaction that is rolled back
 * when the answer is no. That is exact, where adding up sizes beforehand would have to know which inputs are
 * shared, and it costs nothing while there is room. A limit on how soon a finished job may go for space
 * (limits.spare_seconds) keeps a newcomer from taking a result that nobody could fetch yet.
 *
 * All of it happens under the writer's mutex, removal of the files included: space counted as free is free.
 */
#include <stdlib.h>
#include <string.h>

#include "server/store/internal.h"

#define UNITS_AT_ONCE 64 /* forgotten by retention in one transaction, so that others get their turn */

struct victim {
  enum vampd_folder folder;
  char id[VAMPD_ID_SIZE];
};

/* What a transaction has deleted so far. */
struct victims {
  struct victim *items;
  int count, capacity;
  int64_t bytes;
  int jobs;
};

static int add_victim(struct victims *victims, enum vampd_folder folder, const char *id, int64_t bytes,
                      struct vamp_error *error) {
  if (victims->count == victims->capacity) {
    int capacity = victims->capacity ? 2 * victims->capacity : 64;
    struct victim *items = realloc(victims->items, (size_t)capacity * sizeof *items);
    if (!items) {
      return vamp_fail(error, VAMP_MEMORY, "Out of memory while forgetting jobs.");
    }
    victims->items = items;
    victims->capacity = capacity;
  }
  struct victim *victim = &victims->items[victims->count++];
  victim->folder = folder;
  memcpy(victim->id, id, VAMPD_ID_SIZE);
  victims->bytes += bytes;
  victims->jobs += folder == VAMPD_FOLDER_JOBS;
  return VAMP_OK;
}

/* ---- rows --------------------------------------------------------------------------------------------- */

/* Runs a statement for one id. 1 with the first row's columns, a number and an id; 0 without a row. The
 * second column may be missing. */
static int one_row(struct vampd_store *store, enum vampd_sql sql, const char *id, int64_t *number,
                   char other[VAMPD_ID_SIZE], struct vamp_error *error) {
  struct vampd_database *writer = &store->writer;
  int status = vampd_database_bind(writer, sql, error, "t", id);
  if (status == VAMP_OK) {
    status = vampd_database_next(writer, sql, error);
  }
  if (status != 1) {
    return status;
  }
  sqlite3_stmt *statement = writer->statements[sql];
  *number = sqlite3_column_int64(statement, 0);
  const char *text = other ? (const char *)sqlite3_column_text(statement, 1) : NULL;
  if (text && vampd_store_is_id(text)) {
    memcpy(other, text, VAMPD_ID_SIZE);
  } else if (other) {
    status = vamp_fail(error, VAMP_INVALID, "The database of jobs, vampd.db, holds a wrong id.");
  }
  vampd_database_done(writer, sql);
  return status;
}

static int drop_input(struct vampd_store *store, const char *id, struct victims *victims,
                      struct vamp_error *error) {
  int64_t bytes = 0;
  int status = one_row(store, VAMPD_SQL_INPUT_DROP, id, &bytes, NULL, error);
  return status == 1 ? add_victim(victims, VAMPD_FOLDER_INPUTS, id, bytes, error) : status;
}

/* A job or a sweep, and its input. 1 where there was one. */
static int drop_row(struct vampd_store *store, enum vampd_folder folder, const char *id,
                    struct victims *victims, struct vamp_error *error) {
  int64_t bytes = 0;
  char input[VAMPD_ID_SIZE];
  int found = one_row(store, folder == VAMPD_FOLDER_JOBS ? VAMPD_SQL_JOB_DROP : VAMPD_SQL_SWEEP_DROP, id,
                      &bytes, input, error);
  if (found != 1) {
    return found;
  }
  int status = add_victim(victims, folder, id, bytes, error);
  if (status == VAMP_OK) {
    status = drop_input(store, input, victims, error);
  }
  return status == VAMP_OK ? 1 : status;
}

static int drop_sweep(struct vampd_store *store, const char *id, struct victims *victims,
                      struct vamp_error *error) {
  struct vampd_database *writer = &store->writer;
  int status = 1;
  while (status == 1) {
    char job[VAMPD_ID_SIZE] = "";
    status = vampd_database_bind(writer, VAMPD_SQL_SWEEP_NEXT, error, "t", id);
    if (status == VAMP_OK) {
      status = vampd_database_next(writer, VAMPD_SQL_SWEEP_NEXT, error);
    }
    if (status == 1) {
      const char *text = (const char *)sqlite3_column_text(writer->statements[VAMPD_SQL_SWEEP_NEXT], 0);
      strncat(job, text ? text : "", VAMPD_ID_LENGTH);
      vampd_database_done(writer, VAMPD_SQL_SWEEP_NEXT);
      status = drop_row(store, VAMPD_FOLDER_JOBS, job, victims, error);
      if (status == 0) {
        return vamp_fail(error, VAMP_BUSY, "A job of the sweep is not finished.");
      }
    }
  }
  return status < 0 ? status : drop_row(store, VAMPD_FOLDER_SWEEPS, id, victims, error);
}

/* Deletes the oldest unit that was finished before the given time; 0 where there is none. */
static int drop_oldest(struct vampd_store *store, int64_t before, struct victims *victims,
                       struct vamp_error *error) {
  static const enum vampd_sql OLDEST[2] = {VAMPD_SQL_JOB_OLDEST, VAMPD_SQL_SWEEP_OLDEST};
  struct vampd_database *writer = &store->writer;
  char id[2][VAMPD_ID_SIZE] = {"", ""};
  int64_t finished[2] = {INT64_MAX, INT64_MAX};
  for (int i = 0; i < 2; i++) {
    int status = vampd_database_next(writer, OLDEST[i], error);
    if (status < 0) {
      return status;
    }
    if (status == 1) {
      const char *text = (const char *)sqlite3_column_text(writer->statements[OLDEST[i]], 0);
      strncat(id[i], text ? text : "", VAMPD_ID_LENGTH);
      finished[i] = sqlite3_column_int64(writer->statements[OLDEST[i]], 1);
      vampd_database_done(writer, OLDEST[i]);
    }
  }
  int which = finished[1] < finished[0];
  if (finished[which] > before) {
    return 0;
  }
  return which ? drop_sweep(store, id[1], victims, error)
               : drop_row(store, VAMPD_FOLDER_JOBS, id[0], victims, error);
}

/* ---- transactions ------------------------------------------------------------------------------------- */

static int begin(struct vampd_store *store, struct vamp_error *error) {
  return vampd_database_run(&store->writer, VAMPD_SQL_BEGIN, error);
}

/* Ends the transaction: `status` 0 commits and then removes the files, others roll back. */
static int end(struct vampd_store *store, int status, struct victims *victims, struct vamp_error *error) {
  if (status == VAMP_OK) {
    status = vampd_database_commit(&store->writer, &store->reader, error);
  } else {
    vampd_database_roll_back(&store->writer);
  }
  if (status == VAMP_OK) {
    for (int i = 0; i < victims->count; i++) {
      vampd_folder_remove(store, victims->items[i].folder, victims->items[i].id);
    }
    vampd_space_add(store, &(struct vampd_space){.bytes = -victims->bytes, .jobs = -victims->jobs});
  }
  free(victims->items);
  victims->items = NULL;
  return status;
}

/* The moment so long ago; for 0 any, even one that a clock set back has put into the future. */
static int64_t ago(double seconds) {
  if (seconds <= 0) {
    return INT64_MAX - 1;
  }
  double limit = (double)vampd_store_now();
  double milliseconds = seconds * 1000;
  return milliseconds < limit ? (int64_t)(limit - milliseconds) : 0;
}

int vampd_retain_make_room(struct vampd_store *store, int64_t bytes, bool only_try,
                           struct vamp_error *error) {
  static const char FULL[] =
      "The store is full, and nothing in it may be forgotten yet: delete finished jobs, "
      "free space on its disk, or try again later.";
  pthread_mutex_lock(&store->space_mutex);
  bool hopeless = bytes > store->space.bytes;
  double spare = store->limits.spare_seconds;
  pthread_mutex_unlock(&store->space_mutex);
  if (hopeless) {
    return vamp_fail(error, VAMP_SPACE, FULL);
  }
  struct victims victims = {0};
  int status = begin(store, error);
  if (status != VAMP_OK) {
    return status;
  }
  int64_t before = ago(spare);
  int found = 1;
  while (found == 1 && victims.bytes < bytes) {
    found = drop_oldest(store, before, &victims, error);
  }
  if (found < 0) {
    return end(store, found, &victims, error);
  }
  bool enough = victims.bytes >= bytes;
  if (only_try) {
    end(store, VAMP_CANCELLED, &victims, NULL);
    return enough ? VAMP_OK : VAMP_SPACE;
  }
  return end(store, enough ? VAMP_OK : vamp_fail(error, VAMP_SPACE, FULL), &victims, error);
}

/* Forgets a few units that were finished before a moment, until *bytes, which it counts down, are gone.
 * Returns how many went. */
static int forget_some(struct vampd_store *store, int64_t before, int64_t *bytes, int *jobs,
                       struct vamp_error *error) {
  struct victims victims = {0};
  int units = 0, found = 1;
  pthread_mutex_lock(&store->writer.mutex);
  int status = begin(store, error);
  if (status == VAMP_OK) {
    while (found == 1 && units < UNITS_AT_ONCE && victims.bytes < *bytes) {
      found = drop_oldest(store, before, &victims, error);
      units += found == 1;
    }
    status = end(store, found < 0 ? found : VAMP_OK, &victims, error);
  }
  pthread_mutex_unlock(&store->writer.mutex);
  if (status != VAMP_OK) {
    return status;
  }
  *bytes -= victims.bytes;
  *jobs += victims.jobs;
  return units;
}

int vampd_store_retain(struct vampd_store *store, struct vamp_error *error) {
  pthread_mutex_lock(&store->space_mutex);
  struct vampd_store_limits limits = store->limits;
  pthread_mutex_unlock(&store->space_mutex);
  int jobs = 0, units = 1;
  int64_t any = INT64_MAX;
  while (units > 0 && limits.keep_seconds > 0) {
    units = forget_some(store, ago(limits.keep_seconds), &any, &jobs, error);
  }
  if (units < 0) {
    return units;
  }
  units = 1;
  for (int64_t bytes = vampd_space_missing(store, 0); units > 0 && bytes > 0;) {
    units = forget_some(store, ago(limits.spare_seconds), &bytes, &jobs, error);
  }
  return units < 0 ? units : jobs;
}

/* ---- one of them -------------------------------------------------------------------------------------- */

int vampd_store_forget(struct vampd_store *store, const char *id, struct vamp_error *error) {
  if (!vampd_store_is_id(id)) {
    return vamp_fail(error, VAMP_INVALID, "There is no such job.");
  }
  struct victims victims = {0};
  pthread_mutex_lock(&store->writer.mutex);
  int status = begin(store, error);
  if (status == VAMP_OK) {
    int64_t state = 0;
    status = one_row(store, VAMPD_SQL_JOB_STATE, id, &state, NULL, error);
    if (status == 0) {
      status = vamp_fail(error, VAMP_INVALID, "There is no job %s.", id);
    } else if (status == 1 && state == VAMPD_STATE_QUEUED) {
      status = vamp_fail(error, VAMP_BUSY, "The job %s is not finished; cancel it first.", id);
    } else if (status == 1) {
      status = drop_row(store, VAMPD_FOLDER_JOBS, id, &victims, error);
      status = status < 0 ? status : VAMP_OK;
    }
    status = end(store, status, &victims, error);
  }
  pthread_mutex_unlock(&store->writer.mutex);
  return status;
}

int vampd_store_forget_sweep(struct vampd_store *store, const char *id, struct vamp_error *error) {
  if (!vampd_store_is_id(id)) {
    return vamp_fail(error, VAMP_INVALID, "There is no such sweep.");
  }
  struct victims victims = {0};
  pthread_mutex_lock(&store->writer.mutex);
  int status = begin(store, error);
  if (status == VAMP_OK) {
    int64_t unfinished = 0;
    status = one_row(store, VAMPD_SQL_SWEEP_UNFINISHED, id, &unfinished, NULL, error);
    if (status == 0) {
      status = vamp_fail(error, VAMP_INVALID, "There is no sweep %s.", id);
    } else if (status == 1 && unfinished > 0) {
      status =
          vamp_fail(error, VAMP_BUSY, "The sweep %s has jobs that are not finished; cancel them first.", id);
    } else if (status == 1) {
      status = drop_sweep(store, id, &victims, error);
      status = status < 0 ? status : VAMP_OK;
    }
    status = end(store, status, &victims, error);
  }
  pthread_mutex_unlock(&store->writer.mutex);
  return status;
}
