/*
 * What vampd can be told: one table, of which every row is a flag (--max-queue), a key of the configuration
 * file (max-queue) and an environment variable (VAMPD_MAX_QUEUE).
 *
 * The table knows names, ranges and defaults; where values come from and how they change is settings.h's
 * business.
 */
#ifndef VAMPD_OPTIONS_H
#define VAMPD_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "vamp/backend.h"
#include "vamp/error.h"

#define VAMPD_VERSION "0.1.0"
#define VAMPD_MAX_QUEUE 100000 /* the most that max-queue can be */
#define VAMPD_MAX_DEVICES 16

/* Those marked * change at run time, by a reload; the others are what they were at the start. */
struct vampd_options {
  const char *host; /* a numeric address or "localhost" */
  int port;         /* 0: any free one */
  bool allow_remote;
  const char *keys;         /* * the key file; NULL: none */
  const char *cors_origins; /* * with commas between them; NULL: none */
  bool page;                /* * whether there is the page for browsers */
  const char *model;        /* folder or name, see vamp_model_find */
  const char *backend;      /* as in vamp/device.h */
  const char *precision;    /* "auto", or as in vamp/device.h */
  const char *devices;      /* of the backend, see vampd_options_numbers */
  int threads;              /* of the CPU backend; 0: all cores */
  int workers;              /* threads that prepare and finish audio */
  const char *data_dir;     /* NULL: none */
  int max_disk_mb;          /* * MiB of all that is in data_dir; 0: no limit */
  int min_free_mb;          /* * MiB that must stay free on its disk */
  int keep_hours;           /* * a finished job is kept; 0: for ever */
  int max_queue;            /* * jobs accepted and not finished */
  int max_jobs_queued;      /* * durable jobs that wait */
  int max_body_mb;          /* * MiB of one request body */
  int max_seconds;          /* * of one clip */
  int max_connections;
  int timeout;            /* seconds a silent connection is kept */
  int grace;              /* * seconds for running jobs to finish after SIGTERM */
  const char *log_format; /* * "plain", "json" */
};

/* NUMBERS: "all", or different numbers with commas between them, VAMPD_MAX_DEVICES at most. */
enum vampd_option_kind {
  VAMPD_OPTION_TEXT,
  VAMPD_OPTION_LIST,
  VAMPD_OPTION_NUMBERS,
  VAMPD_OPTION_NUMBER,
  VAMPD_OPTION_SWITCH,
};

struct vampd_option {
  const char *name; /* as a flag and in the file: "max-queue" */
  enum vampd_option_kind kind;
  size_t offset; /* in struct vampd_options */
  int minimum, maximum;
  const char *choices;  /* TEXT: NULL, or the values allowed, each between bars: "|auto|cpu|" */
  bool optional;        /* TEXT, LIST: may be empty, which is none */
  bool live;            /* a reload changes it */
  const char *standard; /* the default, as it would stand in the file */
  const char *argument; /* what --help calls the value */
  const char *help;
};

/* All rows, in the order of --help. */
#define VAMPD_OPTION_COUNT 24
extern const struct vampd_option VAMPD_OPTIONS[VAMPD_OPTION_COUNT];

/* The number of the row with that name, of `length` bytes; a dash may be an underscore. -1: there is none. */
int vampd_option_find(const char *name, size_t length);

/* Every row at its default. Texts belong to the options and are freed by vampd_options_free. */
int vampd_options_default(struct vampd_options *options, struct vamp_error *error);
void vampd_options_free(struct vampd_options *options); /* fine on a zeroed struct */

/* Sets one value. `source` begins the message, e.g. "--port" or "vampd.ini:3: port". A SWITCH is yes or no.
 */
int vampd_option_set(const struct vampd_option *option, const char *value, struct vampd_options *options,
                     const char *source, struct vamp_error *error);

/* The value as it would stand in the file: `number` is written to where it is none of a text's own bytes. */
const char *vampd_option_value(const struct vampd_option *option, const struct vampd_options *options,
                               char number[16]);

/* The text of --help: at most 48 lines of 80 columns. */
void vampd_options_help(FILE *out);

/* The numbers that a value of NUMBERS lists; 0 of them where it is "all". -1 where it is none. */
int vampd_options_numbers(const char *text, int minimum, int maximum, int numbers[VAMPD_MAX_DEVICES]);

/* The precision and threads in the form a backend takes. */
struct vamp_device_options vampd_options_device(const struct vampd_options *options);

#endif
