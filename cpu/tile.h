/*
 * Tiles of a convolution: how many rows one has, and moving rows of a sequence into and out of it.
 */
#ifndef CPU_TILE_H
#define CPU_TILE_H

#include "cpu/internal.h"

/* Fewer channels than this go channel-first, with vectors along time. */
enum { TILE_FEW_CHANNELS = 16 };

/* Output rows of a tile: small enough for the second cache, large enough to amortise the context. */
int tile_output_rows(int channels);

/* Rows `from` .. `from + rows - 1` of a sequence [length, channels] into out [rows, channels], bfloat16 or
 * float, through snake where alpha is given; rows outside the sequence are zeros. */
void tile_fetch_rows(const struct cpu_device *device, const float *sequence, int64_t length, int channels,
                     const struct cpu_vector *alpha, int64_t from, int rows, bool bf16, char *out);

/* The same, channel-first and in float: out [channels, stride], zeros behind. */
void tile_fetch_channels(const struct cpu_device *device, const float *sequence, int64_t length, int channels,
                         const struct cpu_vector *alpha, int64_t from, int rows, float *out, size_t stride);

/* in [channels, stride] -> out [rows, channels]. */
void tile_channels_to_rows(const float *in, size_t stride, int channels, int rows, float *out);

/* Stride between channels of a channel-first tile of `rows` positions: room to read past the end. */
size_t tile_channel_stride(int rows);

#endif
