/*
 * From decoded audio to a clip and back: the resampler's length, delay and noise, the mix, loudness, peaks.
 */
#include "test_audio_fixture.h"

#include "engine/audio/internal.h"

static struct vamp_clip prepare(const struct vamp_audio *audio) {
  struct vamp_clip clip = {0};
  struct vamp_error error = {0};
  if (vamp_clip_prepare(audio, 44100, &clip, &error) != 0) {
    fail_msg("%s", error.message);
  }
  return clip;
}

static float peak_of(const float *samples, size_t count) {
  float peak = 0;
  for (size_t i = 0; i < count; i++) {
    peak = fmaxf(peak, fabsf(samples[i]));
  }
  return peak;
}

static double loudness_of(const float *samples, size_t count) {
  double lufs;
  assert_int_equal(vamp_loudness_measure(samples, count, 44100, &lufs, NULL), 0);
  return lufs;
}

/* ---- resampling ----------------------------------------------------------------------------------- */

static const int rates[] = {1000,  8000,  11025, 16000, 22050,  32000,
                            44100, 44101, 48000, 96000, 192000, 768000};
#define RATES (sizeof rates / sizeof *rates)

static void test_length(void **state) {
  (void)state;
  const size_t frames[] = {1, 2, 3, 100, 8191, 8192, 8193, 20001};
  float *samples = fixture_tone(20001, 1, 44100, 440);
  for (size_t r = 0; r < RATES; r++) {
    for (size_t f = 0; f < sizeof frames / sizeof *frames; f++) {
      struct vamp_audio audio = {samples, frames[f], 1, rates[r], 0};
      float *resampled;
      size_t count;
      assert_int_equal(vamp_resample_mono(&audio, 44100, &resampled, &count, NULL), 0);
      size_t expected = (size_t)floor((double)frames[f] * 44100 / rates[r] + 0.5);
      assert_int_equal(count, expected ? expected : 1);
      assert_true(isfinite(peak_of(resampled, count)));
      free(resampled);
    }
  }
  free(samples);
}

/* A pure tone comes out as the same tone: any delay, gain, alias or noise would show. */
static void test_tone(void **state) {
  (void)state;
  for (size_t r = 0; r < RATES; r++) {
    double hertz = rates[r] < 8000 ? 97 : 997;
    size_t frames = (size_t)rates[r]; /* one second */
    struct vamp_audio audio = {fixture_tone(frames, 1, rates[r], hertz), frames, 1, rates[r], 0};
    float *expected = fixture_tone(44100, 1, 44100, hertz), *resampled;
    size_t count;
    assert_int_equal(vamp_resample_mono(&audio, 44100, &resampled, &count, NULL), 0);
    assert_int_equal(count, 44100);
    double snr = fixture_snr(resampled + 11025, expected + 11025, 22050); /* away from the ends */
    if (snr < 110) {
      fail_msg("%d Hz: %.1f dB", rates[r], snr);
    }
    free(resampled);
    free(expected);
    free(audio.samples);
  }
}

/* What lies above half the new rate must go, not fold back. */
static void test_alias(void **state) {
  (void)state;
  struct vamp_audio audio = {fixture_tone(96000, 1, 96000, 30000), 96000, 1, 96000, 0};
  float *resampled;
  size_t count;
  assert_int_equal(vamp_resample_mono(&audio, 44100, &resampled, &count, NULL), 0);
  assert_true(peak_of(resampled + 11025, 22050) < 0.4 * pow(10, -110.0 / 20));
  free(resampled);
  free(audio.samples);
}

static void test_impulse(void **state) {
  (void)state;
  const int at_rates[] = {8000, 22050, 48000, 88200, 192000};
  for (size_t r = 0; r < 5; r++) {
    size_t frames = (size_t)at_rates[r];
    struct vamp_audio audio = {calloc(frames, sizeof(float)), frames, 1, at_rates[r], 0};
    assert_non_null(audio.samples);
    audio.samples[frames / 2] = 1; /* half a second */
    float *resampled;
    size_t count, highest = 0;
    assert_int_equal(vamp_resample_mono(&audio, 44100, &resampled, &count, NULL), 0);
    for (size_t i = 0; i < count; i++) {
      highest = resampled[i] > resampled[highest] ? i : highest;
    }
    assert_int_equal(highest, 22050);
    /* Linear phase: the same on both sides. */
    for (size_t i = 1; i < 200; i++) {
      assert_true(fabsf(resampled[22050 - i] - resampled[22050 + i]) < 1e-5f);
    }
    free(resampled);
    free(audio.samples);
  }
}

static void test_refused(void **state) {
  (void)state;
  float sample = 0.1f;
  struct vamp_clip clip = {.count = 77};
  struct vamp_error error;
  const struct vamp_audio bad[] = {{NULL, 0, 1, 44100, 0},    {&sample, 0, 1, 44100, 0},
                                   {&sample, 1, 0, 44100, 0}, {&sample, 1, 65, 44100, 0},
                                   {&sample, 1, 1, 999, 0},   {&sample, 1, 1, 768001, 0}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    assert_int_equal(vamp_clip_prepare(&bad[i], 44100, &clip, &error), VAMP_INVALID);
  }
  struct vamp_audio fine = {&sample, 1, 1, 44100, 0}, endless = {&sample, SIZE_MAX, 1, 44100, 0},
                    grows = {&sample, (size_t)1 << 30, 1, 1000, 0};
  assert_int_equal(vamp_clip_prepare(&fine, 0, &clip, &error), VAMP_INVALID);
  assert_int_equal(vamp_clip_prepare(&endless, 44100, &clip, &error), VAMP_LIMIT);
  assert_int_equal(vamp_clip_prepare(&grows, 44100, &clip, &error), VAMP_LIMIT);
  assert_int_equal(clip.count, 77);
}

/* ---- mixing --------------------------------------------------------------------------------------- */

static void test_mix(void **state) {
  (void)state;
  float samples[] = {1, 0, 0, 0, 0, 0, 0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f};
  struct vamp_audio audio = {samples, 2, 6, 44100, 0};
  float *mono;
  size_t count;
  assert_int_equal(vamp_resample_mono(&audio, 44100, &mono, &count, NULL), 0);
  assert_int_equal(count, 2);
  assert_true(fabsf(mono[0] - 1.0f / 6) < 1e-7f && fabsf(mono[1] - 0.35f) < 1e-7f);
  free(mono);
}

static void test_silence(void **state) {
  (void)state;
  const size_t lengths[] = {1, 100, 44100};
  for (size_t l = 0; l < 3; l++) {
    float *samples = calloc(lengths[l] * 2, sizeof *samples);
    assert_non_null(samples);
    for (int opposite = 0; opposite < 2; opposite++) { /* channels that cancel are silence as well */
      for (size_t i = 0; opposite && i < lengths[l]; i++) {
        samples[2 * i] = 0.5f;
        samples[2 * i + 1] = -0.5f;
      }
      struct vamp_audio audio = {samples, lengths[l], 2, 48000, 0};
      struct vamp_clip clip = prepare(&audio);
      assert_true(clip.input_lufs == -HUGE_VAL);
      assert_true(clip.gain == 1);
      assert_true(peak_of(clip.samples, clip.count) == 0);
      vamp_clip_restore_loudness(&clip, clip.samples, clip.count);
      assert_true(peak_of(clip.samples, clip.count) == 0);
      vamp_clip_free(&clip);
    }
    free(samples);
  }
}

/* Below -70 LUFS is silence, however short. */
static void test_almost_silence(void **state) {
  (void)state;
  const size_t lengths[] = {4410, 88200};
  for (size_t l = 0; l < 2; l++) {
    struct vamp_audio audio = {fixture_tone(lengths[l], 1, 44100, 997), lengths[l], 1, 44100, 0};
    for (size_t i = 0; i < audio.frames; i++) {
      audio.samples[i] *= 0.0005f; /* -77 LUFS */
    }
    struct vamp_clip clip = prepare(&audio);
    assert_true(clip.input_lufs == -HUGE_VAL);
    assert_true(clip.gain == 1);
    vamp_clip_free(&clip);
    free(audio.samples);
  }
}

/* ---- loudness ------------------------------------------------------------------------------------- */

/* BS.1770-4: a 997 Hz sine at full scale in one front channel measures -3.01 LUFS. */
static void test_calibration(void **state) {
  (void)state;
  float *tone = fixture_tone(44100 * 2, 1, 44100, 997);
  double expected = -3.01 + 20 * log10(0.4);
  assert_true(fabs(loudness_of(tone, 44100 * 2) - expected) < 0.05);
  /* Less than a block is measured over its own length, and meets the standard where that begins. */
  assert_true(fabs(loudness_of(tone, 17640) - expected) < 0.1);
  assert_true(fabs(loudness_of(tone, 17639) - expected) < 0.1);
  assert_true(fabs(loudness_of(tone, 4410) - expected) < 0.3);
  free(tone);
}

static void test_target(void **state) {
  (void)state;
  const float levels[] = {0.003f, 0.1f, 1, 30000}; /* the last: 16-bit numbers stored as floats */
  for (size_t l = 0; l < 4; l++) {
    struct vamp_audio audio = {fixture_tone(96000, 1, 48000, 440), 96000, 1, 48000, 0};
    for (size_t i = 0; i < audio.frames; i++) {
      audio.samples[i] *= levels[l];
    }
    struct vamp_clip clip = prepare(&audio);
    assert_int_equal(clip.count, 88200);
    assert_int_equal(clip.sample_rate, 44100);
    assert_true(fabs(loudness_of(clip.samples, clip.count) + 24) < 0.01);
    assert_true(fabs(-24 - 20 * log10(clip.gain) - clip.input_lufs) < 1e-6);
    vamp_clip_free(&clip);
    free(audio.samples);
  }
}

/* Rare clicks: hardly any loudness, so that -24 LUFS would put their peaks far above 1. */
static void test_peak(void **state) {
  (void)state;
  struct vamp_audio audio = {calloc(88200, sizeof(float)), 88200, 1, 44100, 0};
  assert_non_null(audio.samples);
  for (size_t i = 1000; i < 88200; i += 22050) {
    audio.samples[i] = i % 4 ? 0.1f : -0.1f;
  }
  struct vamp_clip clip = prepare(&audio);
  assert_true(clip.input_lufs > -70 && clip.input_lufs < -40);
  assert_true(fabs(clip.gain - 10) < 1e-3);
  assert_true(peak_of(clip.samples, clip.count) <= 1 && peak_of(clip.samples, clip.count) > 0.99999f);
  vamp_clip_free(&clip);

  /* Too quiet to have a loudness, and yet above 1: only the peak counts. */
  memset(audio.samples, 0, 88200 * sizeof(float));
  audio.frames = 86000;
  audio.samples[85999] = 3; /* after the last whole block */
  clip = prepare(&audio);
  assert_true(clip.input_lufs == -HUGE_VAL);
  assert_true(peak_of(clip.samples, clip.count) <= 1);
  vamp_clip_free(&clip);
  free(audio.samples);
}

static void test_one_sample(void **state) {
  (void)state;
  for (size_t r = 0; r < RATES; r++) {
    float sample = 0.25f;
    struct vamp_audio audio = {&sample, 1, 1, rates[r], 0};
    struct vamp_clip clip = prepare(&audio);
    assert_in_range(clip.count, 1, 45);
    assert_true(isfinite(clip.gain) && clip.gain > 0);
    assert_true(peak_of(clip.samples, clip.count) <= 1);
    vamp_clip_free(&clip);
  }
}

/* The filter of BS.1770 stands at 1,682 Hz: at a rate of less than twice that the loudness would be infinite,
 * and the clip silent. */
static void test_rates_of_a_clip(void **state) {
  (void)state;
  const int possible[] = {4000, 4001, 8000, 768000}, refused[] = {-1, 0, 999, 1000, 2000, 3000, 3999, 768001};
  struct vamp_audio audio = {fixture_tone(44100, 1, 44100, 440), 44100, 1, 44100, 0};
  for (size_t r = 0; r < sizeof possible / sizeof *possible; r++) {
    struct vamp_clip clip;
    assert_int_equal(vamp_clip_prepare(&audio, possible[r], &clip, NULL), 0);
    assert_true(isfinite(clip.input_lufs) && peak_of(clip.samples, clip.count) > 0.01f);
    vamp_clip_free(&clip);
  }
  for (size_t r = 0; r < sizeof refused / sizeof *refused; r++) {
    struct vamp_clip clip;
    assert_int_equal(vamp_clip_prepare(&audio, refused[r], &clip, NULL), VAMP_INVALID);
  }
  free(audio.samples);
}

static void test_there_and_back(void **state) {
  (void)state;
  struct vamp_audio audio = {fixture_tone(88200, 1, 44100, 440), 88200, 1, 44100, 0};
  struct vamp_clip clip = prepare(&audio);
  vamp_clip_restore_loudness(&clip, clip.samples, clip.count);
  assert_true(fixture_snr(clip.samples, audio.samples, clip.count) > 130);
  /* What the model made louder than there is room for is lowered as a whole, not bent. */
  float made[] = {0.5f, -1, 0.25f};
  clip.gain = 0.25;
  vamp_clip_restore_loudness(&clip, made, 3);
  assert_true(made[0] == 0.5f && made[1] == -1 && made[2] == 0.25f);
  vamp_clip_free(&clip);
  vamp_clip_free(&clip);
  vamp_clip_free(NULL);
  free(audio.samples);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_length),      cmocka_unit_test(test_tone),
      cmocka_unit_test(test_alias),       cmocka_unit_test(test_impulse),
      cmocka_unit_test(test_refused),     cmocka_unit_test(test_mix),
      cmocka_unit_test(test_silence),     cmocka_unit_test(test_almost_silence),
      cmocka_unit_test(test_calibration), cmocka_unit_test(test_target),
      cmocka_unit_test(test_peak),        cmocka_unit_test(test_rates_of_a_clip),
      cmocka_unit_test(test_one_sample),  cmocka_unit_test(test_there_and_back),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
