/*
 * The vectorised kernels: what the compiler turns into vector code, behind one table of functions.
 *
 * simd.c is compiled once for each instruction set the Makefile names, and simd_choose() takes the best
 * one that the processor has. All functions are pure, run on one thread and may be called from any.
 * Matrices are row-major, channels last, unless a comment says "channel-first".
 * "act" is bfloat16 where bf16 is true, else float.
 */
#ifndef CPU_SIMD_H
#define CPU_SIMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One head of one sequence: softmax(q k^T * scale + bias) v. */
struct simd_attention {
  bool bf16;
  int frames, head_size;
  size_t row;            /* elements from one frame to the next in q, k, v */
  const void *q, *k, *v; /* act [frames, row], at this head's first element */
  const float *bias;     /* [2 * frames - 1]: added for key - query = -(frames-1) .. frames-1 */
  void *out;             /* act [frames, out_row], at this head's first element */
  size_t out_row;
  void *scratch; /* simd_attention_scratch(frames, head_size) bytes, 64-byte aligned */
};

size_t simd_attention_scratch(int frames, int head_size);

struct simd {
  const char *name;
  bool bf16_dot; /* has a bfloat16 dot product: attention in bf16 does not go through float */

  void (*to_act)(const float *x, size_t count, bool bf16, void *out);
  /* snake(x) = x + sin(alpha x)^2 * inverse, alpha and inverse [channels]. */
  void (*snake)(const float *x, int rows, int channels, const float *alpha, const float *inverse, bool bf16,
                void *out);
  /* The same in place, channel-first: x [channels, stride], `length` positions of each. */
  void (*snake_channels)(float *x, int channels, int length, size_t stride, const float *alpha,
                         const float *inverse);
  void (*rms_norm)(const float *x, const float *weight, int rows, int width, bool bf16, void *out);
  /* Epilogues of a product tile y [rows, n]; bias [n] or NULL; out has `stride` elements a row. */
  void (*store)(const float *y, int rows, int n, const float *bias, bool bf16, void *out, size_t stride);
  void (*add)(const float *y, int rows, int n, const float *bias, float *out, size_t stride);
  /* y [rows, 2n]: out = y1 * gelu(y2), y1 the first n columns; bias [2n] or NULL. */
  void (*gated_gelu)(const float *y, int rows, int n, const float *bias, bool bf16, void *out, size_t stride);
  void (*tanh)(float *x, size_t count);
  /* out = scale * (x + y), or out += that. */
  void (*residual)(const float *x, const float *y, size_t count, float scale, bool accumulate, float *out);
  /* out = x - y - z */
  void (*subtract)(const float *x, const float *y, const float *z, size_t count, float *out);
  /* Channel-first convolution of stride 1 for few channels: in [in_channels, in_stride] with
   * (kernel-1)*dilation positions of context before `length` outputs; weight [out, in, kernel]; out
   * [out_channels, out_stride]. Reads up to 64 positions beyond the last, which must be readable. */
  void (*conv_channels)(const float *in, size_t in_stride, int in_channels, const float *weight,
                        const float *bias, int out_channels, int kernel, int dilation, int length, float *out,
                        size_t out_stride);
  void (*attention)(const struct simd_attention *a);
  /* p = exp(scale * (logits - max logit)), returns the sum of p in a fixed order. */
  float (*exp_sum)(const float *logits, int count, float scale, float *p);
  /* The first j with the largest dot product of z [dimensions] and column j of table
   * [dimensions, entries] (channel-first), less offset[j]. */
  int (*nearest)(const float *z, const float *table, const float *offset, int dimensions, int entries);
  float (*dot)(const float *a, const float *b, int count);
  /* y += a * x */
  void (*axpy)(float a, const float *x, int count, float *y);
};

extern const struct simd simd_baseline;
#if defined(__x86_64__)
extern const struct simd simd_avx2, simd_avx512, simd_avx512bf16;
#endif

/* The best table for this processor. VAMP_SIMD=baseline|avx2|avx512 in the environment asks for less,
 * for tests; read once, by the caller. */
const struct simd *simd_choose(const char *wanted);

#endif
