/*
 * Who is asking, and how much they may ask for.
 *
 * Where the daemon has a key file, a caller is one of its keys, told by the Authorization header; without
 * one everybody is the same caller, named "", without limits. A caller's limits are requests a minute, jobs
 * in the house (queued and running) and seconds of audio an hour; its priority is its weight where the batch
 * loop deals turns.
 *
 * Callers are kept by name for as long as the daemon lives, also when a reload changes their limits or takes
 * their key away: what they have used is not forgotten, and a `struct vampd_caller *` stays good until
 * vampd_access_free. Nothing of this is stored on disk: after a restart the buckets are full again, and
 * jobs that are found in the store are counted by vampd_access_adopt_jobs.
 *
 * Any thread; nothing here waits for a disk or for another's request.
 */
#ifndef VAMPD_ACCESS_H
#define VAMPD_ACCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "vamp/error.h"

struct vampd_keys; /* keys.h: a key file that was read */
struct vampd_access;
struct vampd_caller;

/* Without keys, until vampd_access_load. */
int vampd_access_create(struct vampd_access **access, struct vamp_error *error);
void vampd_access_free(struct vampd_access *access); /* NULL is fine; no other thread may be inside */

/* From now on these keys open the door, with these limits; NULL: there is no key file. Copies what it
 * needs. VAMP_MEMORY changes nothing. */
int vampd_access_load(struct vampd_access *access, const struct vampd_keys *keys, struct vamp_error *error);

/* Whether a key is needed at all. */
bool vampd_access_guarded(struct vampd_access *access);

/* Whose request this is. `authorization` is the value of that header, NULL where it is missing; RFC 6750's
 * "Bearer KEY" is what is understood. VAMP_INVALID (answer 401, problem unauthorized, WWW-Authenticate:
 * Bearer) where a key is needed and this is none. The time it takes does not tell how much of a key was
 * right. */
int vampd_access_identify(struct vampd_access *access, const char *authorization,
                          struct vampd_caller **caller, struct vamp_error *error);

/* The caller of that name, for jobs that a restart found in the store: one whose key is gone has no limits
 * and the middle priority. "" is the one without a key. VAMP_INVALID where it is no name of a key. */
int vampd_access_find(struct vampd_access *access, const char *name, struct vampd_caller **caller,
                      struct vamp_error *error);

const char *vampd_caller_name(const struct vampd_caller *caller); /* the store's owner; "" without keys */
uint32_t vampd_caller_client(const struct vampd_caller *caller);  /* struct vamp_job.client: 0, 1, 2, ... */
int vampd_caller_priority(struct vampd_caller *caller);           /* 1 .. 10; 5 where nothing is said */

/* Counts one request. VAMP_BUSY (answer 429, problem rate-limited) where it is one too many: *retry_after
 * is the number of whole seconds, at least 1, after which one will be let in. */
int vampd_access_request(struct vampd_caller *caller, int *retry_after, struct vamp_error *error);

/* Counts `count` jobs, 1 or more, on `audio_seconds` of clips, all of them together (a variation of a 10 s
 * clip is 10, a sweep of 30 points on it 300). All or nothing. VAMP_BUSY as above; for jobs, when the next
 * will be finished is guessed from when the last ones were. VAMP_LIMIT where this will never be let in: more
 * than the key may have at once or in an hour. */
int vampd_access_take_jobs(struct vampd_caller *caller, int count, double audio_seconds, int *retry_after,
                           struct vamp_error *error);

/* Jobs that were accepted before a restart: counted, never refused. */
void vampd_access_adopt_jobs(struct vampd_caller *caller, int count);

/* So many are finished, failed or cancelled. */
void vampd_access_return_jobs(struct vampd_caller *caller, int count);

/* What was taken did not come to be (a full disk, a full queue): jobs and audio are given back. */
void vampd_access_undo_jobs(struct vampd_caller *caller, int count, double audio_seconds);

#endif
