/*
 * Space: who has how much of it, and whether more fits.
 *
 * Four sums are kept in memory and change with the rows they are made of; the database adds them up when it
 * is opened. So asking takes no look at rows or files, but one at the file system (statvfs), which others
 * fill too. What an accepted job will write is reserved from the start, and what is being written and has no
 * row yet is pending: two requests that fit alone but not together cannot both be let in. Sizes are those of
 * the files' contents; what the file system adds (blocks, folders, the database) is for min_free_bytes to
 * cover.
 */
#include <sys/statvfs.h>

#include "server/store/internal.h"

void vampd_space_add(struct vampd_store *store, const struct vampd_space *change) {
  pthread_mutex_lock(&store->space_mutex);
  store->space.bytes += change->bytes;
  store->space.reserved += change->reserved;
  store->space.going += change->going;
  store->space.pending += change->pending;
  store->space.jobs += change->jobs;
  store->space.unfinished += change->unfinished;
  pthread_mutex_unlock(&store->space_mutex);
}

/* For others than root. Where it cannot be asked nothing is refused: writing will tell. */
static int64_t free_bytes(const struct vampd_store *store) {
  struct statvfs facts;
  if (fstatvfs(store->root, &facts) != 0 || facts.f_bavail > INT64_MAX / 4 / facts.f_frsize) {
    return INT64_MAX / 4;
  }
  return (int64_t)(facts.f_bavail * facts.f_frsize);
}

/* The mutex is held. */
static int64_t missing(const struct vampd_store *store, int64_t free, int64_t need) {
  int64_t coming = store->space.reserved + store->space.pending + need;
  int64_t missing_here = store->limits.min_free_bytes + coming - free - store->space.going;
  int64_t missing_of_ours =
      store->limits.max_bytes > 0 ? store->space.bytes + coming - store->limits.max_bytes : 0;
  int64_t most = missing_here > missing_of_ours ? missing_here : missing_of_ours;
  return most > 0 ? most : 0;
}

int64_t vampd_space_missing(struct vampd_store *store, int64_t need) {
  int64_t free = free_bytes(store);
  pthread_mutex_lock(&store->space_mutex);
  int64_t bytes = missing(store, free, need);
  pthread_mutex_unlock(&store->space_mutex);
  return bytes;
}

int64_t vampd_space_try_claim(struct vampd_store *store, int64_t need) {
  int64_t free = free_bytes(store);
  pthread_mutex_lock(&store->space_mutex);
  int64_t bytes = missing(store, free, need);
  if (bytes == 0) {
    store->space.pending += need;
  }
  pthread_mutex_unlock(&store->space_mutex);
  return bytes;
}

int vampd_space_claim(struct vampd_store *store, int64_t need, bool may_forget, struct vamp_error *error) {
  if (vampd_space_try_claim(store, need) == 0) {
    return VAMP_OK;
  }
  if (may_forget) {
    return vampd_retain_claim(store, need, false, error);
  }
  return vamp_fail(error, VAMP_SPACE,
                   "There is no room for another file: delete finished jobs, or free space on the disk.");
}

bool vampd_store_has_room(struct vampd_store *store, int64_t bytes) {
  if (bytes < 0 || bytes > VAMPD_SPACE_MAX) {
    return false;
  }
  return vampd_space_missing(store, bytes) == 0 || vampd_retain_claim(store, bytes, true, NULL) == VAMP_OK;
}

int vampd_store_usage(struct vampd_store *store, struct vampd_store_usage *usage, struct vamp_error *error) {
  (void)error;
  int64_t free = free_bytes(store);
  pthread_mutex_lock(&store->space_mutex);
  *usage = (struct vampd_store_usage){
      .bytes = store->space.bytes,
      .reserved = store->space.reserved,
      .free_bytes = free,
      .jobs = store->space.jobs,
      .unfinished = store->space.unfinished,
  };
  pthread_mutex_unlock(&store->space_mutex);
  return VAMP_OK;
}

void vampd_store_set_limits(struct vampd_store *store, const struct vampd_store_limits *limits) {
  pthread_mutex_lock(&store->space_mutex);
  store->limits = *limits;
  pthread_mutex_unlock(&store->space_mutex);
}
