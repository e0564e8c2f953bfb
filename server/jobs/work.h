/*
 * A small pool of threads for everything that takes longer than a socket may wait: decoding and resampling
 * audio, building and drawing masks, writing WAVs.
 */
#ifndef VAMPD_WORK_H
#define VAMPD_WORK_H

#include <stdbool.h>

#include "vamp/error.h"

/* One piece of work; lives inside what it works on, so that handing it over cannot fail. It is the
 * pool's from vampd_work_push until `run` is called, and the runner's from then on. */
struct vampd_task {
  struct vampd_task *next;
  void (*run)(struct vampd_task *task);
};

struct vampd_work;

int vampd_work_create(int threads, struct vampd_work **work, struct vamp_error *error);

/* Any thread. Urgent tasks (finishing what the device has done: someone waits, memory is held) go before
 * the others; both kinds in the order they came. */
void vampd_work_push(struct vampd_work *work, struct vampd_task *task, bool urgent);

/* Any thread: tasks that are not urgent and not done yet. */
int vampd_work_pending(struct vampd_work *work);

/* Runs what is queued, then ends the threads. NULL is fine. */
void vampd_work_free(struct vampd_work *work);

#endif
