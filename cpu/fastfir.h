/*
 * A dilated convolution of stride 1 with a quarter fewer multiplications: the two-phase fast FIR algorithm
 * (Winograd 1980; Parker and Parhi 1997). Even and odd blocks of rows are two signals E and O, even and odd
 * taps two filters; three half-length convolutions at half the rate,
 *
 *   A = even taps * E,   B = odd taps * O,   G = (even + odd taps) * (O + E one block later),
 *
 * give all rows: even ones are A + B, odd ones G - (A one block later) - B. A block is `dilation` rows. It
 * costs some additions and half to one bit of precision, and pays where products dominate: many channels
 * and at least seven taps (docs/performance.md).
 */
#ifndef CPU_FASTFIR_H
#define CPU_FASTFIR_H

#include "cpu/internal.h"

/* Whether a convolution of this shape is worth it. */
bool fast_fir_pays(const struct vamp_conv_shape *shape);

/* `rows` output rows, rounded up to a multiple of 2 * dilation (see fast_fir_rows); kernel odd, as many
 * channels out as in; weight [channels, channels, kernel], bias [channels]. */
int fast_fir_rows(const struct vamp_conv_shape *shape, int rows);
int fast_fir_create(struct cpu_device *device, const struct vamp_conv_shape *shape, int rows,
                    const float *weight, const float *bias, struct fast_fir **fir, struct vamp_error *error);
void fast_fir_free(struct fast_fir *fir);

/* in float [rows + (kernel - 1) * dilation, channels] -> out float [rows, channels], rows as rounded. */
int fast_fir_run(const struct cpu_device *device, const struct fast_fir *fir, const float *in, float *out,
                 char *scratch);
size_t fast_fir_scratch(const struct cpu_device *device, const struct fast_fir *fir);

#endif
