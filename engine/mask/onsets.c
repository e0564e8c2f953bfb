/*
 * Note onsets: the peaks of the spectral flux.
 *
 * A step is an onset where the flux is the greatest within 30 ms on either side, stands out from its
 * mean over the last 150 and the next 70 ms, and is not a tremble of silence. What it must stand out by is
 * measured by the clip's own flux, because the flux of a piano is a tenth of a drum kit's. Of two equal
 * peaks the first wins. (Peak picking after Böck, Krebs and Schedl, "Evaluating the online capabilities of
 * onset detection methods", 2012; the figures were fitted to the clips of tools/measure/beats.)
 */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "engine/mask/listen.h"

#define PEAK_SECONDS 0.030
#define MOST_STEPS 256 /* of the same: no codec is as fine, and the work grows with it */
#define MEAN_BEFORE_SECONDS 0.150
#define MEAN_AFTER_SECONDS 0.070
#define STAND_OUT_FACTOR 1.5 /* over the local mean */
#define STAND_OUT_SHARE 1.0  /* and this share of the clip's mean flux more */
#define LEAST_FLUX 5.0       /* forty bands that grow by an eighth each */

static bool is_peak(const float *flux, int steps, int step, int reach) {
  for (int other = step - reach; other <= step + reach; other++) {
    if (other >= 0 && other < steps && other != step) {
      if (flux[other] > flux[step] || (flux[other] == flux[step] && other < step)) {
        return false;
      }
    }
  }
  return true;
}

int vamp_mask_onsets_find(const struct vamp_mask_features *features, double steps_per_second,
                          struct vamp_mask_events *events, struct vamp_error *error) {
  int steps = features->steps;
  const float *flux = features->flux;
  int reach = (int)fmin(1 + PEAK_SECONDS * steps_per_second, MOST_STEPS);
  int before = (int)fmin(1 + MEAN_BEFORE_SECONDS * steps_per_second, steps);
  int after = (int)fmin(1 + MEAN_AFTER_SECONDS * steps_per_second, steps);
  /* Sums from the clip's beginning; the mean of a stretch is a difference of two of them. */
  double *sums = malloc(((size_t)steps + 1) * sizeof *sums);
  events->steps = malloc((size_t)steps * sizeof *events->steps);
  if (!sums || !events->steps) {
    free(sums);
    return vamp_fail(error, VAMP_MEMORY, "out of memory for listening to the clip.");
  }
  sums[0] = 0;
  for (int step = 0; step < steps; step++) {
    sums[step + 1] = sums[step] + (double)flux[step];
  }
  double general = sums[steps] / steps;
  for (int step = 0; step < steps; step++) {
    int from = step < before ? 0 : step - before, to = step + after + 1 > steps ? steps : step + after + 1;
    double local = (sums[to] - sums[from]) / (to - from);
    double least = STAND_OUT_FACTOR * local + STAND_OUT_SHARE * general;
    if ((double)flux[step] >= least && flux[step] >= (float)LEAST_FLUX && is_peak(flux, steps, step, reach)) {
      events->steps[events->count++] = step;
    }
  }
  free(sums);
  return 0;
}
