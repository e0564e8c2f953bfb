/*
 * Starting, running, stopping: see daemon.h.
 *
 * Starting. What can be wrong with the flags is found before the port is opened, and the port is opened
 * before the model is loaded: a model of gigabytes takes its time, during which /healthz already answers
 * and /readyz says 503.
 *
 * Stopping, on SIGTERM or SIGINT, in an order that lets nobody down:
 *   1. nobody new is let in: requests that arrive are answered 503, with Connection: close
 *   2. for --grace seconds what runs may finish and its answers go out; no durable job begins
 *   3. then what is left is cancelled and leaves the loop at its next step: requests are answered 503,
 * durable jobs stay in the store as queued, for the next daemon
 *   4. event streams end; with no connection suspended any more, answers get a moment to be read, HTTP stops
 *   5. device, workers, watch, decoder and store end
 * Should a job still be in the house after step 3 (a device that does not come back from a step), the process
 * ends without the rest: memory is the kernel's to tidy, and a supervisor waits.
 */
#include "server/daemon.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "server/config/reload.h"
#include "server/http/exchange.h"
#include "server/http/http.h"
#include "server/jobs/runner.h"
#include "server/log.h"
#include "server/notify.h"
#include "server/store/data_dir.h"
#include "vamp/model.h"

#define CANCEL_SECONDS 30.0    /* for cancelled jobs to leave: one step of the largest batch */
#define LINGER_SECONDS 5.0     /* for the last answers to be read */
#define MAX_FRAMES 300000      /* of one job: over an hour; --max-seconds is the usual bound */
#define MAX_HELD_FRAMES 500000 /* of all jobs: 1.5 GB of samples */
#define MAX_RUNNING 256        /* durable jobs on their way at once */
#define TURNS_AHEAD 2 /* their audio: so many full turns of the device, so that none runs half empty */
#define DESK_THREADS 2
#define RENDERER_THREADS 2 /* each holds a result in memory, and that again as what becomes of it */
#define TICK_MILLISECONDS 1000
#define RETENTION_SECONDS 60.0
#define FILES 128             /* open at once: database, folders, sockets, and what libraries take */
#define FILES_OF_CONNECTION 2 /* itself, and what it is sent */
#define FILES_OF_WORKER 8     /* a clip's way through the decoder, a result */
#define SPARE_SECONDS 300.0   /* a result may be fetched before it is forgotten for want of space */

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
      .model = daemon->model_folder,
      .device = vampd_options_device(options),
      .loop = {.max_jobs = VAMPD_MAX_QUEUE, .max_frames = MAX_FRAMES, .max_held_frames = MAX_HELD_FRAMES},
      .work = daemon->work,
      .metrics = daemon->metrics,
      .event = vampd_job_event,
      .failed = device_failed,
      .ready = device_ready,
      .user = daemon,
  };
  device.count = vampd_options_numbers(options->devices, 0, INT_MAX, device.indices);
  return vampd_device_start(&device, &daemon->device, error);
}

static int open_control(struct vampd *daemon, struct vamp_error *error) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGHUP);
  daemon->signals = signalfd(-1, &signals, SFD_CLOEXEC);
  daemon->wake = eventfd(0, EFD_CLOEXEC);
  if (daemon->signals < 0 || daemon->wake < 0 ||
      getrandom(&daemon->id_key, sizeof daemon->id_key, 0) != (ssize_t)sizeof daemon->id_key ||
      getrandom(&daemon->id_salt, sizeof daemon->id_salt, 0) != (ssize_t)sizeof daemon->id_salt) {
    return vamp_fail(error, VAMP_IO, "The system refused a file descriptor: %s.", strerror(errno));
  }
  return VAMP_OK;
}

/* The system's usual limit on open files is below what many connections can need, and who finds none left is
 * no connection but a job. So the limit is raised as far as the administrator allows. */
static void raise_file_limit(const struct vampd_options *options) {
  struct rlimit files;
  rlim_t needed = FILES + (rlim_t)options->max_connections * FILES_OF_CONNECTION +
                  (rlim_t)options->workers * FILES_OF_WORKER;
  if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= needed) {
    return;
  }
  files.rlim_cur = files.rlim_max < needed ? files.rlim_max : needed;
  if (setrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur < needed) {
    vampd_log(
        "warning: only %llu files may be open, and with --max-connections %d there can be %llu: jobs may "
        "fail for want of one; allow more, or fewer connections",
        (unsigned long long)files.rlim_cur, options->max_connections, (unsigned long long)needed);
  }
}

/* The flags are well-formed; are they right? */
int vampd_find_model(const struct vampd_options *options, char folder[PATH_MAX], struct vamp_error *error) {
  struct vamp_model_config config;
  int status = vamp_model_find(options->model, folder, error);
  return status == VAMP_OK ? vamp_config_read(folder, &config, error) : status;
}

static struct vampd_store_limits store_limits(const struct vampd_options *options) {
  return (struct vampd_store_limits){
      .max_bytes = (int64_t)options->max_disk_mb << 20,
      .min_free_bytes = (int64_t)options->min_free_mb << 20,
      .keep_seconds = 3600.0 * options->keep_hours,
      .spare_seconds = SPARE_SECONDS,
  };
}

static int open_store(struct vampd *daemon, struct vamp_error *error) {
  struct vampd_store_limits limits = store_limits(&daemon->options);
  int status = vampd_data_dir_choose(daemon->options.data_dir, daemon->data_dir, error);
  if (status != VAMP_OK) {
    return status;
  }
  daemon->lock = vampd_data_dir_open(daemon->data_dir, error);
  return daemon->lock < 0 ? daemon->lock : vampd_store_open(daemon->data_dir, &limits, &daemon->store, error);
}

/* What jobs go through, but for the device. */
static int start_house(struct vampd *daemon, struct vamp_error *error) {
  struct vampd_house_limits limits = {.running = MAX_RUNNING, .preparing = daemon->options.workers};
  int status = vampd_work_create(daemon->options.workers, &daemon->work, error);
  if (status == VAMP_OK) {
    status = vampd_work_create(DESK_THREADS, &daemon->desk, error);
  }
  if (status == VAMP_OK) {
    status = vampd_work_create(RENDERER_THREADS, &daemon->renderers, error);
  }
  if (status == VAMP_OK) {
    status = vampd_work_create(1, &daemon->chores, error);
  }
  if (status == VAMP_OK) {
    status = vampd_decoder_start(&VAMPD_DECODER_PATIENCE, &daemon->decoder, error);
  }
  return status == VAMP_OK ? vampd_house_create(&limits, &daemon->house, error) : status;
}

static int start_runner(struct vampd *daemon, struct vamp_error *error) {
  struct vampd_runner_parts parts = {
      .store = daemon->store,
      .house = daemon->house,
      .work = daemon->work,
      .device = daemon->device,
      .decoder = daemon->decoder,
      .metrics = daemon->metrics,
      .access = daemon->access,
  };
  return vampd_runner_create(&parts, &daemon->runner, error);
}

/* What can be wrong before a port is opened. */
static int prepare(struct vampd *daemon, struct vamp_error *error) {
  raise_file_limit(&daemon->options);
  int status = vampd_access_create(&daemon->access, error);
  if (status == VAMP_OK) {
    status = vampd_settings_apply(daemon->settings, daemon->access, &daemon->admission, error);
  }
  if (status == VAMP_OK) {
    status = vampd_find_model(&daemon->options, daemon->model_folder, error);
  }
  if (status == VAMP_OK) {
    status = open_control(daemon, error);
  }
  if (status == VAMP_OK) {
    status = vampd_metrics_create(&daemon->metrics, error);
  }
  return status == VAMP_OK ? open_store(daemon, error) : status;
}

static int start(struct vampd *daemon, struct vamp_error *error) {
  int status = prepare(daemon, error);
  if (status != VAMP_OK) {
    return status;
  }
  int socket = vampd_http_listen(&daemon->options, &daemon->port, error);
  if (socket < 0) {
    return socket;
  }
  status = start_house(daemon, error);
  if (status == VAMP_OK) {
    status = vampd_watch_create(vampd_exchange_abandon, &daemon->watch, error);
  }
  if (status == VAMP_OK) {
    status = start_device(daemon, error);
  }
  if (status == VAMP_OK) {
    status = start_runner(daemon, error);
  }
  if (status == VAMP_OK) {
    status = vampd_http_start(daemon, socket, error);
  }
  if (!daemon->http) {
    close(socket);
  }
  if (status == VAMP_OK) {
    struct vamp_error trouble = {0};
    if (vampd_data_dir_write_port(daemon->data_dir, daemon->port, &trouble) != VAMP_OK) {
      vampd_log("error: %s",
                trouble.message); /* a full disk, likely: what is in the store can still be served */
    }
  }
  return status;
}

/* The one line that scripts wait for; without the log's time, so that it is easy to find. */
static void announce(struct vampd *daemon) {
  const struct vampd_device_facts *facts = vampd_device_facts(daemon->device);
  struct vamp_error error = {0};
  if (!facts || daemon->ready) {
    return;
  }
  const struct vamp_codec_config *codec = &facts->model.codec;
  struct vampd_house_limits limits = {
      .running = MAX_RUNNING,
      .preparing = daemon->options.workers,
      .devices = facts->devices,
      .running_seconds = (double)(TURNS_AHEAD * facts->step_rows * codec->hop_length) / codec->sample_rate,
  };
  vampd_house_set_limits(daemon->house, &limits);
  if (vampd_runner_begin(daemon->runner, &error) != VAMP_OK) {
    vampd_log("error: jobs of an earlier run cannot be read: %s", error.message);
  }
  daemon->ready = true;
  vampd_log("model %s on %s (%s), %s, loaded in %.3f s", facts->model.name, facts->backend,
            facts->description, vamp_precision_name(facts->precision), facts->load_seconds);
  const struct vampd_options *options = &daemon->options;
  bool six = strchr(options->host, ':') != NULL;
  char address[128];
  snprintf(address, sizeof address, "http://%s%s%s:%d", six ? "[" : "", options->host, six ? "]" : "",
           daemon->port);
  if (strcmp(options->log_format, "json") == 0) {
    vampd_log_event("listening", VAMPD_LOG_TEXT("address", address));
  } else {
    dprintf(STDERR_FILENO, "vampd listening on %s\n", address);
  }
  vampd_notify("READY=1");
}

static void retain(struct vampd_task *task) {
  struct vampd *daemon = (struct vampd *)((char *)task - offsetof(struct vampd, retention));
  struct vamp_error error = {0};
  const struct vampd_settings *settings = vampd_configuration_acquire(daemon->configuration);
  struct vampd_store_limits limits = store_limits(&settings->options);
  vampd_settings_release(settings);
  vampd_store_set_limits(daemon->store, &limits);
  int gone = vampd_store_retain(daemon->store, &error);
  if (gone < 0) {
    vampd_log("error: retention: %s", error.message);
  } else if (gone > 0) {
    vampd_log("retention: %d finished jobs are forgotten", gone);
  }
  daemon->retaining = false;
}

/* About once a second. */
static void tick(struct vampd *daemon) {
  if (!daemon->ready) {
    return;
  }
  vampd_decoder_reap(daemon->decoder);
  vampd_runner_tick(daemon->runner);
  if (vampd_now() - daemon->retained > RETENTION_SECONDS && !daemon->retaining) {
    daemon->retained = vampd_now();
    daemon->retaining = true;
    daemon->retention.run = retain;
    vampd_work_push(daemon->desk, &daemon->retention, false);
  }
}

/* Reads one signal; false where it is to stop. */
static bool take_signal(struct vampd *daemon) {
  struct signalfd_siginfo signal;
  ssize_t got = read(daemon->signals, &signal, sizeof signal);
  if (got > 0 && signal.ssi_signo == SIGHUP) {
    vampd_reload(daemon->configuration, daemon->access, &daemon->admission);
    daemon->retained = 0; /* with the new limits, soon */
    return true;
  }
  int queued = 0, running = 0;
  vampd_house_count(daemon->house, &queued, &running);
  vampd_notify("STOPPING=1");
  vampd_log("%s: stopping, %d requests and %d durable jobs are running, %d jobs wait for the next start",
            got > 0 && signal.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM",
            vampd_admission_jobs(&daemon->admission), running, queued);
  return false;
}

/* Until a signal comes or the device fails. */
static void serve(struct vampd *daemon) {
  struct pollfd control[] = {{.fd = daemon->signals, .events = POLLIN},
                             {.fd = daemon->wake, .events = POLLIN}};
  while (!daemon->failed) {
    int ready = poll(control, 2, TICK_MILLISECONDS);
    if (ready < 0 && errno != EINTR) {
      return;
    }
    if (ready > 0 && control[0].revents && !take_signal(daemon)) {
      return;
    }
    uint64_t count;
    if (ready > 0 && control[1].revents && read(daemon->wake, &count, sizeof count) > 0) {
      announce(daemon);
    }
    tick(daemon);
  }
}

static int busy(struct vampd *daemon) {
  return vampd_admission_jobs(&daemon->admission) + vampd_runner_busy(daemon->runner);
}

/* Waits until nothing runs any more, or for so many seconds. */
static bool wait_for_jobs(struct vampd *daemon, double seconds) {
  struct timespec turn = {.tv_nsec = 10000000};
  double deadline = vampd_now() + seconds;
  while (busy(daemon) > 0 && vampd_now() < deadline) {
    nanosleep(&turn, NULL);
  }
  return busy(daemon) == 0;
}

static int grace(struct vampd *daemon) {
  const struct vampd_settings *settings = vampd_configuration_acquire(daemon->configuration);
  int seconds = settings->options.grace;
  vampd_settings_release(settings);
  return seconds;
}

/* Steps 1 to 4; false where a job would not leave. */
static bool drain(struct vampd *daemon) {
  vampd_admission_close(&daemon->admission);
  if (!daemon->runner) {
    return true;
  }
  vampd_runner_hold(daemon->runner);
  if (daemon->failed || !wait_for_jobs(daemon, grace(daemon))) {
    vampd_runner_abandon(daemon->runner);
    vampd_house_end_streams(daemon->house);
    vampd_watch_each(daemon->watch, vampd_exchange_abandon);
    if (!wait_for_jobs(daemon, CANCEL_SECONDS)) {
      vampd_log("error: %d jobs do not end", busy(daemon));
      return false;
    }
  }
  vampd_http_quiesce(daemon);
  struct timespec turn = {.tv_nsec = 10000000};
  double deadline = vampd_now() + LINGER_SECONDS;
  do {
    vampd_house_end_streams(daemon->house);
    if (vampd_now() >
        deadline - LINGER_SECONDS / 2) { /* an archive that is being packed, a reader that does not read */
      vampd_watch_each(daemon->watch, vampd_exchange_abandon);
    }
    nanosleep(&turn, NULL);
  } while ((daemon->streams > 0 || daemon->suspended > 0 || daemon->admitted > 0) && vampd_now() < deadline);
  if (daemon->suspended > 0) {
    vampd_log("error: %d answers do not end", daemon->suspended);
    return false;
  }
  /* A stream that nobody reads is closed with its connection; one that has ended is never suspended again. */
  vampd_house_end_streams(daemon->house);
  return true;
}

static void stop(struct vampd *daemon) {
  vampd_http_stop(daemon);
  vampd_device_stop(daemon->device);
  vampd_work_free(daemon->work);
  vampd_work_free(daemon->desk);
  vampd_work_free(daemon->renderers);
  vampd_work_free(daemon->chores);
  vampd_watch_free(daemon->watch);
  vampd_decoder_stop(daemon->decoder);
  vampd_runner_free(daemon->runner);
  vampd_house_free(daemon->house);
  vampd_store_close(daemon->store);
  if (daemon->lock >= 0) {
    vampd_data_dir_close(daemon->data_dir, daemon->lock);
  }
  if (daemon->signals >= 0) {
    close(daemon->signals);
  }
  if (daemon->wake >= 0) {
    close(daemon->wake);
  }
  vampd_metrics_free(daemon->metrics);
  vampd_admission_destroy(&daemon->admission);
  vampd_access_free(daemon->access);
  vampd_settings_release(daemon->settings);
}

int vampd_run(struct vampd_configuration *configuration) {
  struct vampd daemon = {.configuration = configuration, .lock = -1, .signals = -1, .wake = -1};
  struct vamp_error error = {0};
  daemon.settings = vampd_configuration_acquire(configuration);
  daemon.options = daemon.settings->options;
  vampd_admission_init(&daemon.admission);
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
