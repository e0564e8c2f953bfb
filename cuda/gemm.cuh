/*
 * Our own matrix product, for the two cases cuBLAS does not take: rows gathered by lists whose lengths only
 * the device knows (the classifier on masked positions), and shapes for which cuBLAS has no algorithm.
 *
 * out float [tile rows, columns] = a[list rows, k] * weight[group]^T + bias[group]. Rows come in groups
 * (codebooks), each with its own list and its own `columns` rows of the weight; a group begins at a new tile
 * of GEMM_ROWS.
 */
#ifndef CUDA_GEMM_CUH
#define CUDA_GEMM_CUH

#include "cuda/internal.h"

enum { GEMM_ROWS = 128, GEMM_COLUMNS = 128 };

struct gemm {
  const void *a;      /* act [any, k] */
  const void *weight; /* act [groups * columns, k] */
  const float *bias;  /* [groups * columns] or NULL */
  float *out;         /* [tiles * GEMM_ROWS, columns]: the row is that of the tile, counted from first_tile */
  const int32_t *list;   /* [groups, capacity]: rows of a; NULL: row i is i */
  const int32_t *counts; /* [groups]: lengths of the lists; NULL: capacity */
  int groups, columns, k;
  int capacity;
  int first_tile;
};

/* Where a tile lies: false behind the last one. */
static __device__ __forceinline__ bool gemm_find(const struct gemm *g, int tile, int *group, int *first,
                                                 int *rows) {
  for (int i = 0; i < g->groups; i++) {
    int count = g->counts ? g->counts[i] : g->capacity;
    int tiles = (count + GEMM_ROWS - 1) / GEMM_ROWS;
    if (tile < tiles) {
      *group = i;
      *first = tile * GEMM_ROWS;
      *rows = count - *first < GEMM_ROWS ? count - *first : GEMM_ROWS;
      return true;
    }
    tile -= tiles;
  }
  return false;
}

/* Queues the product of `tiles` tiles, from g->first_tile on. */
int cuda_gemm(struct cuda_device *device, const struct gemm *g, int tiles);

#endif
