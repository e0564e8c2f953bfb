/*
 * The folders of files: inputs/, jobs/ and sweeps/, each of which has a folder for an id.
 *
 * What is being written stands beside the ids under a name that no id can have ("new.17"), so one rule cleans
 * up after a kill: of such names nothing is kept, and of ids those that have a row (a job's: that is DONE).
 * Other names are somebody else's and left alone. All access is relative to a descriptor of the folder, by
 * names made from ids and fixed words.
 *
 * fsync order: each file, then the folder they stand in, then (vampd_folder_sync) the one that has the
 * folder's name. Only then may a row speak of it. Staging in the same parent makes the last a single fsync.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/store/internal.h"

#define STAGE_PREFIX "new."
#define NAME_MAX_LENGTH 64
#define DEPTH_MAX 4 /* of what is removed; we make 1 */

int vampd_folder_fail(int code, const char *what, struct vamp_error *error) {
  switch (code) {
  case ENOSPC:
    return vamp_fail(error, VAMP_SPACE, "%s: the disk with the data folder is full; free some space on it.",
                     what);
  case EDQUOT:
  case EFBIG:
    return vamp_fail(error, VAMP_SPACE, "%s: the quota or file size limit of vampd's user is reached (%s).",
                     what, strerror(code));
  case ENOMEM:
    return vamp_fail(error, VAMP_MEMORY, "%s: out of memory.", what);
  default:
    return vamp_fail(error, VAMP_IO, "%s: %s.", what, strerror(code));
  }
}

bool vampd_folder_is_name(const char *name) {
  size_t length = name ? strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") : 0;
  return length > 0 && length <= NAME_MAX_LENGTH && name[length] == '\0' && name[0] != '.';
}

void vampd_folder_stage_name(struct vampd_store *store, char name[VAMPD_STAGE_SIZE]) {
  snprintf(name, VAMPD_STAGE_SIZE, STAGE_PREFIX "%llu", atomic_fetch_add(&store->stages, 1));
}

/* ---- removing ----------------------------------------------------------------------------------------- */

static void remove_tree(int parent, const char *name, int depth) {
  if (unlinkat(parent, name, 0) == 0 || (errno != EISDIR && errno != EPERM)) {
    return;
  }
  int folder = depth < DEPTH_MAX ? openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
  DIR *entries = folder >= 0 ? fdopendir(folder) : NULL;
  if (!entries) {
    if (folder >= 0) {
      close(folder);
    }
    return;
  }
  for (struct dirent *entry = readdir(entries); entry; entry = readdir(entries)) {
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
      remove_tree(folder, entry->d_name, depth + 1);
    }
  }
  closedir(entries);
  unlinkat(parent, name, AT_REMOVEDIR);
}

void vampd_folder_remove(struct vampd_store *store, enum vampd_folder folder, const char *name) {
  remove_tree(store->folders[folder], name, 0);
}

/* ---- writing ------------------------------------------------------------------------------------------ */

static int write_all(int file, const char *data, size_t size) {
  while (size > 0) {
    ssize_t written = write(file, data, size);
    if (written < 0 && errno != EINTR) {
      return errno;
    }
    if (written > 0) {
      data += written;
      size -= (size_t)written;
    }
  }
  return 0;
}

/* Writes a new file, and has the disk begin with it. */
static int write_file(int parent, const struct vampd_store_file *file, struct vamp_error *error) {
  int descriptor = openat(parent, file->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (descriptor < 0) {
    return vampd_folder_fail(errno, "Cannot make a file in the data folder", error);
  }
  int code = write_all(descriptor, file->data, file->size);
  if (code == 0) {
    sync_file_range(descriptor, 0, 0, SYNC_FILE_RANGE_WRITE);
  }
  if (close(descriptor) != 0 && code == 0) { /* a network file system may say only now that it is full */
    code = errno;
  }
  return code == 0 ? VAMP_OK : vampd_folder_fail(code, "Cannot write a file in the data folder", error);
}

static int sync_file(int parent, const char *name, struct vamp_error *error) {
  int descriptor = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  int code = descriptor >= 0 && fsync(descriptor) == 0 ? 0 : errno;
  if (descriptor >= 0) {
    close(descriptor);
  }
  return code == 0 ? VAMP_OK : vampd_folder_fail(code, "Cannot write a file in the data folder", error);
}

int vampd_folder_write(int parent, const struct vampd_store_file *files, int count,
                       struct vamp_error *error) {
  int status = VAMP_OK;
  for (int i = 0; i < count && status == VAMP_OK; i++) {
    status = write_file(parent, &files[i], error);
  }
  for (int i = 0; i < count && status == VAMP_OK; i++) {
    status = sync_file(parent, files[i].name, error);
  }
  return status;
}

int vampd_folder_stage(struct vampd_store *store, enum vampd_folder folder,
                       const struct vampd_store_file *files, int count, char name[VAMPD_STAGE_SIZE],
                       struct vamp_error *error) {
  int status = VAMP_OK;
  vampd_folder_stage_name(store, name);
  if (mkdirat(store->folders[folder], name, 0700) != 0) {
    return vampd_folder_fail(errno, "Cannot make a folder in the data folder", error);
  }
  int made = openat(store->folders[folder], name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (made < 0) {
    status = vampd_folder_fail(errno, "Cannot open a folder in the data folder", error);
    goto err;
  }
  status = vampd_folder_write(made, files, count, error);
  if (status == VAMP_OK && fsync(made) != 0) {
    status = vampd_folder_fail(errno, "Cannot write a folder in the data folder", error);
  }
  close(made);
  if (status != VAMP_OK) {
    goto err;
  }
  return VAMP_OK;
err:
  vampd_folder_remove(store, folder, name);
  return status;
}

int vampd_folder_place(struct vampd_store *store, enum vampd_folder folder, const char *stage, const char *id,
                       bool replace, struct vamp_error *error) {
  int parent = store->folders[folder];
  if (renameat(parent, stage, parent, id) == 0) {
    return VAMP_OK;
  }
  if (errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR) {
    return vampd_folder_fail(errno, "Cannot rename a folder in the data folder", error);
  }
  if (!replace) {
    return vamp_fail(error, VAMP_INVALID, "The id %s is in use already.", id);
  }
  char old[VAMPD_STAGE_SIZE];
  vampd_folder_stage_name(store, old);
  if (renameat(parent, id, parent, old) != 0 || renameat(parent, stage, parent, id) != 0) {
    return vampd_folder_fail(errno, "Cannot rename a folder in the data folder", error);
  }
  vampd_folder_remove(store, folder, old);
  return VAMP_OK;
}

int vampd_folder_sync(struct vampd_store *store, enum vampd_folder folder, struct vamp_error *error) {
  if (fsync(store->folders[folder]) != 0) {
    return vampd_folder_fail(errno, "Cannot write a folder in the data folder", error);
  }
  return VAMP_OK;
}

/* ---- after a kill ------------------------------------------------------------------------------------- */

/* The bytes of the files in the folder of an id; 0 where there is none. */
static int measure(int parent, const char *id, int64_t *bytes, struct vamp_error *error) {
  *bytes = 0;
  int folder = openat(parent, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (folder < 0 && errno == ENOENT) {
    return VAMP_OK;
  }
  DIR *entries = folder >= 0 ? fdopendir(folder) : NULL;
  if (!entries) {
    int status = vampd_folder_fail(errno, "Cannot look into the data folder", error);
    if (folder >= 0) {
      close(folder);
    }
    return status;
  }
  for (struct dirent *entry = readdir(entries); entry; entry = readdir(entries)) {
    struct stat facts;
    if (fstatat(folder, entry->d_name, &facts, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(facts.st_mode)) {
      *bytes += facts.st_size;
    }
  }
  closedir(entries);
  return VAMP_OK;
}

/* Sets the bytes of the first row whose id is greater, and goes on to that id. 0 after the last. */
static int recover_row(struct vampd_store *store, enum vampd_folder folder, char id[VAMPD_ID_SIZE],
                       struct vamp_error *error) {
  struct vampd_database *writer = &store->writer;
  const enum vampd_sql next = VAMPD_SQL_BYTES_NEXT + folder, set = VAMPD_SQL_BYTES_SET + folder;
  int status = vampd_database_bind(writer, next, error, "t", id);
  if (status == VAMP_OK) {
    status = vampd_database_next(writer, next, error);
  }
  if (status != 1) {
    return status;
  }
  const char *text = (const char *)sqlite3_column_text(writer->statements[next], 0);
  int64_t noted = sqlite3_column_int64(writer->statements[next], 1), bytes = 0;
  bool right = vampd_store_is_id(text);
  if (right) {
    memcpy(id, text, VAMPD_ID_SIZE);
  }
  vampd_database_done(writer, next);
  if (!right) {
    return vamp_fail(error, VAMP_INVALID, "The database of jobs, vampd.db, holds a wrong id.");
  }
  status = measure(store->folders[folder], id, &bytes, error);
  if (status == VAMP_OK && bytes != noted) {
    status = vampd_database_bind(writer, set, error, "ti", id, bytes);
    if (status == VAMP_OK) {
      status = vampd_database_run(writer, set, error);
    }
  }
  return status == VAMP_OK ? 1 : status;
}

/* Removes what has no row. */
static int recover_name(struct vampd_store *store, enum vampd_folder folder, const char *name,
                        struct vamp_error *error) {
  struct vampd_database *writer = &store->writer;
  const enum vampd_sql get = VAMPD_SQL_BYTES + folder;
  bool id = vampd_store_is_id(name);
  if (!id && strncmp(name, STAGE_PREFIX, strlen(STAGE_PREFIX)) != 0) {
    return VAMP_OK;
  }
  int found = 0;
  if (id) {
    found = vampd_database_bind(writer, get, error, "t", name);
    if (found == VAMP_OK) {
      found = vampd_database_next(writer, get, error);
    }
  }
  if (found == 0) {
    vampd_folder_remove(store, folder, name);
  } else if (found == 1) {
    vampd_database_done(writer, get);
  }
  return found < 0 ? found : VAMP_OK;
}

int vampd_folder_recover(struct vampd_store *store, enum vampd_folder folder, struct vamp_error *error) {
  int again = openat(store->folders[folder], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *entries = again >= 0 ? fdopendir(again) : NULL;
  if (!entries) {
    int status = vampd_folder_fail(errno, "Cannot look into the data folder", error);
    if (again >= 0) {
      close(again);
    }
    return status;
  }
  int status = VAMP_OK;
  for (struct dirent *entry = readdir(entries); entry && status == VAMP_OK; entry = readdir(entries)) {
    status = recover_name(store, folder, entry->d_name, error);
  }
  closedir(entries);
  char id[VAMPD_ID_SIZE] = "";
  int found = 1;
  while (status == VAMP_OK && found == 1) {
    found = recover_row(store, folder, id, error);
  }
  return status == VAMP_OK && found < 0 ? found : status;
}
