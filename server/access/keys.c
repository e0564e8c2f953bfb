/*
 * The key file: see keys.h.
 *
 * SHA-256 and random bytes are libsodium's. A key is hexadecimal: longer than base62 would make it, but
 * nothing of ours is needed to write it, a double click selects it, and `printf %s KEY | sha256sum` gives its
 * hash.
 */
#include "server/access/keys.h"

#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/config/ini.h"

#define HASH_PREFIX "sha256:"
#define KEY_BYTES 32

struct reading {
  const char *path;
  struct vampd_keys *keys;
  unsigned seen; /* rows the last section has had, a bit each; the hash is the highest */
};

/* The rows that are numbers; 0 of the first three is no limit. */
static const struct {
  const char *name;
  size_t offset;
  int minimum, maximum;
} ROWS[] = {
    {"requests-per-minute", offsetof(struct vampd_allowance, requests_per_minute), 0, 1000000},
    {"jobs", offsetof(struct vampd_allowance, jobs), 0, 10000000},
    {"audio-seconds-per-hour", offsetof(struct vampd_allowance, audio_seconds_per_hour), 0, 100000000},
    {"priority", offsetof(struct vampd_allowance, priority), 1, 10},
};
#define ROW_COUNT (sizeof ROWS / sizeof ROWS[0])

static bool is_key_name(const char *name) {
  size_t length = strlen(name);
  return length > 0 && length < VAMPD_KEY_NAME_SIZE &&
         strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == length;
}

static bool same_name(const char *written, const char *name) {
  while (*written && (*written == *name || (*written == '_' && *name == '-'))) {
    written++;
    name++;
  }
  return *written == *name;
}

/* A section ends: it must have had its hash, and nobody else's. */
static int finish_key(const struct reading *reading, int line, struct vamp_error *error) {
  const struct vampd_keys *keys = reading->keys;
  if (keys->count == 0) {
    return VAMP_OK;
  }
  const struct vampd_key *last = &keys->keys[keys->count - 1];
  char place[300];
  vampd_ini_place(place, sizeof place, reading->path, line, last->name);
  if (!(reading->seen & (1u << ROW_COUNT))) {
    return vamp_fail(error, VAMP_INVALID, "%s has no hash; vampd --new-key makes one.", place);
  }
  for (size_t i = 0; i + 1 < keys->count; i++) {
    if (memcmp(keys->keys[i].hash, last->hash, sizeof last->hash) == 0) {
      return vamp_fail(error, VAMP_INVALID, "%s has the same key as %s.", place, keys->keys[i].name);
    }
  }
  return VAMP_OK;
}

static int begin_key(struct reading *reading, const char *section, int line, struct vamp_error *error) {
  struct vampd_keys *keys = reading->keys;
  char place[300];
  vampd_ini_place(place, sizeof place, reading->path, line, section);
  int status = finish_key(reading, line, error);
  if (status != VAMP_OK) {
    return status;
  }
  if (!is_key_name(section)) {
    return vamp_fail(error, VAMP_INVALID,
                     "%s:%d: \"%s\" cannot be the name of a key: letters, digits, . _ and -, at most 40.",
                     reading->path, line, section);
  }
  for (size_t i = 0; i < keys->count; i++) {
    if (strcmp(keys->keys[i].name, section) == 0) {
      return vamp_fail(error, VAMP_INVALID, "%s has a section already.", place);
    }
  }
  if (keys->count == VAMPD_MAX_KEYS) {
    return vamp_fail(error, VAMP_LIMIT, "%s is one key too many: there may be %d.", place, VAMPD_MAX_KEYS);
  }
  struct vampd_key *key = &keys->keys[keys->count++];
  snprintf(key->name, sizeof key->name, "%s", section);
  key->allowance.priority = VAMPD_PRIORITY_DEFAULT;
  reading->seen = 0;
  return VAMP_OK;
}

static int set_hash(struct vampd_key *key, const char *value, const char *place, struct vamp_error *error) {
  size_t prefix = strlen(HASH_PREFIX), length = 0;
  const char *digits = value + prefix, *end = NULL;
  if (strncmp(value, HASH_PREFIX, prefix) != 0 || strlen(digits) != 2 * sizeof key->hash ||
      sodium_hex2bin(key->hash, sizeof key->hash, digits, strlen(digits), NULL, &length, &end) != 0 ||
      length != sizeof key->hash || *end != '\0') {
    return vamp_fail(error, VAMP_INVALID, "%s is \"sha256:\" and 64 hexadecimal digits.", place);
  }
  return VAMP_OK;
}

static int set_row(struct vampd_key *key, size_t row, const char *value, const char *place,
                   struct vamp_error *error) {
  char *end;
  long number = strtol(value, &end, 10);
  if (end == value || *end != '\0' || number < ROWS[row].minimum || number > ROWS[row].maximum) {
    return vamp_fail(error, VAMP_INVALID, "%s takes a whole number from %d to %d, not \"%.40s\".", place,
                     ROWS[row].minimum, ROWS[row].maximum, value);
  }
  *(int *)((char *)&key->allowance + ROWS[row].offset) = (int)number;
  return VAMP_OK;
}

static int take_entry(void *user, const char *section, const char *name, const char *value, int line,
                      struct vamp_error *error) {
  struct reading *reading = user;
  struct vampd_keys *keys = reading->keys;
  char place[300];
  vampd_ini_place(place, sizeof place, reading->path, line, name);
  if (!section[0]) {
    return vamp_fail(error, VAMP_INVALID, "%s stands in no section; [NAME] begins a key.", place);
  }
  if (keys->count == 0 || strcmp(keys->keys[keys->count - 1].name, section) != 0) {
    int status = begin_key(reading, section, line, error);
    if (status != VAMP_OK) {
      return status;
    }
  }
  size_t row = 0;
  while (row < ROW_COUNT && !same_name(name, ROWS[row].name)) {
    row++;
  }
  if (row == ROW_COUNT && strcmp(name, "hash") != 0) {
    return vamp_fail(error, VAMP_INVALID,
                     "%s is unknown; there are hash, requests-per-minute, jobs, audio-seconds-per-hour, "
                     "priority.",
                     place);
  }
  if (reading->seen & (1u << row)) {
    return vamp_fail(error, VAMP_INVALID, "%s is there twice.", place);
  }
  reading->seen |= 1u << row;
  struct vampd_key *key = &keys->keys[keys->count - 1];
  return row == ROW_COUNT ? set_hash(key, value, place, error) : set_row(key, row, value, place, error);
}

int vampd_keys_read(const char *path, struct vampd_keys **keys, struct vamp_error *error) {
  struct reading reading = {.path = path, .keys = calloc(1, sizeof *reading.keys)};
  int status = VAMP_OK;
  if (!reading.keys || !(reading.keys->keys = calloc(VAMPD_MAX_KEYS, sizeof *reading.keys->keys))) {
    status = vamp_fail(error, VAMP_MEMORY, "Out of memory.");
  }
  if (status == VAMP_OK) {
    status = vampd_ini_read(path, true, take_entry, &reading, error);
  }
  if (status == VAMP_OK) {
    status = finish_key(&reading, 0, error);
  }
  if (status != VAMP_OK) {
    vampd_keys_free(reading.keys);
    return status;
  }
  *keys = reading.keys;
  return VAMP_OK;
}

void vampd_keys_free(struct vampd_keys *keys) {
  if (keys) {
    free(keys->keys);
    free(keys);
  }
}

void vampd_key_hash(const char *key, size_t length, uint8_t hash[VAMPD_KEY_HASH_SIZE]) {
  crypto_hash_sha256(hash, (const unsigned char *)key, length);
}

int vampd_key_make(const char *name, char key[VAMPD_KEY_TEXT_SIZE], char **section,
                   struct vamp_error *error) {
  unsigned char bytes[KEY_BYTES], hash[VAMPD_KEY_HASH_SIZE];
  char digits[2 * VAMPD_KEY_HASH_SIZE + 1];
  if (!is_key_name(name)) {
    return vamp_fail(error, VAMP_INVALID,
                     "\"%.80s\" cannot be the name of a key: letters, digits, . _ and -, at most 40.", name);
  }
  if (sodium_init() < 0) {
    return vamp_fail(error, VAMP_IO, "The system has no random numbers.");
  }
  randombytes_buf(bytes, sizeof bytes);
  memcpy(key, "vk_", 3);
  sodium_bin2hex(key + 3, VAMPD_KEY_TEXT_SIZE - 3, bytes, sizeof bytes);
  vampd_key_hash(key, strlen(key), hash);
  sodium_bin2hex(digits, sizeof digits, hash, sizeof hash);
  if (asprintf(section,
               "[%s]\nhash = " HASH_PREFIX "%s\n"
               "; 0 is no limit\nrequests-per-minute = 0\njobs = 0\naudio-seconds-per-hour = 0\n"
               "; 1 .. 10\npriority = %d\n",
               name, digits, VAMPD_PRIORITY_DEFAULT) < 0) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory.");
  }
  return VAMP_OK;
}
