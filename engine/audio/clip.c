/*
 * A clip as the model takes it, and the way back.
 *
 * Loudness is that of the mono mix, because mono is what goes back: a stereo file's own value counts
 * both channels and lies up to 3 LU above.
 *
 * A peak above 1 lowers the whole clip. A limiter that lowers the moment around the peak was rejected: it
 * would change the music that is to be kept, and the codec's round trip could no longer be compared with
 * the input.
 */
#include <math.h>
#include <stdlib.h>

#include "engine/audio/internal.h"

#define TARGET_LUFS (-24.0)

static float find_peak(const float *samples, size_t count) {
  float peak = 0;
  for (size_t i = 0; i < count; i++) {
    float magnitude = fabsf(samples[i]);
    peak = magnitude > peak ? magnitude : peak;
  }
  return peak;
}

/* Multiplies; what rounding carries over 1 is brought back. */
static void amplify(float *samples, size_t count, double gain) {
  for (size_t i = 0; i < count; i++) {
    float sample = (float)((double)samples[i] * gain);
    samples[i] = sample > 1 ? 1 : (sample < -1 ? -1 : sample);
  }
}

/* `gain`, or what keeps the peak at 1. */
static double limit_gain(double gain, float peak) {
  return (double)peak * gain > 1 ? 1 / (double)peak : gain;
}

int vamp_clip_prepare(const struct vamp_audio *audio, int sample_rate, struct vamp_clip *clip,
                      struct vamp_error *error) {
  if (!audio->samples || audio->frames == 0) {
    return vamp_fail(error, VAMP_INVALID, "the clip holds no samples");
  }
  if (audio->channels < 1 || audio->channels > VAMP_AUDIO_MAX_CHANNELS) {
    return vamp_fail(error, VAMP_INVALID, "the clip has %d channels; 1 to %d can be mixed", audio->channels,
                     VAMP_AUDIO_MAX_CHANNELS);
  }
  const int rates[] = {audio->sample_rate, sample_rate};
  const int least[] = {VAMP_AUDIO_MIN_RATE, VAMP_AUDIO_MIN_CLIP_RATE};
  for (int i = 0; i < 2; i++) {
    if (rates[i] < least[i] || rates[i] > VAMP_AUDIO_MAX_RATE) {
      return vamp_fail(error, VAMP_INVALID, "cannot resample %s %d Hz; %d to %d Hz are possible",
                       i ? "to" : "from", rates[i], least[i], VAMP_AUDIO_MAX_RATE);
    }
  }
  struct vamp_clip made = {.sample_rate = sample_rate, .gain = 1};
  int status = vamp_resample_mono(audio, sample_rate, &made.samples, &made.count, error);
  if (status) {
    return status;
  }
  status = vamp_loudness_measure(made.samples, made.count, sample_rate, &made.input_lufs, error);
  if (status) {
    vamp_clip_free(&made);
    return status;
  }
  if (made.input_lufs > -HUGE_VAL) {
    made.gain = pow(10, (TARGET_LUFS - made.input_lufs) / 20);
  }
  made.gain = limit_gain(made.gain, find_peak(made.samples, made.count));
  amplify(made.samples, made.count, made.gain);
  *clip = made;
  return 0;
}

void vamp_clip_restore_loudness(const struct vamp_clip *clip, float *samples, size_t count) {
  amplify(samples, count, limit_gain(1 / clip->gain, find_peak(samples, count)));
}

void vamp_clip_free(struct vamp_clip *clip) {
  if (clip) {
    free(clip->samples);
    *clip = (struct vamp_clip){0};
  }
}
