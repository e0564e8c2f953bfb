/*
 * What the files of the store share. The page of prose that explains it all stands at the top of store.c.
 *
 * Locks, in the order in which they may be taken: writer.mutex, reader.mutex, space_mutex.
 */
#ifndef VAMPD_STORE_INTERNAL_H
#define VAMPD_STORE_INTERNAL_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>

#include "server/store/store.h"

#define VAMPD_FOLDER_COUNT 3
#define VAMPD_STAGE_SIZE 32
#define VAMPD_SPACE_MAX (INT64_MAX / 8) /* of what one call may ask for, so that sums do not overflow */

/* ---- the database (database.c) ----------------------------------------------------------------------- */

enum vampd_sql {
  /* of the writer's connection */
  VAMPD_SQL_BEGIN,
  VAMPD_SQL_COMMIT,
  VAMPD_SQL_INPUT_ADD,
  VAMPD_SQL_SWEEP_ADD,
  VAMPD_SQL_JOB_ADD,
  VAMPD_SQL_JOB_BEGIN,
  VAMPD_SQL_JOB_FINISH,
  VAMPD_SQL_SWEEP_COUNT,
  VAMPD_SQL_JOB_STATE,
  VAMPD_SQL_JOB_DROP,
  VAMPD_SQL_SWEEP_DROP,
  VAMPD_SQL_INPUT_DROP,
  VAMPD_SQL_JOB_OLDEST,
  VAMPD_SQL_SWEEP_OLDEST,
  VAMPD_SQL_SWEEP_UNFINISHED,
  VAMPD_SQL_SWEEP_NEXT,
  VAMPD_SQL_TOTALS,
  VAMPD_SQL_BYTES, /* one for each folder */
  VAMPD_SQL_BYTES_SET = VAMPD_SQL_BYTES + VAMPD_FOLDER_COUNT,
  VAMPD_SQL_BYTES_NEXT = VAMPD_SQL_BYTES_SET + VAMPD_FOLDER_COUNT,
  VAMPD_SQL_WRITER_COUNT = VAMPD_SQL_BYTES_NEXT + VAMPD_FOLDER_COUNT,
  /* of the reader's */
  VAMPD_SQL_JOB_RESERVED = VAMPD_SQL_WRITER_COUNT,
  VAMPD_SQL_JOB,
  VAMPD_SQL_INPUT,
  VAMPD_SQL_SWEEP,
  VAMPD_SQL_POINTS,
  VAMPD_SQL_JOBS, /* this and the next two: in any state, and in one */
  VAMPD_SQL_JOBS_OF_OWNER = VAMPD_SQL_JOBS + 2,
  VAMPD_SQL_JOBS_OF_SWEEP = VAMPD_SQL_JOBS_OF_OWNER + 2,
  VAMPD_SQL_JOBS_UNFINISHED = VAMPD_SQL_JOBS_OF_SWEEP + 2,
  VAMPD_SQL_SWEEPS_OF_OWNER,
  VAMPD_SQL_SWEEPS,
  VAMPD_SQL_COUNT,
};

struct vampd_database {
  sqlite3 *handle;
  pthread_mutex_t mutex; /* held around every call below but open, close and create */
  sqlite3_stmt *statements[VAMPD_SQL_COUNT];
  int wal_pages; /* in the log after the last commit */
  bool in_use;   /* the store is open: damage that shows from here on is VAMP_IO */
};

/* Opens a connection. It prepares nothing: the tables may not be there yet. */
int vampd_database_open(struct vampd_database *database, const char *path, struct vamp_error *error);
/* Makes the tables where the file is new; VAMP_INVALID where it is of a newer version, or of something else.
 */
int vampd_database_create(struct vampd_database *database, struct vamp_error *error);
/* VAMP_INVALID where the file is damaged. */
int vampd_database_check(struct vampd_database *database, struct vamp_error *error);
/* The statements from `first` to before `end`. */
int vampd_database_prepare(struct vampd_database *database, int first, int end, struct vamp_error *error);
void vampd_database_close(struct vampd_database *database);

/* Binds the parameters of a statement in order. `types` has a letter for each: t const char * (NULL is
 * NULL), i int64_t, n int, d double. Texts must live until the statement is done. */
int vampd_database_bind(struct vampd_database *database, enum vampd_sql sql, struct vamp_error *error,
                        const char *types, ...);
/* The next row: 1, or 0 after the last, or a negative status. The statement is reset but after 1. */
int vampd_database_next(struct vampd_database *database, enum vampd_sql sql, struct vamp_error *error);
/* Ends a statement before its last row. */
void vampd_database_done(struct vampd_database *database, enum vampd_sql sql);
/* A statement without parameters or rows. */
int vampd_database_run(struct vampd_database *database, enum vampd_sql sql, struct vamp_error *error);
/* Ends the transaction of the writer's connection, rolled back where that fails, and keeps the log short. */
int vampd_database_commit(struct vampd_database *writer, struct vampd_database *reader,
                          struct vamp_error *error);
/* Fine where there is no transaction. */
void vampd_database_roll_back(struct vampd_database *writer);
/* Fills `error` from what SQLite and errno, which must have been 0 before the call that failed, said last. */
int vampd_database_fail(struct vampd_database *database, int code, struct vamp_error *error);

/* ---- folders (folders.c) ----------------------------------------------------------------------------- */

/* The status for an errno: VAMP_SPACE where the disk, a quota or a file size limit is in the way. `what` is
 * the beginning of the sentence: "Cannot write the input". */
int vampd_folder_fail(int code, const char *what, struct vamp_error *error);
/* Whether a name may be one of a file: lower-case letters, digits and "._-". */
bool vampd_folder_is_name(const char *name);
/* A fresh name for something that is being written. */
void vampd_folder_stage_name(struct vampd_store *store, char name[VAMPD_STAGE_SIZE]);
bool vampd_folder_is_stage(const char *name);
/* Writes new files into the folder of a descriptor; they are on disk when this returns, their names may not
 * be. All are written before the first is waited for. What failed is left half written. */
int vampd_folder_write(int parent, const struct vampd_store_file *files, int count, struct vamp_error *error);
/* Writes a folder with these files under a fresh name, all on disk when it returns. On failure nothing is
 * left. */
int vampd_folder_stage(struct vampd_store *store, enum vampd_folder folder,
                       const struct vampd_store_file *files, int count, char name[VAMPD_STAGE_SIZE],
                       struct vamp_error *error);
/* Gives a staged folder its id. Where that exists already: VAMP_INVALID, or it is replaced. Not yet durable:
 * vampd_folder_sync. */
int vampd_folder_place(struct vampd_store *store, enum vampd_folder folder, const char *stage, const char *id,
                       bool replace, struct vamp_error *error);
int vampd_folder_sync(struct vampd_store *store, enum vampd_folder folder, struct vamp_error *error);
/* Removes a file, or a folder with all that is in it. Silent: what cannot be removed is left to the next
 * start. */
void vampd_folder_remove(struct vampd_store *store, enum vampd_folder folder, const char *name);
/* Removes what has no row, and sets the bytes of every row to what is there. For open. */
int vampd_folder_recover(struct vampd_store *store, enum vampd_folder folder, struct vamp_error *error);

/* ---- space (space.c) --------------------------------------------------------------------------------- */

struct vampd_space {
  int64_t bytes;    /* of the files of all rows */
  int64_t reserved; /* for results of unfinished jobs */
  int64_t going;    /* of files whose rows are gone, and which are being removed */
  int64_t pending;  /* claimed for files that are being written and have no row yet */
  int64_t jobs, unfinished;
};

void vampd_space_add(struct vampd_store *store, const struct vampd_space *change);
/* How many bytes are missing for `need` more; 0 where they fit. */
int64_t vampd_space_missing(struct vampd_store *store, int64_t need);
/* Adds `need` to what is pending if it fits, as vampd_space_missing has it. */
int64_t vampd_space_try_claim(struct vampd_store *store, int64_t need);
/* The same; where it does not fit, forgets the oldest finished jobs for it, or fails with VAMP_SPACE. */
int vampd_space_claim(struct vampd_store *store, int64_t need, bool may_forget, struct vamp_error *error);

/* ---- retention (retain.c) ---------------------------------------------------------------------------- */

/* Makes room for `need` bytes, which are then pending, by forgetting; VAMP_SPACE, and nothing changed, where
 * that cannot be. `only_try`: changes nothing in any case. */
int vampd_retain_claim(struct vampd_store *store, int64_t need, bool only_try, struct vamp_error *error);

/* ----------------------------------------------------------------------------------------------------------
 */

struct vampd_store {
  int root;                        /* descriptor of the data folder */
  int folders[VAMPD_FOLDER_COUNT]; /* by enum vampd_folder */
  struct vampd_database writer, reader;
  atomic_ullong stages;        /* names given so far */
  pthread_mutex_t space_mutex; /* guards what follows */
  struct vampd_store_limits limits;
  struct vampd_space space;
};

/* Milliseconds since 1970. */
int64_t vampd_store_now(void);

#endif
