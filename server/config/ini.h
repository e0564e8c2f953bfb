/*
 * INI files: a line is `name = value`, `[section]`, or a comment after ; or #.
 *
 * inih does the parsing. What is added here: bounds, the number of the line for messages, and that nothing is
 * cut or skipped in silence.
 *
 * Any thread.
 */
#ifndef VAMPD_INI_H
#define VAMPD_INI_H

#include <stdbool.h>
#include <stddef.h>

#include "vamp/error.h"

/* Called for every `name = value`, with the section it stands in ("" before the first). A line that begins
 * with blanks continues the one above: it comes with that one's name. */
typedef int (*vampd_ini_entry)(void *user, const char *section, const char *name, const char *value, int line,
                               struct vamp_error *error);

/* Reads a regular file of at most 1 MiB, lines of at most 190 bytes. `guarded`: one that the group or others
 * may write to is refused. Stops at the first thing that is wrong and says where: VAMP_IO, VAMP_INVALID,
 * VAMP_MEMORY, or what `entry` returned. */
int vampd_ini_read(const char *path, bool guarded, vampd_ini_entry entry, void *user,
                   struct vamp_error *error);

/* A file's line for the beginning of a message: "vampd.ini:3: port". Cut where it does not fit. */
void vampd_ini_place(char *text, size_t size, const char *path, int line, const char *name);

#endif
