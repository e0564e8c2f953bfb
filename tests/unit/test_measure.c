/*
 * The measures: each says nothing where nothing changed, says the right number where that is known, and is
 * not moved by what it does not mean. tests/cli/test_cli_measure.py has the definitions a second time, in
 * Python.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/measure/internal.h"
#include "vamp/random.h"

#define RATE 44100
#define COUNT (4 * RATE)

static float *silence(void) {
  float *samples = calloc(COUNT, sizeof *samples);
  assert_non_null(samples);
  return samples;
}

static float noise_at(size_t i, uint64_t seed) {
  return 2 * vamp_uniform(vamp_philox(seed, (uint32_t)i, 0, 0, 0).word[0]) - 1;
}

static void add_noise(float *samples, float level, uint64_t seed) {
  for (size_t i = 0; i < COUNT; i++) {
    samples[i] += level * noise_at(i, seed);
  }
}

static void add_sine(float *samples, double hertz, double level) {
  for (size_t i = 0; i < COUNT; i++) {
    samples[i] += (float)(level * sin(2 * M_PI * hertz * (double)i / RATE));
  }
}

/* Three notes with overtones, `semitones` above a C major triad. */
static float *chord(double semitones, int overtones) {
  float *samples = silence();
  const double notes[] = {261.63, 329.63, 392.0};
  for (int note = 0; note < 3; note++) {
    for (int partial = 1; partial <= overtones; partial++) {
      add_sine(samples, notes[note] * pow(2, semitones / 12) * partial, 0.2 / partial);
    }
  }
  return samples;
}

/* A burst of noise every half second, `late` seconds after it, but for every `skip`th. */
static float *bursts(double late, int skip) {
  float *samples = silence();
  for (int burst = 0; burst < 7; burst++) {
    size_t start = (size_t)((0.25 + 0.5 * burst + late) * RATE);
    for (size_t i = 0; (skip == 0 || burst % skip != 0) && i < RATE / 8; i++) {
      samples[start + i] = 0.5f * noise_at(i, (uint64_t)burst) * expf(-(float)i / 800);
    }
  }
  return samples;
}

static struct vamp_measures measure(const float *before, const float *after) {
  struct vamp_measures measures = {0};
  struct vamp_error error = {0};
  if (vamp_measure_audio(before, after, COUNT, RATE, &measures, &error) != 0) {
    fail_msg("%s", error.message);
  }
  return measures;
}

static void assert_near(double got, double wanted, double within) {
  if (!(fabs(got - wanted) <= within)) {
    fail_msg("%g, not %g", got, wanted);
  }
}

static void test_nothing_changed(void **state) {
  (void)state;
  float *clip = chord(0, 8);
  add_noise(clip, 0.01f, 1);
  struct vamp_measures measures = measure(clip, clip);
  assert_near(measures.seconds, 4, 0);
  assert_near(measures.log_mel_db, 0, 0);
  assert_near(measures.chroma_distance, 0, 1e-12);
  assert_near(measures.onset_f, 1, 0);
  assert_near(measures.centroid_after_hz - measures.centroid_before_hz, 0, 0);
  assert_near(measures.loudness_after_lufs - measures.loudness_before_lufs, 0, 0);
  assert_true(measures.si_sdr_db > 100);
  assert_int_equal(measures.codebooks, 0);
  free(clip);
}

/* Half as loud: that is all that is heard. */
static void test_level(void **state) {
  (void)state;
  float *before = bursts(0, 0), *after = silence();
  add_noise(before, 0.1f, 2);
  for (size_t i = 0; i < COUNT; i++) {
    after[i] = before[i] / 2;
  }
  struct vamp_measures measures = measure(before, after);
  assert_near(measures.log_mel_db, 20 * log10(2), 1e-4);
  assert_near(measures.loudness_after_lufs - measures.loudness_before_lufs, -20 * log10(2), 1e-3);
  assert_near(measures.chroma_distance, 0, 1e-9);
  assert_near(measures.onset_f, 1, 0);
  assert_true(measures.onsets_before >= 7 && measures.onsets_kept == measures.onsets_before);
  assert_near(measures.centroid_after_hz / measures.centroid_before_hz, 1, 1e-6);
  assert_true(measures.si_sdr_db > 100);
  free(before);
  free(after);
}

static void test_harmony(void **state) {
  (void)state;
  float *clip = chord(0, 4), *octave = chord(12, 4), *other = chord(0, 1), *semitone = chord(1, 4),
        *tritone = chord(6, 4);
  double same = measure(clip, other).chroma_distance, up = measure(clip, octave).chroma_distance;
  assert_true(same < 0.1 && up < 0.15);
  assert_true(measure(clip, semitone).chroma_distance > 0.5);
  assert_true(measure(clip, tritone).chroma_distance > 0.5);
  assert_true(measure(clip, octave).log_mel_db > 3);
  free(clip);
  free(octave);
  free(other);
  free(semitone);
  free(tritone);
}

static void test_onsets(void **state) {
  (void)state;
  const struct {
    double late;
    int skip;
    double f;
    int after, kept;
  } cases[] = {
      {0, 0, 1, 7, 7}, {0.03, 0, 1, 7, 7}, {0.08, 0, 0, 7, 0}, {-0.08, 0, 0, 7, 0}, {0, 2, 0.6, 3, 3}};
  float *before = bursts(0, 0);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    float *after = bursts(cases[i].late, cases[i].skip);
    struct vamp_measures measures = measure(before, after);
    assert_int_equal(measures.onsets_before, 7);
    assert_int_equal(measures.onsets_after, cases[i].after);
    assert_int_equal(measures.onsets_kept, cases[i].kept);
    assert_near(measures.onset_f, cases[i].f, 1e-12);
    free(after);
  }
  free(before);
}

static void test_brightness(void **state) {
  (void)state;
  float *low = silence(), *high = silence();
  add_sine(low, 1000, 0.3);
  add_sine(high, 3000, 0.3);
  struct vamp_measures measures = measure(low, high);
  assert_near(measures.centroid_before_hz, 1000, 30);
  assert_near(measures.centroid_after_hz, 3000, 30);
  free(low);
  free(high);
}

/* Noise at a tenth of the power, and the clip at another level. */
static void test_waveform(void **state) {
  (void)state;
  float *clip = silence(), *noisy = silence();
  add_noise(clip, 0.2f, 3);
  for (size_t i = 0; i < COUNT; i++) {
    noisy[i] = 3 * clip[i] + 3 * 0.2f * sqrtf(0.1f) * noise_at(i, 4);
  }
  assert_near(measure(clip, noisy).si_sdr_db, 10, 0.1);
  free(clip);
  free(noisy);
}

static void test_silence(void **state) {
  (void)state;
  float *nothing = silence(), *clip = bursts(0, 0);
  struct vamp_measures measures = measure(nothing, nothing);
  assert_near(measures.log_mel_db, 0, 0);
  assert_near(measures.chroma_distance, 0, 0);
  assert_near(measures.onset_f, 1, 0);
  assert_true(isnan(measures.centroid_before_hz) && isnan(measures.loudness_after_lufs));
  assert_true(isnan(measures.si_sdr_db));
  measures = measure(clip, nothing);
  assert_near(measures.onset_f, 0, 0);
  assert_true(measures.chroma_distance > 0.3 && measures.log_mel_db > 1);
  assert_true(isnan(measures.si_sdr_db) && isfinite(measures.loudness_before_lufs));
  assert_true(isnan(measure(nothing, clip).si_sdr_db));
  json_t *json = vamp_measure_json(&measures);
  assert_non_null(json);
  assert_true(json_is_null(json_object_get(json, "loudness_change_lu")));
  assert_true(json_is_null(json_object_get(json, "si_sdr_db")));
  assert_true(json_is_real(json_object_get(json, "centroid_before_hz")));
  json_decref(json);
  free(nothing);
  free(clip);
}

/* Any length, read to its very end and no further. */
static void test_short_clips(void **state) {
  (void)state;
  const size_t counts[] = {1, 2, 3, 100, 511, 512, 1023, 1024, 1025, 4097, 8193};
  for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
    float *before = malloc(counts[c] * sizeof *before), *after = malloc(counts[c] * sizeof *after);
    assert_true(before && after);
    for (size_t i = 0; i < counts[c]; i++) {
      before[i] = noise_at(i, 5);
      after[i] = noise_at(i, 6);
    }
    struct vamp_measures measures = {0};
    assert_int_equal(vamp_measure_audio(before, after, counts[c], RATE, &measures, NULL), 0);
    assert_true(isfinite(measures.log_mel_db) && isfinite(measures.chroma_distance));
    assert_true(measures.chroma_distance >= 0 && measures.chroma_distance <= 1);
    free(before);
    free(after);
  }
}

static void test_the_ends_are_mirrored(void **state) {
  (void)state;
  const float samples[] = {0, 1, 2, 3, 4};
  const float expected[] = {3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2};
  float window[16];
  vamp_measure_window(samples, 5, 3, 16, window);
  assert_memory_equal(window, expected, sizeof window);
}

static void test_the_same_again(void **state) {
  (void)state;
  float *before = chord(0, 3), *after = bursts(0.01, 3);
  struct vamp_measures first = measure(before, after), second = measure(before, after);
  assert_memory_equal(&first, &second, sizeof first);
  free(before);
  free(after);
}

static void test_refused(void **state) {
  (void)state;
  float sample = 0;
  struct vamp_measures measures = {0};
  struct vamp_error error;
  assert_int_equal(vamp_measure_audio(&sample, &sample, 0, RATE, &measures, &error), VAMP_INVALID);
  assert_int_equal(vamp_measure_audio(&sample, &sample, 1, 0, &measures, &error), VAMP_INVALID);
  assert_int_equal(vamp_measure_audio(&sample, &sample, 1, 3000, &measures, &error),
                   VAMP_INVALID); /* no loudness */
  assert_int_equal(vamp_measure_audio(&sample, &sample, SIZE_MAX, RATE, &measures, &error), VAMP_LIMIT);
}

static void test_tokens(void **state) {
  (void)state;
  const int32_t before[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  const int32_t after[] = {1, 2, 3, 4, 5, 0, 0, 8, 0, 0, 0, 0};
  struct vamp_measures measures = {0};
  vamp_measure_tokens(before, after, 3, 2, 4, &measures);
  assert_near(measures.changed, 0.5, 0);
  assert_near(measures.changed_coarse, 0.25, 0);
  assert_near(measures.changed_fine, 1, 0);
  assert_near(measures.changed_codebook[0] + 10 * measures.changed_codebook[1], 5, 0);
  json_t *json = vamp_measure_json(&measures);
  assert_int_equal(json_array_size(json_object_get(json, "changed_codebooks")), 3);
  assert_null(json_object_get(json, "seconds"));
  json_decref(json);
  vamp_measure_tokens(before, after, 3, 4, 4, &measures);
  assert_true(isnan(measures.changed_fine) && measures.changed_coarse == 0.5);
  vamp_measure_tokens(before, after, 3, 0, 4, &measures);
  assert_true(isnan(measures.changed_coarse) && measures.changed_fine == 0.5);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_nothing_changed),
      cmocka_unit_test(test_level),
      cmocka_unit_test(test_harmony),
      cmocka_unit_test(test_onsets),
      cmocka_unit_test(test_brightness),
      cmocka_unit_test(test_waveform),
      cmocka_unit_test(test_silence),
      cmocka_unit_test(test_short_clips),
      cmocka_unit_test(test_the_ends_are_mirrored),
      cmocka_unit_test(test_the_same_again),
      cmocka_unit_test(test_refused),
      cmocka_unit_test(test_tokens),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
