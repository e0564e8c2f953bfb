/*
 * What unit.cu, which makes residual units and chooses their way, and unit_fused.cu, the kernel for few
 * channels, share.
 */
#ifndef CUDA_UNIT_H
#define CUDA_UNIT_H

#include "cuda/conv.h"

enum unit_way { UNIT_FUSED, UNIT_PAIR };

struct cuda_unit {
  struct vamp_weight base;
  enum unit_way way;
  struct vamp_unit_shape shape;
  struct cuda_conv *first, *second;
  float *alpha; /* device [4, channels]: alpha1, its inverse, alpha2, its inverse */
};

/* Whether the fused kernel takes units of this shape on this device. */
bool unit_fused_fits(const struct cuda_device *device, const struct vamp_unit_shape *shape);
/* As cuda_residual_unit, with rows in the packing. */
int unit_fused_run(struct cuda_device *device, const struct cuda_unit *unit,
                   const struct vamp_packing *packing, float scale, bool accumulate, const float *in,
                   float *out);

#endif
