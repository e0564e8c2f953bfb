/*
 * The device, or several equal ones behind the same door: what every generation goes through.
 *
 * Nothing else in the daemon touches a device. Jobs come in through vampd_device_submit, from any thread;
 * what becomes of them goes out through `event`, on the thread of the device that ran them (lane.h), which
 * must only pass it on.
 */
#ifndef VAMPD_DEVICE_H
#define VAMPD_DEVICE_H

#include <stdbool.h>

#include "server/config/options.h"
#include "vamp/backend.h"
#include "vamp/generate.h"

struct vampd_metrics;
struct vampd_work;

struct vampd_device_options {
  const char *model; /* the folder */
  struct vamp_device_options device;
  /* The backend's devices to use, by their index; a count of 0 takes all there are. */
  int indices[VAMPD_MAX_DEVICES], count;
  struct vamp_loop_limits loop; /* of all devices together, but for one job's */
  struct vampd_work *work;      /* so that a loop can wait for what is about to arrive */
  struct vampd_metrics *metrics;
  /* What becomes of the jobs; the receiver owns event->result. */
  void (*event)(const struct vamp_event *event);
  /* The model could not be loaded or a device was lost: the daemon has to end. Called once. */
  void (*failed)(void *user, const struct vamp_error *error);
  /* The model is loaded, on every device. Called once. */
  void (*ready)(void *user);
  void *user;
};

/* What is known once the model is loaded. */
struct vampd_device_facts {
  struct vamp_model_config model;
  char backend[32];
  char description[192]; /* of the first, and how many there are */
  enum vamp_precision precision;
  int devices;
  int64_t step_rows; /* frames that keep all devices busy in one turn */
  double load_seconds;
};

struct vampd_device;

/* Starts the threads; loading goes on after this returns. Strings in `options` must outlive the device. */
int vampd_device_start(const struct vampd_device_options *options, struct vampd_device **device,
                       struct vamp_error *error);

/* Any thread. NULL while the model is loading or after a device was lost; constant otherwise. */
const struct vampd_device_facts *vampd_device_facts(struct vampd_device *device);

/* Any thread. The job goes to the device that has the least left to do. VAMP_BUSY where its queue is full,
 * VAMP_DEVICE where there is no device (any more). */
int vampd_device_submit(struct vampd_device *device, const struct vamp_job *job, uint64_t *id,
                        struct vamp_error *error);
void vampd_device_cancel(struct vampd_device *device, uint64_t id);

/* Ends the threads after their current turn and frees everything. No job may be left, and no other thread
 * may call in. NULL is fine. */
void vampd_device_stop(struct vampd_device *device);

#endif
