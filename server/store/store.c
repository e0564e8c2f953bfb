/*
 * The store: SQLite for rows, plain files for audio, and the order in which the two change.
 *
 * Audio in the database was rejected: a result is megabytes, is sent with ranges from a descriptor, and
 * would go through the log and be copied again at a checkpoint. A folder of files and no database was
 * rejected as well: a sweep of a hundred jobs must be accepted all or none, which a folder of files cannot do
 * without a log of its own. One row decides; a file without a row does not exist, and the next start removes
 * it. So the order is: files before the row that speaks of them, rows before files that are forgotten.
 *
 *   accept   1 space is claimed, in memory             a kill leaves nothing
 *            2 inputs/new.N written and fsynced        files without a row
 *            3 renamed to inputs/ID, inputs/ fsynced   folders without a row
 *            4 rows committed                          all of it
 *   begin    1 the row committed                       the attempt is counted, or not
 *   finish   1 jobs/new.N written and fsynced          the job unfinished, files without a row
 *            2 renamed to jobs/ID, jobs/ fsynced       the job unfinished, a folder of a job that is not DONE
 *            3 the row committed                       the job DONE
 *   put      1 KIND/new.N written and fsynced          a file without a row
 *            2 the row's bytes committed               a wrong sum
 *            3 renamed to KIND/ID/NAME                 the file
 *   forget   1 rows committed                          folders without a row
 *            2 files removed, one after the other      fewer of them
 *
 * What the next start makes of that: everything named new.N is removed, folders of ids without a row too, of
 * jobs that are not DONE too, and the sums are set right from the files. (A kill while it does so is no
 * different from one before.) SQLite's own log makes each commit all or nothing; after a stop without
 * vampd_store_close, which leaves that log behind, the database is checked (quick_check) before it is used.
 *
 * What is beyond it: where the disk reports an error from the very fsync that ends a commit, the caller is
 * told of a failure, and the row may yet come back after a kill. An accepted job whose caller was told
 * otherwise then fails for want of its input.
 *
 *   database.c   connections, statements, checkpoints      accept.c   inputs, jobs, sweeps in
 *   folders.c    staging, naming, removing, recovery       finish.c   attempts and results
 *   space.c      sums and limits                           query.c    rows out
 *   retain.c     forgetting                                files.c    files out, and made again
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/store/internal.h"

static const char *const FOLDERS[VAMPD_FOLDER_COUNT] = {
    [VAMPD_FOLDER_INPUTS] = "inputs", [VAMPD_FOLDER_JOBS] = "jobs", [VAMPD_FOLDER_SWEEPS] = "sweeps"};

int64_t vampd_store_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- ids ---------------------------------------------------------------------------------------------- */

int vampd_store_new_id(char id[VAMPD_ID_SIZE], struct vamp_error *error) {
  unsigned char bytes[VAMPD_ID_LENGTH / 2];
  ssize_t got;
  do {
    got = getrandom(bytes, sizeof bytes, 0);
  } while (got < 0 && errno == EINTR);
  if (got != (ssize_t)sizeof bytes) { /* so few come all at once, or not at all */
    return vamp_fail(error, VAMP_IO, "The system has no random numbers for an id: %s.", strerror(errno));
  }
  for (size_t i = 0; i < sizeof bytes; i++) {
    id[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
    id[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
  }
  id[VAMPD_ID_LENGTH] = '\0';
  return VAMP_OK;
}

bool vampd_store_is_id(const char *text) {
  return text && strspn(text, "0123456789abcdef") == VAMPD_ID_LENGTH && text[VAMPD_ID_LENGTH] == '\0';
}

/* ---- opening ------------------------------------------------------------------------------------------ */

/* A folder in another, made where it is missing, as a descriptor. */
static int open_folder(int parent, const char *name, int *folder, struct vamp_error *error) {
  if (mkdirat(parent, name, 0700) != 0 && errno != EEXIST) {
    return vampd_folder_fail(errno, "Cannot make a folder in the data folder", error);
  }
  *folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return *folder >= 0 ? VAMP_OK : vampd_folder_fail(errno, "Cannot open a folder in the data folder", error);
}

static int open_folders(struct vampd_store *store, const char *folder, struct vamp_error *error) {
  int status = open_folder(AT_FDCWD, folder, &store->root, error);
  for (int i = 0; i < VAMPD_FOLDER_COUNT && status == VAMP_OK; i++) {
    status = open_folder(store->root, FOLDERS[i], &store->folders[i], error);
  }
  return status;
}

static int open_databases(struct vampd_store *store, const char *folder, struct vamp_error *error) {
  char path[PATH_MAX];
  /* SQLite may take "file:..." for a URI. */
  int length = snprintf(path, sizeof path, "%s%s/vampd.db", folder[0] == '/' ? "" : "./", folder);
  if (length < 0 || (size_t)length >= sizeof path) {
    return vamp_fail(error, VAMP_INVALID, "The path of the data folder is too long.");
  }
  /* SQLite would make it too, but not say why it cannot. */
  int file = openat(store->root, "vampd.db", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) {
    return vampd_folder_fail(errno, "Cannot open the database vampd.db in the data folder", error);
  }
  close(file);
  bool clean = faccessat(store->root, "vampd.db-wal", F_OK, 0) != 0;
  int status = vampd_database_open(&store->writer, path, error);
  if (status == VAMP_OK && !clean) {
    status = vampd_database_check(&store->writer, error);
  }
  if (status == VAMP_OK) {
    status = vampd_database_create(&store->writer, error);
  }
  if (status == VAMP_OK) {
    status = vampd_database_open(&store->reader, path, error);
  }
  if (status == VAMP_OK) {
    status = vampd_database_prepare(&store->writer, 0, VAMPD_SQL_WRITER_COUNT, error);
  }
  if (status == VAMP_OK) {
    status = vampd_database_prepare(&store->reader, VAMPD_SQL_WRITER_COUNT, VAMPD_SQL_COUNT, error);
  }
  return status;
}

/* The names of the database and the folders, and of the data folder itself. */
static int sync_names(struct vampd_store *store, struct vamp_error *error) {
  int parent = openat(store->root, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (parent >= 0) { /* it need not be readable to us */
    fsync(parent);
    close(parent);
  }
  return fsync(store->root) == 0
             ? VAMP_OK
             : vampd_folder_fail(errno, "Cannot write the data folder to its disk", error);
}

static int add_up(struct vampd_store *store, struct vamp_error *error) {
  struct vampd_database *writer = &store->writer;
  int status = vampd_database_next(writer, VAMPD_SQL_TOTALS, error);
  if (status == 1) {
    sqlite3_stmt *row = writer->statements[VAMPD_SQL_TOTALS];
    store->space = (struct vampd_space){.bytes = sqlite3_column_int64(row, 0),
                                        .reserved = sqlite3_column_int64(row, 1),
                                        .jobs = sqlite3_column_int64(row, 2),
                                        .unfinished = sqlite3_column_int64(row, 3)};
    vampd_database_done(writer, VAMPD_SQL_TOTALS);
    status = VAMP_OK;
  }
  return status;
}

int vampd_store_open(const char *folder, const struct vampd_store_limits *limits, struct vampd_store **store,
                     struct vamp_error *error) {
  struct vampd_store *opened = calloc(1, sizeof *opened);
  if (!opened) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while opening the store.");
  }
  opened->root = -1;
  for (int i = 0; i < VAMPD_FOLDER_COUNT; i++) {
    opened->folders[i] = -1;
  }
  opened->limits = *limits;
  atomic_init(&opened->stages, 0);
  pthread_mutex_init(&opened->writer.mutex, NULL);
  pthread_mutex_init(&opened->reader.mutex, NULL);
  pthread_mutex_init(&opened->space_mutex, NULL);
  int status = open_folders(opened, folder, error);
  if (status == VAMP_OK) {
    status = open_databases(opened, folder, error);
  }
  if (status == VAMP_OK) {
    status = sync_names(opened, error);
  }
  for (int i = 0; i < VAMPD_FOLDER_COUNT && status == VAMP_OK; i++) {
    status = vampd_folder_recover(opened, (enum vampd_folder)i, error);
  }
  if (status == VAMP_OK) {
    status = add_up(opened, error);
  }
  if (status != VAMP_OK) {
    vampd_store_close(opened);
    return status;
  }
  opened->writer.in_use = opened->reader.in_use = true;
  *store = opened;
  return VAMP_OK;
}

void vampd_store_close(struct vampd_store *store) {
  if (!store) {
    return;
  }
  vampd_database_close(&store->reader);
  vampd_database_close(&store->writer); /* the last: copies the log into the database and removes it */
  for (int i = 0; i < VAMPD_FOLDER_COUNT; i++) {
    if (store->folders[i] >= 0) {
      close(store->folders[i]);
    }
  }
  if (store->root >= 0) {
    close(store->root);
  }
  pthread_mutex_destroy(&store->writer.mutex);
  pthread_mutex_destroy(&store->reader.mutex);
  pthread_mutex_destroy(&store->space_mutex);
  free(store);
}
