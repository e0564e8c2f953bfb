/*
 * What is about to be written must not be what is about to be read, nor the same file twice, and must have a
 * folder that takes it.
 *
 * All of it is found out before a model is opened: a picture that would land on the song it is of costs its
 * author the song, and a folder that is not there would cost the time of the whole run. Two names are the
 * same file where device and inode are; a file that is not there yet has only its name, so ./a and a are told
 * apart. Rejected: to refuse all files that exist already. Who runs a command again wants the new result.
 */
#include "vamp/targets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct identity {
  dev_t device;
  ino_t inode;
};

static int compare_identities(const void *one, const void *other) {
  const struct identity *a = one, *b = other;
  if (a->device != b->device) {
    return a->device < b->device ? -1 : 1;
  }
  return a->inode == b->inode ? 0 : a->inode < b->inode ? -1 : 1;
}

static int compare_paths(const void *one, const void *other) {
  const struct vamp_target *a = one, *b = other;
  return strcmp(a->path, b->path);
}

/* Standard output, a pipe or a device: nothing that could be lost. */
static bool is_stream(const char *path) {
  struct stat there;
  return strcmp(path, "-") == 0 || (stat(path, &there) == 0 && !S_ISREG(there.st_mode));
}

static int refuse_shared(const struct vamp_settings *settings, const struct vamp_target *one,
                         const struct vamp_target *other) {
  if (strcmp(one->option, other->option) == 0) {
    return vamp_usage_error(settings, "%s and %s would both be written to %s; rename one or run them apart",
                            one->input, other->input, one->path);
  }
  return vamp_usage_error(settings,
                          "%s and %s would both be written to %s; name another file for one of them",
                          one->option, other->option, one->path);
}

int vamp_targets_distinct(const struct vamp_settings *settings, struct vamp_target *targets, size_t count,
                          char *const *inputs, size_t input_count) {
  struct identity *read = calloc(input_count + 1, sizeof *read);
  if (!read) {
    vamp_warn(settings, "out of memory");
    return VAMP_EXIT_FAILED;
  }
  size_t known = 0;
  struct stat there;
  for (size_t i = 0; i < input_count; i++) {
    if (stat(inputs[i], &there) == 0 && S_ISREG(there.st_mode)) {
      read[known++] = (struct identity){there.st_dev, there.st_ino};
    }
  }
  qsort(read, known, sizeof *read, compare_identities);
  qsort(targets, count, sizeof *targets, compare_paths);
  int status = VAMP_EXIT_OK;
  for (size_t i = 0; i < count && status == VAMP_EXIT_OK; i++) {
    const struct vamp_target *target = &targets[i];
    if (stat(target->path, &there) == 0 && bsearch(&(struct identity){there.st_dev, there.st_ino}, read,
                                                   known, sizeof *read, compare_identities)) {
      status = vamp_usage_error(settings, "%s is read and would be overwritten; choose another %s",
                                target->path, target->option);
    } else if (i > 0 && strcmp(targets[i - 1].path, target->path) == 0 && !is_stream(target->path)) {
      status = refuse_shared(settings, &targets[i - 1], target);
    }
  }
  free(read);
  return status;
}

int vamp_targets_writable(const struct vamp_settings *settings, const struct vamp_target *targets,
                          size_t count) {
  for (size_t i = 0; i < count; i++) {
    const char *path = targets[i].path, *slash = strrchr(path, '/');
    if (is_stream(path)) {
      continue;
    }
    char *folder = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    if (!folder) {
      vamp_warn(settings, "out of memory");
      return VAMP_EXIT_FAILED;
    }
    int refused = access(folder, W_OK | X_OK) == 0 ? 0 : errno;
    free(folder);
    if (refused != 0) {
      vamp_warn(settings, "cannot write %s: %s%s", path, strerror(refused),
                refused == ENOENT ? "; create its folder first" : "");
      return VAMP_EXIT_FAILED;
    }
  }
  return VAMP_EXIT_OK;
}

int vamp_targets_check(const struct vamp_settings *settings, struct vamp_target *targets, size_t count,
                       size_t input_count) {
  size_t named = 0;
  for (size_t i = 0; i < count; i++) {
    if (targets[i].path) {
      targets[named++] = targets[i];
    }
  }
  int status = vamp_targets_distinct(settings, targets, named, settings->arguments, input_count);
  return status == VAMP_EXIT_OK ? vamp_targets_writable(settings, targets, named) : status;
}
