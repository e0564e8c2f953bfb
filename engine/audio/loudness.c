/*
 * Loudness: ITU-R BS.1770-4, by libebur128.
 *
 * The standard measures in blocks of 0.4 s and has no value for anything shorter. A drum hit of 0.3 s
 * must not come out at a level of its own, so it is measured as one block: filtered like any other
 * (followed by silence, for the filter to ring out), its power averaged over its own length instead of
 * over 0.4 s. At 0.4 s the two definitions meet. What is quieter than the standard's absolute gate,
 * -70 LUFS, is silence either way.
 */
#include <ebur128.h>
#include <math.h>

#include "engine/audio/internal.h"

#define ABSOLUTE_GATE (-70.0)

/* 0.4 s in samples, as libebur128 counts them: four rounded tenths. */
static size_t block_size(int rate) {
  return 4 * (((size_t)rate + 5) / 10);
}

/* Silence up to the end of the first block, then the block's loudness, as if it were only as long as
 * what is in it. */
static int measure_short(ebur128_state *meter, size_t count, int rate, double *lufs) {
  static const float silence[1024];
  size_t block = block_size(rate);
  for (size_t i = count; i < block;) {
    size_t part = block - i < 1024 ? block - i : 1024;
    if (ebur128_add_frames_float(meter, silence, part) != EBUR128_SUCCESS) {
      return -1;
    }
    i += part;
  }
  if (ebur128_loudness_momentary(meter, lufs) != EBUR128_SUCCESS) {
    return -1;
  }
  *lufs += 10 * log10((double)block / (double)count);
  return 0;
}

int vamp_loudness_measure(const float *samples, size_t count, int rate, double *lufs,
                          struct vamp_error *error) {
  double measured = -HUGE_VAL;
  ebur128_state *meter = ebur128_init(1, (unsigned long)rate, EBUR128_MODE_I);
  bool done = meter && ebur128_add_frames_float(meter, samples, count) == EBUR128_SUCCESS;
  if (done && count < block_size(rate)) {
    done = measure_short(meter, count, rate, &measured) == 0;
  } else if (done) {
    done = ebur128_loudness_global(meter, &measured) == EBUR128_SUCCESS;
  }
  if (meter) {
    ebur128_destroy(&meter);
  }
  if (!done) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory while measuring loudness");
  }
  *lufs = measured < ABSOLUTE_GATE ? -HUGE_VAL : measured;
  return 0;
}
