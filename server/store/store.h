/*
 * What outlives a restart: jobs, sweeps, inputs and results, below the data folder.
 *
 *   vampd.db                      SQLite (WAL, synchronous=FULL): the state of every job and sweep
 *   inputs/ID/clip                an input as it was uploaded; shared by the jobs made from it
 *   inputs/ID/tokens.npy          its tokens, once they are known
 *   jobs/ID/NAME                  the files of a finished job
 *   sweeps/ID/NAME                files made from a whole sweep
 *   inputs/new.N, jobs/new.N, ... being written; removed at the next start
 *
 * The promises. What vampd_store_accept has accepted is there after a kill at any instant, whole; what it
 * has refused is not there at all. A job is DONE only when its files are all there and on disk. A job that is
 * not finished is found again by vampd_store_each_unfinished, in the order of acceptance, and can be run
 * again: whatever an earlier attempt left is replaced.
 *
 * Files are written beside, fsynced, renamed, and their folder fsynced, before the row that speaks of them is
 * committed; rows go before files where something is forgotten. Paths are made from ids and fixed names only.
 *
 * Any thread, but not one that may not block: HTTP and device threads call nothing here. Where the disk is
 * full the status is VAMP_SPACE, and the store is as it was.
 */
#ifndef VAMPD_STORE_H
#define VAMPD_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vamp/error.h"

#define VAMPD_ID_LENGTH 24 /* lower-case hexadecimal digits: 96 random bits, so an id cannot be guessed */
#define VAMPD_ID_SIZE (VAMPD_ID_LENGTH + 1)
#define VAMPD_OWNER_SIZE 64

enum vampd_state { /* of a job in the store; a job that is running is QUEUED here */
                   VAMPD_STATE_QUEUED,
                   VAMPD_STATE_DONE,
                   VAMPD_STATE_FAILED,
                   VAMPD_STATE_CANCELLED,
                   VAMPD_STATE_COUNT,
};

struct vampd_store_input {
  char id[VAMPD_ID_SIZE];
  char media_type[32]; /* of the bytes, e.g. "audio/flac" */
  char name[128];      /* what the client called it, UTF-8 without control characters; may be "" */
  double seconds;
  const void *bytes; /* for accept only */
  size_t size;
};

struct vampd_store_job {
  char id[VAMPD_ID_SIZE];
  char owner[VAMPD_OWNER_SIZE]; /* the key's name; "" without keys */
  char input[VAMPD_ID_SIZE];
  char sweep[VAMPD_ID_SIZE]; /* "" where it belongs to none */
  int point;                 /* in the sweep */
  enum vampd_state state;
  int attempts;                       /* times it was begun */
  int64_t number;                     /* order of acceptance, from 1; given by accept */
  int64_t created, started, finished; /* milliseconds since 1970; 0: not yet */
  double seconds;                     /* of the clip */
  int64_t bytes;                      /* of its files */
  char *params;                       /* JSON: everything that decides the result, seed included */
  char *outcome;                      /* JSON: facts of the result, or the problem; NULL until finished */
};

struct vampd_store_sweep {
  char id[VAMPD_ID_SIZE];
  int64_t number;
  char owner[VAMPD_OWNER_SIZE];
  char input[VAMPD_ID_SIZE];
  int64_t created;
  int points;
  int states[VAMPD_STATE_COUNT]; /* how many of its jobs are in which; filled in by those that read */
  char last[VAMPD_ID_SIZE];      /* the one that was accepted last of those that are not finished; "": none */
  char *grid;                    /* JSON, as it was accepted */
};

/* A file to be written: `name` is one of a few fixed names, e.g. "mask.json". */
struct vampd_store_file {
  const char *name;
  const void *data;
  size_t size;
};

enum vampd_folder { VAMPD_FOLDER_INPUTS, VAMPD_FOLDER_JOBS, VAMPD_FOLDER_SWEEPS };

struct vampd_store_limits {
  int64_t max_bytes;      /* of all inputs and results together; 0: no limit */
  int64_t min_free_bytes; /* of the file system, for others */
  double keep_seconds;    /* finished jobs are forgotten after; 0: not for their age */
  double spare_seconds;   /* finished jobs younger than this are not forgotten for space, so that a client has
                             the time to fetch a result; 0: any may go */
};

struct vampd_store;

/* Opens (or makes) the store in a folder that this process has locked (data_dir.h); removes what a kill left
 * half written. VAMP_INVALID where the database is of a newer version or damaged. */
int vampd_store_open(const char *folder, const struct vampd_store_limits *limits, struct vampd_store **store,
                     struct vamp_error *error);
void vampd_store_close(struct vampd_store *store); /* NULL is fine */
void vampd_store_set_limits(struct vampd_store *store, const struct vampd_store_limits *limits);

/* A fresh id. */
int vampd_store_new_id(char id[VAMPD_ID_SIZE], struct vamp_error *error);
/* Whether a text from outside has the form of an id. */
bool vampd_store_is_id(const char *text);

/* ---- accepting --------------------------------------------------------------------------------------- */

/* Makes inputs, jobs and (may be NULL) the sweep durable, all or none. Fills in `number` and `created`.
 * `reserve` is the space that the jobs' results are expected to take in all: VAMP_SPACE where inputs, results
 * and what earlier jobs have reserved do not fit in the limits, even after finished jobs were forgotten as
 * far as retention allows (oldest first). */
int vampd_store_accept(struct vampd_store *store, const struct vampd_store_input *inputs, int input_count,
                       struct vampd_store_job *jobs, int job_count, struct vampd_store_sweep *sweep,
                       int64_t reserve, struct vamp_error *error);
/* Whether `bytes` more would be accepted now. Does not write. */
bool vampd_store_has_room(struct vampd_store *store, int64_t bytes);

/* ---- running ----------------------------------------------------------------------------------------- */

/* Notes that an attempt begins: attempts and started. VAMP_CANCELLED as below. `attempts` may be NULL. */
int vampd_store_begin(struct vampd_store *store, const char *id, int *attempts, struct vamp_error *error);
/* The end of a job: its files (DONE only) and then its row. A job that is already finished, or unknown, is
 * VAMP_CANCELLED and nothing changes: a client has cancelled it meanwhile. What is larger than the job has
 * reserved must fit as in accept; VAMP_SPACE leaves the job unfinished. */
int vampd_store_finish(struct vampd_store *store, const char *id, enum vampd_state state, const char *outcome,
                       const struct vampd_store_file *files, int file_count, struct vamp_error *error);

/* Ends jobs without a result, CANCELLED, in one transaction: a few hundred at most, for it holds up everybody
 * who writes. Those that are finished already, or unknown, are passed over. */
int vampd_store_cancel(struct vampd_store *store, const char *const *ids, int count, const char *outcome,
                       struct vamp_error *error);

/* ---- reading ----------------------------------------------------------------------------------------- */

/* Each of these allocates strings in what it fills: free with the functions below. VAMP_INVALID where there
 * is no such job or sweep. `owner`: NULL for any; otherwise another owner's is not found. */
int vampd_store_job(struct vampd_store *store, const char *id, const char *owner, struct vampd_store_job *job,
                    struct vamp_error *error);
int vampd_store_input(struct vampd_store *store, const char *id, struct vampd_store_input *input,
                      struct vamp_error *error);
int vampd_store_sweep(struct vampd_store *store, const char *id, const char *owner,
                      struct vampd_store_sweep *sweep, struct vamp_error *error);
void vampd_store_job_free(struct vampd_store_job *job);       /* fine on a zeroed struct */
void vampd_store_sweep_free(struct vampd_store_sweep *sweep); /* likewise */

/* Bytes of its params and outcome. */
size_t vampd_store_job_text(const struct vampd_store_job *job);

struct vampd_store_query {
  const char *owner; /* NULL: any */
  const char *sweep; /* NULL: any */
  bool any_state;    /* otherwise `state` */
  enum vampd_state state;
  int64_t before; /* numbers below this; 0: from the newest. Newest first, of a sweep the last point */
  int limit;      /* 1 .. 1000; or, of a sweep, 0: all of it by point, in any state */
  size_t text;    /* no more once their texts (vampd_store_job_text) come to so much; 0: no bound */
};

/* *jobs is malloc'd, with *count of them; free each and the array. */
int vampd_store_list(struct vampd_store *store, const struct vampd_store_query *query,
                     struct vampd_store_job **jobs, int *count, struct vamp_error *error);
/* Calls `each` for every job that is not finished, oldest first, until it returns non-zero (which is no
 * failure). The job is lent. `each` may call the store. */
int vampd_store_each_unfinished(struct vampd_store *store,
                                int (*each)(const struct vampd_store_job *job, void *user), void *user,
                                struct vamp_error *error);
/* Sweeps of an owner (NULL: any), newest first. */
int vampd_store_list_sweeps(struct vampd_store *store, const char *owner, int64_t before, int limit,
                            struct vampd_store_sweep **sweeps, int *count, struct vamp_error *error);

/* Opens a file for reading: a descriptor, or VAMP_INVALID where there is none (yet). */
int vampd_store_open_file(struct vampd_store *store, enum vampd_folder folder, const char *id,
                          const char *name, int64_t *size, struct vamp_error *error);
/* Reads a whole file of at most `limit` bytes; *data is malloc'd. */
int vampd_store_read_file(struct vampd_store *store, enum vampd_folder folder, const char *id,
                          const char *name, size_t limit, void **data, size_t *size,
                          struct vamp_error *error);
/* Adds or replaces a file that can be made again: tokens of an input, another audio format, a picture, an
 * archive. After a power cut it is there whole, or not. VAMP_INVALID where the job is not DONE, or the job,
 * input or sweep has been forgotten meanwhile. VAMP_SPACE where it does not fit; nothing is forgotten for it.
 */
int vampd_store_put_file(struct vampd_store *store, enum vampd_folder folder, const char *id,
                         const struct vampd_store_file *file, struct vamp_error *error);
/* The same for what is too large for memory: writes through `fill` into a descriptor. */
int vampd_store_fill_file(struct vampd_store *store, enum vampd_folder folder, const char *id,
                          const char *name, int (*fill)(int file, void *user, struct vamp_error *error),
                          void *user, struct vamp_error *error);

/* ---- forgetting -------------------------------------------------------------------------------------- */

/* Forgets a finished job, its files, and its input where no other job needs it. VAMP_BUSY where it is not
 * finished. */
int vampd_store_forget(struct vampd_store *store, const char *id, struct vamp_error *error);
/* Forgets a sweep and its jobs, which must all be finished (VAMP_BUSY). */
int vampd_store_forget_sweep(struct vampd_store *store, const char *id, struct vamp_error *error);
/* Retention: forgets what is too old, then, where space is short, the oldest finished. Returns how many jobs
 * went, or negative. A sweep goes as a whole, when its last job was finished long enough ago. To be called
 * now and then. */
int vampd_store_retain(struct vampd_store *store, struct vamp_error *error);

struct vampd_store_usage {
  int64_t bytes, reserved, free_bytes;
  int64_t jobs, unfinished;
};
int vampd_store_usage(struct vampd_store *store, struct vampd_store_usage *usage, struct vamp_error *error);

#endif
