/*
 * The key file: who may use the daemon.
 *
 *   [lab]                                   ; the key's name: letters, digits, . _ -  (at most 40)
 *   hash = sha256:8c1f...                   ; of the key, 64 hexadecimal digits
 *   requests-per-minute = 120               ; these three: 0 or missing is no limit
 *   jobs = 20                               ; queued and running
 *   audio-seconds-per-hour = 3600
 *   priority = 5                            ; 1 .. 10, the weight in scheduling
 *
 * A key is a random text of 256 bits, so a plain SHA-256 of it is enough: there is nothing to guess for which
 * a slow hash would have to be. The file holds no secret; but who may write to it can let himself in, so one
 * that the group or others may write to is refused.
 *
 * Any thread.
 */
#ifndef VAMPD_KEYS_H
#define VAMPD_KEYS_H

#include <stddef.h>
#include <stdint.h>

#include "vamp/error.h"

#define VAMPD_KEY_NAME_SIZE 41 /* 40 characters */
#define VAMPD_KEY_HASH_SIZE 32
#define VAMPD_KEY_TEXT_SIZE 68 /* "vk_", 64 hexadecimal digits */
#define VAMPD_MAX_KEYS 1024
#define VAMPD_PRIORITY_DEFAULT 5

/* What a caller may use; 0 is no limit. */
struct vampd_allowance {
  int requests_per_minute;
  int jobs;
  int audio_seconds_per_hour;
  int priority; /* 1 .. 10 */
};

struct vampd_key {
  char name[VAMPD_KEY_NAME_SIZE];
  uint8_t hash[VAMPD_KEY_HASH_SIZE];
  struct vampd_allowance allowance;
};

struct vampd_keys {
  size_t count;
  struct vampd_key *keys; /* [count] */
};

/* VAMP_IO, or VAMP_INVALID, with the file and the line. */
int vampd_keys_read(const char *path, struct vampd_keys **keys, struct vamp_error *error);
void vampd_keys_free(struct vampd_keys *keys); /* NULL is fine */

/* SHA-256 of a key, as it stands in the file. */
void vampd_key_hash(const char *key, size_t length, uint8_t hash[VAMPD_KEY_HASH_SIZE]);

/* A fresh key, and the section to paste into the file; both are texts. `section` is malloc'd and the caller's
 * to free. VAMP_INVALID where the name cannot be one. */
int vampd_key_make(const char *name, char key[VAMPD_KEY_TEXT_SIZE], char **section, struct vamp_error *error);

#endif
