/*
 * Matrix products by cuBLASLt whose numbers do not depend on the number of rows.
 *
 * out [rows, n] = in act [rows, k] * weight act [n, k]^T, or += that; out float or act.
 */
#ifndef CUDA_PRODUCT_H
#define CUDA_PRODUCT_H

#include "cuda/internal.h"

enum { CUDA_ROW_CLASSES = 4 }; /* up to 256, 640, 1280 rows, and more */

/* How products of one shape are computed. */
struct cuda_product {
  int n, k;
  bool float_out, add;
  bool plain; /* cuBLAS has no algorithm for the shape */
  cublasLtMatmulDesc_t matmul;
  cublasLtMatrixLayout_t weight;
  cublasLtMatmulAlgo_t algorithm[CUDA_ROW_CLASSES]; /* the last is the reference of all */
  struct cuda_product *next;
};

/* The product of a shape, chosen when it is first asked for (which waits for the device) and kept. */
int cuda_product_find(struct cuda_device *device, int n, int k, bool float_out, bool add,
                      struct cuda_product **product);
/* Not for a plain one. */
int cuda_product_run(struct cuda_device *device, const struct cuda_product *product, const void *weight,
                     const void *in, int64_t rows, void *out);

#endif
