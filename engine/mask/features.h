/*
 * What the masks that listen hear: a few numbers for every frame of the prepared clip.
 *
 * Two grids. A frame is the codec's (hop_length samples). A step is half a frame, because frames of 17 ms
 * are too coarse to tell 170 beats a minute from 180; step t stands at t * hop_length / 2 samples.
 */
#ifndef VAMP_MASK_FEATURES_H
#define VAMP_MASK_FEATURES_H

#include "vamp/mask.h"

#define VAMP_STEPS_PER_FRAME 2

struct vamp_mask_features {
  int frames;
  int steps;       /* VAMP_STEPS_PER_FRAME * frames */
  float *memory;   /* one block for the arrays below */
  float *rms;      /* [frames] root mean square of the frame's samples */
  float *flatness; /* [frames] spectral flatness, 0 a tone .. 1 white noise; 0 in silence */
  float *flux;     /* [steps] how much louder the bands of the spectrum grow around the step */
  float *bass;     /* [steps] the same, of what is below 200 Hz, in amplitude */
};

/* Listens to context->samples, which must be there; samples that are missing at the end or not finite
 * count as silence. Memory is 24 bytes a frame. VAMP_MEMORY where there is none. */
int vamp_mask_features_open(struct vamp_mask_features *features, const struct vamp_mask_context *context,
                            struct vamp_error *error);
void vamp_mask_features_close(struct vamp_mask_features *features); /* a zeroed one is fine */

/* The steps of a second, as a real number. */
double vamp_mask_steps_per_second(const struct vamp_mask_context *context);

#endif
