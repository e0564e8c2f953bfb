/*
 * Files read and replaced.
 *
 * A result that took a minute to compute must not be lost to a full disk, nor seen half written by the
 * script that waits for it. So a file is always written beside its final name and renamed: on one file
 * system that is atomic. The data is forced out before the rename, because a file system may otherwise
 * order the rename first and leave an empty file after a crash.
 *
 * The new file's name is drawn with getrandom and opened with O_EXCL rather than made by mkstemp, whose
 * mode 0600 would have to be undone with a umask that can only be read by changing it for every thread.
 * O_TMPFILE with linkat was rejected: linkat cannot replace a file that is there.
 */
#include "engine/audio/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bytes of the UTF-8 character (Unicode 15, table 3-7) at `text`, which ends in a zero; 0 where it is none
 * or a control character. */
static size_t printable_size(const unsigned char *text) {
  static const struct {
    unsigned char first, last, low, high; /* the range of the lead byte, and of the second */
    size_t size;
  } forms[] = {{0xC2, 0xC2, 0xA0, 0xBF, 2}, /* U+0080 to U+009F are control characters */
               {0xC3, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3}, {0xE1, 0xEC, 0x80, 0xBF, 3},
               {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3}, {0xF0, 0xF0, 0x90, 0xBF, 4},
               {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4}};
  if (text[0] < 0x80) {
    return text[0] >= 0x20 && text[0] != 0x7F;
  }
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
    if (text[0] >= forms[i].first && text[0] <= forms[i].last) {
      bool valid = text[1] >= forms[i].low && text[1] <= forms[i].high;
      for (size_t j = 2; valid && j < forms[i].size; j++) {
        valid = (text[j] & 0xC0) == 0x80;
      }
      return valid ? forms[i].size : 0;
    }
  }
  return 0;
}

struct vamp_file_label vamp_file_label(const char *name) {
  struct vamp_file_label label;
  const size_t room = sizeof label.text - 1 - 3; /* "..." */
  size_t length = strlen(name);
  const char *prefix = "";
  if (length > room) {
    name += length - room;
    while (((unsigned char)*name & 0xC0) == 0x80) { /* not into the middle of a character */
      name++;
    }
    prefix = "...";
  }
  snprintf(label.text, sizeof label.text, "%s%s", prefix, name);
  for (char *c = label.text; *c;) {
    size_t size = printable_size((const unsigned char *)c);
    if (size == 0) {
      *c = '?';
      size = 1;
    }
    c += size;
  }
  return label;
}

int vamp_file_open(const char *path, int *descriptor, uint64_t *size, struct vamp_error *error) {
  /* O_NONBLOCK: opening a pipe that nobody writes to would wait for ever. */
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) {
    return vamp_fail(error, VAMP_IO, "cannot open %s: %s", vamp_file_label(path).text, strerror(errno));
  }
  struct stat status;
  int result = 0;
  if (fstat(fd, &status) != 0) {
    result = vamp_fail(error, VAMP_IO, "cannot examine %s: %s", vamp_file_label(path).text, strerror(errno));
    goto err;
  }
  if (S_ISDIR(status.st_mode)) {
    result = vamp_fail(error, VAMP_IO, "%s is a folder; name a file in it", vamp_file_label(path).text);
    goto err;
  }
  if (!S_ISREG(status.st_mode)) {
    result = vamp_fail(error, VAMP_IO, "%s is a pipe or a device; save its contents to a file and name that",
                       vamp_file_label(path).text);
    goto err;
  }
  *descriptor = fd;
  *size = (uint64_t)status.st_size;
  return 0;
err:
  close(fd);
  return result;
}

static bool write_all(int fd, const unsigned char *data, size_t size) {
  while (size > 0) {
    ssize_t written = write(fd, data, size);
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written < 0) {
      return false;
    }
    data += written;
    size -= (size_t)written;
  }
  return true;
}

static int fail_write(const char *path, int cause, struct vamp_error *error) {
  const char *advice = "";
  if (cause == ENOSPC || cause == EDQUOT || cause == EFBIG) {
    advice = "; free some space or write elsewhere";
  } else if (cause == ENOENT || cause == ENOTDIR) {
    advice = "; create its folder first";
  }
  return vamp_fail(error, VAMP_IO, "cannot write %s: %s%s", vamp_file_label(path).text, strerror(cause),
                   advice);
}

/* Devices are not replaced: renaming over /dev/null would take it away from everybody. */
static int write_device(const char *path, const void *data, size_t size, struct vamp_error *error) {
  int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) {
    return fail_write(path, errno, error);
  }
  bool written = write_all(fd, data, size);
  int cause = errno;
  if (close(fd) != 0 && written) {
    written = false;
    cause = errno;
  }
  return written ? 0 : fail_write(path, cause, error);
}

/* Opens a new file in the folder of `path`; its name goes to *temporary, the caller's to free. Returns
 * the descriptor, or -1 with errno set. */
static int open_beside(const char *path, char **temporary) {
  const char *slash = strrchr(path, '/');
  int folder_length = slash ? (int)(slash - path) + 1 : 0;
  for (int attempt = 0; attempt < 16; attempt++) {
    uint64_t number;
    if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number) {
      return -1;
    }
    char *name;
    if (asprintf(&name, "%.*s.vamp-%016llx", folder_length, path, (unsigned long long)number) < 0) {
      errno = ENOMEM;
      return -1;
    }
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) {
      *temporary = name;
      return fd;
    }
    int cause = errno;
    free(name);
    errno = cause;
    if (cause != EEXIST) {
      return -1;
    }
  }
  return -1;
}

/* Makes the rename itself last. Not every file system can; the file is complete either way, so a
 * failure here is not one to report. */
static void sync_folder(const char *path) {
  const char *slash = strrchr(path, '/');
  char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
  if (!folder) {
    return;
  }
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
    (void)fsync(fd);
    close(fd);
  }
  free(folder);
}

static int replace(const char *path, const char *shown, const void *data, size_t size,
                   struct vamp_error *error) {
  char *temporary = NULL;
  int fd = open_beside(path, &temporary);
  if (fd < 0) {
    return fail_write(shown, errno, error);
  }
  bool done = write_all(fd, data, size) && fsync(fd) == 0;
  int cause = errno;
  if (close(fd) != 0 && done) {
    done = false;
    cause = errno;
  }
  if (done && rename(temporary, path) != 0) {
    done = false;
    cause = errno;
  }
  if (!done) {
    unlink(temporary);
    free(temporary);
    return fail_write(shown, cause, error);
  }
  free(temporary);
  sync_folder(path);
  return 0;
}

int vamp_file_write(const char *path, const void *data, size_t size, struct vamp_error *error) {
  struct stat status;
  if (stat(path, &status) != 0) {
    return replace(path, path, data, size, error);
  }
  if (S_ISDIR(status.st_mode)) {
    return vamp_fail(error, VAMP_IO, "cannot write %s: it is a folder; name a file in it",
                     vamp_file_label(path).text);
  }
  if (!S_ISREG(status.st_mode)) {
    return write_device(path, data, size, error);
  }
  char *resolved = realpath(path, NULL); /* replaces what a link points to, not the link */
  if (!resolved) {
    return fail_write(path, errno, error);
  }
  int result = replace(resolved, path, data, size, error);
  free(resolved);
  return result;
}
