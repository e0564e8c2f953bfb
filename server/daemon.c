/*
 * Starting, running, stopping: see daemon.h.
 *
 * Starting. What can be wrong with the flags is found before the port is opened, and the port is opened
 * before the model is loaded: a model of gigabytes takes its time, during which /healthz already answers
 * and /readyz says 503.
 *
 * Stopping, on SIGTERM or SIGINT, in an order that lets nobody down:
 *   1. nobody new is let in: requests that arrive are answered 503, with Connection: close
 *   2. for --grace seconds the jobs in the house may finish and their answers go out
 *   3. then what is left is cancelled, leaves the loop at its next step, and is answered 503
 *   4. with no job left no connection is suspended: answers get a moment to be read, HTTP stops
 *   5. device, workers and watch end
 * Should a job still be in the house after step 3 (a device that does not come back from a step), the process
 * ends without the rest: memory is the kernel's to tidy, and a supervisor waits.
 */
#include "server/daemon.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "server/http/exchange.h"
#include "server/http/http.h"
#include "server/log.h"
#include "server/store/data_dir.h"

#define CANCEL_SECONDS 30.0    /* for cancelled jobs to leave: one step of the largest batch */
#define LINGER_SECONDS 5.0     /* for the last answers to be read */
#define MAX_FRAMES 300000      /* of one job: over an hour; --max-seconds is the usual bound */
#define MAX_HELD_FRAMES 500000 /* of all jobs: 1.5 GB of samples */
#define BODIES_AT_ONCE 8       /* of the largest size; the budget for all bodies together */

static void report(struct vampd *daemon) {
  uint64_t one = 1;
  ssize_t written = write(daemon->wake, &one, sizeof one);
  (void)written;
}

/* On the device thread. */
static void device_ready(void *user) {
  report(user);
}

/* On the device thread. */
static void device_failed(void *user, const struct vamp_error *error) {
  struct vampd *daemon = user;
  vampd_log("error: %s", error->message);
  daemon->failed = true;
  report(daemon);
}

static int start_device(struct vampd *daemon, struct vamp_error *error) {
  const struct vampd_options *options = &daemon->options;
  struct vampd_device_options device = {
      .model = options->model,
      .device = vampd_options_device(options),
      .loop = {.max_jobs = options->max_queue, .max_frames = MAX_FRAMES, .max_held_frames = MAX_HELD_FRAMES},
      .work = daemon->work,
      .finished = vampd_job_event,
      .failed = device_failed,
      .ready = device_ready,
      .user = daemon,
  };
  return vampd_device_start(&device, &daemon->device, error);
}

static int open_control(struct vampd *daemon, struct vamp_error *error) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  daemon->signals = signalfd(-1, &signals, SFD_CLOEXEC);
  daemon->wake = eventfd(0, EFD_CLOEXEC);
  if (daemon->signals < 0 || daemon->wake < 0 ||
      getrandom(&daemon->id_key, sizeof daemon->id_key, 0) != (ssize_t)sizeof daemon->id_key) {
    return vamp_fail(error, VAMP_IO, "The system refused a file descriptor: %s.", strerror(errno));
  }
  return VAMP_OK;
}

/* The flags are well-formed; are they right? */
static int check_options(const struct vampd_options *options, struct vamp_error *error) {
  struct vamp_model_config config;
  return vamp_config_read(options->model, &config, error);
}

static int start(struct vampd *daemon, struct vamp_error *error) {
  const struct vampd_options *options = &daemon->options;
  int status = check_options(options, error);
  if (status == VAMP_OK) {
    status = open_control(daemon, error);
  }
  if (status == VAMP_OK && options->data_dir) {
    daemon->lock = vampd_data_dir_open(options->data_dir, error);
    status = daemon->lock < 0 ? daemon->lock : VAMP_OK;
  }
  if (status != VAMP_OK) {
    return status;
  }
  int socket = vampd_http_listen(options, &daemon->port, error);
  if (socket < 0) {
    return socket;
  }
  status = vampd_work_create(options->workers, &daemon->work, error);
  if (status == VAMP_OK) {
    status = vampd_watch_create(vampd_exchange_abandon, &daemon->watch, error);
  }
  if (status == VAMP_OK) {
    status = start_device(daemon, error);
  }
  if (status == VAMP_OK) {
    status = vampd_http_start(daemon, socket, error);
  }
  if (!daemon->http) {
    close(socket);
  }
  if (status == VAMP_OK && options->data_dir) {
    status = vampd_data_dir_write_port(options->data_dir, daemon->port, error);
  }
  return status;
}

/* The one line that scripts wait for; without the log's time, so that it is easy to find. */
static void announce(struct vampd *daemon) {
  const struct vampd_device_facts *facts = vampd_device_facts(daemon->device);
  if (!facts) {
    return;
  }
  vampd_log("model %s on %s (%s), %s, loaded in %.3f s", facts->model.name, facts->backend,
            facts->description, facts->precision == VAMP_PRECISION_BF16 ? "bf16" : "fp32",
            facts->load_seconds);
  bool six = strchr(daemon->options.host, ':') != NULL;
  dprintf(STDERR_FILENO, "vampd listening on http://%s%s%s:%d\n", six ? "[" : "", daemon->options.host,
          six ? "]" : "", daemon->port);
}

/* Sleeps until a signal comes or the device fails. */
static void serve(struct vampd *daemon) {
  struct pollfd control[] = {{.fd = daemon->signals, .events = POLLIN},
                             {.fd = daemon->wake, .events = POLLIN}};
  while (!daemon->failed) {
    if (poll(control, 2, -1) < 0 && errno != EINTR) {
      return;
    }
    if (control[0].revents) {
      struct signalfd_siginfo signal;
      ssize_t got = read(daemon->signals, &signal, sizeof signal);
      vampd_log("%s: stopping, %d jobs in the house",
                got > 0 && signal.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM",
                vampd_admission_jobs(&daemon->admission));
      return;
    }
    uint64_t count;
    if (control[1].revents && read(daemon->wake, &count, sizeof count) > 0) {
      announce(daemon);
    }
  }
}

/* Waits until no job is in the house, or for so many seconds. */
static bool wait_for_jobs(struct vampd *daemon, double seconds) {
  struct timespec turn = {.tv_nsec = 10000000};
  double deadline = vampd_now() + seconds;
  while (vampd_admission_jobs(&daemon->admission) > 0 && vampd_now() < deadline) {
    nanosleep(&turn, NULL);
  }
  return vampd_admission_jobs(&daemon->admission) == 0;
}

/* Steps 1 to 4; false where a job would not leave. */
static bool drain(struct vampd *daemon) {
  vampd_admission_close(&daemon->admission);
  if (!daemon->watch) {
    return true;
  }
  if (!wait_for_jobs(daemon, daemon->options.grace)) {
    vampd_log("cancelling %d jobs", vampd_admission_jobs(&daemon->admission));
    vampd_watch_each(daemon->watch, vampd_exchange_abandon);
    if (!wait_for_jobs(daemon, CANCEL_SECONDS)) {
      vampd_log("error: %d jobs do not end", vampd_admission_jobs(&daemon->admission));
      return false;
    }
  }
  struct timespec turn = {.tv_nsec = 10000000};
  double deadline = vampd_now() + LINGER_SECONDS;
  while (daemon->admitted > 0 && vampd_now() < deadline) {
    nanosleep(&turn, NULL);
  }
  return true;
}

static void stop(struct vampd *daemon) {
  vampd_http_stop(daemon);
  vampd_device_stop(daemon->device);
  vampd_work_free(daemon->work);
  vampd_watch_free(daemon->watch);
  if (daemon->lock >= 0) {
    vampd_data_dir_close(daemon->options.data_dir, daemon->lock);
  }
  close(daemon->signals);
  close(daemon->wake);
  vampd_admission_destroy(&daemon->admission);
}

int vampd_run(const struct vampd_options *options) {
  struct vampd daemon = {.options = *options, .lock = -1, .signals = -1, .wake = -1};
  struct vamp_error error = {0};
  vampd_admission_init(&daemon.admission, options->max_queue,
                       ((size_t)options->max_body_mb << 20) * BODIES_AT_ONCE);
  bool started = start(&daemon, &error) == VAMP_OK;
  if (started) {
    serve(&daemon);
  } else {
    fprintf(stderr, "vampd: %s\n", error.message);
  }
  if (!drain(&daemon)) {
    /* Threads still work on what lies in this function's frame: nothing may be torn down under them. */
    _exit(1);
  }
  stop(&daemon);
  if (started) {
    vampd_log("stopped");
  }
  return started && !daemon.failed ? 0 : 1;
}
