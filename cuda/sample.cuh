/*
 * Drawing candidates from logits (sample.cu), for predict.cu.
 */
#ifndef CUDA_SAMPLE_CUH
#define CUDA_SAMPLE_CUH

#include "cuda/gemm.cuh"

/* What stands behind the rows of a classifier's result. */
struct sample {
  struct cuda_batch batch;
  struct gemm gemm; /* out: logits, used up; list: rows of the batch, a group a predicted codebook */
  int codebooks, predicted, vocabulary;
};

/* Fills sampled, probability and confidence for `tiles` tiles of logits, from gemm.first_tile on. `filters`:
 * some sequence filters. VAMP_UNSUPPORTED where a vocabulary is too large to be sorted. */
int cuda_sample(struct cuda_device *device, const struct sample *sample, int tiles, bool filters);

#endif
