/*
 * What vampd is told on its command line.
 */
#ifndef VAMPD_OPTIONS_H
#define VAMPD_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "vamp/backend.h"
#include "vamp/error.h"

#define VAMPD_VERSION "0.1.0"

struct vampd_options {
  const char *host; /* a numeric address or "localhost" */
  int port;         /* 0: any free one */
  bool allow_remote;
  const char *model;     /* folder */
  const char *backend;   /* as in vamp/device.h */
  const char *precision; /* "auto", "fp32", "bf16" */
  int threads;           /* of the CPU backend; 0: all cores */
  int workers;           /* threads that prepare and finish audio */
  const char *data_dir;  /* NULL: none */
  int max_queue;         /* jobs accepted and not finished */
  int max_body_mb;       /* MiB of one request body */
  int max_seconds;       /* of one clip */
  int max_connections;
  int timeout; /* seconds a silent connection is kept */
  int grace;   /* seconds for running jobs to finish after SIGTERM */
  bool help, version;
};

/* Reads the flags, "--name value" or "--name=value". Strings point into argv. VAMP_INVALID names the flag
 * and what it takes. */
int vampd_options_parse(int argc, char *const *argv, struct vampd_options *options, struct vamp_error *error);

/* The text of --help: at most 24 lines of 80 columns. */
const char *vampd_options_help(void);

/* The precision and threads in the form a backend takes. */
struct vamp_device_options vampd_options_device(const struct vampd_options *options);

#endif
