/*
 * Frame-wise features of a clip.
 *
 *   rms       the root mean square of the samples of a frame
 *   flatness  the geometric over the arithmetic mean of the power spectrum around the frame's middle
 *             (Gray and Markel, "A spectral-flatness measure for studying the autocorrelation method of
 *             linear prediction of speech analysis", 1974)
 *   flux      the sum over 40 bands, equally wide in mel, of the rise of the band's level between the step
 *             before and the step after, falls not counted. Levels are logarithmic, log(1 + amplitude / -60
 *             dB), so that a soft note in a band of its own counts beside a loud drum
 *             (Böck and Widmer, "Maximum filter vibrato suppression for onset detection", 2013, has the
 *             choices compared)
 *   bass      the same for the amplitude below 200 Hz, not logarithmic: an accent must stay one
 *
 * Everything is summed in double precision in a fixed order and rounded to 16 significant bits in the end.
 * So on one machine the same clip gives the same features, always; and passages that repeat exactly have
 * equal features also where they stand at different places of the clip's buffer. Between machines the
 * last bits of the samples (resampling, loudness) and of log() may differ; where two frames are that
 * close, the masks may differ. docs/masks.md says so.
 *
 * The clip is read once and never copied: one window of samples and three rows of bands are all there is
 * beside the answer.
 */
#include "engine/mask/features.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/spectrum/spectrum.h"

#define BANDS 40
#define LOWEST_HZ 30.0
#define HIGHEST_HZ 16000.0
#define BASS_HZ 200.0
#define QUIETEST 1e-3   /* amplitude where levels begin to count */
#define INAUDIBLE 1e-10 /* power of a bin, -100 dB: flatness sees no finer */
#define LOUDEST 1e6F
#define ROWS 3 /* the step before, the step, the step after */

struct listener {
  const struct vamp_mask_context *context;
  struct vamp_spectrum spectrum;
  float *samples; /* [size] one window */
  double *power;  /* [size / 2] */
  int edges[BANDS + 2];
  int bass_end; /* first bin above the bass */
  double levels[ROWS][BANDS];
  double bass[ROWS];
};

double vamp_mask_steps_per_second(const struct vamp_mask_context *context) {
  return (double)context->sample_rate * VAMP_STEPS_PER_FRAME / context->hop_length;
}

/* 16 significant bits. */
static float rounded(double value) {
  int exponent;
  double mantissa = frexp(value, &exponent);
  return (float)ldexp(nearbyint(ldexp(mantissa, 16)), exponent - 16);
}

/* A sample, or silence where it is none: what is not a number, or beyond all music, would drown the rest. */
static float plausible(float sample) {
  return fabsf(sample) <= LOUDEST ? sample : 0;
}

static double mel(double hertz) {
  return 1127 * log1p(hertz / 700);
}

static int bin_of(const struct listener *listener, double hertz) {
  int half = listener->spectrum.size / 2;
  double bin = hertz * listener->spectrum.size / listener->context->sample_rate;
  return bin < 1 ? 1 : bin > half ? half : (int)lround(bin);
}

static int listener_open(struct listener *listener, const struct vamp_mask_context *context,
                         struct vamp_error *error) {
  memset(listener, 0, sizeof *listener);
  listener->context = context;
  int size = VAMP_SPECTRUM_LEAST;
  while (size < context->hop_length && size < VAMP_SPECTRUM_MOST) {
    size *= 2;
  }
  int status = vamp_spectrum_open(&listener->spectrum, size, error);
  if (status != 0) {
    return status;
  }
  listener->samples = calloc((size_t)size, sizeof *listener->samples);
  listener->power = calloc((size_t)size / 2, sizeof *listener->power);
  if (!listener->samples || !listener->power) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory for listening to the clip.");
  }
  double low = mel(LOWEST_HZ), high = mel(fmin(HIGHEST_HZ, context->sample_rate / 2.0));
  for (int i = 0; i < BANDS + 2; i++) {
    listener->edges[i] = bin_of(listener, 700 * expm1((low + (high - low) * i / (BANDS + 1)) / 1127));
  }
  listener->bass_end = bin_of(listener, BASS_HZ) + 1;
  return 0;
}

static void listener_close(struct listener *listener) {
  vamp_spectrum_close(&listener->spectrum);
  free(listener->samples);
  free(listener->power);
}

/* The spectrum around step `step`, which may lie outside of the clip. */
static void look(struct listener *listener, int64_t step) {
  const struct vamp_mask_context *context = listener->context;
  int size = listener->spectrum.size;
  int64_t start = step * context->hop_length / VAMP_STEPS_PER_FRAME - size / 2;
  int64_t count = context->sample_count > INT64_MAX ? INT64_MAX : (int64_t)context->sample_count;
  int first = start < 0 ? (int)(-start < size ? -start : size) : 0;
  int end = count - start < size ? (int)(count > start ? count - start : 0) : size;
  memset(listener->samples, 0, (size_t)size * sizeof *listener->samples);
  for (int i = first; i < end; i++) {
    listener->samples[i] = plausible(context->samples[start + i]);
  }
  vamp_spectrum_power(&listener->spectrum, listener->samples, listener->power);
}

/* The levels of the bands of what was looked at last. */
static void measure_bands(const struct listener *listener, double levels[BANDS], double *bass) {
  for (int band = 0; band < BANDS; band++) {
    int low = listener->edges[band], middle = listener->edges[band + 1], high = listener->edges[band + 2];
    double sum = 0;
    for (int bin = low; bin < high || bin == low; bin++) { /* narrow bands share their one bin */
      if (bin >= listener->spectrum.size / 2) {
        break;
      }
      double weight = bin < middle ? (double)(bin - low + 1) / (middle - low + 1)
                                   : (double)(high - bin) / (high > middle ? high - middle : 1);
      sum += (weight > 0 ? weight : 1) * listener->power[bin];
    }
    levels[band] = log1p(sqrt(sum) / QUIETEST);
  }
  double sum = 0;
  for (int bin = 1; bin < listener->bass_end && bin < listener->spectrum.size / 2; bin++) {
    sum += listener->power[bin];
  }
  *bass = sqrt(sum);
}

static double flatness_of(const struct listener *listener) {
  int bins = listener->spectrum.size / 2;
  double logarithms = 0, sum = 0;
  for (int bin = 1; bin < bins; bin++) {
    double power = listener->power[bin] + INAUDIBLE;
    logarithms += log(power);
    sum += power;
  }
  bool silent = sum < 2 * INAUDIBLE * (bins - 1);
  return silent ? 0 : exp(logarithms / (bins - 1)) * (bins - 1) / sum;
}

static double rms_of(const struct vamp_mask_context *context, int64_t frame) {
  size_t start = (size_t)frame * (size_t)context->hop_length, end = start + (size_t)context->hop_length;
  double sum = 0;
  for (size_t i = start; i < end && i < context->sample_count; i++) {
    double sample = (double)plausible(context->samples[i]);
    sum += sample * sample;
  }
  return sqrt(sum / context->hop_length);
}

/* Measures step `step` into its row. */
static void hear_step(struct listener *listener, struct vamp_mask_features *features, int64_t step) {
  int row = (int)((step + ROWS) % ROWS);
  look(listener, step);
  measure_bands(listener, listener->levels[row], &listener->bass[row]);
  if (step >= 0 && step % VAMP_STEPS_PER_FRAME == VAMP_STEPS_PER_FRAME / 2) {
    int64_t frame = step / VAMP_STEPS_PER_FRAME;
    if (frame < features->frames) {
      features->flatness[frame] = rounded(flatness_of(listener));
    }
  }
}

static void hear(struct listener *listener, struct vamp_mask_features *features) {
  hear_step(listener, features, -1);
  hear_step(listener, features, 0);
  for (int64_t step = 0; step < features->steps; step++) {
    hear_step(listener, features, step + 1);
    int before = (int)((step + ROWS - 1) % ROWS), after = (int)((step + 1) % ROWS);
    double flux = 0;
    for (int band = 0; band < BANDS; band++) {
      double rise = listener->levels[after][band] - listener->levels[before][band];
      flux += rise > 0 ? rise : 0;
    }
    double bass = listener->bass[after] - listener->bass[before];
    features->flux[step] = rounded(flux);
    features->bass[step] = rounded(bass > 0 ? bass : 0);
  }
  for (int64_t frame = 0; frame < features->frames; frame++) {
    features->rms[frame] = rounded(rms_of(listener->context, frame));
  }
}

int vamp_mask_features_open(struct vamp_mask_features *features, const struct vamp_mask_context *context,
                            struct vamp_error *error) {
  size_t frames = (size_t)context->frames, steps = frames * VAMP_STEPS_PER_FRAME;
  *features = (struct vamp_mask_features){.frames = context->frames, .steps = (int)steps};
  struct listener listener;
  int status = listener_open(&listener, context, error);
  if (status == 0) {
    features->memory = calloc(2 * frames + 2 * steps, sizeof(float));
    if (!features->memory) {
      status = vamp_fail(error, VAMP_MEMORY, "out of memory for listening to the clip.");
    }
  }
  if (status == 0) {
    features->rms = features->memory;
    features->flatness = features->rms + frames;
    features->flux = features->flatness + frames;
    features->bass = features->flux + steps;
    hear(&listener, features);
  }
  listener_close(&listener);
  return status;
}

void vamp_mask_features_close(struct vamp_mask_features *features) {
  free(features->memory);
  *features = (struct vamp_mask_features){0};
}
