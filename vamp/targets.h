/*
 * The files that a command is about to write, looked at before anything slow begins.
 */
#ifndef VAMP_COMMAND_TARGETS_H
#define VAMP_COMMAND_TARGETS_H

#include "vamp/options.h"

struct vamp_target {
  const char *path;   /* borrowed */
  const char *option; /* what named it, for the message: "-o", "--mask-png" */
  const char *input;  /* the file it is made of */
};

/* Whether every target is a file of its own and none of them one of the `inputs`. Sorts the targets. Pipes,
 * devices and "-", which is standard output, may be shared. Writes nothing; prints what is wrong and returns
 * an enum vamp_exit. */
int vamp_targets_distinct(const struct vamp_settings *settings, struct vamp_target *targets, size_t count,
                          char *const *inputs, size_t input_count);

/* Whether the folders that the targets go into are there and may be written; as above. */
int vamp_targets_writable(const struct vamp_settings *settings, const struct vamp_target *targets,
                          size_t count);

/* Both, with the command's arguments that are files as the inputs, and without targets that have no path. */
int vamp_targets_check(const struct vamp_settings *settings, struct vamp_target *targets, size_t count,
                       size_t input_count);

#endif
