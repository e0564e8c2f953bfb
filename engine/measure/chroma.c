/*
 * Which notes sound, whatever their octave.
 *
 * The windows are long, because a semitone at 100 Hz is 6 Hz wide. A bin is shared between its two neighbours
 * in pitch, by its distance: given to the nearer one alone, an instrument that is a little out of tune would
 * jump from one note to the next. Amplitudes, not powers, are summed, so that the loudest note does not stand
 * for the chord.
 */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "engine/measure/internal.h"
#include "engine/spectrum/spectrum.h"

#define WINDOW 8192
#define HOP 4096
enum { BINS = WINDOW / 2 };
#define CLASSES 12
#define LOWEST_HZ 55.0
#define HIGHEST_HZ 4186.0
#define TUNING_HZ 440.0
#define QUIETEST 1e-4

/* What the windows share, and two buffers. */
struct listener {
  struct vamp_spectrum spectrum;
  int first, end;     /* bins that are heard */
  uint8_t low[BINS];  /* the class below the bin; the other one is the next */
  double share[BINS]; /* of that next one, 0 .. 1 */
  float window[WINDOW];
  double power[BINS];
};

static void fill_classes(struct listener *listener, int sample_rate) {
  double hertz_a_bin = (double)sample_rate / WINDOW;
  listener->first = (int)fmin(ceil(LOWEST_HZ / hertz_a_bin), BINS);
  listener->end = (int)fmin(floor(HIGHEST_HZ / hertz_a_bin) + 1, BINS);
  for (int bin = listener->first; bin < listener->end; bin++) {
    double pitch = CLASSES * log2(bin * hertz_a_bin / TUNING_HZ) + 10 * CLASSES; /* above zero */
    double below = floor(pitch);
    listener->low[bin] = (uint8_t)((int)below % CLASSES);
    listener->share[bin] = pitch - below;
  }
}

/* The chroma around sample `middle`; false where there is nothing to hear. */
static bool hear(struct listener *listener, const float *samples, size_t count, int64_t middle,
                 double chroma[CLASSES]) {
  double sum = 0, classes[CLASSES + 1] = {0};
  vamp_measure_window(samples, count, middle, WINDOW, listener->window);
  vamp_spectrum_power(&listener->spectrum, listener->window, listener->power);
  for (int bin = listener->first; bin < listener->end; bin++) {
    double amplitude = sqrt(listener->power[bin]);
    classes[listener->low[bin]] += amplitude * (1 - listener->share[bin]);
    classes[listener->low[bin] + 1] += amplitude * listener->share[bin];
    sum += amplitude;
  }
  classes[0] += classes[CLASSES];
  for (int i = 0; i < CLASSES; i++) {
    chroma[i] = classes[i];
  }
  return sum >= QUIETEST;
}

static double cosine(const double a[CLASSES], const double b[CLASSES]) {
  double product = 0, a_square = 0, b_square = 0;
  for (int i = 0; i < CLASSES; i++) {
    product += a[i] * b[i];
    a_square += a[i] * a[i];
    b_square += b[i] * b[i];
  }
  return fmin(product / sqrt(a_square * b_square), 1);
}

int vamp_measure_chroma(const struct vamp_pair *pair, struct vamp_measures *measures,
                        struct vamp_error *error) {
  struct listener *listener = calloc(1, sizeof *listener);
  if (!listener) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory for measuring the clip.");
  }
  int status = vamp_spectrum_open(&listener->spectrum, WINDOW, error);
  if (status != 0) {
    free(listener);
    return status;
  }
  fill_classes(listener, pair->sample_rate);
  double likeness = 0;
  size_t heard = 0, windows = 1 + pair->count / HOP;
  for (size_t i = 0; i < windows; i++) {
    double before[CLASSES], after[CLASSES];
    bool one = hear(listener, pair->before, pair->count, (int64_t)(i * HOP), before);
    bool other = hear(listener, pair->after, pair->count, (int64_t)(i * HOP), after);
    likeness += one && other ? cosine(before, after) : 0;
    heard += one || other;
  }
  measures->chroma_distance = heard > 0 ? 1 - likeness / (double)heard : 0;
  vamp_spectrum_close(&listener->spectrum);
  free(listener);
  return 0;
}
