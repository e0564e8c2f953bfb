/* See source.h. */
#include "engine/model/source.h"

#include <math.h>
#include <stdlib.h>

#include "vamp/random.h"

/* Normal draws, two at a time (Box and Muller 1958); speed matters little and order not at all, but
 * official dimensions have 700 million of them: a sum of four uniforms is near enough to normal. */
static float *random_values(struct source *source, size_t count, float centre, float spread) {
  float *values = malloc(sizeof *values * (count ? count : 1));
  if (!values) {
    source->status = vamp_fail(source->error, VAMP_MEMORY, "out of memory for random weights");
    return NULL;
  }
  uint64_t state = ++source->seed * 0x9E3779B97F4A7C15u;
  for (size_t i = 0; i < count; i++) {
    /* splitmix64 (Steele, Lea, Flood 2014) */
    uint64_t z = (state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    int sum = (int)(z & 0xffff) + (int)(z >> 16 & 0xffff) + (int)(z >> 32 & 0xffff) + (int)(z >> 48);
    values[i] = centre + spread * ((float)sum - 131070.0f) * (1.0f / 37837.0f);
  }
  return values;
}

float *source_tensor(struct source *source, const char *name, int rank, const int64_t *shape, float centre,
                     float spread) {
  float *values = NULL;
  if (source->status) {
    return NULL;
  }
  if (source->checkpoint) {
    source->status = vamp_checkpoint_tensor(source->checkpoint, name, rank, shape, &values, source->error);
    return source->status ? NULL : values;
  }
  size_t count = 1;
  for (int i = 0; i < rank; i++) {
    count *= (size_t)shape[i];
  }
  return random_values(source, count, centre, spread);
}

float *source_conv(struct source *source, const char *prefix, int64_t d0, int64_t d1, int64_t d2) {
  float *values = NULL;
  if (source->status) {
    return NULL;
  }
  if (source->checkpoint) {
    const int64_t dims[3] = {d0, d1, d2};
    source->status = vamp_checkpoint_conv_weight(source->checkpoint, prefix, dims, &values, source->error);
    return source->status ? NULL : values;
  }
  return random_values(source, (size_t)(d0 * d1 * d2), 0.0f, 1.0f / sqrtf((float)(d1 * d2)));
}

float *source_matrix(struct source *source, const char *prefix, int64_t out, int64_t in) {
  float *values = NULL;
  if (source->status) {
    return NULL;
  }
  if (source->checkpoint) {
    source->status =
        vamp_checkpoint_linear_weight(source->checkpoint, prefix, out, in, &values, source->error);
    return source->status ? NULL : values;
  }
  return random_values(source, (size_t)(out * in), 0.0f, 1.0f / sqrtf((float)in));
}
