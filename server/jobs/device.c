/*
 * The device thread: see device.h.
 *
 * The model is loaded on the thread that will use it, while the port is already open and /readyz says
 * 503, so a supervisor sees at once that the daemon is alive, and later that it is ready.
 *
 * Gathering. Requests that arrive together should be generated together, but workers prepare them one
 * after the other, and a loop that starts on the first has made a forward pass for one when the second
 * comes a few milliseconds later. So a loop that was idle waits, for GATHER_SECONDS at most, as long as
 * workers are preparing more. A busy loop does not wait: whoever comes joins at the next step anyway.
 *
 * A lost device is the end of the daemon, not of the thread: it keeps turning so that every job, also one
 * submitted at this moment, gets its FAILED event, until main has answered everyone and stops it.
 */
#include "server/jobs/device.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "server/jobs/work.h"
#include "server/log.h"
#include "server/metrics.h"
#include "vamp/device.h"

#define GATHER_SECONDS 0.1
#define GATHER_TURN 0.00002
#define IDLE_SECONDS 1.0

enum state { LOADING, READY, LOST };

struct vampd_device {
  struct vampd_device_options options;
  pthread_t thread;
  atomic_int state;
  atomic_bool stop;
  pthread_mutex_t stopping;        /* the loop is not freed while someone is about to wake it */
  struct vampd_device_facts facts; /* written before state becomes READY */
  struct vamp_device *device;
  struct vamp_model *model;
  struct vamp_loop *loop; /* likewise */
};

static int load(struct vampd_device *device, struct vamp_error *error) {
  double started = vampd_now();
  struct vamp_device_choice choice;
  int status = vamp_device_open(&device->options.device, &device->device, &choice, error);
  if (status == VAMP_OK) {
    vampd_log("%s", choice.text);
    status = vamp_model_open(device->options.model, device->device, &device->model, error);
  }
  if (status == VAMP_OK) {
    status = vamp_loop_create(device->model, &device->options.loop, &device->loop, error);
  }
  if (status != VAMP_OK) {
    return status;
  }
  struct vampd_device_facts *facts = &device->facts;
  facts->model = *vamp_model_config(device->model);
  snprintf(facts->backend, sizeof facts->backend, "%s", device->device->backend);
  snprintf(facts->description, sizeof facts->description, "%s", device->device->description);
  facts->precision = device->device->precision;
  facts->step_rows = device->device->step_rows;
  facts->load_seconds = vampd_now() - started;
  return VAMP_OK;
}

static void unload(struct vampd_device *device) {
  if (device->loop) {
    vamp_loop_free(device->loop);
  }
  if (device->model) {
    vamp_model_free(device->model);
  }
  if (device->device) {
    device->device->close(device->device);
  }
}

static void pass_events_on(struct vampd_device *device) {
  struct vamp_event event;
  while (vamp_loop_next_event(device->loop, &event) == 1) {
    device->options.event(&event);
  }
}

/* What the turn that has just run was, and how fast. */
static void measure(struct vampd_device *device, double seconds) {
  struct vamp_loop_turn turn;
  vamp_loop_last_turn(device->loop, &turn);
  if (turn.sequences > 0) {
    vampd_metrics_turn(device->options.metrics, &turn, seconds);
  }
}

/* See "Gathering" above. */
static void gather(struct vampd_device *device) {
  double deadline = vampd_now() + GATHER_SECONDS;
  while (vampd_work_pending(device->options.work) > 0 && vampd_now() < deadline && !device->stop) {
    struct timespec turn = {.tv_nsec = (long)(GATHER_TURN * 1e9)};
    nanosleep(&turn, NULL);
  }
}

static void turn(struct vampd_device *device) {
  bool idle = true;
  while (!device->stop) {
    if (idle && vamp_loop_jobs(device->loop) > 0) {
      gather(device);
    }
    struct vamp_error error;
    double started = vampd_now();
    int worked = vamp_loop_step(device->loop, &error);
    if (worked == 1) {
      measure(device, vampd_now() - started);
    }
    if (worked < 0 && device->state == READY) {
      device->state = LOST;
      device->options.failed(device->options.user, &error);
    }
    pass_events_on(device);
    idle = vamp_loop_jobs(device->loop) == 0;
    if (worked <= 0) {
      vamp_loop_wait(device->loop, IDLE_SECONDS);
    }
  }
}

static void *run(void *argument) {
  struct vampd_device *device = argument;
  struct vamp_error error;
  prctl(PR_SET_TIMERSLACK, 1000); /* nanoseconds: gather() naps for less than the usual 50 microseconds */
  if (load(device, &error) == VAMP_OK) {
    device->state = READY;
    device->options.ready(device->options.user);
    turn(device);
  } else {
    device->state = LOST;
    device->options.failed(device->options.user, &error);
  }
  pthread_mutex_lock(&device->stopping);
  pthread_mutex_unlock(&device->stopping);
  unload(device);
  return NULL;
}

int vampd_device_start(const struct vampd_device_options *options, struct vampd_device **device,
                       struct vamp_error *error) {
  struct vampd_device *made = calloc(1, sizeof *made);
  if (!made) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while starting the device thread.");
  }
  made->options = *options;
  pthread_mutex_init(&made->stopping, NULL);
  if (pthread_create(&made->thread, NULL, run, made) != 0) {
    pthread_mutex_destroy(&made->stopping);
    free(made);
    return vamp_fail(error, VAMP_MEMORY, "The system refused a thread for the device.");
  }
  *device = made;
  return VAMP_OK;
}

const struct vampd_device_facts *vampd_device_facts(struct vampd_device *device) {
  return device->state == READY ? &device->facts : NULL;
}

int vampd_device_submit(struct vampd_device *device, const struct vamp_job *job, uint64_t *id,
                        struct vamp_error *error) {
  if (device->state != READY) {
    return vamp_fail(error, VAMP_DEVICE, "The device is not available.");
  }
  int status = vamp_loop_submit(device->loop, job, id, error);
  if (status == VAMP_OK) {
    vamp_loop_wake(device->loop);
  }
  return status;
}

void vampd_device_cancel(struct vampd_device *device, uint64_t id) {
  vamp_loop_cancel(device->loop, id);
  vamp_loop_wake(device->loop);
}

void vampd_device_stop(struct vampd_device *device) {
  if (!device) {
    return;
  }
  pthread_mutex_lock(&device->stopping);
  device->stop = true;
  if (device->state != LOADING && device->loop) {
    vamp_loop_wake(device->loop);
  }
  pthread_mutex_unlock(&device->stopping);
  pthread_join(device->thread, NULL);
  pthread_mutex_destroy(&device->stopping);
  free(device);
}
