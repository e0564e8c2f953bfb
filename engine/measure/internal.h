/*
 * What the files of engine/measure share.
 */
#ifndef VAMP_ENGINE_MEASURE_INTERNAL_H
#define VAMP_ENGINE_MEASURE_INTERNAL_H

#include "vamp/measure.h"

/* Two clips of the same length. */
struct vamp_pair {
  const float *before, *after; /* [count] */
  size_t count;
  int sample_rate;
};

/* timbre.c: log_mel_db and the centroids. VAMP_MEMORY. */
int vamp_measure_timbre(const struct vamp_pair *pair, struct vamp_measures *measures,
                        struct vamp_error *error);

/* chroma.c: chroma_distance. VAMP_MEMORY. */
int vamp_measure_chroma(const struct vamp_pair *pair, struct vamp_measures *measures,
                        struct vamp_error *error);

/* rhythm.c: the onsets; the loudness of both must be there. VAMP_MEMORY. */
int vamp_measure_rhythm(const struct vamp_pair *pair, struct vamp_measures *measures,
                        struct vamp_error *error);

/* Copies the window [size] whose middle is sample `middle`; beyond both ends the clip goes on as in a
 * mirror. */
void vamp_measure_window(const float *samples, size_t count, int64_t middle, int size, float *window);

#endif
