/*
 * oneDNN, and nothing else of it than this file's four kinds of call.
 *
 * The rest of the CPU backend cuts its work into tiles of a fixed size, each run by one thread: a
 * product of matrices, or a convolution of stride 1 over rows that already carry their context. So there
 * are few primitives, made once; weights are reordered once; and a tile's numbers cannot depend on what
 * else is in the batch. Parallelism is the caller's: it runs tiles on threads of its own (cpu/pool.h), in
 * each of which oneDNN is told to stay single-threaded.
 *
 * Distributions ship version 2 (Debian 12) and version 3 of the library, whose C interfaces differ:
 * onednn.c compiles with both, and is the only file that includes its header.
 */
#ifndef CPU_ONEDNN_H
#define CPU_ONEDNN_H

#include <stdbool.h>
#include <stddef.h>

#include "vamp/error.h"

struct onednn; /* the library's engine, and its products by size */

int onednn_open(struct onednn **library, struct vamp_error *error);
void onednn_close(struct onednn *library);

/* ---- products: out float [m, n] = in [m, k] * weight [k, n] ---------------------------------- */

/* A weight tile, reordered; holds primitives for every size class of m. */
struct onednn_product;

/* Rows of the size class that holds `rows` rows (1 <= rows <= ONEDNN_MAX_ROWS). */
#define ONEDNN_MAX_ROWS 192
#define ONEDNN_ROW_STEP 16
int onednn_row_class(int rows);

/* weight [n, k] row-major float (`stride` floats from one of the n rows to the next); bf16: both inputs
 * are bfloat16, the result float either way. */
int onednn_product_create(struct onednn *library, bool bf16, int n, int k, const float *weight, size_t stride,
                          struct onednn_product **product, struct vamp_error *error);
void onednn_product_free(struct onednn_product *product);
/* Builds the primitives for a class of rows; not while tiles run, before _run. */
int onednn_product_prepare(struct onednn_product *product, int row_class, struct vamp_error *error);
/* in [row_class, k] contiguous, out float [row_class, n]; any thread. 0 or VAMP_DEVICE. */
int onednn_product_run(const struct onednn_product *product, int row_class, const void *in, float *out,
                       void *scratch);

/* ---- convolutions: out float [rows, out_channels], from rows + (kernel-1)*dilation input rows -- */

struct onednn_conv;

/* weight [out, in, kernel] float, bias [out] or NULL. */
int onednn_conv_create(struct onednn *library, bool bf16, int rows, int in_channels, int out_channels,
                       int kernel, int dilation, const float *weight, const float *bias,
                       struct onednn_conv **conv, struct vamp_error *error);
void onednn_conv_free(struct onednn_conv *conv);
int onednn_conv_run(const struct onednn_conv *conv, const void *in, float *out, void *scratch);

/* Bytes of scratch memory, 64-byte aligned, a thread must bring to _run: the most any needs so far. */
size_t onednn_scratch_size(const struct onednn *library);

#endif
