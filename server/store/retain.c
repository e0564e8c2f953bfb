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
 * Files are removed after the writer's mutex has been let go, for a file system may take its time. Until they
 * are gone they count as going: the sum says that their space is free, and the disk, which is asked too, not
 * yet. Whether it will say so at once afterwards is not asked either: where somebody still reads one of the
 * files it will not, and more would be forgotten for nothing.
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

/* Ends the transaction: `status` 0 commits. The mutex is held. */
static int end(struct vampd_store *store, int status, const struct victims *victims,
               struct vamp_error *error) {
  if (status == VAMP_OK) {
    status = vampd_database_commit(&store->writer, &store->reader, error);
  } else {
    vampd_database_roll_back(&store->writer);
  }
  if (status == VAMP_OK) {
    vampd_space_add(store, &(struct vampd_space){
                               .bytes = -victims->bytes, .going = victims->bytes, .jobs = -victims->jobs});
  }
  return status;
}

/* After the mutex: removes the files of what a transaction that succeeded has deleted. */
static void clear_away(struct vampd_store *store, int status, struct victims *victims) {
  if (status == VAMP_OK) {
    for (int i = 0; i < victims->count; i++) {
      vampd_folder_remove(store, victims->items[i].folder, victims->items[i].id);
    }
    vampd_space_add(store, &(struct vampd_space){.going = -victims->bytes});
  }
  free(victims->items);
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

/* Deletes the oldest until `bytes` are gone; VAMP_SPACE where there are not as many. In a transaction. */
static int make_room(struct vampd_store *store, int64_t bytes, struct victims *victims,
                     struct vamp_error *error) {
  pthread_mutex_lock(&store->space_mutex);
  bool hopeless = bytes > store->space.bytes;
  int64_t before = ago(store->limits.spare_seconds);
  pthread_mutex_unlock(&store->space_mutex);
  int found = !hopeless;
  while (found == 1 && victims->bytes < bytes) {
    found = drop_oldest(store, before, victims, error);
  }
  if (found < 0) {
    return found;
  }
  return found == 1 ? VAMP_OK
                    : vamp_fail(error, VAMP_SPACE,
                                "The store is full, and nothing in it may be forgotten yet: delete finished "
                                "jobs, free space on its disk, or try again later.");
}

int vampd_retain_claim(struct vampd_store *store, int64_t need, bool only_try, struct vamp_error *error) {
  struct victims victims = {0};
  pthread_mutex_lock(&store->writer.mutex);
  int64_t bytes = only_try ? vampd_space_missing(store, need) : vampd_space_try_claim(store, need);
  if (bytes == 0) { /* somebody else has made room */
    pthread_mutex_unlock(&store->writer.mutex);
    return VAMP_OK;
  }
  int status = begin(store, error);
  bool enough = false;
  if (status == VAMP_OK) {
    status = make_room(store, bytes, &victims, error);
    enough = status == VAMP_OK;
    status = end(store, enough && only_try ? VAMP_CANCELLED : status, &victims, error);
  }
  if (status == VAMP_OK) {
    vampd_space_add(store, &(struct vampd_space){.pending = need});
  }
  pthread_mutex_unlock(&store->writer.mutex);
  clear_away(store, status, &victims);
  return enough && only_try ? VAMP_OK : status;
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
  clear_away(store, status, &victims);
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
  clear_away(store, status, &victims);
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
  clear_away(store, status, &victims);
  return status;
}
