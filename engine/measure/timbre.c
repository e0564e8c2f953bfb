/*
 * How a sound is coloured: levels in mel bands, and the spectral centroid.
 *
 * Both come from one pass over the windows. A band is a triangle from its lower to its upper neighbour's
 * middle, so every bin of the spectrum lies on the falling side of one band and on the rising side of the
 * next: with one weight a bin, all bands are summed in one walk over the bins.
 */
#include <math.h>
#include <stdlib.h>

#include "engine/measure/internal.h"
#include "engine/spectrum/spectrum.h"

#define WINDOW 2048
#define HOP 512
enum { BINS = WINDOW / 2 }; /* the one at half the rate weighs nothing */
#define BANDS 80
#define QUIETEST 1e-4 /* -80 dB */
#define LN_10 2.302585092994045684

struct bands {
  int first[BANDS + 2]; /* the first bin at or above each edge, of which band m has m, m + 1 and m + 2 */
  double rise[BINS];    /* how far a bin has come from the edge below it to the next one, 0 .. 1 */
};

/* What one clip adds up to. */
struct colour {
  double levels[BANDS];    /* of the last window, dB */
  double amplitudes[BINS]; /* of all windows together */
};

static void fill_bands(struct bands *bands, int sample_rate) {
  double top = 2595 * log10(1 + sample_rate / 2.0 / 700);
  double edge[BANDS + 2];
  for (int i = 0; i < BANDS + 2; i++) {
    edge[i] = 700 * (pow(10, top * i / (BANDS + 1) / 2595) - 1) * WINDOW / sample_rate; /* in bins */
    double above = ceil(edge[i] - 1e-9);
    bands->first[i] = above < BINS ? (int)above : BINS;
  }
  bands->first[BANDS + 1] = BINS;
  for (int i = 0; i <= BANDS; i++) {
    for (int bin = bands->first[i]; bin < bands->first[i + 1]; bin++) {
      bands->rise[bin] = (bin - edge[i]) / (edge[i + 1] - edge[i]);
    }
  }
}

/* power [BINS] -> colour. Amplitudes are half of what the spectrum's scale makes them, as in tools/train. */
static void look(const struct bands *bands, const double *power, struct colour *colour) {
  double amplitude[BINS], sums[BANDS + 2] = {0};
#pragma omp simd
  for (int bin = 0; bin < BINS; bin++) {
    amplitude[bin] = 0.5 * sqrt(power[bin]);
    colour->amplitudes[bin] += amplitude[bin];
  }
  for (int i = 0; i <= BANDS; i++) { /* between edge i and the next, band i rises and band i - 1 falls */
    double rising = 0, all = 0;
#pragma omp simd reduction(+ : rising, all)
    for (int bin = bands->first[i]; bin < bands->first[i + 1]; bin++) {
      rising += bands->rise[bin] * amplitude[bin];
      all += amplitude[bin];
    }
    sums[i + 1] += rising;
    sums[i] += all - rising;
  }
  for (int band = 0; band < BANDS; band++) { /* log() is several times faster than log10() */
    colour->levels[band] = 20 / LN_10 * log(fmax(sums[band + 1], QUIETEST));
  }
}

static double centroid(const struct colour *colour, size_t windows, int sample_rate) {
  double sum = 0, moment = 0;
  for (int bin = 0; bin < BINS; bin++) {
    sum += colour->amplitudes[bin];
    moment += colour->amplitudes[bin] * bin;
  }
  return sum < QUIETEST * (double)windows ? (double)NAN : moment / sum * sample_rate / WINDOW;
}

int vamp_measure_timbre(const struct vamp_pair *pair, struct vamp_measures *measures,
                        struct vamp_error *error) {
  struct vamp_spectrum spectrum;
  struct bands bands;
  struct colour before = {0}, after = {0};
  float window[WINDOW];
  double power[BINS], difference = 0;
  int status = vamp_spectrum_open(&spectrum, WINDOW, error);
  if (status != 0) {
    return status;
  }
  fill_bands(&bands, pair->sample_rate);
  size_t windows = 1 + pair->count / HOP;
  for (size_t i = 0; i < windows; i++) {
    vamp_measure_window(pair->before, pair->count, (int64_t)(i * HOP), WINDOW, window);
    vamp_spectrum_power(&spectrum, window, power);
    look(&bands, power, &before);
    vamp_measure_window(pair->after, pair->count, (int64_t)(i * HOP), WINDOW, window);
    vamp_spectrum_power(&spectrum, window, power);
    look(&bands, power, &after);
    for (int band = 0; band < BANDS; band++) {
      difference += fabs(after.levels[band] - before.levels[band]);
    }
  }
  vamp_spectrum_close(&spectrum);
  measures->log_mel_db = difference / ((double)windows * BANDS);
  measures->centroid_before_hz = centroid(&before, windows, pair->sample_rate);
  measures->centroid_after_hz = centroid(&after, windows, pair->sample_rate);
  return 0;
}
