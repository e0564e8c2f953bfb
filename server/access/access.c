/*
 * Callers: see access.h.
 *
 * One mutex for all of them: what happens under it is a comparison with each key (32 bytes, at most 1,024) or
 * a few sums, and hashing is done before. Callers are never freed while the daemon lives: they are a hundred
 * bytes, made once for each name that was ever in the file, and pointers to them travel with jobs through
 * every thread.
 */
#include "server/access/access.h"

#include <math.h>
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "server/access/keys.h"
#include "server/access/limits.h"
#include "server/log.h"

#define MAX_KEY_LENGTH 256

struct vampd_caller {
  struct vampd_access *access;
  struct vampd_caller *next; /* the list of all */
  char name[VAMPD_KEY_NAME_SIZE];
  uint32_t client;
  /* The rest is under the access's mutex. */
  bool has_key;
  uint8_t hash[VAMPD_KEY_HASH_SIZE];
  struct vampd_allowance allowance;
  struct vampd_usage usage;
};

struct vampd_access {
  pthread_mutex_t mutex;
  bool guarded;
  uint32_t clients; /* numbers given out */
  struct vampd_caller *callers;
};

/* ---- callers
 * ----------------------------------------------------------------------------------------------- */

static struct vampd_caller *find(struct vampd_access *access, const char *name) {
  struct vampd_caller *caller = access->callers;
  while (caller && strcmp(caller->name, name) != 0) {
    caller = caller->next;
  }
  return caller;
}

/* The caller of that name, made where there is none. Under the mutex, or before there are threads. */
static struct vampd_caller *find_or_make(struct vampd_access *access, const char *name) {
  struct vampd_caller *caller = find(access, name);
  if (!caller && (caller = calloc(1, sizeof *caller)) != NULL) {
    memcpy(caller->name, name, strlen(name));
    caller->access = access;
    caller->allowance.priority = VAMPD_PRIORITY_DEFAULT;
    caller->client = access->clients++;
    caller->next = access->callers;
    access->callers = caller;
  }
  return caller;
}

int vampd_access_create(struct vampd_access **access, struct vamp_error *error) {
  struct vampd_access *made = sodium_init() < 0 ? NULL : calloc(1, sizeof *made);
  if (!made || !find_or_make(made, "")) {
    free(made);
    return vamp_fail(error, VAMP_MEMORY, "Out of memory.");
  }
  pthread_mutex_init(&made->mutex, NULL);
  *access = made;
  return VAMP_OK;
}

void vampd_access_free(struct vampd_access *access) {
  if (access) {
    while (access->callers) {
      struct vampd_caller *caller = access->callers;
      access->callers = caller->next;
      free(caller);
    }
    pthread_mutex_destroy(&access->mutex);
    free(access);
  }
}

/* Under the mutex. */
static void set_key(struct vampd_caller *caller, const struct vampd_keys *keys) {
  caller->has_key = false;
  caller->allowance = (struct vampd_allowance){.priority = VAMPD_PRIORITY_DEFAULT};
  for (size_t i = 0; keys && i < keys->count; i++) {
    if (strcmp(keys->keys[i].name, caller->name) == 0) {
      memcpy(caller->hash, keys->keys[i].hash, sizeof caller->hash);
      caller->allowance = keys->keys[i].allowance;
      caller->has_key = true;
    }
  }
}

int vampd_access_load(struct vampd_access *access, const struct vampd_keys *keys, struct vamp_error *error) {
  bool enough = true;
  pthread_mutex_lock(&access->mutex);
  /* First what can fail; a caller without a key is nobody's yet. */
  for (size_t i = 0; keys && i < keys->count; i++) {
    enough = enough && find_or_make(access, keys->keys[i].name);
  }
  for (struct vampd_caller *caller = access->callers; caller && enough; caller = caller->next) {
    set_key(caller, keys);
  }
  access->guarded = enough ? keys != NULL : access->guarded;
  pthread_mutex_unlock(&access->mutex);
  return enough ? VAMP_OK : vamp_fail(error, VAMP_MEMORY, "Out of memory.");
}

bool vampd_access_guarded(struct vampd_access *access) {
  pthread_mutex_lock(&access->mutex);
  bool guarded = access->guarded;
  pthread_mutex_unlock(&access->mutex);
  return guarded;
}

/* ---- who -------------------------------------------------------------------------------------------------
 */

/* The key in "Bearer KEY" (RFC 6750 2.1; the scheme's case does not matter, RFC 9110 11.1), or NULL. */
static const char *key_in(const char *authorization, size_t *length) {
  if (!authorization || strncasecmp(authorization, "Bearer ", 7) != 0) {
    return NULL;
  }
  const char *key = authorization + 7;
  key += strspn(key, " ");
  *length = strcspn(key, " \t");
  size_t rest = *length + strspn(key + *length, " \t");
  return *length > 0 && *length <= MAX_KEY_LENGTH && key[rest] == '\0' ? key : NULL;
}

/* Compares with every key, all bytes of each, whatever the outcome. Under the mutex. */
static struct vampd_caller *find_hash(struct vampd_access *access, const uint8_t *hash) {
  struct vampd_caller *found = NULL;
  for (struct vampd_caller *caller = access->callers; caller; caller = caller->next) {
    bool same = sodium_memcmp(caller->hash, hash, sizeof caller->hash) == 0;
    found = same && caller->has_key ? caller : found;
  }
  return found;
}

int vampd_access_identify(struct vampd_access *access, const char *authorization,
                          struct vampd_caller **caller, struct vamp_error *error) {
  uint8_t hash[VAMPD_KEY_HASH_SIZE];
  size_t length = 0;
  const char *key = key_in(authorization, &length);
  vampd_key_hash(key ? key : "", length, hash);
  pthread_mutex_lock(&access->mutex);
  bool guarded = access->guarded;
  struct vampd_caller *found = guarded ? find_hash(access, hash) : find(access, "");
  pthread_mutex_unlock(&access->mutex);
  if (found && (key || !guarded)) {
    *caller = found;
    return VAMP_OK;
  }
  return vamp_fail(error, VAMP_INVALID,
                   key             ? "This key is unknown here, or not valid any more."
                   : authorization ? "The Authorization header must be \"Bearer KEY\"."
                                   : "This daemon needs a key: send it as \"Authorization: Bearer KEY\".");
}

int vampd_access_find(struct vampd_access *access, const char *name, struct vampd_caller **caller,
                      struct vamp_error *error) {
  if (strlen(name) >= VAMPD_KEY_NAME_SIZE) {
    return vamp_fail(error, VAMP_INVALID, "\"%.80s\" cannot be the name of a key.", name);
  }
  pthread_mutex_lock(&access->mutex);
  struct vampd_caller *found = find_or_make(access, name);
  pthread_mutex_unlock(&access->mutex);
  if (!found) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory.");
  }
  *caller = found;
  return VAMP_OK;
}

const char *vampd_caller_name(const struct vampd_caller *caller) {
  return caller->name;
}

uint32_t vampd_caller_client(const struct vampd_caller *caller) {
  return caller->client;
}

int vampd_caller_priority(struct vampd_caller *caller) {
  pthread_mutex_lock(&caller->access->mutex);
  int priority = caller->allowance.priority;
  pthread_mutex_unlock(&caller->access->mutex);
  return priority;
}

/* ---- how much --------------------------------------------------------------------------------------------
 */

int vampd_access_request(struct vampd_caller *caller, int *retry_after, struct vamp_error *error) {
  double wait = 0;
  pthread_mutex_lock(&caller->access->mutex);
  int limit = caller->allowance.requests_per_minute;
  bool taken = vampd_limits_request(&caller->allowance, &caller->usage, vampd_now(), &wait);
  pthread_mutex_unlock(&caller->access->mutex);
  if (!taken) {
    *retry_after = vampd_retry_after(wait);
    return vamp_fail(error, VAMP_BUSY, "This key may send %d requests a minute. Try again in %d s.", limit,
                     *retry_after);
  }
  return VAMP_OK;
}

/* What was refused, in words. */
static int refuse_jobs(const struct vampd_allowance *allowance, bool audio, double wait, int *retry_after,
                       struct vamp_error *error) {
  if (isinf(wait)) {
    return audio ? vamp_fail(error, VAMP_LIMIT,
                             "This key may have %d seconds of audio made an hour, and this is more at once.",
                             allowance->audio_seconds_per_hour)
                 : vamp_fail(error, VAMP_LIMIT,
                             "This key may have %d jobs at a time, and these are more at once.",
                             allowance->jobs);
  }
  *retry_after = vampd_retry_after(wait);
  return audio ? vamp_fail(error, VAMP_BUSY,
                           "This key may have %d seconds of audio made an hour. Try again in %d s.",
                           allowance->audio_seconds_per_hour, *retry_after)
               : vamp_fail(error, VAMP_BUSY,
                           "This key may have %d jobs queued and running. Try again in about %d s.",
                           allowance->jobs, *retry_after);
}

int vampd_access_take_jobs(struct vampd_caller *caller, int count, double audio_seconds, int *retry_after,
                           struct vamp_error *error) {
  double wait = 0, now = vampd_now();
  pthread_mutex_lock(&caller->access->mutex);
  struct vampd_allowance allowance = caller->allowance;
  bool audio = vampd_limits_audio(&allowance, &caller->usage, audio_seconds, now, &wait);
  bool jobs = audio && vampd_limits_jobs(&allowance, &caller->usage, count, now, &wait);
  if (audio && !jobs) {
    vampd_limits_return_audio(&caller->usage, audio_seconds);
  }
  pthread_mutex_unlock(&caller->access->mutex);
  return jobs ? VAMP_OK : refuse_jobs(&allowance, !audio, wait, retry_after, error);
}

void vampd_access_adopt_jobs(struct vampd_caller *caller, int count) {
  pthread_mutex_lock(&caller->access->mutex);
  vampd_pace_enter(&caller->usage.pace, caller->usage.jobs, vampd_now());
  caller->usage.jobs += count;
  pthread_mutex_unlock(&caller->access->mutex);
}

void vampd_access_return_jobs(struct vampd_caller *caller, int count) {
  pthread_mutex_lock(&caller->access->mutex);
  caller->usage.jobs -= count;
  vampd_pace_leave(&caller->usage.pace, count, vampd_now());
  pthread_mutex_unlock(&caller->access->mutex);
}

void vampd_access_undo_jobs(struct vampd_caller *caller, int count, double audio_seconds) {
  pthread_mutex_lock(&caller->access->mutex);
  caller->usage.jobs -= count;
  vampd_limits_return_audio(&caller->usage, audio_seconds);
  pthread_mutex_unlock(&caller->access->mutex);
}
