/*
 * Whether the notes begin when they did.
 *
 * The ear is that of the pattern `onset`, so what a mask could keep is what is asked for here. Its thresholds
 * are those of clips prepared for the model; so both clips are brought to that loudness first, and a
 * variation that is merely softer has lost none of its onsets.
 */
#include <math.h>
#include <stdlib.h>

#include "engine/mask/listen.h"
#include "engine/measure/internal.h"

#define WITHIN_SECONDS 0.050
#define LOUDNESS_LUFS (-24.0)
#define HOP 768 /* of the published codec: steps of 8.7 ms at 44.1 kHz */

static int find_onsets(const float *samples, size_t count, int sample_rate, double lufs,
                       struct vamp_mask_events *events, double *steps_per_second, struct vamp_error *error) {
  float *even = malloc(count * sizeof *even);
  if (!even) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory for measuring the clip.");
  }
  float gain = (float)pow(10, (LOUDNESS_LUFS - lufs) / 20);
  for (size_t i = 0; i < count; i++) {
    even[i] = samples[i] * gain;
  }
  struct vamp_mask_context context = {
      .frames = (int)((count + HOP - 1) / HOP),
      .sample_rate = sample_rate,
      .hop_length = HOP,
      .samples = even,
      .sample_count = count,
  };
  struct vamp_mask_features features;
  int status = vamp_mask_features_open(&features, &context, error);
  if (status == 0) {
    *steps_per_second = vamp_mask_steps_per_second(&context);
    status = vamp_mask_onsets_find(&features, *steps_per_second, events, error);
  }
  vamp_mask_features_close(&features);
  free(even);
  return status;
}

/* How many can be paired within `reach` steps, each with one at most. Both rise, and all reach equally far,
 * so pairing the first that can be paired gives the most. */
static int count_pairs(const struct vamp_mask_events *one, const struct vamp_mask_events *other,
                       double reach) {
  int pairs = 0;
  for (int i = 0, j = 0; i < one->count && j < other->count;) {
    int apart = one->steps[i] - other->steps[j];
    if (abs(apart) <= reach) {
      pairs++;
      i++;
      j++;
    } else if (apart < 0) {
      i++;
    } else {
      j++;
    }
  }
  return pairs;
}

int vamp_measure_rhythm(const struct vamp_pair *pair, struct vamp_measures *measures,
                        struct vamp_error *error) {
  struct vamp_mask_events before = {0}, after = {0};
  double rate = 0;
  int status = 0;
  if (!isnan(measures->loudness_before_lufs)) { /* silence has no onsets */
    status = find_onsets(pair->before, pair->count, pair->sample_rate, measures->loudness_before_lufs,
                         &before, &rate, error);
  }
  if (status == 0 && !isnan(measures->loudness_after_lufs)) {
    status = find_onsets(pair->after, pair->count, pair->sample_rate, measures->loudness_after_lufs, &after,
                         &rate, error);
  }
  if (status == 0) {
    measures->onsets_before = before.count;
    measures->onsets_after = after.count;
    measures->onsets_kept = count_pairs(&before, &after, WITHIN_SECONDS * rate);
    int all = before.count + after.count;
    measures->onset_f = all > 0 ? 2.0 * measures->onsets_kept / all : 1;
  }
  vamp_mask_events_free(&before);
  vamp_mask_events_free(&after);
  return status;
}
