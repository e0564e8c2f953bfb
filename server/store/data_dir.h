/*
 * The data folder: made if missing, held by one daemon at a time.
 *
 * Nothing is kept in it yet but vampd.lock (locked while the daemon runs) and vampd.port (the port it
 * listens on, for scripts that start it with --port 0); it is where jobs will live.
 */
#ifndef VAMPD_DATA_DIR_H
#define VAMPD_DATA_DIR_H

#include <limits.h>

#include "vamp/error.h"

/* Where the data is kept: `asked`, or where that is NULL, $STATE_DIRECTORY (systemd), $XDG_STATE_HOME/vampd,
 * ~/.local/state/vampd. VAMP_INVALID where none of them is known. */
int vampd_data_dir_choose(const char *asked, char path[PATH_MAX], struct vamp_error *error);

/* Makes the folder (and its parents) with mode 0700 and locks it. Returns the lock, a file descriptor, or a
 * negative status. */
int vampd_data_dir_open(const char *folder, struct vamp_error *error);

int vampd_data_dir_write_port(const char *folder, int port, struct vamp_error *error);

/* Removes vampd.port and gives the lock back. */
void vampd_data_dir_close(const char *folder, int lock);

#endif
