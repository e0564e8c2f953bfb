/* Masks that listen: to clicks, tones, noise and silence that are made here, so that what they must hear is
 * known. */
#include "test_mask.h"

#include <math.h>
#include <stdio.h>

#include "engine/mask/features.h"
#include "engine/mask/listen.h"
#include "engine/spectrum/spectrum.h"

enum { RATE = 44100, HOP = 768 };
#define PI 3.14159265358979323846

/* A clip of `frames` frames of silence, the caller's to free. */
static float *silence(int frames) {
  float *samples = test_calloc((size_t)frames * HOP, sizeof *samples);
  assert_non_null(samples);
  return samples;
}

static uint32_t next_random(uint32_t *state) {
  *state = *state * 1664525u + 1013904223u;
  return *state >> 8;
}

static void add_noise(float *samples, int frames, float amplitude) {
  uint32_t state = 1;
  for (int i = 0; i < frames * HOP; i++) {
    samples[i] += amplitude * ((float)next_random(&state) / 8388608.0F - 1);
  }
}

static void add_tone(float *samples, int frames, int from, int to, double hertz, float amplitude) {
  for (int i = from; i < to && i < frames * HOP; i++) {
    samples[i] += amplitude * (float)sin(2 * PI * hertz * (i - from) / RATE);
  }
}

/* A click of 20 ms that dies away. */
static void add_click(float *samples, int frames, double seconds, double hertz, float amplitude) {
  int from = (int)lround(seconds * RATE);
  for (int i = 0; i < RATE / 50 && from + i < frames * HOP; i++) {
    samples[from + i] += amplitude * (float)(exp(-i / 200.0) * sin(2 * PI * hertz * i / RATE));
  }
}

static struct vamp_mask_context context_with(const float *samples, int frames) {
  struct vamp_mask_context context = context_of(frames, 5);
  context.samples = samples;
  context.sample_count = (size_t)frames * HOP;
  return context;
}

static struct vamp_mask_plan *plan_with(const char *text, const struct vamp_mask_context *context) {
  json_t *json = json_of(text);
  struct vamp_mask_spec *spec = NULL;
  struct vamp_mask_plan *plan = NULL;
  struct vamp_error error = {0};
  int status = vamp_mask_spec_parse(json, "/mask", &spec, &error);
  if (status == 0) {
    status = vamp_mask_plan_build(spec, context, &plan, &error);
  }
  if (status != 0) {
    fail_msg("%s\n  %s: %s", text, error.field, error.message);
  }
  vamp_mask_spec_free(spec);
  json_decref(json);
  return plan;
}

/* Codebook 0 of the mask for a clip; every other codebook must be the same. The caller's to free. */
static uint8_t *row_with(const char *text, const float *samples, int frames) {
  struct vamp_mask_context context = context_with(samples, frames);
  struct vamp_mask_plan *plan = plan_with(text, &context);
  const struct vamp_mask *mask = vamp_mask_plan_mask(plan, 0);
  uint8_t *row = test_malloc((size_t)frames);
  memcpy(row, mask->data, (size_t)frames);
  for (int codebook = 1; codebook < CODEBOOKS; codebook++) {
    assert_memory_equal(row, mask->data + (size_t)codebook * (size_t)frames, (size_t)frames);
  }
  vamp_mask_plan_free(plan);
  return row;
}

static int count_of(const uint8_t *row, int frames) {
  int count = 0;
  for (int frame = 0; frame < frames; frame++) {
    count += row[frame];
  }
  return count;
}

/* ---- the spectrum and the features ---------------------------------------------------------------- */

static void spectrum_is_the_definition(void **state) {
  (void)state;
  enum { SIZE = 64 };
  struct vamp_spectrum spectrum;
  assert_int_equal(vamp_spectrum_open(&spectrum, SIZE, NULL), 0);
  float samples[SIZE];
  uint32_t random = 9;
  for (int i = 0; i < SIZE; i++) {
    samples[i] = (float)next_random(&random) / 8388608.0F - 1;
  }
  double power[SIZE / 2];
  vamp_spectrum_power(&spectrum, samples, power);
  for (int k = 0; k < SIZE / 2; k++) {
    double real = 0, imaginary = 0;
    for (int i = 0; i < SIZE; i++) {
      real += samples[i] * spectrum.window[i] * cos(2 * PI * k * i / SIZE);
      imaginary -= samples[i] * spectrum.window[i] * sin(2 * PI * k * i / SIZE);
    }
    assert_true(fabs(power[k] - (real * real + imaginary * imaginary)) < 1e-12);
  }
  for (int i = 0; i < SIZE; i++) {
    samples[i] = (float)sin(2 * PI * 8 * i / SIZE);
  }
  vamp_spectrum_power(&spectrum, samples, power);
  assert_true(fabs(power[8] - 1) < 1e-6 && power[16] < 1e-9);
  vamp_spectrum_close(&spectrum);
}

static void features_are_what_they_are_called(void **state) {
  (void)state;
  enum { FRAMES = 90 };
  float *samples = silence(FRAMES), *noise = silence(30);
  add_tone(samples, FRAMES, 30 * HOP, 60 * HOP, 1000, 0.5F);
  add_noise(noise, 30, 0.3F);
  memcpy(samples + 60 * HOP, noise, sizeof(float) * 30 * HOP);
  struct vamp_mask_context context = context_with(samples, FRAMES);
  struct vamp_mask_features features;
  assert_int_equal(vamp_mask_features_open(&features, &context, NULL), 0);
  assert_true(features.rms[10] == 0 && features.flatness[10] == 0 && features.flux[20] == 0);
  assert_true(fabsf(features.rms[45] - 0.3536F) < 0.002F);
  assert_true(features.flatness[45] < 0.01F && features.flatness[75] > 0.4F);
  /* The tone begins at step 60: there, within two steps, is the greatest flux before the noise. */
  int loudest = 0;
  for (int step = 1; step < 100; step++) {
    loudest = features.flux[step] > features.flux[loudest] ? step : loudest;
  }
  assert_true(abs(loudest - 60) <= 2);
  vamp_mask_features_close(&features);
  test_free(samples);
  test_free(noise);
}

/* ---- adaptive ---------------------------------------------------------------------------------------- */

static void adaptive_masks_exactly_the_most_active(void **state) {
  (void)state;
  enum { FRAMES = 100 };
  static const char *const names[] = {"rms", "flux", "flatness"};
  float *samples = silence(FRAMES);
  add_noise(samples, FRAMES, 0.001F);
  add_tone(samples, FRAMES, 20 * HOP, 50 * HOP, 330, 0.5F);
  for (int feature = 0; feature < 3; feature++) {
    for (int percent = 0; percent <= 100; percent += 5) {
      char text[160];
      snprintf(text, sizeof text, "{\"pattern\": \"adaptive\", \"feature\": \"%s\", \"ratio\": %g}",
               names[feature], percent / 100.0);
      uint8_t *most = row_with(text, samples, FRAMES);
      assert_int_equal(count_of(most, FRAMES), percent);
      snprintf(text, sizeof text,
               "{\"pattern\": \"adaptive\", \"feature\": \"%s\", \"ratio\": %g, \"invert\": true}",
               names[feature], percent / 100.0);
      uint8_t *least = row_with(text, samples, FRAMES);
      assert_int_equal(count_of(least, FRAMES), percent);
      for (int frame = 0; frame < FRAMES && percent <= 50; frame++) {
        assert_false(most[frame] && least[frame]);
      }
      test_free(most);
      test_free(least);
    }
  }
  uint8_t *loud = row_with("{\"pattern\": \"adaptive\", \"ratio\": 0.3}", samples, FRAMES);
  uint8_t *tonal =
      row_with("{\"pattern\": \"adaptive\", \"feature\": \"flatness\", \"ratio\": 0.3, \"invert\": true}",
               samples, FRAMES);
  for (int frame = 0; frame < FRAMES; frame++) {
    assert_int_equal(loud[frame], frame >= 20 && frame < 50);
    assert_int_equal(tonal[frame], frame >= 20 && frame < 50);
  }
  test_free(loud);
  test_free(tonal);
  test_free(samples);
}

static void equal_frames_go_by_their_order(void **state) {
  (void)state;
  enum { FRAMES = 41 };
  static const char *const texts[] = {"{\"pattern\": \"adaptive\", \"ratio\": 0.5}",
                                      "{\"pattern\": \"adaptive\", \"ratio\": 0.5, \"invert\": true}"};
  float *samples = silence(FRAMES);
  for (int i = 0; i < 2; i++) {
    uint8_t *row = row_with(texts[i], samples, FRAMES);
    for (int frame = 0; frame < FRAMES; frame++) {
      assert_int_equal(row[frame], frame < 21);
    }
    test_free(row);
  }
  test_free(samples);
}

/* ---- onsets -------------------------------------------------------------------------------------------- */

static void onsets_are_kept(void **state) {
  (void)state;
  enum { FRAMES = 400, NOTES = 12 };
  float *samples = silence(FRAMES);
  add_noise(samples, FRAMES, 0.0005F);
  bool expected[FRAMES] = {false};
  for (int i = 0; i < NOTES; i++) {
    double at = 0.31 + 0.47 * i + 0.013 * (i % 3);
    add_tone(samples, FRAMES, (int)(at * RATE), (int)((at + 0.3) * RATE), 220 + 40 * i, 0.3F);
    expected[(int)(at * RATE / HOP)] = true;
  }
  uint8_t *kept = row_with("{\"pattern\": \"onset\"}", samples, FRAMES);
  uint8_t *masked = row_with("{\"pattern\": \"onset\", \"width\": 1, \"invert\": true}", samples, FRAMES);
  for (int frame = 0; frame < FRAMES; frame++) {
    if (expected[frame]) {
      assert_false(kept[frame]);
    }
  }
  for (int frame = 1; frame + 1 < FRAMES; frame++) {
    /* What ends may also be heard as a beginning of noise; what begins must be. */
    if (expected[frame]) {
      assert_true(masked[frame - 1] || masked[frame] || masked[frame + 1]);
    }
  }
  assert_true(count_of(masked, FRAMES) >= NOTES && count_of(masked, FRAMES) <= 2 * NOTES);
  test_free(kept);
  test_free(masked);
  test_free(samples);
}

/* ---- tempo and beats ------------------------------------------------------------------------------------
 */

static void clicks_give_their_tempo_and_beats(void **state) {
  (void)state;
  enum { FRAMES = 575 };
  /* Above 165 every second click is as near to 120 to the minute as every click. */
  for (int tempo = 60; tempo <= 160; tempo += 10) {
    float *samples = silence(FRAMES);
    double beat = 60.0 / tempo, start = 0.2 + tempo * 0.001;
    int clicks = 0, bar = tempo / 10 % 4;
    for (double at = start; at < 9.9; at += beat, clicks++) {
      add_click(samples, FRAMES, at, 1000, 0.4F);
      if (clicks % 4 == bar) {
        add_click(samples, FRAMES, at, 80, 0.5F);
      }
    }
    struct vamp_mask_context context = context_with(samples, FRAMES);
    struct vamp_mask_ear ear = vamp_mask_ear_begin(&context);
    const struct vamp_mask_beats *beats;
    assert_int_equal(vamp_mask_ear_beats(&ear, "", &beats, NULL), 0);
    double rate = vamp_mask_steps_per_second(&context), heard = 60 * rate / beats->period;
    if (!(fabs(heard / tempo - 1) < 0.02)) {
      fail_msg("%d beats a minute were heard as %g", tempo, heard);
    }
    int right = 0;
    for (int i = 0; i < beats->events.count; i++) {
      double from_start = beats->events.steps[i] / rate - start;
      right += fabs(from_start - beat * round(from_start / beat)) < 0.070;
    }
    assert_int_equal(right, beats->events.count);
    assert_true(abs(beats->events.count - clicks) <= 1);
    double first_bar = beats->events.steps[beats->downbeat] / rate - start;
    assert_int_equal(((int)lround(first_bar / beat) + 4) % 4, bar);
    vamp_mask_ear_close(&ear);
    test_free(samples);
  }
}

static float *clicks_at_120(int frames) {
  float *samples = silence(frames);
  int click = 0;
  for (double at = 0.25; at < frames * (double)HOP / RATE - 0.1; at += 0.5, click++) {
    add_click(samples, frames, at, 1000, 0.4F);
    add_click(samples, frames, at, 80, click % 4 == 0 ? 0.5F : 0.01F);
  }
  return samples;
}

static void beats_are_kept_as_asked(void **state) {
  (void)state;
  enum { FRAMES = 575 };
  float *samples = clicks_at_120(FRAMES);
  uint8_t *all = row_with("{\"pattern\": \"beat\", \"before_ms\": 0, \"after_ms\": 0, \"invert\": true}",
                          samples, FRAMES);
  uint8_t *second = row_with("{\"pattern\": \"beat\", \"before_ms\": 0, \"after_ms\": 0, \"invert\": true, "
                             "\"every\": 2}",
                             samples, FRAMES);
  uint8_t *bars = row_with("{\"pattern\": \"beat\", \"before_ms\": 0, \"after_ms\": 0, \"invert\": true, "
                           "\"downbeats\": true}",
                           samples, FRAMES);
  uint8_t *wide = row_with("{\"pattern\": \"beat\", \"before_ms\": 50, \"after_ms\": 100}", samples, FRAMES);
  assert_int_equal(count_of(all, FRAMES), 20);
  assert_int_equal(count_of(second, FRAMES), 10);
  assert_int_equal(count_of(bars, FRAMES), 5);
  for (int frame = 0; frame < FRAMES; frame++) {
    assert_true(all[frame] >= second[frame] && all[frame] >= bars[frame]);
    if (all[frame]) {
      for (int near = frame - 2; near <= frame + 5 && near < FRAMES; near++) {
        assert_false(wide[near]);
      }
    }
    if (bars[frame]) {
      double since = (frame + 0.5) * HOP / RATE - 0.25;
      assert_true(fabs(since - 2 * round(since / 2)) < 0.070);
    }
  }
  test_free(all);
  test_free(second);
  test_free(bars);
  test_free(wide);
  test_free(samples);
}

static void the_simple_form_takes_the_beat(void **state) {
  (void)state;
  enum { FRAMES = 575 };
  float *samples = clicks_at_120(FRAMES);
  struct vamp_mask_context context = context_with(samples, FRAMES);
  static const char *const texts[] = {"{\"preset\": \"rhythm\"}",
                                      "{\"periodic_prompt\": \"beat\", \"mask_ratio\": 1}",
                                      "{\"passes\": [{\"preset\": \"rhythm\"}, {\"preset\": \"rhythm\"}]}"};
  for (int i = 0; i < 3; i++) {
    struct vamp_mask_plan *plan = plan_with(texts[i], &context);
    json_t *answer = vamp_mask_plan_json(plan, 0, NULL);
    json_t *parameters = json_object_get(answer, "parameters");
    assert_string_equal(json_string_value(json_object_get(parameters, "periodic_prompt")), "beat");
    /* The tree has the number, so it gives the mask again without the music. */
    const struct vamp_mask *mask = vamp_mask_plan_mask(plan, 0);
    struct vamp_mask_plan *again = plan_of_json(json_object_get(answer, "tree"), FRAMES, 5);
    assert_memory_equal(mask->data, vamp_mask_plan_mask(again, 0)->data, CODEBOOKS * FRAMES);
    vamp_mask_plan_free(again);
    struct vamp_mask_plan *number =
        plan_of("{\"mask_ratio\": 1, \"periodic_prompt\": 29, \"upper_codebook_mask\": 3}", FRAMES, 5);
    assert_memory_equal(mask->data, vamp_mask_plan_mask(number, 0)->data, CODEBOOKS * FRAMES);
    vamp_mask_plan_free(number);
    json_decref(answer);
    vamp_mask_plan_free(plan);
  }
  uint8_t *periodic =
      row_with("{\"pattern\": \"periodic\", \"interval\": \"beat\", \"offset\": 3}", samples, FRAMES);
  for (int frame = 0; frame < FRAMES; frame++) {
    assert_int_equal(periodic[frame], frame % 29 != 3);
  }
  test_free(periodic);
  test_free(samples);
}

/* ---- what there is nothing to hear in -------------------------------------------------------------------
 */

static const char *const listening[] = {
    "{\"pattern\": \"adaptive\", \"feature\": \"rms\"}",
    "{\"pattern\": \"adaptive\", \"feature\": \"flux\"}",
    "{\"pattern\": \"adaptive\", \"feature\": \"flatness\"}",
    "{\"pattern\": \"onset\", \"width\": 4}",
    "{\"pattern\": \"beat\"}",
    "{\"pattern\": \"beat\", \"downbeats\": true, \"every\": 3, \"before_ms\": 60000, \"after_ms\": 60000}",
    "{\"pattern\": \"periodic\", \"interval\": \"beat\"}",
};
#define LISTENING (sizeof listening / sizeof listening[0])

static void silence_and_noise_are_survived(void **state) {
  (void)state;
  static const int lengths[] = {1, 2, 3, 10, 60, 300};
  for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
    for (int kind = 0; kind < 3; kind++) {
      float *samples = silence(lengths[i]);
      if (kind == 1) {
        add_noise(samples, lengths[i], 0.3F);
      } else if (kind == 2) {
        for (int s = 0; s < lengths[i] * HOP; s++) {
          samples[s] = s % 3 == 0 ? NAN : s % 3 == 1 ? INFINITY : 1e30F;
        }
      }
      for (size_t p = 0; p < LISTENING; p++) {
        test_free(row_with(listening[p], samples, lengths[i]));
      }
      test_free(samples);
    }
  }
  float *samples = silence(300);
  uint8_t *onsets = row_with("{\"pattern\": \"onset\"}", samples, 300);
  uint8_t *beats = row_with("{\"pattern\": \"beat\"}", samples, 300);
  assert_int_equal(count_of(onsets, 300), 300);
  assert_int_equal(count_of(beats, 300), 300);
  uint8_t *periodic =
      row_with("{\"pattern\": \"periodic\", \"interval\": \"beat\", \"offset\": 0}", samples, 300);
  assert_false(periodic[29]); /* no pulse: 120 to the minute */
  test_free(onsets);
  test_free(beats);
  test_free(periodic);
  test_free(samples);
}

/* Frames beyond the samples are silence; frames of other sizes than the published model's are fine. */
static void odd_shapes_are_survived(void **state) {
  (void)state;
  static const int hops[] = {1, 2, 7, 512, 100000};
  float *samples = silence(10);
  add_noise(samples, 10, 0.3F);
  for (size_t i = 0; i < sizeof hops / sizeof hops[0]; i++) {
    for (size_t p = 0; p < LISTENING; p++) {
      struct vamp_mask_context context = context_of(50, 5);
      context.samples = samples;
      context.sample_count = 10 * HOP - 3;
      context.hop_length = hops[i];
      context.sample_rate = i % 2 ? 8000 : 192000;
      vamp_mask_plan_free(plan_with(listening[p], &context));
    }
  }
  test_free(samples);
}

static void the_same_clip_gives_the_same_mask(void **state) {
  (void)state;
  enum { FRAMES = 300 };
  float *samples = clicks_at_120(FRAMES);
  add_noise(samples, FRAMES, 0.01F);
  for (size_t p = 0; p < LISTENING; p++) {
    uint8_t *first = row_with(listening[p], samples, FRAMES),
            *second = row_with(listening[p], samples, FRAMES);
    assert_memory_equal(first, second, FRAMES);
    test_free(first);
    test_free(second);
  }
  test_free(samples);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(spectrum_is_the_definition),
      cmocka_unit_test(features_are_what_they_are_called),
      cmocka_unit_test(adaptive_masks_exactly_the_most_active),
      cmocka_unit_test(equal_frames_go_by_their_order),
      cmocka_unit_test(onsets_are_kept),
      cmocka_unit_test(clicks_give_their_tempo_and_beats),
      cmocka_unit_test(beats_are_kept_as_asked),
      cmocka_unit_test(the_simple_form_takes_the_beat),
      cmocka_unit_test(silence_and_noise_are_survived),
      cmocka_unit_test(odd_shapes_are_survived),
      cmocka_unit_test(the_same_clip_gives_the_same_mask),
  };
  return cmocka_run_group_tests_name("masks that listen", tests, NULL, NULL);
}
