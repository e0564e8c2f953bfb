/*
 * Defaults, limits and the schedule of iterative decoding (Chang et al. 2022, MaskGIT; Garcia et al. 2023,
 * VampNet).
 */
#include <math.h>

#include "engine/generate/job.h"

void vamp_sampling_defaults(struct vamp_sampling *sampling) {
  *sampling = (struct vamp_sampling){.coarse_steps = 12,
                                     .fine_steps = 2,
                                     .temperature = 1.0f,
                                     .mask_temperature = 10.5f,
                                     .sample_cutoff = 1.0f,
                                     .top_p = 1.0f,
                                     .typical_min_tokens = 64};
}

/* Written so that NaN fails every test. */
static bool within(float x, float low, float high) {
  return x >= low && x <= high;
}

int sampling_check(const struct vamp_sampling *s, int vocabulary, struct vamp_error *error) {
  if (s->coarse_steps < 1 || s->coarse_steps > 256) {
    return vamp_fail_field(error, VAMP_INVALID, "/sampling/coarse_steps",
                           "coarse_steps must be 1 to 256, not %d", s->coarse_steps);
  }
  if (s->fine_steps < 1 || s->fine_steps > 256) {
    return vamp_fail_field(error, VAMP_INVALID, "/sampling/fine_steps", "fine_steps must be 1 to 256, not %d",
                           s->fine_steps);
  }
  if (!within(s->temperature, 1e-3f, 10.0f)) {
    return vamp_fail_field(error, VAMP_INVALID, "/sampling/temperature", "temperature must be 0.001 to 10");
  }
  if (!within(s->mask_temperature, 0.0f, 1000.0f)) {
    return vamp_fail_field(error, VAMP_INVALID, "/sampling/mask_temperature",
                           "mask_temperature must be 0 to 1000");
  }
  if (!within(s->sample_cutoff, 0.0f, 1.0f)) {
    return vamp_fail_field(error, VAMP_INVALID, "/sampling/sample_cutoff", "sample_cutoff must be 0 to 1");
  }
  if (s->top_k < 0 || s->top_k > vocabulary) {
    return vamp_fail_field(error, VAMP_INVALID, "/sampling/top_k", "top_k must be 0 (off) to %d", vocabulary);
  }
  if (!within(s->top_p, 1e-6f, 1.0f)) {
    return vamp_fail_field(error, VAMP_INVALID, "/sampling/top_p", "top_p must be above 0, at most 1");
  }
  if (!within(s->typical_mass, 0.0f, 1.0f)) {
    return vamp_fail_field(error, VAMP_INVALID, "/sampling/typical_mass",
                           "typical_mass must be 0 (off) to 1");
  }
  if (s->typical_min_tokens < 1 || s->typical_min_tokens > (1 << 20)) {
    return vamp_fail_field(error, VAMP_INVALID, "/sampling/typical_min_tokens",
                           "typical_min_tokens must be at least 1");
  }
  if (s->seed > ((uint64_t)1 << 53) - 1) {
    return vamp_fail_field(error, VAMP_INVALID, "/seed", "seed must be below 2^53");
  }
  return 0;
}

int32_t vamp_schedule_keep_masked(int step, int steps, int32_t total, int32_t now) {
  if (step >= steps - 1) {
    return 0;
  }
  float r = (float)((double)(step + 1) / (double)steps);
  float angle = r * (float)M_PI / 2.0f;
  int32_t keep = (int32_t)floorf(cosf(angle) * (float)total);
  keep = keep < now - 1 ? keep : now - 1;
  return keep > 1 ? keep : 1;
}
