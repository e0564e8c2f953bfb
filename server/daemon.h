/*
 * The daemon: what all its parts hang on. Threads and who owns what:
 *
 *   main            starts and stops everything, waits for signals
 *   HTTP threads    libmicrohttpd's epoll pool: parse, route, send; never wait for anything
 *   workers         prepare requests, finish results (work.h)
 *   the desk        answers what takes a look into the store, but no work; likewise a pool
 *   renderers       make what is asked for of a finished job: another format, a picture; a pool again
 *   chores          packs archives, for minutes maybe; a pool of one
 *   device thread   loads the model, runs the batch loop (device.h)
 *   watch           ends connections that are too slow, notices clients that are gone (watch.h)
 *
 * and one process: the decoder (decode.h).
 *
 * An exchange (one request and its answer, exchange.h) belongs to one of them at a time: to an HTTP
 * thread until its connection is suspended, then to a worker and to the job, and again to the HTTP thread
 * once it is resumed.
 */
#ifndef VAMPD_DAEMON_H
#define VAMPD_DAEMON_H

#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>

#include "server/access/access.h"
#include "server/access/admission.h"
#include "server/config/settings.h"
#include "server/decode/decode.h"
#include "server/http/watch.h"
#include "server/jobs/device.h"
#include "server/jobs/live.h"
#include "server/jobs/work.h"
#include "server/metrics.h"
#include "server/store/store.h"

struct MHD_Daemon;
struct vampd_runner;

struct vampd {
  struct vampd_options options; /* as they were at the start */
  struct vampd_configuration *configuration;
  const struct vampd_settings *settings; /* the start's, which own the texts in `options` */
  struct vampd_access *access;
  struct vampd_admission admission;
  struct vampd_watch *watch;
  struct vampd_work *work, *desk, *renderers, *chores;
  struct vampd_decoder *decoder;
  struct vampd_metrics *metrics;
  struct vampd_store *store;
  struct vampd_house *house;
  struct vampd_runner *runner;
  char model_folder[PATH_MAX], data_dir[PATH_MAX];
  struct vampd_device *device;
  struct MHD_Daemon *http;
  int port;             /* the one that was bound */
  int lock;             /* of the data folder; -1: none */
  int signals, wake;    /* signalfd; eventfd by which the device thread reports to main */
  atomic_bool ready;    /* the model is loaded, and what an earlier run left is in the queue */
  atomic_bool failed;   /* the model could not be loaded, or the device was lost */
  atomic_int admitted;  /* exchanges that got into the queue and whose answers are not out yet */
  atomic_int suspended; /* exchanges that are on another thread than libmicrohttpd's */
  atomic_int streams;   /* answers that are being streamed */
  double retained;      /* when retention last ran */
  struct vampd_task retention;
  atomic_bool retaining;
  uint32_t id_salt; /* request ids: drawn at start */
  uint64_t id_key;  /* request ids: a counter, shifted by what was drawn at start */
  atomic_uint_fast64_t id_count;
};

/* The folder of the model that the options name, with a model.json that can be read; VAMP_IO or VAMP_INVALID
 * otherwise. */
int vampd_find_model(const struct vampd_options *options, char folder[PATH_MAX], struct vamp_error *error);

/* Runs until SIGTERM or SIGINT, which must be blocked in the calling thread like SIGHUP; returns the exit
 * code. */
int vampd_run(struct vampd_configuration *configuration);

#endif
