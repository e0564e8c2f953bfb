/*
 * The codec's convolutions as every kernel of conv*.cu and unit*.cu sees them.
 *
 * All three kinds become one. A plain convolution is a product over taps of a matrix of rows. A strided one
 * is a plain one over rows folded by its stride: `stride` neighbouring rows of C channels are one row of
 * stride * C. A transposed one gives each input row's neighbourhood `stride` output rows at once, again one
 * folded row, and channels last makes a folded row and its `stride` rows the same memory. So, within one
 * sequence whose activated signal X is a flat array that reads as zero outside of [0, length):
 *
 *   Y[t, n] = bias[n] + sum over taps m and inputs k of weight[n][m][k] * X[(t + m * dilation) * pitch -
 * shift + k]
 *
 * and Y[t, n] is element t * outputs + n - out_shift of the sequence's result. No folding wastes a
 * multiplication for the codec's kernels (2 * stride); an odd kernel is filled up with zero weights.
 * Rejected: gathering windows (im2col), which multiplies the bytes by the taps; one kernel for each kind.
 *
 * The sum's order is: chunks of 64 bytes of inputs, in them taps, in them inputs. It follows from the weight
 * alone and is the same whichever tile an element lies in: that is the promise of vamp/backend.h.
 */
#ifndef CUDA_CONV_H
#define CUDA_CONV_H

#include "cuda/internal.h"

/* A chunk: the inputs of one step of a kernel's main loop, 64 bytes (32 bf16, 16 floats). In shared memory it
 * takes 80, which lets eight rows be read at once without a bank conflict, whatever the dilation. */
enum { CONV_CHUNK_BYTES = 64, CONV_ROW_BYTES = 80, CONV_STAGES = 4 };

/* Behind the last weights of a TILED convolution there is room for so many outputs: a tile at the edge reads
 * all of its columns without asking how many are real. */
enum { CONV_SPARE_OUTPUTS = 128 };

/* The folded view of a convolution. `width` is the row of the signal in elements: C, or C filled up with
 * zero channels to a multiple of 16 bytes. */
struct conv_plan {
  int channels, width, out_channels;
  int inputs, outputs, taps, dilation;
  int64_t pitch, shift, out_shift; /* elements */
  int fold;                        /* output rows in a row of Y: the stride where transposed, else 1 */
  int padding;                     /* transposed: rows of the result cut off at the front */
};

struct conv_plan conv_plan_make(const struct vamp_conv_shape *shape, int width);

/* Weight of input k of tap m of output n in the folded view; 0 where the kernel has none. */
float conv_plan_weight(const struct vamp_conv_shape *shape, const struct conv_plan *plan, const float *weight,
                       int n, int m, int k);

/* A sequence as a kernel sees it: rows of the signals, and the first of its tiles. */
struct conv_sequence {
  int64_t in_begin, in_rows, out_begin, out_rows, rows; /* rows: of Y */
  int64_t tile;
};

/* All of them. A few go with the kernel's arguments: a copy to the device before each launch would take
 * longer than many a kernel of one clip. */
enum { CONV_TABLE = 32 };

struct conv_table {
  int count;
  const struct conv_sequence *memory; /* device [count], or NULL: `few` */
  struct conv_sequence few[CONV_TABLE];
};

enum conv_ending {
  CONV_STORE,    /* out = y, or tanh(y) */
  CONV_ACTIVATE, /* hidden = snake(y), in act with `hidden_width` channels: what the next convolution reads */
  CONV_RESIDUAL, /* out = scale * (residual + y), or += */
};

struct conv_epilogue {
  enum conv_ending ending;
  bool apply_tanh, accumulate;
  bool paired; /* two neighbouring outputs lie together, aligned as one float2 */
  bool whole;  /* four do, as one float4, and tanh is not wanted */
  float scale;
  const float *bias; /* [outputs] */
  float *out;
  const float *residual;
  void *hidden;
  int hidden_width;
  const float *alpha, *inverse; /* CONV_ACTIVATE: [outputs], and 1 / (alpha + 1e-9) */
};

/* Everything a kernel is told. */
struct conv_job {
  struct conv_plan plan;
  int chunks, input_slots, input_rows; /* of shared memory */
  int columns;                         /* blocks side by side, for all outputs of the same rows */
  const void *in;                      /* act [rows, width], activated; FEW: float [rows, channels], plain */
  const void *weight;
  const float *alpha; /* FEW: the snake on the way in, or NULL */
  struct conv_epilogue end;
  struct conv_table table;
};

/* How a convolution is run: by thread and row where there are few channels on either side, else tiled. */
enum conv_way { CONV_FEW, CONV_TILED };

struct cuda_conv {
  struct vamp_weight base;
  struct vamp_conv_shape shape;
  struct conv_plan plan;
  enum conv_way way;
  void *weight; /* TILED: act [chunks, taps, outputs, 64 bytes], and zeros; FEW: float [taps, inputs, outputs]
                 */
  float *bias;  /* [outputs] */
};

/* Whether few channels allow CONV_FEW; conv_make takes that, or TILED where `few` is false. */
bool conv_few_fits(const struct vamp_conv_shape *shape);
int conv_make(struct cuda_device *device, const struct vamp_conv_shape *shape, bool few, const float *weight,
              const float *bias, struct cuda_conv **conv, struct vamp_error *error);
void conv_free(struct cuda_device *device, struct cuda_conv *conv);

/* Channels of an activated signal's row: filled up to 16 bytes. */
int conv_width(const struct cuda_device *device, int channels);

/* out act [rows, width] = snake(in [rows, channels]), alpha NULL: in; further channels are 0. */
int conv_activate(struct cuda_device *device, int64_t rows, int channels, int width, const float *alpha,
                  const float *in, void *out);

/* Runs one convolution. TILED: `in` is an activated signal of plan.width channels and alpha is ignored; FEW:
 * `in` is float [rows, channels] and passes through the snake of alpha. out, or hidden, is of `to`. */
int conv_run(struct cuda_device *device, const struct cuda_conv *conv, const float *alpha,
             const struct vamp_packing *from, const struct vamp_packing *to, const void *in,
             struct conv_epilogue end);

/* The table of sequences, cut into tiles of `tile_rows` rows of Y. */
int conv_table_make(struct cuda_device *device, const struct conv_plan *plan, const struct vamp_packing *from,
                    const struct vamp_packing *to, int tile_rows, struct conv_table *table, int64_t *tiles);

/* The kernels, by file. Each fills in the table for its own tiles. */
int conv_mma_run(struct cuda_device *device, struct conv_job *job, const struct vamp_packing *from,
                 const struct vamp_packing *to);
int conv_fp32_run(struct cuda_device *device, struct conv_job *job, const struct vamp_packing *from,
                  const struct vamp_packing *to);
int conv_few_run(struct cuda_device *device, struct conv_job *job, const struct vamp_packing *from,
                 const struct vamp_packing *to);
/* Shared memory that the kernels would take. */
size_t conv_mma_shared(const struct conv_plan *plan);
size_t conv_fp32_shared(const struct conv_plan *plan);
size_t conv_few_shared(const struct conv_plan *plan);

#endif
