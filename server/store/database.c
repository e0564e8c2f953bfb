/*
 * The database: two connections, their statements, and what SQLite's errors mean.
 *
 * Everything is written through one connection, and everything a client asks for is read through another. In
 * WAL mode a reader sees the last commit and never waits for a writer, who spends most of its time waiting
 * for the disk. A connection is used by one thread at a time, under the mutex beside it; its statements are
 * made once, when the store is opened, so a mistake in one shows at the start. A pool of readers was
 * rejected: a read takes tens of microseconds.
 *
 * synchronous=FULL: when COMMIT has returned, the log is on disk. The log (vampd.db-wal) is copied into the
 * database when it has CHECKPOINT_PAGES, passively; if readers have kept that from being complete until it
 * has CHECKPOINT_PAGES_HARD, readers are kept out for as long as it takes. So it stays below about 16 MiB.
 * Checkpoints are made here rather than by SQLite on its own, because one that fails, on a full disk, must
 * not look like a commit that failed.
 *
 * To forget something takes room in the log as well, and a full disk has none. So the first 4 MiB of the log
 * are reserved when the store is opened: blocks beyond the end of the file, which count as free inside it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/store/internal.h"

#define SCHEMA_VERSION 1
#define APPLICATION_ID 0x76616d70 /* "vamp": what file(1) and we know the database by */
#define BUSY_MILLISECONDS 5000    /* for a person who looks into the database with another program */
#define CHECKPOINT_PAGES 1000
#define CHECKPOINT_PAGES_HARD 4000
#define LOG_RESERVE 4194304
#define TEXT(x) #x
#define NUMBER(x) TEXT(x)

/* By which lists and counts find their rows without a look at others. Their keys end with the number. What a
 * store of an earlier vampd lacks of them is added when it is opened. */
#define INDEXES                                                                                              \
  "CREATE INDEX IF NOT EXISTS jobs_of_state ON jobs(state);"                                                 \
  "CREATE INDEX IF NOT EXISTS jobs_of_owner_state ON jobs(owner, state);"                                    \
  "CREATE INDEX IF NOT EXISTS jobs_of_sweep_state ON jobs(sweep, state) WHERE sweep IS NOT NULL;"            \
  "DROP INDEX IF EXISTS jobs_unfinished;"

/* A number is never given twice, even after its row is gone (AUTOINCREMENT). `finished` of a sweep is when
 * its last job was. `bytes` is what a row's folder holds, `reserved` what an unfinished job's will. */
static const char SCHEMA[] =
    "BEGIN IMMEDIATE;"
    "CREATE TABLE inputs ("
    " id TEXT PRIMARY KEY NOT NULL, media_type TEXT NOT NULL, name TEXT NOT NULL, seconds REAL NOT NULL,"
    " size INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE sweeps ("
    " number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, owner TEXT NOT NULL,"
    " input TEXT NOT NULL REFERENCES inputs(id), created INTEGER NOT NULL, points INTEGER NOT NULL,"
    " unfinished INTEGER NOT NULL, finished INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,"
    " grid TEXT NOT NULL);"
    "CREATE TABLE jobs ("
    " number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, owner TEXT NOT NULL,"
    " input TEXT NOT NULL REFERENCES inputs(id), sweep TEXT REFERENCES sweeps(id), point INTEGER NOT NULL,"
    " state INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0, created INTEGER NOT NULL,"
    " started INTEGER NOT NULL DEFAULT 0, finished INTEGER NOT NULL DEFAULT 0, seconds REAL NOT NULL,"
    " bytes INTEGER NOT NULL DEFAULT 0, reserved INTEGER NOT NULL, params TEXT NOT NULL, outcome TEXT);"
    "CREATE INDEX jobs_finished ON jobs(finished) WHERE sweep IS NULL AND finished > 0;"
    "CREATE INDEX jobs_of_owner ON jobs(owner, number);"
    "CREATE INDEX jobs_of_input ON jobs(input);"
    "CREATE INDEX jobs_of_sweep ON jobs(sweep, point) WHERE sweep IS NOT NULL;"
    "CREATE INDEX sweeps_finished ON sweeps(finished) WHERE finished > 0;"
    "CREATE INDEX sweeps_of_owner ON sweeps(owner, number);"
    "CREATE INDEX sweeps_of_input ON sweeps(input);" INDEXES "PRAGMA application_id = " NUMBER(
        APPLICATION_ID) ";"
                        "PRAGMA user_version = " NUMBER(SCHEMA_VERSION) ";"
                                                                        "COMMIT;";

#define JOB                                                                                                  \
  "SELECT id, number, owner, input, ifnull(sweep, ''), point, state, attempts, created, started, finished,"  \
  " seconds, bytes, params, outcome FROM jobs"
#define SWEEP                                                                                                \
  "SELECT id, number, owner, input, created, points, grid, unfinished,"                                      \
  " (SELECT count(*) FROM jobs WHERE sweep = sweeps.id AND state = 1),"                                      \
  " (SELECT count(*) FROM jobs WHERE sweep = sweeps.id AND state = 2),"                                      \
  " (SELECT count(*) FROM jobs WHERE sweep = sweeps.id AND state = 3),"                                      \
  " (SELECT id FROM jobs WHERE sweep = sweeps.id AND state = 0 ORDER BY number DESC LIMIT 1) FROM sweeps"
#define NEWEST_FIRST " number < ?4 ORDER BY number DESC LIMIT ?5"

static const char *const SQL[VAMPD_SQL_COUNT] = {
    [VAMPD_SQL_BEGIN] = "BEGIN IMMEDIATE",
    [VAMPD_SQL_COMMIT] = "COMMIT",
    [VAMPD_SQL_INPUT_ADD] =
        "INSERT INTO inputs(id, media_type, name, seconds, size, bytes) VALUES(?1, ?2, ?3, ?4, ?5, ?5)",
    [VAMPD_SQL_SWEEP_ADD] = "INSERT INTO sweeps(id, owner, input, created, points, unfinished, grid)"
                            " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [VAMPD_SQL_JOB_ADD] =
        "INSERT INTO jobs(id, owner, input, sweep, point, created, seconds, reserved, params)"
        " VALUES(?1, ?2, ?3, nullif(?4, ''), ?5, ?6, ?7, ?8, ?9)",
    [VAMPD_SQL_JOB_BEGIN] =
        "UPDATE jobs SET attempts = attempts + 1, started = ?2 WHERE id = ?1 AND state = 0"
        " RETURNING attempts",
    [VAMPD_SQL_JOB_FINISH] =
        "UPDATE jobs SET state = ?2, finished = ?3, outcome = ?4, bytes = ?5, reserved = 0"
        " WHERE id = ?1 AND state = 0 RETURNING sweep",
    [VAMPD_SQL_SWEEP_COUNT] = "UPDATE sweeps SET unfinished = unfinished - 1,"
                              " finished = CASE unfinished WHEN 1 THEN ?2 ELSE 0 END WHERE id = ?1",
    [VAMPD_SQL_JOB_RESERVED] = "SELECT reserved FROM jobs WHERE id = ?1 AND state = 0",
    [VAMPD_SQL_JOB] = JOB " WHERE id = ?1 AND (?2 IS NULL OR owner = ?2)",
    [VAMPD_SQL_INPUT] = "SELECT id, media_type, name, seconds, size FROM inputs WHERE id = ?1",
    [VAMPD_SQL_SWEEP] = SWEEP " WHERE id = ?1 AND (?2 IS NULL OR owner = ?2)",
    [VAMPD_SQL_POINTS] = JOB " WHERE sweep = ?1 AND (?2 IS NULL OR owner = ?2) ORDER BY point, number",
    [VAMPD_SQL_JOBS] = JOB " WHERE" NEWEST_FIRST,
    [VAMPD_SQL_JOBS + 1] = JOB " WHERE state = ?3 AND" NEWEST_FIRST,
    [VAMPD_SQL_JOBS_OF_OWNER] = JOB " WHERE owner = ?1 AND" NEWEST_FIRST,
    [VAMPD_SQL_JOBS_OF_OWNER + 1] = JOB " WHERE owner = ?1 AND state = ?3 AND" NEWEST_FIRST,
    /* Points were accepted in their order, and by that there is an index. */
    [VAMPD_SQL_JOBS_OF_SWEEP] =
        JOB " WHERE sweep = ?2 AND (?1 IS NULL OR owner = ?1) AND number < ?4 ORDER BY point DESC LIMIT ?5",
    [VAMPD_SQL_JOBS_OF_SWEEP + 1] =
        JOB " WHERE sweep = ?2 AND (?1 IS NULL OR owner = ?1) AND state = ?3 AND" NEWEST_FIRST,
    [VAMPD_SQL_JOBS_UNFINISHED] = JOB " WHERE state = 0 AND number > ?1 ORDER BY number LIMIT ?2",
    [VAMPD_SQL_SWEEPS_OF_OWNER] = SWEEP " WHERE owner = ?1 AND number < ?2 ORDER BY number DESC LIMIT ?3",
    [VAMPD_SQL_SWEEPS] = SWEEP " WHERE number < ?1 ORDER BY number DESC LIMIT ?2",
    [VAMPD_SQL_BYTES + VAMPD_FOLDER_INPUTS] = "SELECT bytes FROM inputs WHERE id = ?1",
    [VAMPD_SQL_BYTES + VAMPD_FOLDER_JOBS] = "SELECT bytes FROM jobs WHERE id = ?1 AND state = 1",
    [VAMPD_SQL_BYTES + VAMPD_FOLDER_SWEEPS] = "SELECT bytes FROM sweeps WHERE id = ?1",
    [VAMPD_SQL_BYTES_SET + VAMPD_FOLDER_INPUTS] = "UPDATE inputs SET bytes = ?2 WHERE id = ?1",
    [VAMPD_SQL_BYTES_SET + VAMPD_FOLDER_JOBS] = "UPDATE jobs SET bytes = ?2 WHERE id = ?1",
    [VAMPD_SQL_BYTES_SET + VAMPD_FOLDER_SWEEPS] = "UPDATE sweeps SET bytes = ?2 WHERE id = ?1",
    [VAMPD_SQL_BYTES_NEXT + VAMPD_FOLDER_INPUTS] =
        "SELECT id, bytes FROM inputs WHERE id > ?1 ORDER BY id LIMIT 1",
    [VAMPD_SQL_BYTES_NEXT + VAMPD_FOLDER_JOBS] =
        "SELECT id, bytes FROM jobs WHERE id > ?1 AND +state = 1 ORDER BY id LIMIT 1", /* by id, not by state
                                                                                        */
    [VAMPD_SQL_BYTES_NEXT + VAMPD_FOLDER_SWEEPS] =
        "SELECT id, bytes FROM sweeps WHERE id > ?1 ORDER BY id LIMIT 1",
    [VAMPD_SQL_JOB_STATE] = "SELECT state FROM jobs WHERE id = ?1",
    [VAMPD_SQL_JOB_DROP] = "DELETE FROM jobs WHERE id = ?1 AND state <> 0 RETURNING bytes, input",
    [VAMPD_SQL_SWEEP_DROP] = "DELETE FROM sweeps WHERE id = ?1 RETURNING bytes, input",
    [VAMPD_SQL_INPUT_DROP] =
        "DELETE FROM inputs WHERE id = ?1 AND NOT EXISTS(SELECT 1 FROM jobs WHERE input = ?1)"
        " AND NOT EXISTS(SELECT 1 FROM sweeps WHERE input = ?1) RETURNING bytes",
    [VAMPD_SQL_JOB_OLDEST] = "SELECT id, finished FROM jobs WHERE sweep IS NULL AND finished > 0"
                             " ORDER BY finished LIMIT 1",
    [VAMPD_SQL_SWEEP_OLDEST] = "SELECT id, finished FROM sweeps WHERE finished > 0 ORDER BY finished LIMIT 1",
    [VAMPD_SQL_SWEEP_UNFINISHED] = "SELECT unfinished FROM sweeps WHERE id = ?1",
    [VAMPD_SQL_SWEEP_NEXT] = "SELECT id FROM jobs WHERE sweep = ?1 LIMIT 1",
    [VAMPD_SQL_TOTALS] =
        "SELECT (SELECT ifnull(sum(bytes), 0) FROM inputs) + (SELECT ifnull(sum(bytes), 0) FROM sweeps)"
        " + (SELECT ifnull(sum(bytes), 0) FROM jobs), (SELECT ifnull(sum(reserved), 0) FROM jobs),"
        " (SELECT count(*) FROM jobs), (SELECT count(*) FROM jobs WHERE state = 0)",
};

_Static_assert(VAMPD_STATE_QUEUED == 0 && VAMPD_STATE_DONE == 1, "the statements above know these");

int vampd_database_fail(struct vampd_database *database, int code, struct vamp_error *error) {
  /* sqlite3_system_errno does not know why a COMMIT failed. */
  int cause = errno;
  bool full = (code & 0xff) == SQLITE_IOERR && (cause == ENOSPC || cause == EDQUOT || cause == EFBIG);
  if (full || (code & 0xff) == SQLITE_FULL) {
    return vamp_fail(error, VAMP_SPACE, "The disk with the data folder is full; free some space on it.");
  }
  const char *message = database->handle ? sqlite3_errmsg(database->handle) : sqlite3_errstr(code);
  switch (code & 0xff) {
  case SQLITE_NOMEM:
    return vamp_fail(error, VAMP_MEMORY, "Out of memory in the database of jobs.");
  case SQLITE_CONSTRAINT:
    return vamp_fail(error, VAMP_INVALID, "The database of jobs refuses this: %s.", message);
  case SQLITE_CORRUPT:
  case SQLITE_NOTADB:
    /* Later on VAMP_INVALID would say that what was asked for is not there. */
    return vamp_fail(error, database->in_use ? VAMP_IO : VAMP_INVALID,
                     "The database of jobs, vampd.db, is damaged: %s.", message);
  case SQLITE_READONLY:
  case SQLITE_CANTOPEN:
    return vamp_fail(error, VAMP_IO, "The database of jobs, vampd.db, cannot be opened for writing%s%s.",
                     cause ? ": " : "", cause ? strerror(cause) : "");
  case SQLITE_BUSY:
  case SQLITE_LOCKED:
    return vamp_fail(error, VAMP_IO, "Another program holds the database of jobs, vampd.db, locked.");
  default:
    return vamp_fail(error, VAMP_IO, "The database of jobs failed: %s (%s).", message,
                     cause ? strerror(cause) : sqlite3_errstr(code));
  }
}

/* ---- opening ------------------------------------------------------------------------------------------ */

static int count_log_pages(void *user, sqlite3 *handle, const char *name, int pages) {
  (void)handle;
  (void)name;
  struct vampd_database *database = user;
  database->wal_pages = pages;
  return SQLITE_OK;
}

/* The first column of the first row, as text. */
static int ask(struct vampd_database *database, const char *sql, char *answer, size_t size,
               struct vamp_error *error) {
  sqlite3_stmt *statement = NULL;
  errno = 0;
  int code = sqlite3_prepare_v2(database->handle, sql, -1, &statement, NULL);
  if (code == SQLITE_OK) {
    code = sqlite3_step(statement);
  }
  int status = VAMP_OK;
  if (code == SQLITE_ROW) {
    const char *text = (const char *)sqlite3_column_text(statement, 0);
    snprintf(answer, size, "%s", text ? text : "");
  } else {
    status = vampd_database_fail(database, code, error);
  }
  sqlite3_finalize(statement);
  return status;
}

/* A file system that cannot do it does without. */
static void reserve_log(const char *path) {
  char log[PATH_MAX];
  if (snprintf(log, sizeof log, "%s-wal", path) >= (int)sizeof log) {
    return;
  }
  int file = open(log, O_RDWR | O_CLOEXEC);
  if (file >= 0) {
    (void)!fallocate(file, FALLOC_FL_KEEP_SIZE, 0, LOG_RESERVE);
    close(file);
  }
}

int vampd_database_open(struct vampd_database *database, const char *path, struct vamp_error *error) {
  /* Temporary tables and large transactions stay in memory: a full disk shows at the commit alone. The log
   * is cut back to LOG_RESERVE, and keeps that, when it starts over. */
  static const char SETTINGS[] = "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
                                 "PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;"
                                 "PRAGMA cache_spill = OFF;"
                                 "PRAGMA journal_size_limit = " NUMBER(LOG_RESERVE) ";";
  static const char TRY[] = "BEGIN IMMEDIATE; ROLLBACK;";
  char mode[16];
  errno = 0;
  int code = sqlite3_open_v2(path, &database->handle,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
  if (code == SQLITE_OK) {
    sqlite3_extended_result_codes(database->handle, 1);
    sqlite3_busy_timeout(database->handle, BUSY_MILLISECONDS);
    code = sqlite3_exec(database->handle, SETTINGS, NULL, NULL, NULL);
  }
  int status = code == SQLITE_OK ? VAMP_OK : vampd_database_fail(database, code, error);
  if (status == VAMP_OK) {
    status = ask(database, "PRAGMA journal_mode = WAL", mode, sizeof mode, error);
  }
  if (status == VAMP_OK && strcmp(mode, "wal") != 0) {
    status =
        vamp_fail(error, VAMP_UNSUPPORTED,
                  "The data folder's file system cannot hold a database (SQLite's WAL); use a local one.");
  }
  /* What cannot be opened for writing, the log included, SQLite opens for reading alone, and says so only
   * when something is to be written. */
  if (status == VAMP_OK) {
    errno = 0;
    code = sqlite3_db_readonly(database->handle, "main")
               ? SQLITE_READONLY
               : sqlite3_exec(database->handle, TRY, NULL, NULL, NULL);
    status = code == SQLITE_OK ? VAMP_OK : vampd_database_fail(database, code, error);
  }
  if (status != VAMP_OK) {
    sqlite3_close(database->handle);
    database->handle = NULL;
    return status;
  }
  sqlite3_wal_hook(database->handle, count_log_pages, database);
  reserve_log(path);
  return VAMP_OK;
}

int vampd_database_create(struct vampd_database *database, struct vamp_error *error) {
  char version[32], application[32], tables[32];
  int status = ask(database, "PRAGMA user_version", version, sizeof version, error);
  if (status == VAMP_OK) {
    status = ask(database, "PRAGMA application_id", application, sizeof application, error);
  }
  if (status == VAMP_OK) {
    status = ask(database, "SELECT count(*) FROM sqlite_schema", tables, sizeof tables, error);
  }
  if (status != VAMP_OK) {
    return status;
  }
  if (atoi(tables) == 0 && atoi(version) == 0 && atoi(application) == 0) {
    errno = 0;
    int code = sqlite3_exec(database->handle, SCHEMA, NULL, NULL, NULL);
    if (code != SQLITE_OK) {
      status = vampd_database_fail(database, code, error);
      sqlite3_exec(database->handle, "ROLLBACK", NULL, NULL, NULL);
    }
    return status;
  }
  if (atoi(application) != APPLICATION_ID) {
    return vamp_fail(error, VAMP_INVALID, "vampd.db in the data folder is not a database of vampd.");
  }
  if (atoi(version) != SCHEMA_VERSION) {
    return vamp_fail(error, VAMP_INVALID,
                     "The database of jobs, vampd.db, is of version %s and this vampd knows %d: use a newer "
                     "vampd, or another data folder.",
                     version, SCHEMA_VERSION);
  }
  /* On a full disk it goes without, until the next start. */
  (void)sqlite3_exec(database->handle, "BEGIN IMMEDIATE;" INDEXES "COMMIT;", NULL, NULL, NULL);
  vampd_database_roll_back(database);
  return VAMP_OK;
}

int vampd_database_check(struct vampd_database *database, struct vamp_error *error) {
  char finding[256];
  int status = ask(database, "PRAGMA quick_check(1)", finding, sizeof finding, error);
  if (status == VAMP_OK && strcmp(finding, "ok") != 0) {
    return vamp_fail(error, VAMP_INVALID, "The database of jobs, vampd.db, is damaged: %s.", finding);
  }
  return status;
}

int vampd_database_prepare(struct vampd_database *database, int first, int end, struct vamp_error *error) {
  for (int i = first; i < end; i++) {
    int code = sqlite3_prepare_v3(database->handle, SQL[i], -1, SQLITE_PREPARE_PERSISTENT,
                                  &database->statements[i], NULL);
    if (code != SQLITE_OK) {
      return vampd_database_fail(database, code, error);
    }
  }
  return VAMP_OK;
}

void vampd_database_close(struct vampd_database *database) {
  for (int i = 0; i < VAMPD_SQL_COUNT; i++) {
    sqlite3_finalize(database->statements[i]);
  }
  sqlite3_close(database->handle);
}

/* ---- statements --------------------------------------------------------------------------------------- */

int vampd_database_bind(struct vampd_database *database, enum vampd_sql sql, struct vamp_error *error,
                        const char *types, ...) {
  sqlite3_stmt *statement = database->statements[sql];
  int code = SQLITE_OK;
  va_list values;
  va_start(values, types);
  for (int i = 0; types[i] && code == SQLITE_OK; i++) {
    switch (types[i]) {
    case 't':
      code = sqlite3_bind_text(statement, i + 1, va_arg(values, const char *), -1, SQLITE_STATIC);
      break;
    case 'i':
      code = sqlite3_bind_int64(statement, i + 1, va_arg(values, int64_t));
      break;
    case 'n':
      code = sqlite3_bind_int(statement, i + 1, va_arg(values, int));
      break;
    default:
      code = sqlite3_bind_double(statement, i + 1, va_arg(values, double));
    }
  }
  va_end(values);
  return code == SQLITE_OK ? VAMP_OK : vampd_database_fail(database, code, error);
}

void vampd_database_done(struct vampd_database *database, enum vampd_sql sql) {
  sqlite3_reset(database->statements[sql]);
}

int vampd_database_next(struct vampd_database *database, enum vampd_sql sql, struct vamp_error *error) {
  errno = 0;
  int code = sqlite3_step(database->statements[sql]);
  if (code == SQLITE_ROW) {
    return 1;
  }
  int status = code == SQLITE_DONE ? 0 : vampd_database_fail(database, code, error);
  vampd_database_done(database, sql);
  return status;
}

int vampd_database_run(struct vampd_database *database, enum vampd_sql sql, struct vamp_error *error) {
  return vampd_database_next(database, sql, error);
}

/* ---- transactions ------------------------------------------------------------------------------------- */

int vampd_database_commit(struct vampd_database *writer, struct vampd_database *reader,
                          struct vamp_error *error) {
  int status = vampd_database_run(writer, VAMPD_SQL_COMMIT, error);
  if (status != VAMP_OK) {
    vampd_database_roll_back(writer);
    return status;
  }
  /* What fails here is tried again at the next commit; the data is in the log. */
  if (writer->wal_pages >= CHECKPOINT_PAGES_HARD) {
    pthread_mutex_lock(&reader->mutex);
    sqlite3_wal_checkpoint_v2(writer->handle, NULL, SQLITE_CHECKPOINT_RESTART, NULL, NULL);
    pthread_mutex_unlock(&reader->mutex);
  } else if (writer->wal_pages >= CHECKPOINT_PAGES) {
    sqlite3_wal_checkpoint_v2(writer->handle, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
  }
  return VAMP_OK;
}

void vampd_database_roll_back(struct vampd_database *writer) {
  if (!sqlite3_get_autocommit(writer->handle)) {
    sqlite3_exec(writer->handle, "ROLLBACK", NULL, NULL, NULL);
  }
}
