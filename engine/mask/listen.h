/*
 * The ear of one plan: what its patterns hear, each thing worked out at most once, whatever number of
 * nodes and passes ask for it, and only if one does.
 *
 * listen.c keeps the results, features.c measures the clip, onsets.c and beats.c find events in it.
 */
#ifndef VAMP_MASK_LISTEN_H
#define VAMP_MASK_LISTEN_H

#include <stdbool.h>

#include "engine/mask/features.h"

#define VAMP_BEATS_A_BAR 4

/* Onsets or beats: the steps where they stand, rising. */
struct vamp_mask_events {
  int count;
  int *steps; /* [count] */
};

struct vamp_mask_beats {
  double period; /* steps from a beat to the next; 0 where nothing has a pulse */
  struct vamp_mask_events events;
  int downbeat; /* the index of the first downbeat, 0 .. VAMP_BEATS_A_BAR - 1; the others follow by fours */
};

struct vamp_mask_ear {
  const struct vamp_mask_context *context;
  bool has_features, has_onsets, has_beats;
  struct vamp_mask_features features;
  struct vamp_mask_events onsets;
  struct vamp_mask_beats beats;
};

struct vamp_mask_ear vamp_mask_ear_begin(const struct vamp_mask_context *context);
void vamp_mask_ear_close(struct vamp_mask_ear *ear);

/* Each sets *answer to something the ear owns. VAMP_INVALID at `pointer` where there is no audio. */
int vamp_mask_ear_features(struct vamp_mask_ear *ear, const char *pointer,
                           const struct vamp_mask_features **answer, struct vamp_error *error);
int vamp_mask_ear_onsets(struct vamp_mask_ear *ear, const char *pointer,
                         const struct vamp_mask_events **answer, struct vamp_error *error);
int vamp_mask_ear_beats(struct vamp_mask_ear *ear, const char *pointer, const struct vamp_mask_beats **answer,
                        struct vamp_error *error);

/* The beat in whole frames, at least 1; that of 120 to the minute where nothing has a pulse. */
int vamp_mask_ear_interval(struct vamp_mask_ear *ear, const char *pointer, int64_t *frames,
                           struct vamp_error *error);

/* onsets.c and beats.c: VAMP_MEMORY is all that can go wrong. `events` come zeroed, and are freed by
 * vamp_mask_events_free also after a failure. */
int vamp_mask_onsets_find(const struct vamp_mask_features *features, double steps_per_second,
                          struct vamp_mask_events *events, struct vamp_error *error);
int vamp_mask_beats_find(const struct vamp_mask_features *features, double steps_per_second,
                         struct vamp_mask_beats *beats, struct vamp_error *error);
void vamp_mask_events_free(struct vamp_mask_events *events);

#endif
