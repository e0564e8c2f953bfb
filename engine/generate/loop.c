/*
 * The batch loop. See vamp/generate.h for the contract and DESIGN in docs/architecture.md.
 *
 * Submissions enter through a mutex-protected queue; everything after that belongs to the loop's thread.
 * turn.c says what runs together and whose turn it is.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "engine/generate/turn.h"

#define MAX_SQUEEZE 6
#define SQUEEZED_TURNS 200

struct event_node {
  struct vamp_event event;
  struct event_node *next;
};

struct vamp_loop {
  struct vamp_model *model;
  struct vamp_loop_limits limits;

  pthread_mutex_t lock; /* guards what follows */
  pthread_cond_t wake;
  bool woken;
  struct job *incoming, **incoming_end;
  uint64_t next_id;
  int jobs;
  int64_t held_frames;
  double work;       /* of all jobs, that is still to be done */
  uint64_t *cancels; /* ids asked for, not yet seen by the loop */
  size_t cancel_count, cancel_room;

  /* the loop's thread only */
  struct job *active; /* oldest first */
  struct client *clients;
  struct event_node *events, **events_end;
  bool lost; /* the device failed */
  struct vamp_loop_turn last;
  int squeeze;  /* turns are 2^squeeze times smaller than the device would like, for want of memory */
  int squeezed; /* turns since that was last changed */
};

/* ---- submissions ---------------------------------------------------------------------------------- */

int vamp_loop_create(struct vamp_model *model, const struct vamp_loop_limits *limits, struct vamp_loop **out,
                     struct vamp_error *error) {
  struct vamp_loop *loop = calloc(1, sizeof *loop);
  if (!loop) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  loop->model = model;
  if (limits) {
    loop->limits = *limits;
  }
  loop->limits.max_jobs = loop->limits.max_jobs > 0 ? loop->limits.max_jobs : 1024;
  loop->limits.max_frames = loop->limits.max_frames > 0 ? loop->limits.max_frames : 60000;
  loop->limits.max_held_frames = loop->limits.max_held_frames > 0 ? loop->limits.max_held_frames : 2000000;
  loop->incoming_end = &loop->incoming;
  loop->events_end = &loop->events;
  loop->next_id = 1;
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&loop->wake, &attributes);
  pthread_condattr_destroy(&attributes);
  pthread_mutex_init(&loop->lock, NULL);
  *out = loop;
  return 0;
}

static void free_jobs(struct job *job, struct vamp_device *device) {
  while (job) {
    struct job *next = job->next;
    job_free(job, device);
    job = next;
  }
}

void vamp_loop_free(struct vamp_loop *loop) {
  if (!loop) {
    return;
  }
  struct vamp_event event;
  while (vamp_loop_next_event(loop, &event)) {
    vamp_result_free(event.result);
  }
  free_jobs(loop->active, vamp_model_device(loop->model));
  free_jobs(loop->incoming, vamp_model_device(loop->model));
  while (loop->clients) {
    struct client *next = loop->clients->next;
    free(loop->clients);
    loop->clients = next;
  }
  free(loop->cancels);
  pthread_cond_destroy(&loop->wake);
  pthread_mutex_destroy(&loop->lock);
  free(loop);
}

static void wake_locked(struct vamp_loop *loop) {
  loop->woken = true;
  pthread_cond_signal(&loop->wake);
}

void vamp_loop_wake(struct vamp_loop *loop) {
  pthread_mutex_lock(&loop->lock);
  wake_locked(loop);
  pthread_mutex_unlock(&loop->lock);
}

int vamp_loop_submit(struct vamp_loop *loop, const struct vamp_job *submission, uint64_t *id,
                     struct vamp_error *error) {
  /* Ask before copying: a full queue must cost nothing. */
  pthread_mutex_lock(&loop->lock);
  bool full = loop->jobs >= loop->limits.max_jobs || loop->held_frames >= loop->limits.max_held_frames;
  pthread_mutex_unlock(&loop->lock);
  if (full) {
    return vamp_fail(error, VAMP_BUSY, "the queue is full: try again later");
  }
  struct job *job;
  int status = job_make(submission, vamp_model_config(loop->model), loop->limits.max_frames, &job, error);
  if (status) {
    return status;
  }
  job->last_event = calloc(1, sizeof *job->last_event);
  if (!job->last_event) {
    job_free(job, vamp_model_device(loop->model));
    return vamp_fail(error, VAMP_MEMORY, "out of memory for a job");
  }
  pthread_mutex_lock(&loop->lock);
  if (loop->jobs >= loop->limits.max_jobs ||
      (loop->jobs > 0 && loop->held_frames + job->frames > loop->limits.max_held_frames)) {
    status = vamp_fail(error, VAMP_BUSY, "the queue is full: try again later");
  } else {
    job->id = loop->next_id++;
    loop->jobs++;
    loop->held_frames += job->frames;
    loop->work += job->work;
    *loop->incoming_end = job;
    loop->incoming_end = &job->next;
    *id = job->id;
    wake_locked(loop);
  }
  pthread_mutex_unlock(&loop->lock);
  if (status) {
    job_free(job, vamp_model_device(loop->model));
  }
  return status;
}

void vamp_loop_cancel(struct vamp_loop *loop, uint64_t id) {
  pthread_mutex_lock(&loop->lock);
  if (loop->cancel_count == loop->cancel_room) {
    size_t room = loop->cancel_room ? 2 * loop->cancel_room : 16;
    uint64_t *bigger = realloc(loop->cancels, room * sizeof *bigger);
    if (bigger) {
      loop->cancels = bigger;
      loop->cancel_room = room;
    }
  }
  if (loop->cancel_count < loop->cancel_room) {
    loop->cancels[loop->cancel_count++] = id;
  }
  wake_locked(loop);
  pthread_mutex_unlock(&loop->lock);
}

int vamp_loop_jobs(struct vamp_loop *loop) {
  pthread_mutex_lock(&loop->lock);
  int jobs = loop->jobs;
  pthread_mutex_unlock(&loop->lock);
  return jobs;
}

double vamp_loop_work(struct vamp_loop *loop) {
  pthread_mutex_lock(&loop->lock);
  double work = loop->work;
  pthread_mutex_unlock(&loop->lock);
  return work > 0 ? work : 0;
}

void vamp_loop_wait(struct vamp_loop *loop, double seconds) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  double end = (double)until.tv_sec + 1e-9 * (double)until.tv_nsec + (seconds > 0 ? seconds : 0);
  until.tv_sec = (time_t)end;
  until.tv_nsec = (long)((end - (double)until.tv_sec) * 1e9);
  pthread_mutex_lock(&loop->lock);
  while (!loop->woken && !loop->incoming && !loop->active &&
         pthread_cond_timedwait(&loop->wake, &loop->lock, &until) == 0) {
  }
  loop->woken = false;
  pthread_mutex_unlock(&loop->lock);
}

/* ---- events --------------------------------------------------------------------------------------- */

/* Progress that nobody has collected yet is replaced, so that the queue stays as long as the jobs. */
static struct event_node *pending_progress(struct vamp_loop *loop, uint64_t id) {
  for (struct event_node *n = loop->events; n; n = n->next) {
    if (n->event.job == id && n->event.type == VAMP_EVENT_PROGRESS) {
      return n;
    }
  }
  return NULL;
}

static struct vamp_event *add_event(struct vamp_loop *loop, struct job *job, enum vamp_event_type type) {
  struct event_node *node = type == VAMP_EVENT_PROGRESS ? pending_progress(loop, job->id) : NULL;
  if (!node) {
    if (type == VAMP_EVENT_PROGRESS) {
      node = calloc(1, sizeof *node);
    } else {
      node = job->last_event;
      job->last_event = NULL;
    }
    if (!node) {
      return NULL;
    }
    *loop->events_end = node;
    loop->events_end = &node->next;
  }
  node->event.type = type;
  node->event.job = job->id;
  node->event.user = job->user;
  node->event.phase = job->phase;
  job_steps(job, &node->event.step, &node->event.steps);
  node->event.committed = job_committed(job);
  node->event.progress = (float)(job->work_done < job->work ? job->work_done / job->work : 1.0);
  return &node->event;
}

int vamp_loop_next_event(struct vamp_loop *loop, struct vamp_event *event) {
  struct event_node *node = loop->events;
  if (!node) {
    return 0;
  }
  loop->events = node->next;
  if (!loop->events) {
    loop->events_end = &loop->events;
  }
  *event = node->event;
  free(node);
  return 1;
}

/* ---- jobs coming and going ------------------------------------------------------------------------ */

/* A client that comes back starts level with the least served: it has saved up nothing. */
static void client_join(struct vamp_loop *loop, struct job *job) {
  struct client *client = loop->clients;
  double least = -1;
  for (; client && client->id != job->client; client = client->next) {
    least = least < 0 || client->served < least ? client->served : least;
  }
  if (!client) {
    client = calloc(1, sizeof *client);
    if (!client) {
      return;
    }
    client->id = job->client;
    client->served = least > 0 ? least : 0;
    client->next = loop->clients;
    loop->clients = client;
  }
  client->jobs++;
  job->owner = client;
}

static void client_leave(struct vamp_loop *loop, const struct job *job) {
  if (!job->owner || --job->owner->jobs > 0) {
    return;
  }
  struct client **at = &loop->clients;
  while (*at != job->owner) {
    at = &(*at)->next;
  }
  *at = job->owner->next;
  free(job->owner);
}

/* Takes the job out of the active list and frees it; its result is gone or handed over by then. */
static void remove_job(struct vamp_loop *loop, struct job *job) {
  for (struct job **at = &loop->active; *at; at = &(*at)->next) {
    if (*at == job) {
      *at = job->next;
      break;
    }
  }
  client_leave(loop, job);
  pthread_mutex_lock(&loop->lock);
  loop->jobs--;
  loop->held_frames -= job->frames;
  loop->work = loop->jobs > 0 ? loop->work - (job->work - job->work_done) : 0; /* 0: no rounding piles up */
  pthread_mutex_unlock(&loop->lock);
  job_free(job, vamp_model_device(loop->model));
}

static void end_job(struct vamp_loop *loop, struct job *job, enum vamp_event_type type,
                    const struct vamp_error *error) {
  struct vamp_event *event = add_event(loop, job, type);
  if (event && type == VAMP_EVENT_DONE) {
    event->progress = 1.0f;
    event->result = job->result;
    job->result = NULL;
  }
  if (event && type == VAMP_EVENT_FAILED) {
    event->error = *error;
  }
  remove_job(loop, job);
}

/* Begins, continues or ends a job whose phase may be over. A device lost in between is noted; `failure` says
 * how. */
static void advance(struct vamp_loop *loop, struct job *job, struct vamp_error *failure) {
  struct vamp_error error = {0};
  int status = job_advance(job, loop->model, job_now(), &error);
  if (status) {
    if (!error.status) {
      vamp_fail(&error, status, "copying a job's tokens failed on the device");
    }
    if (status == VAMP_DEVICE) {
      loop->lost = true;
      *failure = error;
    }
    end_job(loop, job, VAMP_EVENT_FAILED, &error);
  } else if (job->phase == VAMP_FINISHED) {
    end_job(loop, job, VAMP_EVENT_DONE, NULL);
  } else {
    add_event(loop, job, VAMP_EVENT_PROGRESS);
  }
}

static void take_incoming(struct vamp_loop *loop) {
  pthread_mutex_lock(&loop->lock);
  struct job *fresh = loop->incoming;
  loop->incoming = NULL;
  loop->incoming_end = &loop->incoming;
  uint64_t *cancels = loop->cancels;
  size_t cancel_count = loop->cancel_count;
  loop->cancels = NULL;
  loop->cancel_count = loop->cancel_room = 0;
  pthread_mutex_unlock(&loop->lock);

  struct job **end = &loop->active;
  while (*end) {
    end = &(*end)->next;
  }
  *end = fresh;
  for (struct job *job = fresh; job; job = job->next) {
    client_join(loop, job);
  }
  for (size_t i = 0; i < cancel_count; i++) {
    for (struct job *job = loop->active; job; job = job->next) {
      if (job->id == cancels[i]) {
        end_job(loop, job, VAMP_EVENT_CANCELLED, NULL);
        break;
      }
    }
  }
  free(cancels);
}

/* For whoever measures, and whoever asks how much is left. */
static void note(struct vamp_loop *loop, const struct turn *turn) {
  loop->last = (struct vamp_loop_turn){.phase = turn->kind, .sequences = turn->count, .rows = turn->rows};
  for (int i = 0; i < turn->count; i++) {
    loop->last.cost += turn_cost(turn, i);
  }
  pthread_mutex_lock(&loop->lock);
  loop->work -= loop->last.cost;
  pthread_mutex_unlock(&loop->lock);
}

void vamp_loop_last_turn(const struct vamp_loop *loop, struct vamp_loop_turn *turn) {
  *turn = loop->last;
}

/* A failed turn fails the jobs in it. */
static void fail_turn(struct vamp_loop *loop, const struct turn *turn, const struct vamp_error *error) {
  for (int i = 0; i < turn->count; i++) {
    if (i == 0 || turn->jobs[i] != turn->jobs[i - 1]) {
      end_job(loop, turn->jobs[i], VAMP_EVENT_FAILED, error);
    }
  }
}

/* Too much for the device's memory is not the fault of the jobs in it: the same work is tried again in
 * smaller turns, which nothing but the clock can tell from larger ones. A turn that failed has changed
 * nothing. */
static bool try_smaller(struct vamp_loop *loop, const struct turn *turn) {
  bool smaller = turn->count > 1 && loop->squeeze < MAX_SQUEEZE;
  loop->squeeze += smaller;
  loop->squeezed = 0;
  loop->last = (struct vamp_loop_turn){0};
  return smaller;
}

/* 1 where there was something to run. */
static int run_turn(struct vamp_loop *loop, struct vamp_error *failure) {
  struct turn turn;
  turn_plan(&turn, loop->model, loop->active, loop->squeeze);
  int worked = turn.count > 0;
  int status = worked ? turn_run(&turn, loop->model, failure) : 0;
  if (status == VAMP_MEMORY && try_smaller(loop, &turn)) {
    *failure = (struct vamp_error){0};
  } else if (status) {
    failure->status = status;
    loop->lost = status == VAMP_DEVICE;
    fail_turn(loop, &turn, failure);
  } else {
    note(loop, &turn);
    turn_account(&turn);
    if (loop->squeeze > 0 && ++loop->squeezed == SQUEEZED_TURNS) {
      loop->squeeze--; /* there may be room again */
      loop->squeezed = 0;
    }
    for (int i = 0; i < turn.count && !loop->lost; i++) {
      if (i == 0 || turn.jobs[i] != turn.jobs[i - 1]) {
        advance(loop, turn.jobs[i], failure);
      }
    }
  }
  turn_free(&turn);
  return worked;
}

int vamp_loop_step(struct vamp_loop *loop, struct vamp_error *error) {
  struct vamp_error failure = {0};
  int worked = 0;
  take_incoming(loop);
  for (struct job *job = loop->active, *next; job && !loop->lost; job = next) {
    next = job->next;
    if (job->phase == VAMP_QUEUED) {
      advance(loop, job, &failure);
    }
  }
  if (!loop->lost) {
    worked = run_turn(loop, &failure);
  }
  if (!loop->lost) {
    return worked;
  }
  if (!failure.status) {
    vamp_fail(&failure, VAMP_DEVICE, "the device is lost: restart the program");
  }
  while (loop->active) {
    end_job(loop, loop->active, VAMP_EVENT_FAILED, &failure);
  }
  if (error) {
    *error = failure;
  }
  return VAMP_DEVICE;
}
