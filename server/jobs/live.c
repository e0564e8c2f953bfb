/*
 * The jobs that are not finished: who enters, whose turn it is, who leaves, and that listeners are told. See
 * live.h; outlook.c has what can be said of those that wait.
 */
#include "server/jobs/live.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/access/keys.h"
#include "server/jobs/house.h"
#include "server/jobs/job.h"
#include "server/jobs/outlook.h"
#include "server/log.h"

const char *vampd_phase_name(enum vampd_phase phase) {
  static const char *const NAMES[] = {"queued", "preparing", "encoding", "generating", "decoding"};
  return NAMES[phase];
}

int vampd_house_create(const struct vampd_house_limits *limits, struct vampd_house **house,
                       struct vamp_error *error) {
  struct vampd_house *made = calloc(1, sizeof *made);
  if (!made) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory for the queue.");
  }
  made->limits = *limits;
  pthread_mutex_init(&made->mutex, NULL);
  *house = made;
  return VAMP_OK;
}

static void free_live(struct vampd_live *live) {
  vampd_events_end(&live->events);
  vampd_job_release(live->job);
  free(live);
}

void vampd_house_free(struct vampd_house *house) {
  if (!house) {
    return;
  }
  for (int i = 0; i < VAMPD_HOUSE_BUCKETS; i++) {
    while (house->buckets[i]) {
      struct vampd_live *live = house->buckets[i];
      house->buckets[i] = live->next_same_hash;
      free_live(live);
    }
    while (house->inputs[i]) {
      struct vampd_live_input *input = house->inputs[i];
      house->inputs[i] = input->next;
      free(input->codes);
      free(input);
    }
  }
  while (house->queues) {
    struct vampd_queue *queue = house->queues;
    house->queues = queue->next;
    free(queue);
  }
  pthread_mutex_destroy(&house->mutex);
  free(house);
}

void vampd_house_set_limits(struct vampd_house *house, const struct vampd_house_limits *limits) {
  vampd_house_lock(house);
  house->limits = *limits;
  vampd_house_unlock(house);
}

void vampd_house_lock(struct vampd_house *house) {
  pthread_mutex_lock(&house->mutex);
}

void vampd_house_unlock(struct vampd_house *house) {
  pthread_mutex_unlock(&house->mutex);
}

static size_t bucket_of(const char *id) {
  char digits[4] = {id[0], id[1], id[2], '\0'};
  return strtoul(digits, NULL, 16) % VAMPD_HOUSE_BUCKETS;
}

struct vampd_live *vampd_house_find(struct vampd_house *house, const char *id) {
  struct vampd_live *live = house->buckets[bucket_of(id)];
  while (live && strcmp(live->id, id) != 0) {
    live = live->next_same_hash;
  }
  return live;
}

/* ---- entering ----------------------------------------------------------------------------------------- */

static struct vampd_queue *queue_of(struct vampd_house *house, struct vampd_caller *caller) {
  struct vampd_queue *queue = house->queues;
  while (queue && queue->caller != caller) {
    queue = queue->next;
  }
  if (!queue && (queue = calloc(1, sizeof *queue)) != NULL) {
    queue->caller = caller;
    queue->next = house->queues;
    house->queues = queue;
  }
  return queue;
}

static struct vampd_live_input *input_of(struct vampd_house *house, const char *id) {
  struct vampd_live_input **bucket = &house->inputs[bucket_of(id)], *input = *bucket;
  while (input && strcmp(input->id, id) != 0) {
    input = input->next;
  }
  if (!input && (input = calloc(1, sizeof *input)) != NULL) {
    memcpy(input->id, id, sizeof input->id);
    input->next = *bucket;
    *bucket = input;
  }
  return input;
}

static void leave_input(struct vampd_house *house, struct vampd_live_input *input) {
  if (--input->jobs > 0) {
    return;
  }
  struct vampd_live_input **at = &house->inputs[bucket_of(input->id)];
  while (*at != input) {
    at = &(*at)->next;
  }
  *at = input->next;
  free(input->codes);
  free(input);
}

/* Into the queue, at its end or its head. */
static void link_into_queue(struct vampd_live *live, bool at_head) {
  struct vampd_queue *queue = live->queue;
  live->previous_in_queue = at_head ? NULL : queue->last;
  live->next_in_queue = at_head ? queue->first : NULL;
  *(live->previous_in_queue ? &live->previous_in_queue->next_in_queue : &queue->first) = live;
  *(live->next_in_queue ? &live->next_in_queue->previous_in_queue : &queue->last) = live;
  queue->waiting++;
  queue->waiting_cost += live->cost;
  live->house->waiting_count++;
}

static void unlink_from_queue(struct vampd_live *live) {
  struct vampd_queue *queue = live->queue;
  struct vampd_live *previous = live->previous_in_queue, *next = live->next_in_queue;
  *(previous ? &previous->next_in_queue : &queue->first) = next;
  *(next ? &next->previous_in_queue : &queue->last) = previous;
  queue->waiting--;
  queue->waiting_cost -= live->cost;
  live->house->waiting_count--;
}

/* Seconds that a job which was begun so often has to wait, see live.h: 1, 2, 4, ... up to 10 minutes. */
static double patience(int attempts) {
  if (attempts <= VAMPD_FEW_ATTEMPTS || attempts >= VAMPD_MAX_ATTEMPTS) {
    return 0;
  }
  return fmin(ldexp(1, attempts - VAMPD_FEW_ATTEMPTS - 1), 600);
}

/* One of them, under the lock. */
static int enter(struct vampd_house *house, const struct vampd_store_job *job, double cost,
                 struct vampd_caller *caller, struct vamp_error *error) {
  struct vampd_live *live = calloc(1, sizeof *live);
  struct vampd_queue *queue = live ? queue_of(house, caller) : NULL;
  struct vampd_live_input *input = queue ? input_of(house, job->input) : NULL;
  if (!input) {
    free(live);
    return vamp_fail(error, VAMP_MEMORY, "Out of memory for a job in the queue.");
  }
  memcpy(live->id, job->id, sizeof live->id);
  memcpy(live->sweep, job->sweep, sizeof live->sweep);
  live->house = house;
  live->number = job->number;
  live->caller = caller;
  live->seconds = job->seconds;
  live->cost = cost;
  live->attempts = job->attempts;
  live->not_before = job->attempts ? vampd_now() + patience(job->attempts) : 0;
  vampd_events_begin(&live->events, job->attempts);
  vampd_events_number(&live->events);
  live->queue = queue;
  live->input = input;
  input->jobs++;
  struct vampd_live **bucket = &house->buckets[bucket_of(live->id)];
  live->next_same_hash = *bucket;
  *bucket = live;
  link_into_queue(live, false);
  return VAMP_OK;
}

bool vampd_house_expect(struct vampd_house *house, int count, int most, int *queued, int *running) {
  vampd_house_lock(house);
  *queued = house->waiting_count + house->expected;
  *running = house->running_count;
  bool room = count <= most - *queued;
  house->expected += room ? count : 0;
  vampd_house_unlock(house);
  return room;
}

void vampd_house_expect_no_more(struct vampd_house *house, int count) {
  vampd_house_lock(house);
  house->expected -= count;
  vampd_house_unlock(house);
}

int vampd_house_enter(struct vampd_house *house, const struct vampd_store_job *jobs, const double *costs,
                      int count, bool expected, struct vampd_caller *caller, struct vamp_error *error) {
  int status = VAMP_OK;
  vampd_house_lock(house);
  house->expected -= expected ? count : 0;
  for (int i = 0; i < count && status == VAMP_OK; i++) {
    status = enter(house, &jobs[i], costs[i], caller, error);
  }
  vampd_house_unlock(house);
  return status;
}

/* ---- whose turn it is -----------------------------------------------------------------------------------
 */

static bool may_go(const struct vampd_live *live, double now) {
  return now >= live->not_before && !live->input->encoding;
}

/* The oldest of a queue that may go; NULL: none. */
static struct vampd_live *first_of(const struct vampd_queue *queue, double now) {
  struct vampd_live *live = queue->first;
  for (int i = 0; live && i < VAMPD_HOUSE_LOOK_AHEAD; i++, live = live->next_in_queue) {
    if (may_go(live, now)) {
      return live;
    }
  }
  return NULL;
}

static void begin_to_run(struct vampd_live *live) {
  struct vampd_house *house = live->house;
  unlink_from_queue(live);
  live->taken = true;
  live->queue->running++;
  live->next_running = house->running;
  house->running = live;
  house->running_count++;
  house->running_seconds += live->seconds;
}

static void end_running(struct vampd_live *live) {
  struct vampd_house *house = live->house;
  struct vampd_live **at = &house->running;
  while (*at != live) {
    at = &(*at)->next_running;
  }
  *at = live->next_running;
  live->taken = false;
  live->queue->running--;
  house->running_count--;
  house->running_seconds -= live->seconds;
}

/* Whether the device is to have this one too. */
static bool has_room(const struct vampd_house *house, const struct vampd_queue *queue,
                     const struct vampd_live *live) {
  return queue->running == 0 || (house->running_count < house->limits.running &&
                                 house->running_seconds + live->seconds <= house->limits.running_seconds);
}

struct vampd_live *vampd_house_take(struct vampd_house *house, double now) {
  if (house->preparing_count >= house->limits.preparing) {
    return NULL;
  }
  struct vampd_live *chosen = NULL;
  double least = 0;
  for (struct vampd_queue *queue = house->queues; queue; queue = queue->next) {
    double share = (double)queue->running / vampd_caller_priority(queue->caller);
    struct vampd_live *live = first_of(queue, now);
    bool better = !chosen || share < least || (share <= least && live && live->number < chosen->number);
    if (live && better && has_room(house, queue, live)) {
      chosen = live;
      least = share;
    }
  }
  if (!chosen) {
    return NULL;
  }
  begin_to_run(chosen);
  if (!chosen->input->codes && chosen->input->jobs > 1) {
    chosen->input->encoding = true;
    chosen->encodes = true;
  }
  vampd_live_enter_phase(chosen, VAMPD_PHASE_PREPARING);
  return chosen;
}

bool vampd_house_take_queued(struct vampd_live *live) {
  if (live->taken) {
    return false;
  }
  begin_to_run(live);
  return true;
}

static void stop_encoding(struct vampd_live *live) {
  if (live->encodes) {
    live->encodes = false;
    live->input->encoding = false;
  }
}

void vampd_house_put_back(struct vampd_live *live, double not_before) {
  stop_encoding(live);
  end_running(live);
  vampd_job_release(live->job);
  live->job = NULL;
  live->not_before = not_before;
  live->progress = live->committed = 0;
  live->step = live->steps = 0;
  link_into_queue(live, true);
  vampd_live_enter_phase(live, VAMPD_PHASE_QUEUED);
}

void vampd_house_leave(struct vampd_live *live, const char *event, json_t *data) {
  struct vampd_house *house = live->house;
  if (data) {
    vampd_events_tell(&live->events, vampd_events_final(live->attempts), event, data, true);
  }
  stop_encoding(live);
  end_running(live);
  house->preparing_count -= live->phase == VAMPD_PHASE_PREPARING;
  leave_input(house, live->input);
  struct vampd_live **at = &house->buckets[bucket_of(live->id)];
  while (*at != live) {
    at = &(*at)->next_same_hash;
  }
  *at = live->next_same_hash;
  free_live(live);
}

/* ---- what is told ----------------------------------------------------------------------------------------
 */

static void tell(struct vampd_live *live, const char *name, double rate) {
  int64_t number = vampd_events_number(&live->events);
  if (vampd_events_heard(&live->events)) {
    vampd_events_tell(&live->events, number, name, vampd_live_state_json(live, rate), false);
  }
}

void vampd_live_enter_phase(struct vampd_live *live, enum vampd_phase phase) {
  if (live->phase != phase) {
    live->house->preparing_count += (phase == VAMPD_PHASE_PREPARING) - (live->phase == VAMPD_PHASE_PREPARING);
    live->phase = phase;
    tell(live, "state", 0);
  }
}

void vampd_live_progress(struct vampd_live *live, const struct vamp_event *event, double rate) {
  static const enum vampd_phase PHASES[] = {
      [VAMP_QUEUED] = VAMPD_PHASE_PREPARING,  [VAMP_ENCODING] = VAMPD_PHASE_ENCODING,
      [VAMP_COARSE] = VAMPD_PHASE_GENERATING, [VAMP_FINE] = VAMPD_PHASE_GENERATING,
      [VAMP_DECODING] = VAMPD_PHASE_DECODING, [VAMP_FINISHED] = VAMPD_PHASE_DECODING,
  };
  live->progress = event->progress > live->progress ? event->progress : live->progress;
  live->step = event->step;
  live->steps = event->steps;
  live->committed = event->committed;
  vampd_live_enter_phase(live, PHASES[event->phase]);
  tell(live, "progress", rate);
}

bool vampd_house_has(struct vampd_house *house, const char *id) {
  vampd_house_lock(house);
  bool there = vampd_house_find(house, id) != NULL;
  vampd_house_unlock(house);
  return there;
}

enum vampd_phase vampd_house_phase(struct vampd_house *house, const char *id) {
  vampd_house_lock(house);
  const struct vampd_live *live = vampd_house_find(house, id);
  enum vampd_phase phase = live ? live->phase : VAMPD_PHASE_QUEUED;
  vampd_house_unlock(house);
  return phase;
}

void vampd_house_count(struct vampd_house *house, int *queued, int *running) {
  vampd_house_lock(house);
  *queued = house->waiting_count;
  *running = house->running_count;
  vampd_house_unlock(house);
}

void vampd_house_cancel_running(struct vampd_house *house) {
  vampd_house_lock(house);
  for (struct vampd_live *at = house->running; at; at = at->next_running) {
    if (at->job) {
      vampd_job_cancel(at->job);
    }
  }
  vampd_house_unlock(house);
}

static void each_live(struct vampd_house *house, void (*each)(struct vampd_events *events)) {
  vampd_house_lock(house);
  for (int i = 0; i < VAMPD_HOUSE_BUCKETS; i++) {
    for (struct vampd_live *live = house->buckets[i]; live; live = live->next_same_hash) {
      each(&live->events);
    }
  }
  vampd_house_unlock(house);
}

void vampd_house_keep_alive(struct vampd_house *house) {
  each_live(house, vampd_events_keep_alive);
}

void vampd_house_end_streams(struct vampd_house *house) {
  each_live(house, vampd_events_end);
}
