/*
 * See turn.h. A turn takes one kind of work (encode, coarse, fine, decode): that of the job whose turn it
 * is, and packs the same kind from other jobs behind it until the device is full (vamp_device.step_rows).
 *
 * Whose turn it is: first the client that has had the least so far, in frames of device work; among one
 * client's jobs, its turns alternate between the one with the least left, so that a short request does not
 * wait behind a long one, and the oldest, so that a long one is not starved by a stream of short ones.
 * Jobs of equal length thus run first come, first served, and finish one after the other rather than all
 * at the end. Round robin was rejected for just that.
 */
#include <stdlib.h>

#include "engine/generate/turn.h"

struct client *client_find(struct client *clients, uint32_t id) {
  while (clients && clients->id != id) {
    clients = clients->next;
  }
  return clients;
}

static double left(const struct job *job) {
  return job->work - job->work_done;
}

/* Whether a goes before b, a total order: all jobs of a client stand together. */
static bool before(struct client *clients, const struct job *a, const struct job *b) {
  const struct client *ca = client_find(clients, a->client);
  if (a->client != b->client) {
    const struct client *cb = client_find(clients, b->client);
    double sa = ca ? ca->served : 0, sb = cb ? cb->served : 0;
    /* Level clients go by their number, not by their jobs': that would order jobs in a circle. */
    return sa != sb ? sa < sb : a->client < b->client;
  }
  bool shortest = ca && ca->turns % 2 == 0;
  if (shortest && left(a) != left(b)) {
    return left(a) < left(b);
  }
  return a->id < b->id;
}

void turn_free(struct turn *turn) {
  free(turn->jobs);
  free(turn->chunks);
  free(turn->codec);
}

/* Adds one item unless it would overfill the turn; the first always fits. */
static bool turn_add(struct turn *turn, struct job *job, int chunk, const struct vamp_codec_work *work,
                     int64_t rows) {
  if (turn->count > 0 && turn->rows + rows > turn->room) {
    return false;
  }
  if ((turn->count & (turn->count - 1)) == 0) {
    size_t room = turn->count ? 2 * (size_t)turn->count : 1;
    struct job **jobs = realloc(turn->jobs, room * sizeof *jobs);
    turn->jobs = jobs ? jobs : turn->jobs;
    int *chunks = realloc(turn->chunks, room * sizeof *chunks);
    turn->chunks = chunks ? chunks : turn->chunks;
    struct vamp_codec_work *codec = realloc(turn->codec, room * sizeof *codec);
    turn->codec = codec ? codec : turn->codec;
    if (!jobs || !chunks || !codec) {
      return false;
    }
  }
  turn->jobs[turn->count] = job;
  turn->chunks[turn->count] = chunk;
  turn->codec[turn->count] = work ? *work : (struct vamp_codec_work){0};
  turn->count++;
  turn->rows += rows;
  return true;
}

/* As much of a job's current phase as fits. */
static void turn_fill(struct turn *turn, struct job *job, const struct vamp_model *model) {
  if (job->phase == VAMP_COARSE || job->phase == VAMP_FINE) {
    for (int c = 0; c < job->chunk_count; c++) {
      if (job->chunks[c].step < chunk_steps(job) && !turn_add(turn, job, c, NULL, job->chunks[c].frames)) {
        return;
      }
    }
    return;
  }
  int segments = vamp_model_segments(model, job->frames);
  for (int i = job->segment; i < segments; i++) {
    struct vamp_codec_work work = {.segment = vamp_model_segment(model, job->frames, i),
                                   .frames = job->frames,
                                   .samples =
                                       job->phase == VAMP_ENCODING ? job->samples : job->result->samples,
                                   .sample_count = job->sample_count,
                                   .codes = job->codes};
    if (!turn_add(turn, job, i, &work, vamp_model_segment_rows(model, job->frames, work.segment))) {
      return;
    }
  }
}

/* Takes the active jobs in the order of their turn until the device is full. */
void turn_plan(struct turn *turn, const struct vamp_model *model, struct job *active,
               struct client *clients) {
  const struct vamp_device *device = vamp_model_device(model);
  struct job *last = NULL;
  *turn = (struct turn){.kind = VAMP_FINISHED};
  for (;;) {
    struct job *next = NULL;
    for (struct job *job = active; job; job = job->next) {
      bool fits = turn->kind == VAMP_FINISHED || job->phase == turn->kind;
      if (fits && (!last || before(clients, last, job)) && (!next || before(clients, job, next))) {
        next = job;
      }
    }
    if (!next) {
      return;
    }
    if (turn->kind == VAMP_FINISHED) {
      turn->kind = next->phase;
      bool codec = turn->kind == VAMP_ENCODING || turn->kind == VAMP_DECODING;
      turn->room = codec ? device->codec_rows : device->step_rows;
    }
    turn_fill(turn, next, model);
    last = next;
    if (turn->rows >= turn->room) {
      return;
    }
  }
}

static int run_codec(struct vamp_model *model, struct turn *turn, struct vamp_error *error) {
  int status = turn->kind == VAMP_ENCODING
                   ? vamp_model_encode_segments(model, turn->count, turn->codec, error)
                   : vamp_model_decode_segments(model, turn->count, turn->codec, error);
  for (int i = 0; i < turn->count && !status; i++) {
    turn->jobs[i]->segment++;
  }
  return status;
}

static int run_step(struct vamp_model *model, struct turn *turn, struct vamp_error *error) {
  size_t count = (size_t)turn->count;
  struct vamp_sequence *sequences = malloc(sizeof *sequences * count);
  int64_t *offsets = malloc(sizeof *offsets * (count + 1));
  int status = sequences && offsets ? 0 : vamp_fail(error, VAMP_MEMORY, "out of memory");
  if (!status) {
    offsets[0] = 0;
    for (size_t i = 0; i < count; i++) {
      struct chunk *chunk = &turn->jobs[i]->chunks[turn->chunks[i]];
      chunk_prepare_step(turn->jobs[i], chunk);
      sequences[i] = chunk->sequence;
      offsets[i + 1] = offsets[i] + chunk->frames;
    }
    struct vamp_packing packing = {turn->count, offsets};
    enum vamp_stage stage = turn->kind == VAMP_COARSE ? VAMP_STAGE_COARSE : VAMP_STAGE_FINE;
    status = vamp_model_step(model, stage, &packing, sequences, error);
  }
  for (size_t i = 0; i < count && !status; i++) {
    chunk_finish_step(&turn->jobs[i]->chunks[turn->chunks[i]]);
  }
  free(sequences);
  free(offsets);
  return status;
}

int turn_run(struct turn *turn, struct vamp_model *model, struct vamp_error *error) {
  bool codec = turn->kind == VAMP_ENCODING || turn->kind == VAMP_DECODING;
  return codec ? run_codec(model, turn, error) : run_step(model, turn, error);
}
