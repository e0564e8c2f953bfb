/*
 * The power spectrum of a stretch of samples, for the masks that listen and the measures.
 *
 * spectrum.c says why this is written here and not taken from a library.
 */
#ifndef VAMP_ENGINE_SPECTRUM_H
#define VAMP_ENGINE_SPECTRUM_H

#include "vamp/error.h"

#define VAMP_SPECTRUM_LEAST 64
#define VAMP_SPECTRUM_MOST 32768

/* What the transforms of one size share; used by one thread at a time. */
struct vamp_spectrum {
  int size;       /* samples; a power of two from LEAST to MOST */
  double *memory; /* one block for the arrays below */
  double *window; /* [size] Hann, scaled so that a sine of amplitude 1 has power 1 at its bin */
  double *cosine; /* [size / 2] of 2 pi k / size */
  double *sine;
  double *stage_cosine; /* [size / 2] of pi k / span at span + k, for the spans 1, 2, 4 .. size / 4 */
  double *stage_sine;
  double *real; /* [size / 2] work */
  double *imaginary;
  int *reversed; /* [size / 2] every index with its bits reversed */
};

/* VAMP_MEMORY where there is none. */
int vamp_spectrum_open(struct vamp_spectrum *spectrum, int size, struct vamp_error *error);
void vamp_spectrum_close(struct vamp_spectrum *spectrum); /* a zeroed one is fine */

/* samples [size] -> power [size / 2], bin k at k * sample_rate / size Hz. The bin at half the sample rate
 * is left out: nothing listens there. */
void vamp_spectrum_power(struct vamp_spectrum *spectrum, const float *samples, double *power);

#endif
