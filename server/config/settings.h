/*
 * What is in force, and where each value comes from.
 *
 *   flag > environment > file > default
 *
 * `struct vampd_settings` is a snapshot: it never changes once it is made, and it lives as long as somebody
 * holds a reference. SIGHUP makes another one and puts it in the place of the first; who began with the old
 * one ends with it. What cannot change at run time (see options.h) keeps its value in the new one.
 *
 *   reading     const struct vampd_settings *settings = vampd_configuration_acquire(configuration);
 *               ... settings->options.max_seconds ...
 *               vampd_settings_release(settings);
 *
 * Any thread. Acquire and release never wait for a reload: what is locked is the exchange of one pointer.
 */
#ifndef VAMPD_SETTINGS_H
#define VAMPD_SETTINGS_H

#include <stdatomic.h>
#include <stdio.h>

#include "server/access/cors.h"
#include "server/access/keys.h"
#include "server/config/options.h"
#include "vamp/error.h"

/* What the command line asks for instead of a daemon. Only flags say so. */
enum vampd_action {
  VAMPD_ACTION_SERVE,
  VAMPD_ACTION_HELP,
  VAMPD_ACTION_VERSION,
  VAMPD_ACTION_CHECK_CONFIG,
  VAMPD_ACTION_NEW_KEY,
};

/* Where a value comes from. */
enum vampd_source { VAMPD_FROM_DEFAULT, VAMPD_FROM_FILE, VAMPD_FROM_ENVIRONMENT, VAMPD_FROM_FLAG };

struct vampd_settings {
  struct vampd_options options; /* its texts live as long as the snapshot */
  struct vampd_keys *keys;      /* NULL: no key file */
  struct vampd_cors *cors;      /* never NULL */
  char *file;                   /* of --config; NULL: none */
  struct vampd_origin {
    enum vampd_source source;
    int line; /* in the file */
  } origins[VAMPD_OPTION_COUNT];
  atomic_int references; /* the only part that changes, and nobody's but settings.c's */
};

struct vampd_configuration;

/* Reads flags, environment, file, key file. `argv` and `environment` must outlive the configuration: a reload
 * reads them again. With --help, --version or --new-key nothing but the flags is looked at, and the options
 * are the default ones. VAMP_INVALID or VAMP_IO names the flag, the variable, or the file and its line. */
int vampd_configuration_create(int argc, char *const *argv, char *const *environment,
                               struct vampd_configuration **configuration, struct vamp_error *error);
void vampd_configuration_free(struct vampd_configuration *configuration); /* NULL is fine */

enum vampd_action vampd_configuration_action(const struct vampd_configuration *configuration);
const char *vampd_configuration_key_name(const struct vampd_configuration *configuration); /* of --new-key */

const struct vampd_settings *vampd_configuration_acquire(struct vampd_configuration *configuration);
void vampd_settings_release(const struct vampd_settings *settings); /* NULL is fine */

/* Reads everything again, for one thread at a time. The caller owns a reference to *settings, which nobody
 * sees until it is published. Where it fails nothing has changed. `pending` gets the names of rows that
 * differ from what is in force but need a restart, with commas; "" where there is none. */
int vampd_configuration_read(struct vampd_configuration *configuration,
                             const struct vampd_settings **settings, char *pending, size_t pending_size,
                             struct vamp_error *error);

/* Puts it in force. Cannot fail; the caller keeps his reference. */
void vampd_configuration_publish(struct vampd_configuration *configuration,
                                 const struct vampd_settings *settings);

/* The text of --check-config: what is in force, in the form of a configuration file, each line with where it
 * comes from. */
void vampd_settings_print(const struct vampd_settings *settings, FILE *out);

#endif
