/*
 * What the files of the house share (live.c, outlook.c): its queues and its sums. Everybody else knows it by
 * live.h and outlook.h. All of it is guarded by the one mutex.
 */
#ifndef VAMPD_HOUSE_H
#define VAMPD_HOUSE_H

#include "server/jobs/live.h"

#define VAMPD_HOUSE_BUCKETS 4096 /* ids are random: their first three digits are as good as any hash */
/* Jobs of one queue that are looked at: for one whose clip is not being encoded, for a place. */
#define VAMPD_HOUSE_LOOK_AHEAD 256

/* The jobs of one caller. */
struct vampd_queue {
  struct vampd_caller *caller;
  struct vampd_live *first, *last;
  int waiting, running;
  double waiting_cost;
  struct vampd_queue *next;
};

struct vampd_house {
  pthread_mutex_t mutex;
  struct vampd_house_limits limits;
  struct vampd_live *buckets[VAMPD_HOUSE_BUCKETS];
  struct vampd_queue *queues; /* as many as there are callers: never removed */
  struct vampd_live_input *inputs[VAMPD_HOUSE_BUCKETS];
  struct vampd_live *running; /* taken and not ended */
  int waiting_count, running_count, preparing_count;
  int expected; /* that have a place and are not in the queue yet */
  double running_seconds;
};

#endif
