/*
 * Fuzz target: the files that an administrator writes: the configuration, and the keys.
 *
 * Nobody hostile writes them, but a slip must be an error that names the line, and never a setting that
 * nobody made. The first byte chooses the file, the rest is what stands in it.
 *
 *   make fuzz
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/config/settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
  if (!condition) {
    abort();
  }
}

/* A file in memory, as readable as the guarded ones must be. */
static int make_file(const void *data, size_t size, char path[64]) {
  int file = memfd_create("vampd.ini", MFD_CLOEXEC);
  require(file >= 0 && fchmod(file, 0600) == 0 && write(file, data, size) == (ssize_t)size);
  snprintf(path, 64, "/proc/self/fd/%d", file);
  return file;
}

static struct vampd_configuration *read_configuration(char *path, struct vamp_error *error) {
  char program[] = "vampd", flag[] = "--config";
  char *arguments[] = {program, flag, path, NULL}, *environment[] = {NULL};
  struct vampd_configuration *configuration = NULL;
  int status = vampd_configuration_create(3, arguments, environment, &configuration, error);
  return status == VAMP_OK ? configuration : NULL;
}

#define LINE_BYTES                                                                                           \
  190 /* that a line of a configuration may have: a path that came in another way can be longer */

static bool has_long_line(const char *text) {
  for (const char *end; *text; text = end + (*end == '\n')) {
    end = strchrnul(text, '\n');
    if (end - text > LINE_BYTES) {
      return true;
    }
  }
  return false;
}

/* What --check-config prints is a configuration that says the same. */
static void check_print(const struct vampd_settings *settings) {
  char *text = NULL, path[64];
  size_t size = 0;
  FILE *out = open_memstream(&text, &size);
  require(out != NULL);
  vampd_settings_print(settings, out);
  require(fclose(out) == 0);
  if (has_long_line(text)) {
    free(text);
    return;
  }
  int file = make_file(text, size, path);
  struct vamp_error error = {0};
  struct vampd_configuration *configuration = read_configuration(path, &error);
  require(configuration != NULL);
  const struct vampd_settings *again = vampd_configuration_acquire(configuration);
  for (size_t i = 0; i < VAMPD_OPTION_COUNT; i++) {
    char one[16], other[16];
    const char *value = vampd_option_value(&VAMPD_OPTIONS[i], &settings->options, one);
    require(strcmp(value, vampd_option_value(&VAMPD_OPTIONS[i], &again->options, other)) == 0);
  }
  vampd_settings_release(again);
  vampd_configuration_free(configuration);
  close(file);
  free(text);
}

static void fuzz_configuration(char *path) {
  struct vamp_error error = {0};
  struct vampd_configuration *configuration = read_configuration(path, &error);
  if (!configuration) {
    require(error.message[0] != '\0');
    return;
  }
  const struct vampd_settings *settings = vampd_configuration_acquire(configuration);
  require(settings->options.max_queue >= 1 && settings->options.max_body_mb >= 1);
  check_print(settings);
  vampd_settings_release(settings);
  vampd_configuration_free(configuration);
}

static void fuzz_keys(char *path) {
  struct vampd_keys *keys = NULL;
  struct vamp_error error = {0};
  if (vampd_keys_read(path, &keys, &error) != VAMP_OK) {
    require(error.message[0] != '\0');
    return;
  }
  require(keys->count <= VAMPD_MAX_KEYS);
  for (size_t i = 0; i < keys->count; i++) {
    const struct vampd_key *key = &keys->keys[i];
    require(key->name[0] != '\0' && memchr(key->name, '\0', sizeof key->name) != NULL);
    require(key->allowance.priority >= 1 && key->allowance.priority <= 10);
    require(key->allowance.jobs >= 0 && key->allowance.requests_per_minute >= 0);
  }
  vampd_keys_free(keys);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static void (*const FILES[])(char *) = {fuzz_configuration, fuzz_keys};
  if (size == 0) {
    return 0;
  }
  char path[64];
  int file = make_file(data + 1, size - 1, path);
  FILES[data[0] % 2](path);
  close(file);
  return 0;
}
