/*
 * What has been heard, kept for the next pattern that asks.
 *
 * A tree may have 64 nodes that listen, in 16 passes, to an hour of music: measured once for each of them
 * that would be a way to keep a core busy for hours. All passes hear the clip as it came, because all
 * masks are made before the first pass runs.
 */
#include "engine/mask/listen.h"

#include <math.h>
#include <stdlib.h>

#define USUAL_BEAT_SECONDS 0.5

struct vamp_mask_ear vamp_mask_ear_begin(const struct vamp_mask_context *context) {
  return (struct vamp_mask_ear){.context = context};
}

void vamp_mask_events_free(struct vamp_mask_events *events) {
  free(events->steps);
  *events = (struct vamp_mask_events){0};
}

void vamp_mask_ear_close(struct vamp_mask_ear *ear) {
  vamp_mask_features_close(&ear->features);
  vamp_mask_events_free(&ear->onsets);
  vamp_mask_events_free(&ear->beats.events);
}

int vamp_mask_ear_features(struct vamp_mask_ear *ear, const char *pointer,
                           const struct vamp_mask_features **answer, struct vamp_error *error) {
  if (!ear->context->samples) {
    return vamp_fail_field(
        error, VAMP_INVALID, pointer,
        "this listens to the music, and there is none: give an audio file, not a number of "
        "frames.");
  }
  if (!ear->has_features) {
    int status = vamp_mask_features_open(&ear->features, ear->context, error);
    if (status != 0) {
      return status;
    }
    ear->has_features = true;
  }
  *answer = &ear->features;
  return 0;
}

int vamp_mask_ear_onsets(struct vamp_mask_ear *ear, const char *pointer,
                         const struct vamp_mask_events **answer, struct vamp_error *error) {
  const struct vamp_mask_features *features;
  int status = vamp_mask_ear_features(ear, pointer, &features, error);
  if (status == 0 && !ear->has_onsets) {
    status = vamp_mask_onsets_find(features, vamp_mask_steps_per_second(ear->context), &ear->onsets, error);
    ear->has_onsets = status == 0;
  }
  *answer = &ear->onsets;
  return status;
}

int vamp_mask_ear_beats(struct vamp_mask_ear *ear, const char *pointer, const struct vamp_mask_beats **answer,
                        struct vamp_error *error) {
  const struct vamp_mask_features *features;
  int status = vamp_mask_ear_features(ear, pointer, &features, error);
  if (status == 0 && !ear->has_beats) {
    status = vamp_mask_beats_find(features, vamp_mask_steps_per_second(ear->context), &ear->beats, error);
    ear->has_beats = status == 0;
  }
  *answer = &ear->beats;
  return status;
}

int vamp_mask_ear_interval(struct vamp_mask_ear *ear, const char *pointer, int64_t *frames,
                           struct vamp_error *error) {
  const struct vamp_mask_beats *beats;
  int status = vamp_mask_ear_beats(ear, pointer, &beats, error);
  if (status == 0) {
    double usual = USUAL_BEAT_SECONDS * vamp_mask_steps_per_second(ear->context);
    int64_t interval = llround((beats->period > 0 ? beats->period : usual) / VAMP_STEPS_PER_FRAME);
    *frames = interval < 1 ? 1 : interval;
  }
  return status;
}
