/*
 * Reading files, and adding those that can be made again.
 *
 * A file is opened by its name without a look at the database: names appear by a rename and all at once, so
 * what can be opened is whole. Who has it open may read on after it has been forgotten or replaced.
 *
 * One that is added is written beside without the mutex, and its bytes are on disk before it gets its name:
 * after a power cut it is there whole or not at all. Under the mutex: is there still a row to add to; the
 * row's bytes change; commit; rename. So no file can appear in, or bring back, a folder that is being
 * forgotten: rows are deleted under the same mutex before their files are. A kill between commit and rename
 * leaves a row with a wrong sum, which the next start puts right. The name itself is not fsynced, for the
 * file can be made again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/store/internal.h"

#define PATH_SIZE 128 /* of ID/NAME */

static int check_path(enum vampd_folder folder, const char *id, const char *name, char path[PATH_SIZE],
                      struct vamp_error *error) {
  if ((unsigned)folder >= VAMPD_FOLDER_COUNT || !vampd_store_is_id(id) || !vampd_folder_is_name(name)) {
    return vamp_fail(error, VAMP_INVALID, "There is no such file.");
  }
  snprintf(path, PATH_SIZE, "%s/%s", id, name);
  return VAMP_OK;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

int vampd_store_open_file(struct vampd_store *store, enum vampd_folder folder, const char *id,
                          const char *name, int64_t *size, struct vamp_error *error) {
  char path[PATH_SIZE];
  int status = check_path(folder, id, name, path, error);
  if (status != VAMP_OK) {
    return status;
  }
  int file = openat(store->folders[folder], path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (file < 0) {
    return errno == ENOENT ? vamp_fail(error, VAMP_INVALID, "There is no file %s.", path)
                           : vampd_folder_fail(errno, "Cannot open a file in the data folder", error);
  }
  struct stat facts;
  if (fstat(file, &facts) != 0 || !S_ISREG(facts.st_mode)) {
    close(file);
    return vamp_fail(error, VAMP_IO, "The file %s in the data folder cannot be read.", path);
  }
  if (size) {
    *size = facts.st_size;
  }
  return file;
}

int vampd_store_read_file(struct vampd_store *store, enum vampd_folder folder, const char *id,
                          const char *name, size_t limit, void **data, size_t *size,
                          struct vamp_error *error) {
  int64_t length = 0;
  int file = vampd_store_open_file(store, folder, id, name, &length, error);
  if (file < 0) {
    return file;
  }
  int status = VAMP_OK;
  char *bytes = NULL;
  size_t have = 0;
  if ((uint64_t)length > limit) {
    status = vamp_fail(error, VAMP_LIMIT, "The file %s has %lld bytes; %zu can be read.", name,
                       (long long)length, limit);
  } else if (!(bytes = malloc((size_t)length + 1))) {
    status =
        vamp_fail(error, VAMP_MEMORY, "Out of memory while reading a file of %lld bytes.", (long long)length);
  }
  while (status == VAMP_OK && have < (size_t)length) {
    ssize_t got = read(file, bytes + have, (size_t)length - have);
    if (got > 0) {
      have += (size_t)got;
    } else if (got == 0) {
      status = vamp_fail(error, VAMP_IO, "The file %s in the data folder is cut short.", name);
    } else if (errno != EINTR) {
      status = vampd_folder_fail(errno, "Cannot read a file in the data folder", error);
    }
  }
  close(file);
  if (status != VAMP_OK) {
    free(bytes);
    return status;
  }
  *data = bytes;
  *size = have;
  return VAMP_OK;
}

/* ---- adding ------------------------------------------------------------------------------------------- */

/* The row to add to, and its folder: a sweep has none until it has a file. Inside a transaction. */
static int find_row(struct vampd_store *store, enum vampd_folder folder, const char *id, int64_t *bytes,
                    struct vamp_error *error) {
  struct vampd_database *writer = &store->writer;
  const enum vampd_sql get = VAMPD_SQL_BYTES + folder;
  int status = vampd_database_bind(writer, get, error, "t", id);
  if (status == VAMP_OK) {
    status = vampd_database_next(writer, get, error);
  }
  if (status == 0) {
    return vamp_fail(error, VAMP_INVALID, "What the file belongs to has been forgotten.");
  }
  if (status < 0) {
    return status;
  }
  *bytes = sqlite3_column_int64(writer->statements[get], 0);
  vampd_database_done(writer, get);
  if (mkdirat(store->folders[folder], id, 0700) != 0 && errno != EEXIST) {
    return vampd_folder_fail(errno, "Cannot make a folder in the data folder", error);
  }
  return VAMP_OK;
}

/* Changes the bytes of a row by `change`. */
static int count_bytes(struct vampd_store *store, enum vampd_folder folder, const char *id, int64_t change,
                       struct vamp_error *error) {
  struct vampd_database *writer = &store->writer;
  const enum vampd_sql set = VAMPD_SQL_BYTES_SET + folder;
  int64_t bytes = 0;
  int status = vampd_database_run(writer, VAMPD_SQL_BEGIN, error);
  if (status == VAMP_OK) {
    status = find_row(store, folder, id, &bytes, error);
  }
  if (status == VAMP_OK) {
    status = vampd_database_bind(writer, set, error, "ti", id, bytes + change);
  }
  if (status == VAMP_OK) {
    status = vampd_database_run(writer, set, error);
  }
  if (status == VAMP_OK) {
    status = vampd_database_commit(writer, &store->reader, error);
  } else {
    vampd_database_roll_back(writer);
  }
  if (status == VAMP_OK) {
    vampd_space_add(store, &(struct vampd_space){.bytes = change});
  }
  return status;
}

/* Makes a staged file one of an id. Its bytes are on disk, and pending. */
static int put(struct vampd_store *store, enum vampd_folder folder, const char *id, const char *path,
               const char *stage, int64_t size, struct vamp_error *error) {
  struct stat old;
  pthread_mutex_lock(&store->writer.mutex);
  bool replaces = fstatat(store->folders[folder], path, &old, AT_SYMLINK_NOFOLLOW) == 0;
  int64_t change = size - (replaces ? old.st_size : 0);
  int status = count_bytes(store, folder, id, change, error);
  if (status == VAMP_OK && renameat(store->folders[folder], stage, store->folders[folder], path) != 0) {
    status = vampd_folder_fail(errno, "Cannot name a file in the data folder", error);
    count_bytes(store, folder, id, -change, NULL); /* where even that fails, the next start does it */
  }
  pthread_mutex_unlock(&store->writer.mutex);
  return status;
}

int vampd_store_put_file(struct vampd_store *store, enum vampd_folder folder, const char *id,
                         const struct vampd_store_file *file, struct vamp_error *error) {
  char path[PATH_SIZE], stage[VAMPD_STAGE_SIZE];
  int status = check_path(folder, id, file->name, path, error);
  if (status == VAMP_OK && file->size >= VAMPD_SPACE_MAX) {
    status = vamp_fail(error, VAMP_SPACE, "No disk has room for such a file.");
  }
  if (status == VAMP_OK) {
    status = vampd_space_claim(store, (int64_t)file->size, false, error);
  }
  if (status != VAMP_OK) {
    return status;
  }
  vampd_folder_stage_name(store, stage);
  const struct vampd_store_file beside = {stage, file->data, file->size};
  status = vampd_folder_write(store->folders[folder], &beside, 1, error);
  if (status == VAMP_OK) {
    status = put(store, folder, id, path, stage, (int64_t)file->size, error);
  }
  if (status != VAMP_OK) {
    vampd_folder_remove(store, folder, stage);
  }
  vampd_space_add(store, &(struct vampd_space){.pending = -(int64_t)file->size});
  return status;
}

/* Runs `fill` on a new file, which is on disk afterwards. */
static int fill_stage(int parent, const char *stage,
                      int (*fill)(int file, void *user, struct vamp_error *error), void *user, int64_t *size,
                      struct vamp_error *error) {
  int file = openat(parent, stage, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (file < 0) {
    return vampd_folder_fail(errno, "Cannot make a file in the data folder", error);
  }
  struct stat facts = {0};
  int status = fill(file, user, error);
  if (status == VAMP_OK && (fsync(file) != 0 || fstat(file, &facts) != 0)) {
    status = vampd_folder_fail(errno, "Cannot write a file in the data folder", error);
  }
  if (close(file) != 0 && status == VAMP_OK) {
    status = vampd_folder_fail(errno, "Cannot write a file in the data folder", error);
  }
  if (status == VAMP_OK) {
    *size = facts.st_size;
  }
  return status;
}

int vampd_store_fill_file(struct vampd_store *store, enum vampd_folder folder, const char *id,
                          const char *name, int (*fill)(int file, void *user, struct vamp_error *error),
                          void *user, struct vamp_error *error) {
  char path[PATH_SIZE], stage[VAMPD_STAGE_SIZE];
  int status = check_path(folder, id, name, path, error);
  if (status != VAMP_OK) {
    return status;
  }
  int64_t size = 0;
  vampd_folder_stage_name(store, stage);
  status = fill_stage(store->folders[folder], stage, fill, user, &size, error);
  if (status == VAMP_OK) {
    status = vampd_space_claim(store, size, false, error);
    if (status == VAMP_OK) {
      status = put(store, folder, id, path, stage, size, error);
      vampd_space_add(store, &(struct vampd_space){.pending = -size});
    }
  }
  if (status != VAMP_OK) {
    vampd_folder_remove(store, folder, stage);
  }
  return status;
}
