/*
 * Any channels and rate -> mono at the model's rate.
 *
 * Mono is the mean of the channels, which is what the model was trained on; a downmix by loudspeaker
 * position (ITU-R BS.775) was rejected, because few files say where their channels belong. The mean is
 * taken block by block on the way into the resampler, so that no mono copy of the input is ever held:
 * the resampler (soxr, its "very high quality": 28 bits, linear phase) gets blocks and writes straight
 * into the result.
 *
 * soxr takes its own delay out of the beginning and gives the rest when told that the input has ended;
 * the number of samples is made exactly round(frames * rate / input rate).
 */
#include <soxr.h>
#include <stdlib.h>
#include <string.h>

#include "engine/audio/internal.h"

#define BLOCK 8192

/* Samples of one clip, in and out: twelve hours at 44.1 kHz. Keeps every product below in 64 bits and
 * the memory of a caller without limits within sense. */
#define MAX_COUNT ((uint64_t)1 << 31)

static void mix(const struct vamp_audio *audio, size_t first, size_t frames, float *mono) {
  size_t channels = (size_t)audio->channels;
  const float *samples = audio->samples + first * channels;
  if (channels == 1) {
    memcpy(mono, samples, frames * sizeof *mono);
    return;
  }
  for (size_t i = 0; i < frames; i++) {
    double sum = 0;
    for (size_t c = 0; c < channels; c++) {
      sum += (double)samples[i * channels + c];
    }
    mono[i] = (float)(sum / (double)channels);
  }
}

/* Feeds the whole input through the resampler into samples[count], which is zero. NULL, or soxr's error. */
static soxr_error_t run(soxr_t resampler, const struct vamp_audio *audio, float *samples, size_t count) {
  float block[BLOCK];
  size_t made = 0;
  for (size_t first = 0; first < audio->frames && made < count;) {
    size_t frames = audio->frames - first < BLOCK ? audio->frames - first : BLOCK;
    mix(audio, first, frames, block);
    first += frames;
    for (size_t used = 0; used < frames && made < count;) {
      size_t taken = 0, given = 0;
      soxr_error_t failure =
          soxr_process(resampler, block + used, frames - used, &taken, samples + made, count - made, &given);
      if (failure) {
        return failure;
      }
      used += taken;
      made += given;
      if (taken == 0 && given == 0) {
        return "no progress";
      }
    }
  }
  while (made < count) {
    size_t given = 0;
    soxr_error_t failure = soxr_process(resampler, NULL, 0, NULL, samples + made, count - made, &given);
    if (failure) {
      return failure;
    }
    if (given == 0) {
      break; /* the end; what is missing by rounding stays zero */
    }
    made += given;
  }
  return NULL;
}

int vamp_resample_mono(const struct vamp_audio *audio, int rate, float **samples, size_t *count,
                       struct vamp_error *error) {
  if (audio->frames > MAX_COUNT) {
    return vamp_fail(error, VAMP_LIMIT, "the clip has %zu samples; send a shorter part of it", audio->frames);
  }
  uint64_t from = (uint64_t)audio->sample_rate;
  uint64_t total = (audio->frames * (uint64_t)rate + from / 2) / from;
  if (total > MAX_COUNT) {
    return vamp_fail(error, VAMP_LIMIT,
                     "the clip would have %llu samples at %d Hz; send a shorter part of it",
                     (unsigned long long)total, rate);
  }
  total = total ? total : 1;
  soxr_t resampler = NULL;
  int status = 0;
  float *result = calloc((size_t)total, sizeof *result);
  if (!result) {
    status = vamp_fail(error, VAMP_MEMORY, "out of memory while resampling");
    goto err;
  }
  if (audio->sample_rate == rate) {
    mix(audio, 0, audio->frames, result);
  } else {
    soxr_error_t failure = NULL;
    soxr_quality_spec_t quality = soxr_quality_spec(SOXR_VHQ, 0);
    resampler = soxr_create(audio->sample_rate, rate, 1, &failure, NULL, &quality, NULL);
    if (resampler && !failure) {
      failure = run(resampler, audio, result, (size_t)total);
    }
    if (!resampler || failure) { /* soxr fails for want of memory alone, at rates within our bounds */
      status = vamp_fail(error, VAMP_MEMORY, "cannot resample from %d to %d Hz: %s", audio->sample_rate, rate,
                         failure ? failure : "out of memory");
      goto err;
    }
    soxr_delete(resampler);
  }
  *samples = result;
  *count = (size_t)total;
  return 0;
err:
  if (resampler) {
    soxr_delete(resampler);
  }
  free(result);
  return status;
}
