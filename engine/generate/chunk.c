/*
 * A job's stage of generation as sequences on the device. Chunks are cut as docs/model.md says: ten seconds
 * for coarse, three for fine; a coarse chunk that keeps anything keeps its first and last frame too, so
 * that chunks join without a click. See job.h.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/generate/job.h"
#include "vamp/random.h"

void job_free_chunks(struct job *job, struct vamp_device *device) {
  for (int c = 0; c < job->chunk_count; c++) {
    if (job->chunks[c].memory) {
      device->ops->release(device, job->chunks[c].memory);
    }
  }
  free(job->chunks);
  job->chunks = NULL;
  job->chunk_count = 0;
}

static const struct vamp_transformer_config *stage_config(const struct job *job,
                                                          const struct vamp_model_config *config) {
  return job->phase == VAMP_COARSE ? &config->coarse : &config->fine;
}

int chunk_steps(const struct job *job) {
  return job->phase == VAMP_COARSE ? job->sampling.coarse_steps : job->sampling.fine_steps;
}

void job_steps(const struct job *job, int *step, int *steps) {
  *steps = job->chunk_count > 0 ? chunk_steps(job) : 0;
  *step = *steps;
  for (int c = 0; c < job->chunk_count; c++) {
    *step = job->chunks[c].step < *step ? job->chunks[c].step : *step;
  }
}

float job_committed(const struct job *job) {
  int64_t total = 0, masked = 0;
  for (int c = 0; c < job->chunk_count; c++) {
    total += job->chunks[c].total;
    masked += job->chunks[c].sequence.masked;
  }
  return job->chunk_count == 0 ? 0 : total == 0 ? 1 : (float)(total - masked) / (float)total;
}

static int64_t chunk_frames(const struct job *job, const struct vamp_codec_config *codec) {
  if (job->task != VAMP_TASK_VARIATION) {
    return job->frames;
  }
  int64_t seconds = job->phase == VAMP_COARSE ? 10 : 3;
  return (seconds * codec->sample_rate + codec->hop_length - 1) / codec->hop_length;
}

/* Clears the mask at both ends of a coarse chunk that keeps anything. */
static void keep_edges(const struct job *job, const struct chunk *chunk, int codebooks) {
  uint8_t *mask = job->masks[job->pass];
  bool keeps = false;
  for (int c = 0; c < codebooks && !keeps; c++) {
    keeps = memchr(mask + (size_t)c * (size_t)job->frames + chunk->first, 0, (size_t)chunk->frames) != NULL;
  }
  for (int c = 0; c < codebooks && keeps; c++) {
    mask[(size_t)c * (size_t)job->frames + (size_t)chunk->first] = 0;
    mask[(size_t)c * (size_t)job->frames + (size_t)(chunk->first + chunk->frames - 1)] = 0;
  }
}

/* The chunk's arrays on the device: tokens [T, C], then sampled, probability, confidence, committed
 * [T, P] each. */
static int chunk_upload(const struct job *job, struct chunk *chunk, struct vamp_device *device,
                        const struct vamp_transformer_config *config, struct vamp_error *error) {
  size_t codebooks = (size_t)config->n_codebooks, frames = (size_t)chunk->frames;
  size_t conditioning = (size_t)config->n_conditioning_codebooks, predicted = codebooks - conditioning;
  size_t tokens = frames * codebooks, positions = frames * predicted;
  const uint8_t *mask = job->masks[job->pass];
  int32_t *host = malloc(sizeof *host * (tokens + positions));
  if (!host) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  int32_t *committed = host + tokens;
  for (size_t t = 0; t < frames; t++) {
    size_t frame = (size_t)chunk->first + t;
    for (size_t c = 0; c < codebooks; c++) {
      bool masked = c >= conditioning && mask[c * (size_t)job->frames + frame];
      chunk->total += masked;
      host[t * codebooks + c] = masked ? config->vocab_size : job->codes[frame * (size_t)job->codebooks + c];
    }
  }
  for (size_t i = 0; i < positions; i++) {
    committed[i] = -1;
  }
  int status = device->ops->allocate(device, 4 * (tokens + 4 * positions), &chunk->memory, error);
  if (!status) {
    int32_t *at = chunk->memory;
    struct vamp_sequence *s = &chunk->sequence;
    s->tokens = at;
    s->committed = at + tokens;
    s->sampled = s->committed + positions;
    s->probability = (float *)(s->sampled + positions);
    s->confidence = s->probability + positions;
    status = device->ops->upload(device, at, host, sizeof *host * (tokens + positions));
  }
  free(host);
  return status;
}

int job_start_stage(struct job *job, struct vamp_model *model, struct vamp_error *error) {
  const struct vamp_model_config *config = vamp_model_config(model);
  const struct vamp_transformer_config *stage = stage_config(job, config);
  struct vamp_device *device = vamp_model_device(model);
  int64_t size = chunk_frames(job, &config->codec);
  int count = (int)((job->frames + size - 1) / size);
  job->chunks = calloc((size_t)count, sizeof *job->chunks);
  if (!job->chunks) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  job->chunk_count = count;
  for (int c = 0; c < count; c++) {
    struct chunk *chunk = &job->chunks[c];
    chunk->first = c * size;
    chunk->frames = (int32_t)(job->frames - chunk->first < size ? job->frames - chunk->first : size);
    if (job->phase == VAMP_COARSE && job->task == VAMP_TASK_VARIATION) {
      keep_edges(job, chunk, stage->n_codebooks);
    }
    int status = chunk_upload(job, chunk, device, stage, error);
    if (status) {
      return status;
    }
    struct vamp_sequence *s = &chunk->sequence;
    s->seed = job->sampling.seed;
    s->counter = (uint32_t)job->pass << 24 | (uint32_t)c;
    s->stream = job->phase == VAMP_COARSE ? VAMP_STREAM_COARSE : VAMP_STREAM_FINE;
    s->temperature = job->sampling.temperature;
    s->top_k = job->sampling.top_k;
    s->top_p = job->sampling.top_p;
    s->typical_mass = job->sampling.typical_mass;
    s->typical_min = job->sampling.typical_min_tokens;
    s->masked = chunk->total;
    if (chunk->total == 0) {
      chunk->step = chunk_steps(job);
    }
  }
  return 0;
}

void chunk_prepare_step(const struct job *job, struct chunk *chunk) {
  struct vamp_sequence *s = &chunk->sequence;
  const struct vamp_sampling *sampling = &job->sampling;
  int steps = chunk_steps(job);
  s->step = chunk->step;
  s->argmax = sampling->greedy || (float)chunk->step / (float)steps > sampling->sample_cutoff;
  s->noise =
      sampling->greedy ? 0 : sampling->mask_temperature * (1.0f - (float)(chunk->step + 1) / (float)steps);
  s->keep_masked = vamp_schedule_keep_masked(chunk->step, steps, chunk->total, s->masked);
}

void chunk_finish_step(struct chunk *chunk) {
  chunk->sequence.masked = chunk->sequence.keep_masked;
  chunk->step++;
}

/* Brings a stage's tokens, steps and probabilities back into the job and its result. */
int job_finish_stage(struct job *job, struct vamp_model *model, struct vamp_error *error) {
  struct vamp_device *device = vamp_model_device(model);
  const struct vamp_transformer_config *stage = stage_config(job, vamp_model_config(model));
  size_t codebooks = (size_t)stage->n_codebooks, conditioning = (size_t)stage->n_conditioning_codebooks;
  size_t predicted = codebooks - conditioning;
  int32_t *step = job->result->committed_step[job->pass];
  float *confidence = job->result->confidence[job->pass];
  int status = 0;
  for (int c = 0; c < job->chunk_count && !status; c++) {
    struct chunk *chunk = &job->chunks[c];
    size_t frames = (size_t)chunk->frames, tokens = frames * codebooks, positions = frames * predicted;
    int32_t *host = malloc(sizeof *host * (tokens + 3 * positions));
    if (!host) {
      return vamp_fail(error, VAMP_MEMORY, "out of memory");
    }
    status = device->ops->download(device, host, chunk->memory, sizeof *host * (tokens + 3 * positions));
    const int32_t *committed = host + tokens;
    const float *probability = (const float *)(committed + 2 * positions);
    for (size_t t = 0; t < frames && !status; t++) {
      size_t frame = (size_t)chunk->first + t;
      for (size_t p = 0; p < predicted; p++) {
        size_t at = t * predicted + p, codebook = conditioning + p;
        if (committed[at] >= 0) {
          job->codes[frame * (size_t)job->codebooks + codebook] = host[t * codebooks + codebook];
          step[codebook * (size_t)job->frames + frame] = committed[at];
          confidence[codebook * (size_t)job->frames + frame] = probability[at];
        }
      }
    }
    free(host);
  }
  job_free_chunks(job, device);
  return status;
}
