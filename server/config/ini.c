/*
 * INI files: see ini.h.
 *
 * inih is fed line by line through its reader function, which is how the line's number is known: its callback
 * does not get it in the library that distributions build. That library also cuts lines at 200 bytes and
 * names at 50 without a word, so longer ones are refused here before they reach it.
 */
#include "server/config/ini.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILE ((size_t)1 << 20)
#define MAX_LINE 190
#define MAX_NAME 48 /* of a section or a key */

struct reading {
  const char *path;
  char *text;
  size_t size, at;
  int line; /* of what inih was given last, from 1 */
  vampd_ini_entry entry;
  void *user;
  int status;
  struct vamp_error *error;
};

void vampd_ini_place(char *text, size_t size, const char *path, int line, const char *name) {
  snprintf(text, size, "%.200s:%d: %.60s", path, line, name);
}

static int fail_line(struct reading *reading, const char *what) {
  reading->status =
      vamp_fail(reading->error, VAMP_INVALID, "%.200s:%d: %s.", reading->path, reading->line, what);
  return reading->status;
}

static int check_file(int file, const char *path, bool guarded, struct vamp_error *error) {
  struct stat facts;
  if (fstat(file, &facts) != 0 || !S_ISREG(facts.st_mode)) {
    return vamp_fail(error, VAMP_IO, "%.200s is not a file that can be read.", path);
  }
  if (guarded && (facts.st_mode & (S_IWGRP | S_IWOTH))) {
    return vamp_fail(error, VAMP_INVALID,
                     "%.200s may be written to by others, who could let themselves in: chmod go-w %.200s",
                     path, path);
  }
  if ((size_t)facts.st_size > MAX_FILE) {
    return vamp_fail(error, VAMP_LIMIT, "%.200s is larger than 1 MiB.", path);
  }
  return VAMP_OK;
}

/* The whole file, so that nothing changes while it is parsed. */
static int load(struct reading *reading, bool guarded) {
  /* O_NONBLOCK: a pipe in the file's place must not stop a reload. */
  int file = open(reading->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) {
    return vamp_fail(reading->error, VAMP_IO, "Cannot open %.200s: %s.", reading->path, strerror(errno));
  }
  int status = check_file(file, reading->path, guarded, reading->error);
  if (status == VAMP_OK && !(reading->text = malloc(MAX_FILE + 1))) {
    status = vamp_fail(reading->error, VAMP_MEMORY, "Out of memory.");
  }
  while (status == VAMP_OK) {
    ssize_t got = read(file, reading->text + reading->size, MAX_FILE + 1 - reading->size);
    if (got == 0) {
      break;
    }
    if (got < 0) {
      status = vamp_fail(reading->error, VAMP_IO, "Cannot read %.200s: %s.", reading->path, strerror(errno));
    } else if ((reading->size += (size_t)got) > MAX_FILE) {
      status = vamp_fail(reading->error, VAMP_LIMIT, "%.200s is larger than 1 MiB.", reading->path);
    }
  }
  close(file);
  return status;
}

/* A section's or a key's name that inih would cut. */
static bool has_long_name(const char *line, size_t length) {
  size_t first = 0;
  while (first < length && strchr(" \t\r", line[first])) {
    first++;
  }
  if (first == length || line[first] == ';' || line[first] == '#') {
    return false;
  }
  const char *ends = line[first] == '[' ? "]" : "=:";
  size_t end = first;
  while (end < length && !strchr(ends, line[end])) {
    end++;
  }
  return end < length && end - first > MAX_NAME;
}

/* inih's reader: the next line into its buffer of `room` bytes; NULL ends the reading. */
static char *next_line(char *buffer, int room, void *stream) {
  struct reading *reading = stream;
  if (reading->status != VAMP_OK || reading->at == reading->size) {
    return NULL;
  }
  const char *line = reading->text + reading->at;
  const char *newline = memchr(line, '\n', reading->size - reading->at);
  size_t length = newline ? (size_t)(newline - line) : reading->size - reading->at;
  reading->line++;
  reading->at += length + (newline != NULL);
  if (length > MAX_LINE || length + 1 > (size_t)room) {
    fail_line(reading, "A line may have 190 bytes; a list may go on in the next one, indented");
    return NULL;
  }
  if (memchr(line, '\0', length)) {
    fail_line(reading, "This is no text file");
    return NULL;
  }
  if (has_long_name(line, length)) {
    fail_line(reading, "The name is too long");
    return NULL;
  }
  memcpy(buffer, line, length);
  buffer[length] = '\0';
  return buffer;
}

static int take_entry(void *user, const char *section, const char *name, const char *value) {
  struct reading *reading = user;
  if (reading->status == VAMP_OK) {
    reading->status = reading->entry(reading->user, section, name, value, reading->line, reading->error);
  }
  return 1;
}

int vampd_ini_read(const char *path, bool guarded, vampd_ini_entry entry, void *user,
                   struct vamp_error *error) {
  struct reading reading = {.path = path, .entry = entry, .user = user, .error = error};
  reading.status = load(&reading, guarded);
  if (reading.status == VAMP_OK) {
    int wrong = ini_parse_stream(next_line, &reading, take_entry, &reading);
    if (reading.status == VAMP_OK && wrong > 0) {
      reading.line = wrong;
      fail_line(&reading, "This is neither \"name = value\" nor \"[section]\"");
    } else if (reading.status == VAMP_OK && wrong < 0) {
      reading.status = vamp_fail(error, VAMP_MEMORY, "Out of memory.");
    }
  }
  free(reading.text);
  return reading.status;
}
