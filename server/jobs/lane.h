/*
 * A lane: one device, the model in its memory, and the batch loop that feeds it, on a thread of its own.
 * Nothing else touches that device. device.h has all lanes of the daemon.
 */
#ifndef VAMPD_LANE_H
#define VAMPD_LANE_H

#include "vamp/backend.h"
#include "vamp/generate.h"

struct vampd_metrics;
struct vampd_work;
struct vampd_lane;

struct vampd_lane_options {
  int number;        /* from 0: for metrics */
  const char *model; /* the folder; must outlive the lane */
  struct vamp_device_options device;
  struct vampd_work *work; /* so that the loop can wait for what is about to arrive */
  struct vampd_metrics *metrics;

  /* All on the lane's thread. */

  /* The device is open, the model not yet loaded. Says within which limits the loop takes jobs; a failure is
   * that of loading. */
  int (*opened)(void *user, const struct vamp_device *device, struct vamp_loop_limits *limits,
                struct vamp_error *error);
  void (*ready)(void *user); /* once: the model is loaded */
  /* Once: it could not be loaded, or the device was lost. After that no job comes to an end but by failing.
   */
  void (*failed)(void *user, const struct vamp_error *error);
  void (*event)(
      const struct vamp_event *event); /* what becomes of the jobs; event->result is the receiver's */
  void *user;
};

/* Starts the thread; loading goes on after this returns. */
int vampd_lane_start(const struct vampd_lane_options *options, struct vampd_lane **lane,
                     struct vamp_error *error);
/* Ends the thread after its current turn and frees everything. No job may be left, and no other thread may
 * call in. NULL is fine. */
void vampd_lane_stop(struct vampd_lane *lane);

/* ---- any thread, from `ready` on until the lane is stopped ------------------------------------------- */

struct vamp_loop *vampd_lane_loop(struct vampd_lane *lane);
const struct vamp_device *vampd_lane_device(const struct vampd_lane *lane); /* to look at its description */
const struct vamp_model_config *vampd_lane_model(const struct vampd_lane *lane);
double vampd_lane_load_seconds(const struct vampd_lane *lane);

#endif
