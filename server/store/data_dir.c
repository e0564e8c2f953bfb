/* The data folder: see data_dir.h. */
#include "server/store/data_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int path_in(const char *folder, const char *name, char path[PATH_MAX], struct vamp_error *error) {
  if (snprintf(path, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX) {
    return vamp_fail(error, VAMP_INVALID, "--data-dir is too long.");
  }
  return VAMP_OK;
}

int vampd_data_dir_choose(const char *asked, char path[PATH_MAX], struct vamp_error *error) {
  const char *state = getenv("STATE_DIRECTORY"), *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
  int length = 0;
  if (asked) {
    length = snprintf(path, PATH_MAX, "%s", asked);
  } else if (state && state[0] == '/') {
    /* systemd separates several with colons; the first is ours. */
    length = snprintf(path, PATH_MAX, "%.*s", (int)strcspn(state, ":"), state);
  } else if (xdg && xdg[0] == '/') {
    length = snprintf(path, PATH_MAX, "%s/vampd", xdg);
  } else if (home && home[0] == '/') {
    length = snprintf(path, PATH_MAX, "%s/.local/state/vampd", home);
  } else {
    return vamp_fail(error, VAMP_INVALID, "Jobs need a folder to be kept in; give one with --data-dir.");
  }
  return length < PATH_MAX ? VAMP_OK : vamp_fail(error, VAMP_INVALID, "--data-dir is too long.");
}

static int make_folders(const char *folder, struct vamp_error *error) {
  char path[PATH_MAX];
  int status = path_in(folder, "", path, error);
  if (status != VAMP_OK) {
    return status;
  }
  for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
      return vamp_fail(error, VAMP_IO, "Cannot make the folder %s: %s.", path, strerror(errno));
    }
    *slash = '/';
  }
  return VAMP_OK;
}

int vampd_data_dir_open(const char *folder, struct vamp_error *error) {
  char path[PATH_MAX];
  int status = make_folders(folder, error);
  if (status == VAMP_OK) {
    status = path_in(folder, "vampd.lock", path, error);
  }
  if (status != VAMP_OK) {
    return status;
  }
  int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock < 0) {
    return vamp_fail(error, VAMP_IO, "Cannot open %s: %s.", path, strerror(errno));
  }
  if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
    close(lock);
    return vamp_fail(error, VAMP_IO, "Another vampd uses the data folder %s.", folder);
  }
  return lock;
}

int vampd_data_dir_write_port(const char *folder, int port, struct vamp_error *error) {
  char path[PATH_MAX], beside[PATH_MAX];
  int status = path_in(folder, "vampd.port", path, error);
  if (status == VAMP_OK) {
    status = path_in(folder, "vampd.port.new", beside, error);
  }
  if (status != VAMP_OK) {
    return status;
  }
  FILE *file = fopen(beside, "we");
  bool written = file && fprintf(file, "%d\n", port) > 0;
  if (file) {
    written = fclose(file) == 0 && written;
  }
  if (!written || rename(beside, path) != 0) {
    return vamp_fail(error, VAMP_IO, "Cannot write %s: %s.", path, strerror(errno));
  }
  return VAMP_OK;
}

void vampd_data_dir_close(const char *folder, int lock) {
  char path[PATH_MAX];
  if (path_in(folder, "vampd.port", path, NULL) == VAMP_OK) {
    unlink(path);
  }
  close(lock);
}
