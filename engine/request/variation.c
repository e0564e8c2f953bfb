/*
 * One variation around its turn in the batch loop: what is done to the clip before, to the result after.
 *
 *   prepare   the audio becomes a clip (mono, the model's rate, -24 LUFS), the clip's length in frames
 *             decides the size of the masks, the masks are built
 *   job       the same, in the form the batch loop takes
 *   finish    the loop's samples go back to the loudness of the input
 *   describe  the mask document and the picture
 *
 * A mask alone (`vamp mask --frames`, POST /v1/masks) is a variation without a clip: it is prepared from
 * a number of frames, can be described, and cannot become a job.
 *
 * The clip is the largest thing a waiting request holds, and the loop copies it on submission; so it can
 * be forgotten from then on. All that finishing needs is the gain.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/request/internal.h"

static int check_against_model(const struct vamp_request *request, const struct vamp_model_config *config,
                               struct vamp_error *error) {
  if (request->model[0] != '\0' && strcmp(request->model, config->name) != 0) {
    return vamp_fail_field(error, VAMP_INVALID, "/model", "There is no model \"%s\" here; \"%s\" is loaded.",
                           request->model, config->name);
  }
  if (request->sampling.top_k > config->codec.codebook_size) {
    return vamp_fail_field(error, VAMP_INVALID, "/sampling/top_k",
                           "/sampling/top_k is %d, but the model has only %d tokens to choose from.",
                           request->sampling.top_k, config->codec.codebook_size);
  }
  return VAMP_OK;
}

static int build_plan(const struct vamp_request *request, const struct vamp_model_config *config,
                      int64_t frames, struct vamp_variation *variation, struct vamp_error *error) {
  if (frames < 1) {
    return vamp_fail(error, VAMP_INVALID, "There is nothing to vary: the clip has no samples.");
  }
  if (frames > VAMP_MASK_MAX_FRAMES) {
    return vamp_fail(error, VAMP_LIMIT, "The clip has %lld frames; at most %d can be masked.",
                     (long long)frames, VAMP_MASK_MAX_FRAMES);
  }
  variation->sampling = request->sampling;
  variation->sample_rate = config->codec.sample_rate;
  variation->hop_length = config->codec.hop_length;
  variation->codebooks = config->codec.n_codebooks;
  struct vamp_mask_context context = {
      .codebooks = config->codec.n_codebooks,
      .coarse_codebooks = config->coarse.n_codebooks,
      .frames = (int)frames,
      .sample_rate = config->codec.sample_rate,
      .hop_length = config->codec.hop_length,
      .seed = request->sampling.seed,
      .samples = variation->clip.samples,
      .sample_count = variation->clip.count,
  };
  return vamp_mask_plan_build(request->mask, &context, &variation->plan, error);
}

int vamp_variation_prepare(const struct vamp_request *request, const struct vamp_audio *audio,
                           const struct vamp_model_config *config, struct vamp_variation *variation,
                           struct vamp_error *error) {
  struct vamp_variation prepared = {0};
  int status = check_against_model(request, config, error);
  if (status == VAMP_OK) {
    status = vamp_clip_prepare(audio, config->codec.sample_rate, &prepared.clip, error);
  }
  if (status == VAMP_OK) {
    size_t hop = (size_t)config->codec.hop_length;
    status = build_plan(request, config, (int64_t)((prepared.clip.count + hop - 1) / hop), &prepared, error);
  }
  if (status != VAMP_OK) {
    vamp_variation_free(&prepared);
    return status;
  }
  *variation = prepared;
  return VAMP_OK;
}

int vamp_variation_prepare_frames(const struct vamp_request *request, int64_t frames,
                                  const struct vamp_model_config *config, struct vamp_variation *variation,
                                  struct vamp_error *error) {
  struct vamp_variation prepared = {0};
  int status = check_against_model(request, config, error);
  if (status == VAMP_OK) {
    status = build_plan(request, config, frames, &prepared, error);
  }
  if (status != VAMP_OK) {
    vamp_variation_free(&prepared);
    return status;
  }
  *variation = prepared;
  return VAMP_OK;
}

int vamp_variation_check(const struct vamp_request *request, const struct vamp_variation *variation,
                         const struct vamp_model_config *config, struct vamp_error *error) {
  struct vamp_variation other = {.clip = variation->clip}; /* lent: not freed below */
  int frames = vamp_mask_plan_mask(variation->plan, 0)->frames;
  int status = check_against_model(request, config, error);
  if (status == VAMP_OK) {
    status = build_plan(request, config, frames, &other, error);
  }
  vamp_mask_plan_free(other.plan);
  return status;
}

void vamp_variation_free(struct vamp_variation *variation) {
  vamp_clip_free(&variation->clip);
  vamp_mask_plan_free(variation->plan);
  *variation = (struct vamp_variation){0};
}

void vamp_variation_job(const struct vamp_variation *variation, struct vamp_job *job) {
  *job = (struct vamp_job){
      .task = VAMP_TASK_VARIATION,
      .samples = variation->clip.samples,
      .sample_count = variation->clip.count,
      .codebooks = variation->codebooks,
      .passes = vamp_mask_plan_passes(variation->plan),
      .sampling = variation->sampling,
  };
  for (int pass = 0; pass < job->passes; pass++) {
    job->masks[pass] = *vamp_mask_plan_mask(variation->plan, pass);
  }
  job->frames = job->masks[0].frames;
}

void vamp_variation_forget_samples(struct vamp_variation *variation) {
  free(variation->clip.samples);
  variation->clip.samples = NULL;
  variation->clip.count = 0;
}

void vamp_variation_finish(const struct vamp_variation *variation, struct vamp_result *result) {
  if (result->samples) {
    vamp_clip_restore_loudness(&variation->clip, result->samples, result->sample_count);
  }
}

/* What pass `pass` did, or NULL where nothing has been generated. */
static const struct vamp_mask_outcome *outcome_of(const struct vamp_result *result, int pass,
                                                  struct vamp_mask_outcome *outcome) {
  if (!result || pass >= result->passes) {
    return NULL;
  }
  *outcome = (struct vamp_mask_outcome){
      .codes_before = result->pass_before[pass],
      .codes_after = result->pass_after[pass],
      .committed_step = result->committed_step[pass],
      .confidence = result->confidence[pass],
  };
  return outcome;
}

json_t *vamp_variation_mask_json(const struct vamp_variation *variation, const struct vamp_result *result) {
  json_t *document = json_object(), *passes = json_array();
  int status = json_object_set_new(document, "seed", json_integer((json_int_t)variation->sampling.seed)) |
               json_object_set(document, "passes", passes);
  int count = vamp_mask_plan_passes(variation->plan);
  for (int pass = 0; pass < count && status == 0; pass++) {
    struct vamp_mask_outcome outcome;
    json_t *mask = vamp_mask_plan_json(variation->plan, pass, outcome_of(result, pass, &outcome));
    json_t *density = pass == count - 1 ? json_object_get(mask, "density") : NULL;
    if (density) {
      status |= json_object_set(document, "density", density);
    }
    status |= json_array_append_new(passes, mask);
  }
  json_decref(passes);
  if (status != 0) {
    json_decref(document);
    return NULL;
  }
  return document;
}

int vamp_variation_picture(const struct vamp_variation *variation, const struct vamp_result *result,
                           enum vamp_picture_format format, void **data, size_t *size,
                           struct vamp_error *error) {
  struct vamp_mask_outcome outcome;
  int last = vamp_mask_plan_passes(variation->plan) - 1;
  return vamp_mask_picture(variation->plan, last, outcome_of(result, last, &outcome), format, data, size,
                           error);
}
