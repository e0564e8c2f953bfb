/*
 * The devices: see device.h.
 *
 * Each has a thread, a model in its memory and a batch loop of its own (lane.c); a job runs on one of them
 * from beginning to end. Which one is decided when it is submitted: the one with the least work left. That
 * is late enough, because the queue that matters is the house's (live.h), which hands over only as much as
 * keeps all devices busy for two turns. One loop over all devices was rejected: its turns would all wait for
 * the slowest.
 *
 * A job's result must not depend on where it ran, so the devices must be of one kind: same name, same compute
 * capability, same precision. The first to open tells the others what backend and precision they have to be.
 *
 * One device lost is the end of the daemon, as with a single one: jobs are durable and a supervisor starts it
 * again, which is simpler to trust than going on beside a broken driver.
 */
#include "server/jobs/device.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/jobs/lane.h"
#include "server/metrics.h"

enum state { LOADING, READY, LOST };

struct vampd_device {
  struct vampd_device_options options;
  atomic_int state;
  pthread_mutex_t mutex; /* guards what follows, until the state is READY */
  struct vampd_lane *lanes[VAMPD_MAX_DEVICES];
  int lane_count; /* 0 until the first device is open */
  int ready;
  bool stopping;
  char hardware[sizeof((struct vamp_device *)0)->hardware]; /* of the first */
  struct vampd_device_facts facts;
};

static int start_lane(struct vampd_device *device, int number, const struct vamp_device_options *how,
                      struct vamp_error *error);

/* ---- on a lane's thread -------------------------------------------------------------------------------- */

static bool is_first(const struct vampd_device *device) {
  return device->lane_count == 0;
}

/* The first device is open, so it is known how many there are: the others begin, beside the first. */
static int start_others(struct vampd_device *device, const struct vamp_device *first,
                        struct vamp_error *error) {
  struct vampd_device_options *options = &device->options;
  if (options->count == 0) {
    options->count = first->count < VAMPD_MAX_DEVICES ? first->count : VAMPD_MAX_DEVICES;
    for (int i = 0; i < options->count; i++) {
      options->indices[i] = i;
    }
  }
  struct vamp_device_options how = options->device;
  how.backend = first->backend;
  how.precision = first->precision;
  how.precision_given = true;
  memcpy(device->hardware, first->hardware, sizeof device->hardware);
  device->lane_count = options->count;
  int status = VAMP_OK;
  for (int i = 1; i < device->lane_count && status == VAMP_OK; i++) {
    status = start_lane(device, i, &how, error);
  }
  return status;
}

static int opened(void *user, const struct vamp_device *opened, struct vamp_loop_limits *limits,
                  struct vamp_error *error) {
  struct vampd_device *device = user;
  int status = VAMP_OK;
  pthread_mutex_lock(&device->mutex);
  if (device->stopping) {
    status = vamp_fail(error, VAMP_CANCELLED, "The daemon stops while it is starting.");
  } else if (is_first(device)) {
    status = start_others(device, opened, error);
  } else if (strcmp(opened->hardware, device->hardware) != 0) {
    status = vamp_fail(error, VAMP_UNSUPPORTED,
                       "The devices are not of one kind (%s; %s), so a result would depend on where it was "
                       "made. Choose equal ones with --devices.",
                       device->hardware, opened->hardware);
  }
  *limits = device->options.loop;
  if (device->lane_count > 1) {
    limits->max_held_frames /= device->lane_count;
  }
  pthread_mutex_unlock(&device->mutex);
  return status;
}

/* Every lane is ready, and none was lost meanwhile. */
static void note_facts(struct vampd_device *device) {
  struct vampd_device_facts *facts = &device->facts;
  const struct vamp_device *first = vampd_lane_device(device->lanes[0]);
  facts->model = *vampd_lane_model(device->lanes[0]);
  facts->devices = device->lane_count;
  facts->precision = first->precision;
  snprintf(facts->backend, sizeof facts->backend, "%s", first->backend);
  if (device->lane_count > 1) {
    snprintf(facts->description, sizeof facts->description, "%d devices: %s", device->lane_count,
             first->description);
  } else {
    snprintf(facts->description, sizeof facts->description, "%s", first->description);
  }
  for (int i = 0; i < device->lane_count; i++) {
    double seconds = vampd_lane_load_seconds(device->lanes[i]);
    facts->step_rows += vampd_lane_device(device->lanes[i])->step_rows;
    facts->load_seconds = seconds > facts->load_seconds ? seconds : facts->load_seconds;
  }
}

static void lane_ready(void *user) {
  struct vampd_device *device = user;
  pthread_mutex_lock(&device->mutex);
  bool all = ++device->ready == device->lane_count && device->state == LOADING;
  if (all) {
    note_facts(device);
    vampd_metrics_devices(device->options.metrics, device->lane_count);
    device->state = READY;
  }
  pthread_mutex_unlock(&device->mutex);
  if (all) {
    device->options.ready(device->options.user);
  }
}

static void lane_failed(void *user, const struct vamp_error *error) {
  struct vampd_device *device = user;
  pthread_mutex_lock(&device->mutex);
  bool first = atomic_exchange(&device->state, LOST) != LOST;
  pthread_mutex_unlock(&device->mutex);
  if (first) {
    device->options.failed(device->options.user, error);
  }
}

/* ---- from outside -------------------------------------------------------------------------------------- */

static int start_lane(struct vampd_device *device, int number, const struct vamp_device_options *how,
                      struct vamp_error *error) {
  const struct vampd_device_options *options = &device->options;
  struct vampd_lane_options lane = {
      .number = number,
      .model = options->model,
      .device = *how,
      .work = options->work,
      .metrics = options->metrics,
      .opened = opened,
      .ready = lane_ready,
      .failed = lane_failed,
      .event = options->event,
      .user = device,
  };
  lane.device.index = options->count > 0 ? options->indices[number] : 0;
  return vampd_lane_start(&lane, &device->lanes[number], error);
}

int vampd_device_start(const struct vampd_device_options *options, struct vampd_device **device,
                       struct vamp_error *error) {
  struct vampd_device *made = calloc(1, sizeof *made);
  if (!made) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while starting the device's thread.");
  }
  made->options = *options;
  pthread_mutex_init(&made->mutex, NULL);
  pthread_mutex_lock(&made->mutex); /* the lane waits until its pointer is where it belongs */
  int status = start_lane(made, 0, &options->device, error);
  pthread_mutex_unlock(&made->mutex);
  if (status != VAMP_OK) {
    pthread_mutex_destroy(&made->mutex);
    free(made);
    return status;
  }
  *device = made;
  return VAMP_OK;
}

const struct vampd_device_facts *vampd_device_facts(struct vampd_device *device) {
  return device->state == READY ? &device->facts : NULL;
}

static struct vamp_loop *loop_of(struct vampd_device *device, int number) {
  return vampd_lane_loop(device->lanes[number]);
}

/* The one with the least left; of those with equally much, the first. */
static int choose(struct vampd_device *device) {
  int best = 0;
  double least = vamp_loop_work(loop_of(device, 0));
  for (int i = 1; i < device->lane_count; i++) {
    double work = vamp_loop_work(loop_of(device, i));
    if (work < least) {
      least = work;
      best = i;
    }
  }
  return best;
}

/* Outside, a job's id is its loop's times VAMPD_MAX_DEVICES, plus the lane's number. */
int vampd_device_submit(struct vampd_device *device, const struct vamp_job *job, uint64_t *id,
                        struct vamp_error *error) {
  if (device->state != READY) {
    return vamp_fail(error, VAMP_DEVICE, "The device is not available.");
  }
  int lane = choose(device);
  int status = vamp_loop_submit(loop_of(device, lane), job, id, error);
  if (status == VAMP_OK) {
    *id = *id * VAMPD_MAX_DEVICES + (unsigned)lane;
    vamp_loop_wake(loop_of(device, lane));
  }
  return status;
}

void vampd_device_cancel(struct vampd_device *device, uint64_t id) {
  struct vamp_loop *loop = loop_of(device, (int)(id % VAMPD_MAX_DEVICES));
  vamp_loop_cancel(loop, id / VAMPD_MAX_DEVICES);
  vamp_loop_wake(loop);
}

void vampd_device_stop(struct vampd_device *device) {
  if (!device) {
    return;
  }
  pthread_mutex_lock(&device->mutex);
  device->stopping = true; /* no lane is started any more */
  pthread_mutex_unlock(&device->mutex);
  for (int i = 0; i < VAMPD_MAX_DEVICES; i++) {
    vampd_lane_stop(device->lanes[i]);
  }
  pthread_mutex_destroy(&device->mutex);
  free(device);
}
