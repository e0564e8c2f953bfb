/*
 * Running: attempts, and the end of a job, or of many that have not begun.
 *
 * The result of a job that is DONE is written beside and fsynced without the mutex. Under it, in a
 * transaction: the row is changed if the job is still unfinished (somebody may have cancelled it); the folder
 * gets its name, in place of whatever an earlier attempt has left; jobs/ is fsynced; commit. A kill before
 * the commit leaves an unfinished job and a folder that the next start removes; after it, everything. A
 * reader may see the files a moment before the row says DONE; they are the right ones.
 */
#include <string.h>

#include "server/store/internal.h"

static int fail_finished(const char *id, struct vamp_error *error) {
  return vamp_fail(error, VAMP_CANCELLED, "The job %s is finished already, or unknown.",
                   vampd_store_is_id(id) ? id : "of that id");
}

int vampd_store_begin(struct vampd_store *store, const char *id, int *attempts, struct vamp_error *error) {
  struct vampd_database *writer = &store->writer;
  if (!vampd_store_is_id(id)) {
    return fail_finished(id, error);
  }
  int count = 0;
  pthread_mutex_lock(&writer->mutex);
  int status = vampd_database_run(writer, VAMPD_SQL_BEGIN, error);
  if (status == VAMP_OK) {
    status = vampd_database_bind(writer, VAMPD_SQL_JOB_BEGIN, error, "ti", id, vampd_store_now());
    if (status == VAMP_OK) {
      status = vampd_database_next(writer, VAMPD_SQL_JOB_BEGIN, error);
    }
    if (status == 1) {
      count = sqlite3_column_int(writer->statements[VAMPD_SQL_JOB_BEGIN], 0);
      vampd_database_done(writer, VAMPD_SQL_JOB_BEGIN);
      status = vampd_database_commit(writer, &store->reader, error);
    } else {
      status = status == 0 ? fail_finished(id, error) : status;
      vampd_database_roll_back(writer);
    }
  }
  pthread_mutex_unlock(&writer->mutex);
  if (status == VAMP_OK && attempts) {
    *attempts = count;
  }
  return status;
}

/* What an unfinished job has reserved; VAMP_CANCELLED where it is none. */
static int reserved_by(struct vampd_store *store, const char *id, int64_t *reserved,
                       struct vamp_error *error) {
  struct vampd_database *reader = &store->reader;
  pthread_mutex_lock(&reader->mutex);
  int status = vampd_database_bind(reader, VAMPD_SQL_JOB_RESERVED, error, "t", id);
  if (status == VAMP_OK) {
    status = vampd_database_next(reader, VAMPD_SQL_JOB_RESERVED, error);
  }
  if (status == 1) {
    *reserved = sqlite3_column_int64(reader->statements[VAMPD_SQL_JOB_RESERVED], 0);
    vampd_database_done(reader, VAMPD_SQL_JOB_RESERVED);
    status = VAMP_OK;
  } else if (status == 0) {
    status = fail_finished(id, error);
  }
  pthread_mutex_unlock(&reader->mutex);
  return status;
}

/* The rows, in a transaction. */
static int finish_rows(struct vampd_store *store, const char *id, enum vampd_state state, const char *outcome,
                       int64_t bytes, struct vamp_error *error) {
  struct vampd_database *writer = &store->writer;
  int64_t now = vampd_store_now();
  char sweep[VAMPD_ID_SIZE] = "";
  int status =
      vampd_database_bind(writer, VAMPD_SQL_JOB_FINISH, error, "tniti", id, (int)state, now, outcome, bytes);
  if (status == VAMP_OK) {
    status = vampd_database_next(writer, VAMPD_SQL_JOB_FINISH, error);
  }
  if (status != 1) {
    return status == 0 ? fail_finished(id, error) : status;
  }
  const char *text = (const char *)sqlite3_column_text(writer->statements[VAMPD_SQL_JOB_FINISH], 0);
  strncat(sweep, text ? text : "", VAMPD_ID_LENGTH);
  vampd_database_done(writer, VAMPD_SQL_JOB_FINISH);
  if (sweep[0] == '\0') {
    return VAMP_OK;
  }
  status = vampd_database_bind(writer, VAMPD_SQL_SWEEP_COUNT, error, "ti", sweep, now);
  return status == VAMP_OK ? vampd_database_run(writer, VAMPD_SQL_SWEEP_COUNT, error) : status;
}

/* Everything under the mutex; the sums change by `change` on success. The staged folder ("": none) is gone
 * from its place when this returns. */
static int finish(struct vampd_store *store, const char *id, enum vampd_state state, const char *outcome,
                  const struct vampd_space *change, const char *stage, struct vamp_error *error) {
  bool placed = false;
  pthread_mutex_lock(&store->writer.mutex);
  int status = vampd_database_run(&store->writer, VAMPD_SQL_BEGIN, error);
  if (status == VAMP_OK) {
    status = finish_rows(store, id, state, outcome, change->bytes, error);
  }
  if (status == VAMP_OK && stage[0]) {
    status = vampd_folder_place(store, VAMPD_FOLDER_JOBS, stage, id, true, error);
    placed = status == VAMP_OK;
    if (placed) {
      status = vampd_folder_sync(store, VAMPD_FOLDER_JOBS, error);
    }
  }
  if (status == VAMP_OK) {
    status = vampd_database_commit(&store->writer, &store->reader, error);
  } else {
    vampd_database_roll_back(&store->writer);
  }
  if (status == VAMP_OK) {
    vampd_space_add(store, change);
  } else if (stage[0]) {
    vampd_folder_remove(store, VAMPD_FOLDER_JOBS, placed ? id : stage);
  }
  pthread_mutex_unlock(&store->writer.mutex);
  return status;
}

static int check_files(enum vampd_state state, const struct vampd_store_file *files, int count,
                       int64_t *bytes, struct vamp_error *error) {
  bool known = state == VAMPD_STATE_DONE || state == VAMPD_STATE_FAILED || state == VAMPD_STATE_CANCELLED;
  if (!known || count < 0 || (count > 0 && state != VAMPD_STATE_DONE)) {
    return vamp_fail(error, VAMP_INVALID, "A job ends done with files, or failed or cancelled without.");
  }
  *bytes = 0;
  for (int i = 0; i < count; i++) {
    if (!vampd_folder_is_name(files[i].name) || (!files[i].data && files[i].size > 0)) {
      return vamp_fail(error, VAMP_INVALID, "A file of a result has no proper name or no bytes.");
    }
    if (files[i].size >= (uint64_t)(VAMPD_SPACE_MAX - *bytes)) {
      return vamp_fail(error, VAMP_SPACE, "No disk has room for such a result.");
    }
    *bytes += (int64_t)files[i].size;
  }
  return VAMP_OK;
}

int vampd_store_finish(struct vampd_store *store, const char *id, enum vampd_state state, const char *outcome,
                       const struct vampd_store_file *files, int file_count, struct vamp_error *error) {
  int64_t bytes = 0, reserved = 0;
  char stage[VAMPD_STAGE_SIZE] = "";
  int status =
      vampd_store_is_id(id) ? check_files(state, files, file_count, &bytes, error) : fail_finished(id, error);
  if (status == VAMP_OK) {
    status = reserved_by(store, id, &reserved, error);
  }
  /* What was reserved is the job's by right; only the excess asks. */
  int64_t excess = bytes > reserved ? bytes - reserved : 0;
  if (status == VAMP_OK && excess > 0) {
    status = vampd_space_claim(store, excess, true, error);
  }
  if (status != VAMP_OK) {
    return status;
  }
  const struct vampd_space finished = {
      .bytes = bytes, .reserved = -reserved, .pending = -excess, .unfinished = -1};
  const struct vampd_space refused = {.pending = -excess};
  if (state == VAMPD_STATE_DONE) {
    status = vampd_folder_stage(store, VAMPD_FOLDER_JOBS, files, file_count, stage, error);
  }
  if (status == VAMP_OK) {
    status = finish(store, id, state, outcome, &finished, stage, error);
  }
  if (status != VAMP_OK) {
    vampd_space_add(store, &refused);
  }
  return status;
}

int vampd_store_cancel(struct vampd_store *store, const char *const *ids, int count, const char *outcome,
                       struct vamp_error *error) {
  struct vampd_space change = {0};
  pthread_mutex_lock(&store->writer.mutex);
  int status = vampd_database_run(&store->writer, VAMPD_SQL_BEGIN, error);
  for (int i = 0; i < count && status == VAMP_OK; i++) {
    int64_t reserved = 0;
    status = reserved_by(store, ids[i], &reserved, error);
    if (status == VAMP_OK) {
      status = finish_rows(store, ids[i], VAMPD_STATE_CANCELLED, outcome, 0, error);
    }
    if (status == VAMP_OK) {
      change.reserved -= reserved;
      change.unfinished--;
    } else if (status == VAMP_CANCELLED) {
      status = VAMP_OK;
    }
  }
  if (status == VAMP_OK) {
    status = vampd_database_commit(&store->writer, &store->reader, error);
  } else {
    vampd_database_roll_back(&store->writer);
  }
  if (status == VAMP_OK) {
    vampd_space_add(store, &change);
  }
  pthread_mutex_unlock(&store->writer.mutex);
  return status;
}
