/*
 * See turn.h. A turn takes one kind of work (encode, coarse, fine, decode): that of the job whose turn it
 * is, the leader, and packs the same kind from other jobs behind it until the device is full
 * (vamp_device.step_rows).
 *
 * Who leads: a job of the client that has had the least so far, in frames of device work over its weight.
 * Among one client's jobs it is either the one with the least left, so that a short request does not wait
 * behind a long one, or the oldest, so that a long one is not starved by a stream of short ones; which of
 * them, is decided by what each kind has had (client.lead), counted in work and not in turns, because a step
 * of a long job can cost twenty of a short one. Jobs of equal length thus run first come, first served, and
 * finish one after the other rather than all at the end. Round robin was rejected for just that.
 *
 * Who rides along: once the device is busy, more rows only make a turn longer, and a turn full of others'
 * work would make the leader wait for them after all. So another client may add about as many rows as the
 * leader's client has in the turn, and the leader's own client that much of jobs that have far more left
 * (LONGER_BY); an eighth of the device is free for anybody. A short job beside any number of long ones of one
 * other client, or of its own, so takes at most twice its time alone, and one step of theirs.
 */
#include <stdlib.h>

#include "engine/generate/turn.h"

#define LONGER_BY 4

/* A job's place in the order of this turn: all jobs of a client stand together. */
struct place {
  double served;
  uint32_t client; /* level clients go by number, not by their jobs': that would order jobs in a circle */
  double left;     /* 0 where the oldest goes first */
  uint64_t id;
  struct job *job;
};

static int by_place(const void *a, const void *b) {
  const struct place *x = a, *y = b;
  if (x->served != y->served) {
    return x->served < y->served ? -1 : 1;
  }
  if (x->client != y->client) {
    return x->client < y->client ? -1 : 1;
  }
  if (x->left != y->left) {
    return x->left < y->left ? -1 : 1;
  }
  return x->id < y->id ? -1 : 1;
}

/* The active jobs in the order of their turn, malloc'd; NULL where there are none, or no memory. */
static struct place *order(struct job *active, size_t *count) {
  *count = 0;
  for (struct job *job = active; job; job = job->next) {
    ++*count;
  }
  struct place *places = *count ? malloc(sizeof *places * *count) : NULL;
  struct place *to = places;
  for (struct job *job = active; places && job; job = job->next) {
    const struct client *client = job->owner;
    bool shortest = client && client->lead >= 0;
    *to++ = (struct place){.served = client ? client->served : 0,
                           .client = job->client,
                           .left = shortest ? job->work - job->work_done : 0,
                           .id = job->id,
                           .job = job};
  }
  if (places) {
    qsort(places, *count, sizeof *places, by_place);
  }
  return places;
}

void turn_free(struct turn *turn) {
  free(turn->jobs);
  free(turn->chunks);
  free(turn->codec);
}

/* Adds one item unless it would overfill the turn or take it beyond `most` rows; the first always fits. */
static bool turn_add(struct turn *turn, struct job *job, int chunk, const struct vamp_codec_work *work,
                     int64_t rows, int64_t most) {
  if (turn->count > 0 && (turn->rows + rows > turn->room || turn->rows + rows > most)) {
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

/* As much of a job's current phase as fits, up to `most` rows of the turn in all. */
static void turn_fill(struct turn *turn, struct job *job, const struct vamp_model *model, int64_t most) {
  if (job->phase == VAMP_COARSE || job->phase == VAMP_FINE) {
    for (int c = 0; c < job->chunk_count; c++) {
      if (job->chunks[c].step < chunk_steps(job) &&
          !turn_add(turn, job, c, NULL, job->chunks[c].frames, most)) {
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
    if (!turn_add(turn, job, i, &work, vamp_model_segment_rows(model, job->frames, work.segment), most)) {
      return;
    }
  }
}

static bool is_much_longer(const struct job *job, const struct job *leader) {
  return job->work - job->work_done > LONGER_BY * (leader->work - leader->work_done);
}

/* Fills the turn from the jobs in their order; see the top for who may add how much. */
static void turn_pack(struct turn *turn, const struct vamp_model *model, const struct place *places,
                      size_t count) {
  const struct job *leader = places[0].job;
  int64_t long_rows = 0, free_rows = turn->room / 8;
  for (size_t i = 0; i < count && turn->rows < turn->room; i++) {
    struct job *job = places[i].job;
    if (job->phase != turn->kind) {
      continue;
    }
    int64_t before = turn->rows, *used = NULL;
    if (job->client != leader->client) {
      used = job->owner ? &job->owner->riding : NULL;
    } else if (!turn->oldest_first && job != leader && is_much_longer(job, leader)) {
      used = &long_rows;
    }
    int64_t most = turn->room;
    if (used) {
      int64_t share = turn->own + turn->own / 64; /* room for a clip that is a frame longer */
      most = before + (share > free_rows ? share : free_rows) - *used;
    }
    turn_fill(turn, job, model, most);
    if (used) {
      *used += turn->rows - before;
    } else if (job->client == leader->client) {
      turn->own += turn->rows - before;
    }
  }
}

/* Takes the active jobs in the order of their turn until the device is full. */
void turn_plan(struct turn *turn, const struct vamp_model *model, struct job *active, int squeeze) {
  const struct vamp_device *device = vamp_model_device(model);
  *turn = (struct turn){.kind = VAMP_FINISHED};
  size_t count;
  struct place *places = order(active, &count);
  if (!places) {
    return;
  }
  turn->kind = places[0].job->phase;
  turn->oldest_first = places[0].job->owner && places[0].job->owner->lead < 0;
  bool codec = turn->kind == VAMP_ENCODING || turn->kind == VAMP_DECODING;
  turn->room = (codec ? device->codec_rows : device->step_rows) >> squeeze;
  for (size_t i = 0; i < count; i++) {
    if (places[i].job->owner) {
      places[i].job->owner->riding = 0;
    }
  }
  turn_pack(turn, model, places, count);
  free(places);
}

double turn_cost(const struct turn *turn, int item) {
  const struct job *job = turn->jobs[item];
  int64_t rows = turn->kind == VAMP_COARSE || turn->kind == VAMP_FINE ? job->chunks[turn->chunks[item]].frames
                                                                      : turn->codec[item].segment.frames;
  return (double)rows * job_phase_cost(turn->kind);
}

void turn_account(const struct turn *turn) {
  struct client *client = turn->count > 0 ? turn->jobs[0]->owner : NULL;
  double lead = 0, whole = 0;
  for (int i = 0; i < turn->count; i++) {
    struct job *job = turn->jobs[i];
    double cost = turn_cost(turn, i);
    whole += cost;
    if (job->owner == client) {
      lead +=
          turn->oldest_first || (job != turn->jobs[0] && is_much_longer(job, turn->jobs[0])) ? cost : -cost;
    }
    if (job->owner) {
      job->owner->served += cost / (double)job->weight;
    }
  }
  for (int i = 0; i < turn->count; i++) {
    turn->jobs[i]->work_done += turn_cost(turn, i);
  }
  /* A job that is alone of its kind owes nobody anything. */
  if (client) {
    lead += client->lead;
    client->lead = client->jobs < 2 ? 0 : lead > whole ? whole : lead < -whole ? -whole : lead;
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
