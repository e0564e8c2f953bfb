/*
 * See job.h. A variation goes: encode, then for each pass coarse and fine, then decode.
 */
#include "engine/generate/job.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Cost of a frame relative to one coarse step, from the official dimensions (docs/performance.md). */
static const double encode_cost = 1.3, fine_cost = 0.8, decode_cost = 5.0;

double job_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- making and checking -------------------------------------------------------------------------- */

static int64_t frames_of(size_t samples, const struct vamp_model_config *config) {
  size_t hop = (size_t)config->codec.hop_length;
  return (int64_t)(samples / hop + (samples % hop != 0));
}

static int check_tokens(const struct vamp_job *s, const struct vamp_model_config *config,
                        struct vamp_error *error) {
  size_t count = (size_t)s->codebooks * (size_t)s->frames;
  int vocabulary = config->coarse.vocab_size;
  /* A stage alone never looks at what its mask opens; what it is conditioned on is used whatever the mask
   * says. A variation keeps the edges of its chunks whatever the mask says, so any of its tokens may be used.
   */
  bool stage = s->task == VAMP_TASK_COARSE || s->task == VAMP_TASK_FINE;
  int conditioning = s->task == VAMP_TASK_FINE ? config->fine.n_conditioning_codebooks : 0;
  size_t fixed = (size_t)conditioning * (size_t)s->frames;
  for (size_t i = 0; i < count; i++) {
    bool masked = stage && i >= fixed && s->masks[0].data[i];
    if (!masked && (s->codes[i] < 0 || s->codes[i] >= vocabulary)) {
      return vamp_fail(error, VAMP_INVALID, "token %d at codebook %zu, frame %zu: tokens are 0 to %d",
                       (int)s->codes[i], i / (size_t)s->frames, i % (size_t)s->frames, vocabulary - 1);
    }
  }
  return 0;
}

/* Whether the way begins with samples; otherwise with codes. */
static bool starts_from_samples(const struct vamp_job *s) {
  return s->task == VAMP_TASK_ENCODE || (s->task == VAMP_TASK_VARIATION && !s->codes);
}

static int check(const struct vamp_job *s, const struct vamp_model_config *config, int64_t frames,
                 int64_t max_frames, struct vamp_error *error) {
  bool from_samples = starts_from_samples(s);
  bool stage = s->task == VAMP_TASK_COARSE || s->task == VAMP_TASK_FINE;
  int codebooks = s->task == VAMP_TASK_COARSE ? config->coarse.n_codebooks : config->codec.n_codebooks;
  if (frames < 1) {
    return vamp_fail(error, VAMP_INVALID, from_samples ? "the clip holds no samples" : "there are no frames");
  }
  if (s->task == VAMP_TASK_VARIATION && !from_samples && frames != frames_of(s->sample_count, config)) {
    return vamp_fail(error, VAMP_INVALID, "%lld frames of codes for %zu samples", (long long)frames,
                     s->sample_count);
  }
  if (frames > max_frames) {
    return vamp_fail(error, VAMP_LIMIT, "%lld frames: at most %lld in one job", (long long)frames,
                     (long long)max_frames);
  }
  if (!from_samples && s->codebooks != codebooks) {
    return vamp_fail(error, VAMP_INVALID, "%d codebooks: this model wants %d here", s->codebooks, codebooks);
  }
  int passes = s->task == VAMP_TASK_VARIATION ? s->passes : stage;
  if (passes < 0 || passes > VAMP_MASK_MAX_PASSES || (s->task == VAMP_TASK_VARIATION && passes < 1)) {
    return vamp_fail(error, VAMP_INVALID, "%d passes: 1 to %d", s->passes, VAMP_MASK_MAX_PASSES);
  }
  for (int p = 0; p < passes; p++) {
    if (!s->masks[p].data || s->masks[p].codebooks != codebooks || s->masks[p].frames != frames) {
      return vamp_fail(error, VAMP_INVALID, "mask %d is %d x %d, the clip %d codebooks x %lld frames", p,
                       s->masks[p].codebooks, s->masks[p].frames, codebooks, (long long)frames);
    }
  }
  int status = sampling_check(&s->sampling, config->coarse.vocab_size, error);
  return status || from_samples ? status : check_tokens(s, config, error);
}

double job_phase_cost(enum vamp_phase phase) {
  switch (phase) {
  case VAMP_ENCODING:
    return encode_cost;
  case VAMP_FINE:
    return fine_cost;
  case VAMP_DECODING:
    return decode_cost;
  default:
    return 1.0;
  }
}

double vamp_job_cost(enum vamp_task task, int64_t frames, int passes, const struct vamp_sampling *sampling) {
  double coarse = sampling->coarse_steps, fine = fine_cost * sampling->fine_steps, each = 0;
  switch (task) {
  case VAMP_TASK_ENCODE:
    each = encode_cost;
    break;
  case VAMP_TASK_DECODE:
    each = decode_cost;
    break;
  case VAMP_TASK_COARSE:
    each = coarse;
    break;
  case VAMP_TASK_FINE:
    each = fine;
    break;
  case VAMP_TASK_VARIATION:
    each = encode_cost + passes * (coarse + fine) + decode_cost;
    break;
  }
  return (double)frames * each;
}

static double job_work(const struct job *job) {
  bool encoded = job->task == VAMP_TASK_VARIATION && !job->samples;
  return vamp_job_cost(job->task, job->frames, job->passes, &job->sampling) -
         (encoded ? (double)job->frames * encode_cost : 0);
}

static int32_t *new_tokens(const struct job *job) {
  return malloc(sizeof(int32_t) * (size_t)job->codebooks * (size_t)job->frames);
}

/* [codebooks, frames] <-> [frames, codebooks] */
static void to_frames(const int32_t *from, int codebooks, int64_t frames, int32_t *to) {
  for (int64_t t = 0; t < frames; t++) {
    for (int c = 0; c < codebooks; c++) {
      *to++ = from[(int64_t)c * frames + t];
    }
  }
}

static void to_codebooks(const int32_t *from, int codebooks, int64_t frames, int32_t *to) {
  for (int64_t t = 0; t < frames; t++) {
    for (int c = 0; c < codebooks; c++) {
      to[(int64_t)c * frames + t] = *from++;
    }
  }
}

static int copy_submission(const struct vamp_job *s, struct job *job) {
  size_t count = (size_t)job->codebooks * (size_t)job->frames;
  job->result = calloc(1, sizeof *job->result);
  job->codes = new_tokens(job);
  if (!job->result || !job->codes) {
    return VAMP_MEMORY;
  }
  if (starts_from_samples(s)) {
    job->samples = malloc(sizeof *job->samples * s->sample_count);
    if (!job->samples) {
      return VAMP_MEMORY;
    }
    memcpy(job->samples, s->samples, sizeof *job->samples * s->sample_count);
  } else {
    to_frames(s->codes, job->codebooks, job->frames, job->codes);
  }
  for (int p = 0; p < job->passes; p++) {
    job->masks[p] = malloc(count);
    if (!job->masks[p]) {
      return VAMP_MEMORY;
    }
    memcpy(job->masks[p], s->masks[p].data, count);
  }
  return 0;
}

int job_make(const struct vamp_job *submission, const struct vamp_model_config *config, int64_t max_frames,
             struct job **out, struct vamp_error *error) {
  bool from_samples = starts_from_samples(submission);
  int64_t frames = from_samples ? frames_of(submission->sample_count, config) : submission->frames;
  int status = check(submission, config, frames, max_frames, error);
  if (status) {
    return status;
  }
  struct job *job = calloc(1, sizeof *job);
  if (!job) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory for a job");
  }
  job->task = submission->task;
  job->user = submission->user;
  job->client = submission->client;
  job->weight = submission->weight > 0 ? submission->weight : 1;
  job->sampling = submission->sampling;
  job->frames = frames;
  job->codebooks =
      submission->task == VAMP_TASK_COARSE ? config->coarse.n_codebooks : config->codec.n_codebooks;
  bool has_samples = from_samples || submission->task == VAMP_TASK_VARIATION;
  job->sample_count = has_samples ? submission->sample_count : 0;
  job->passes = submission->task == VAMP_TASK_VARIATION ? submission->passes
                : submission->task == VAMP_TASK_COARSE || submission->task == VAMP_TASK_FINE ? 1
                                                                                             : 0;
  job->phase_began = job_now();
  status = copy_submission(submission, job);
  if (status) {
    job_free(job, NULL);
    return vamp_fail(error, status, "out of memory for a job of %lld frames", (long long)frames);
  }
  job->result->codebooks = job->codebooks;
  job->result->frames = (int)job->frames;
  job->result->passes = job->passes;
  job->work = job_work(job);
  *out = job;
  return 0;
}

void job_free(struct job *job, struct vamp_device *device) {
  if (!job) {
    return;
  }
  job_free_chunks(job, device);
  free(job->samples);
  free(job->codes);
  for (int p = 0; p < job->passes; p++) {
    free(job->masks[p]);
  }
  vamp_result_free(job->result);
  free(job->last_event);
  free(job);
}

void vamp_result_free(struct vamp_result *result) {
  if (!result) {
    return;
  }
  for (int p = 0; p < VAMP_MASK_MAX_PASSES; p++) {
    free(result->pass_before[p]);
    free(result->pass_after[p]);
    free(result->committed_step[p]);
    free(result->confidence[p]);
  }
  free(result->codes_before);
  free(result->codes);
  free(result->samples);
  free(result);
}

/* ---- phases --------------------------------------------------------------------------------------- */

static int start_pass(struct job *job, struct vamp_error *error) {
  struct vamp_result *r = job->result;
  size_t count = (size_t)job->codebooks * (size_t)job->frames;
  int p = job->pass;
  r->pass_before[p] = new_tokens(job);
  r->pass_after[p] = new_tokens(job);
  r->committed_step[p] = malloc(sizeof(int32_t) * count);
  r->confidence[p] = malloc(sizeof(float) * count);
  if (!r->pass_before[p] || !r->pass_after[p] || !r->committed_step[p] || !r->confidence[p]) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  to_codebooks(job->codes, job->codebooks, job->frames, r->pass_before[p]);
  for (size_t i = 0; i < count; i++) {
    r->committed_step[p][i] = -1;
    r->confidence[p][i] = 1.0f;
  }
  return 0;
}

static int start_decode(struct job *job, const struct vamp_model *model, struct vamp_error *error) {
  size_t hop = (size_t)vamp_model_config(model)->codec.hop_length;
  job->segment = 0;
  job->result->samples = malloc(sizeof(float) * hop * (size_t)job->frames);
  return job->result->samples ? 0 : vamp_fail(error, VAMP_MEMORY, "out of memory for the result");
}

static int keep_codes(struct job *job, int32_t **to, struct vamp_error *error) {
  *to = new_tokens(job);
  if (!*to) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  to_codebooks(job->codes, job->codebooks, job->frames, *to);
  return 0;
}

/* The phase after `phase`, by task. */
static enum vamp_phase following(const struct job *job) {
  switch (job->phase) {
  case VAMP_QUEUED:
    return job->task == VAMP_TASK_DECODE   ? VAMP_DECODING
           : job->task == VAMP_TASK_COARSE ? VAMP_COARSE
           : job->task == VAMP_TASK_FINE   ? VAMP_FINE
           : job->samples                  ? VAMP_ENCODING
                                           : VAMP_COARSE;
  case VAMP_ENCODING:
    return job->task == VAMP_TASK_ENCODE ? VAMP_FINISHED : VAMP_COARSE;
  case VAMP_COARSE:
    return job->task == VAMP_TASK_COARSE ? VAMP_FINISHED : VAMP_FINE;
  case VAMP_FINE:
    if (job->task == VAMP_TASK_FINE) {
      return VAMP_FINISHED;
    }
    return job->pass + 1 < job->passes ? VAMP_COARSE : VAMP_DECODING;
  case VAMP_DECODING:
  case VAMP_FINISHED:
    break;
  }
  return VAMP_FINISHED;
}

static int leave_phase(struct job *job, struct vamp_model *model, double now, struct vamp_error *error) {
  struct vamp_result *r = job->result;
  double spent = now - job->phase_began;
  int status = 0;
  switch (job->phase) {
  case VAMP_QUEUED:
    r->seconds.queued = spent;
    if (!job->samples) {
      status = keep_codes(job, &r->codes_before, error);
    }
    break;
  case VAMP_ENCODING:
    r->seconds.encode = spent;
    free(job->samples);
    job->samples = NULL;
    status = keep_codes(job, &r->codes_before, error);
    break;
  case VAMP_COARSE:
    r->seconds.coarse += spent;
    status = job_finish_stage(job, model, error);
    break;
  case VAMP_FINE:
    r->seconds.fine += spent;
    status = job_finish_stage(job, model, error);
    break;
  case VAMP_DECODING:
    r->seconds.decode = spent;
    r->sample_count = job->task == VAMP_TASK_VARIATION
                          ? job->sample_count
                          : (size_t)job->frames * (size_t)vamp_model_config(model)->codec.hop_length;
    break;
  case VAMP_FINISHED:
    break;
  }
  bool pass_over = job->phase == VAMP_FINE || (job->phase == VAMP_COARSE && job->task == VAMP_TASK_COARSE);
  if (!status && pass_over) {
    to_codebooks(job->codes, job->codebooks, job->frames, r->pass_after[job->pass]);
  }
  job->phase_began = now;
  return status;
}

static int enter_phase(struct job *job, enum vamp_phase next, struct vamp_model *model,
                       struct vamp_error *error) {
  bool more_passes = job->phase == VAMP_FINE && next == VAMP_COARSE;
  int status = 0;
  job->pass += more_passes;
  job->phase = next;
  job->segment = 0;
  if (next == VAMP_COARSE || (next == VAMP_FINE && job->task == VAMP_TASK_FINE)) {
    status = start_pass(job, error);
  }
  if (!status && (next == VAMP_COARSE || next == VAMP_FINE)) {
    status = job_start_stage(job, model, error);
  } else if (next == VAMP_DECODING) {
    status = start_decode(job, model, error);
  } else if (next == VAMP_FINISHED) {
    status = keep_codes(job, &job->result->codes, error);
  }
  return status;
}

bool job_phase_done(const struct job *job, const struct vamp_model *model) {
  switch (job->phase) {
  case VAMP_QUEUED:
    return true;
  case VAMP_ENCODING:
  case VAMP_DECODING:
    return job->segment >= vamp_model_segments(model, job->frames);
  case VAMP_COARSE:
  case VAMP_FINE:
    for (int c = 0; c < job->chunk_count; c++) {
      if (job->chunks[c].step < chunk_steps(job)) {
        return false;
      }
    }
    return true;
  case VAMP_FINISHED:
    break;
  }
  return false;
}

int job_advance(struct job *job, struct vamp_model *model, double now, struct vamp_error *error) {
  while (job_phase_done(job, model)) {
    int status = leave_phase(job, model, now, error);
    if (!status) {
      status = enter_phase(job, following(job), model, error);
    }
    if (status) {
      return status;
    }
  }
  return 0;
}
