/*
 * One device's thread: see lane.h.
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
#include "server/jobs/lane.h"

#include <pthread.h>
#include <stdatomic.h>
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

struct vampd_lane {
  struct vampd_lane_options options;
  pthread_t thread;
  atomic_bool stop, loaded;
  pthread_mutex_t stopping; /* the loop is not freed while someone is about to wake it */
  /* Written before `loaded`. */
  struct vamp_device *device;
  struct vamp_model *model;
  struct vamp_loop *loop;
  double load_seconds;
};

static int load(struct vampd_lane *lane, struct vamp_error *error) {
  const struct vampd_lane_options *options = &lane->options;
  struct vamp_loop_limits limits = {0};
  struct vamp_device_choice choice;
  double started = vampd_now();
  int status = vamp_device_open(&options->device, &lane->device, &choice, error);
  if (status == VAMP_OK) {
    vampd_log("%s", choice.text);
    status = options->opened(options->user, lane->device, &limits, error);
  }
  if (status == VAMP_OK) {
    status = vamp_model_open(options->model, lane->device, &lane->model, error);
  }
  if (status == VAMP_OK) {
    status = vamp_loop_create(lane->model, &limits, &lane->loop, error);
  }
  lane->load_seconds = vampd_now() - started;
  return status;
}

static void unload(struct vampd_lane *lane) {
  if (lane->loop) {
    vamp_loop_free(lane->loop);
  }
  if (lane->model) {
    vamp_model_free(lane->model);
  }
  if (lane->device) {
    lane->device->close(lane->device);
  }
}

static void pass_events_on(struct vampd_lane *lane) {
  struct vamp_event event;
  while (vamp_loop_next_event(lane->loop, &event) == 1) {
    lane->options.event(&event);
  }
}

/* What the turn that has just run was, and how fast. */
static void measure(struct vampd_lane *lane, double seconds) {
  struct vamp_loop_turn turn;
  vamp_loop_last_turn(lane->loop, &turn);
  if (turn.sequences > 0) {
    vampd_metrics_turn(lane->options.metrics, lane->options.number, &turn, seconds);
  }
}

/* See "Gathering" above. */
static void gather(struct vampd_lane *lane) {
  double deadline = vampd_now() + GATHER_SECONDS;
  while (vampd_work_pending(lane->options.work) > 0 && vampd_now() < deadline && !lane->stop) {
    struct timespec turn = {.tv_nsec = (long)(GATHER_TURN * 1e9)};
    nanosleep(&turn, NULL);
  }
}

static void turn(struct vampd_lane *lane) {
  bool idle = true, lost = false;
  while (!lane->stop) {
    if (idle && vamp_loop_jobs(lane->loop) > 0) {
      gather(lane);
    }
    struct vamp_error error;
    double started = vampd_now();
    int worked = vamp_loop_step(lane->loop, &error);
    if (worked == 1) {
      measure(lane, vampd_now() - started);
    }
    if (worked < 0 && !lost) {
      lost = true;
      lane->options.failed(lane->options.user, &error);
    }
    pass_events_on(lane);
    idle = vamp_loop_jobs(lane->loop) == 0;
    if (worked <= 0) {
      vamp_loop_wait(lane->loop, IDLE_SECONDS);
    }
  }
}

static void *run(void *argument) {
  struct vampd_lane *lane = argument;
  struct vamp_error error;
  prctl(PR_SET_TIMERSLACK, 1000); /* nanoseconds: gather() naps for less than the usual 50 microseconds */
  if (load(lane, &error) == VAMP_OK) {
    lane->loaded = true;
    lane->options.ready(lane->options.user);
    turn(lane);
  } else {
    lane->options.failed(lane->options.user, &error);
  }
  pthread_mutex_lock(&lane->stopping);
  lane->loaded = false;
  pthread_mutex_unlock(&lane->stopping);
  unload(lane);
  return NULL;
}

int vampd_lane_start(const struct vampd_lane_options *options, struct vampd_lane **lane,
                     struct vamp_error *error) {
  struct vampd_lane *made = calloc(1, sizeof *made);
  if (!made) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while starting the device's thread.");
  }
  made->options = *options;
  pthread_mutex_init(&made->stopping, NULL);
  *lane = made; /* before its thread can ask for it */
  if (pthread_create(&made->thread, NULL, run, made) != 0) {
    *lane = NULL;
    pthread_mutex_destroy(&made->stopping);
    free(made);
    return vamp_fail(error, VAMP_MEMORY, "The system refused a thread for the device.");
  }
  return VAMP_OK;
}

void vampd_lane_stop(struct vampd_lane *lane) {
  if (!lane) {
    return;
  }
  pthread_mutex_lock(&lane->stopping);
  lane->stop = true;
  if (lane->loaded) {
    vamp_loop_wake(lane->loop);
  }
  pthread_mutex_unlock(&lane->stopping);
  pthread_join(lane->thread, NULL);
  pthread_mutex_destroy(&lane->stopping);
  free(lane);
}

struct vamp_loop *vampd_lane_loop(struct vampd_lane *lane) {
  return lane->loop;
}

const struct vamp_device *vampd_lane_device(const struct vampd_lane *lane) {
  return lane->device;
}

const struct vamp_model_config *vampd_lane_model(const struct vampd_lane *lane) {
  return vamp_model_config(lane->model);
}

double vampd_lane_load_seconds(const struct vampd_lane *lane) {
  return lane->load_seconds;
}
