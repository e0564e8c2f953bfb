/*
 * Files as the rooms that own formats need them: a regular file to read, and bytes that replace a file
 * whole or not at all. Knows nothing about audio. Any thread.
 */
#ifndef VAMP_ENGINE_AUDIO_FILE_H
#define VAMP_ENGINE_AUDIO_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "vamp/error.h"

/* A name as an error message shows it: its last part where it is long (the cause must still fit into the
 * message), as UTF-8 without control characters (a stranger chose it, and messages go to terminals, logs
 * and JSON). */
struct vamp_file_label {
  char text[136];
};

struct vamp_file_label vamp_file_label(const char *name);

/* Opens a regular file for reading; *descriptor is the caller's to close. VAMP_IO where it does not
 * exist, may not be read, or is a directory or a device. Never blocks on a pipe. */
int vamp_file_open(const char *path, int *descriptor, uint64_t *size, struct vamp_error *error);

/* Replaces `path` with `size` bytes: they are written to a new file in the same folder, forced to the
 * disk and renamed, so that a reader sees the old file or the new one and a failure leaves the old one.
 * A symbolic link is followed. A device (/dev/stdout) is written to as it is. VAMP_IO names the path
 * and the reason. */
int vamp_file_write(const char *path, const void *data, size_t size, struct vamp_error *error);

#endif
