/*
 * Where the graph's weights come from: a checkpoint file, or a seeded random generator for benchmarks
 * and tests. Both answer by name and shape, so the graph is loaded by the same code.
 *
 * Arrays are malloc'd and the caller's to free. The first failure sticks: later calls return NULL, so
 * that a loader can ask for everything and look once.
 */
#ifndef VAMP_ENGINE_MODEL_SOURCE_H
#define VAMP_ENGINE_MODEL_SOURCE_H

#include <stdint.h>

#include "engine/model/checkpoint.h"
#include "vamp/error.h"

struct source {
  struct vamp_checkpoint *checkpoint; /* NULL: random */
  uint64_t seed;                      /* random: advanced with every array */
  int status;                         /* the first failure */
  struct vamp_error *error;
};

/* A vector or table as it is stored; random: `centre` plus or minus `spread` times a normal draw. */
float *source_tensor(struct source *source, const char *name, int rank, const int64_t *shape, float centre,
                     float spread);
/* A convolution's weight [d0, d1, d2], weight norm folded; random with variance 1 / (d1 * d2). */
float *source_conv(struct source *source, const char *prefix, int64_t d0, int64_t d1, int64_t d2);
/* A matrix [out, in], LoRA merged; random with variance 1 / in. */
float *source_matrix(struct source *source, const char *prefix, int64_t out, int64_t in);

#endif
