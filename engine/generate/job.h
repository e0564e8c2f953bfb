/*
 * One job inside the batch loop: its copies of what was submitted, how far it has come, and the
 * sequences it has on the device. Everything here belongs to the loop's thread, except job_make, which
 * any thread may call.
 */
#ifndef VAMP_ENGINE_GENERATE_JOB_H
#define VAMP_ENGINE_GENERATE_JOB_H

#include "vamp/generate.h"

/* A stretch of frames that is one sequence of a transformer. */
struct chunk {
  int64_t first;
  int32_t frames;
  int32_t total; /* masked at the start */
  int step;      /* next step; == steps when done */
  void *memory;  /* device: the arrays of `sequence` */
  struct vamp_sequence sequence;
};

struct client;

struct event_node;

struct job {
  uint64_t id;
  void *user;
  uint32_t client;
  float weight;
  struct client *owner; /* of that number; NULL where there was no memory for it: only fairness suffers */
  enum vamp_task task;
  struct vamp_sampling sampling;
  int codebooks; /* rows of codes and masks */
  int64_t frames;
  float *samples; /* [sample_count]; the input, NULL once encoded, or where it came encoded */
  size_t sample_count;
  int32_t *codes;                       /* [frames, codebooks] */
  int passes, pass;                     /* all, current */
  uint8_t *masks[VAMP_MASK_MAX_PASSES]; /* [codebooks, frames] */
  enum vamp_phase phase;
  int segment;          /* next of the codec */
  struct chunk *chunks; /* of the current stage, or NULL */
  int chunk_count;
  double work, work_done; /* in frames of one coarse step, for progress and order */
  double phase_began;     /* seconds */
  struct vamp_result *result;
  struct event_node *last_event; /* room for the event that ends it: that one must not fail */
  struct job *next;
};

/* VAMP_INVALID with the JSON pointer where it has one. */
int sampling_check(const struct vamp_sampling *sampling, int vocabulary, struct vamp_error *error);

/* Checks a submission and copies it. */
int job_make(const struct vamp_job *submission, const struct vamp_model_config *config, int64_t max_frames,
             struct job **job, struct vamp_error *error);
void job_free(struct job *job, struct vamp_device *device);

/* Enters the phase that follows, releasing the last one's chunks into the result, until there is work for
 * the device or nothing left (phase VAMP_FINISHED). Call it once to begin and whenever a phase's work is
 * done. */
int job_advance(struct job *job, struct vamp_model *model, double now, struct vamp_error *error);

/* True when the current phase has no work left. */
bool job_phase_done(const struct job *job, const struct vamp_model *model);

/* ---- chunk.c: the coarse or fine stage that job->phase names ---- */

/* Cuts the job into chunks and puts them on the device. */
int job_start_stage(struct job *job, struct vamp_model *model, struct vamp_error *error);
/* Brings tokens, steps and probabilities back into the job and its result, and frees the chunks. */
int job_finish_stage(struct job *job, struct vamp_model *model, struct vamp_error *error);
void job_free_chunks(struct job *job, struct vamp_device *device);

/* Fills what this step of the chunk needs in chunk->sequence. */
void chunk_prepare_step(const struct job *job, struct chunk *chunk);
/* After the step ran. */
void chunk_finish_step(struct chunk *chunk);
int chunk_steps(const struct job *job);
/* Steps done by the chunk that is furthest behind, and of the stage; 0 and 0 in other phases. */
void job_steps(const struct job *job, int *step, int *steps);
/* Share of the stage's masked tokens that are fixed; 0 in other phases. */
float job_committed(const struct job *job);

/* What a frame of this phase costs, in frames of one coarse step. */
double job_phase_cost(enum vamp_phase phase);

double job_now(void); /* seconds, monotonic */

#endif
