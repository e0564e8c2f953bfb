/*
 * The daemon: what all its parts hang on. Threads and who owns what:
 *
 *   main            starts and stops everything, waits for signals
 *   HTTP threads    libmicrohttpd's epoll pool: parse, route, send; never wait for anything
 *   workers         prepare requests, finish results (work.h)
 *   device thread   loads the model, runs the batch loop (device.h)
 *   watch           ends connections that are too slow, notices clients that are gone (watch.h)
 *
 * An exchange (one request and its answer, exchange.h) belongs to one of them at a time: to an HTTP
 * thread until its connection is suspended, then to a worker and to the job, and again to the HTTP thread
 * once it is resumed.
 */
#ifndef VAMPD_DAEMON_H
#define VAMPD_DAEMON_H

#include <stdatomic.h>
#include <stdint.h>

#include "server/access/admission.h"
#include "server/config/options.h"
#include "server/http/watch.h"
#include "server/jobs/device.h"
#include "server/jobs/work.h"

struct MHD_Daemon;

struct vampd {
  struct vampd_options options;
  struct vampd_admission admission;
  struct vampd_watch *watch;
  struct vampd_work *work;
  struct vampd_device *device;
  struct MHD_Daemon *http;
  int port;            /* the one that was bound */
  int lock;            /* of the data folder; -1: none */
  int signals, wake;   /* signalfd; eventfd by which the device thread reports to main */
  atomic_bool failed;  /* the model could not be loaded, or the device was lost */
  atomic_int admitted; /* exchanges that got into the queue and whose answers are not out yet */
  uint64_t id_key;     /* request ids: a counter, shifted by what was drawn at start */
  atomic_uint_fast64_t id_count;
};

/* Runs until SIGTERM or SIGINT, which must be blocked in the calling thread; returns the exit code. */
int vampd_run(const struct vampd_options *options);

#endif
