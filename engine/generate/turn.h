/*
 * One turn of the batch loop: which sequences run together, and running them. Belongs to the loop's thread.
 */
#ifndef VAMP_ENGINE_GENERATE_TURN_H
#define VAMP_ENGINE_GENERATE_TURN_H

#include "engine/generate/job.h"

/* A client with jobs in the loop. */
struct client {
  uint32_t id;
  double served;
  double lead; /* what its long jobs had more than its short ones: see turn.c */
  int jobs;
  int64_t riding; /* rows it has in a turn that is being planned and is not its own */
  struct client *next;
};

/* What a turn runs. */
struct turn {
  enum vamp_phase kind;
  int64_t rows, room;
  int64_t own;       /* rows of the leader's client, without those of its much longer jobs */
  bool oldest_first; /* the leader was chosen for its age */
  int count;
  struct job **jobs;             /* [count]: whose work item i is */
  int *chunks;                   /* [count]: coarse and fine */
  struct vamp_codec_work *codec; /* [count]: encode and decode */
};

/* Takes the active jobs (oldest first) in the order of their turn until the device is full; count 0 where
 * there is no work. `squeeze`: it counts as full with a half, a quarter ... of what it usually takes. */
void turn_plan(struct turn *turn, const struct vamp_model *model, struct job *active, int squeeze);
void turn_free(struct turn *turn);

/* After it ran: counts its work towards its jobs and clients. */
void turn_account(const struct turn *turn);
double turn_cost(const struct turn *turn, int item);

/* Runs it and moves its jobs on by a segment or a step. */
int turn_run(struct turn *turn, struct vamp_model *model, struct vamp_error *error);

#endif
