/*
 * vamp measure: what a variation changed, in numbers.
 *
 * Both files become mono at 44.1 kHz and keep their loudness. Neither a model nor its weights are needed.
 */
#include <math.h>
#include <stdio.h>

#include "vamp/measure.h"
#include "vamp/session.h"

#define SAMPLE_RATE 44100

static int read_clip(const char *path, struct vamp_clip *clip, struct vamp_error *error) {
  struct vamp_audio audio = {0};
  int status = vamp_audio_read_file(path, NULL, &audio, error);
  if (status == 0) {
    status = vamp_clip_prepare(&audio, SAMPLE_RATE, clip, error);
  }
  if (status == 0) {
    vamp_clip_restore_loudness(clip, clip->samples, clip->count);
  }
  vamp_audio_free(&audio);
  return status;
}

static int measure(const struct vamp_settings *settings, struct vamp_measures *measures,
                   struct vamp_error *error) {
  struct vamp_clip before = {0}, after = {0};
  int status = read_clip(settings->arguments[0], &before, error);
  if (status == 0) {
    status = read_clip(settings->arguments[1], &after, error);
  }
  if (status == 0) {
    size_t count = before.count < after.count ? before.count : after.count;
    if (before.count != after.count) {
      vamp_warn(settings, "the clips are %.3f and %.3f s long; the first %.3f s are compared",
                (double)before.count / SAMPLE_RATE, (double)after.count / SAMPLE_RATE,
                (double)count / SAMPLE_RATE);
    }
    status = vamp_measure_audio(before.samples, after.samples, count, SAMPLE_RATE, measures, error);
  }
  vamp_clip_free(&before);
  vamp_clip_free(&after);
  return status;
}

/* "name  value unit" or, where there is none, "name  -". */
static void print_value(const char *name, double value, int decimals, const char *unit) {
  if (isfinite(value)) {
    printf("%-20s%.*f%s\n", name, decimals, value, unit);
  } else {
    printf("%-20s-\n", name);
  }
}

static void print_text(const struct vamp_measures *measures) {
  double centroid_change = measures->centroid_after_hz - measures->centroid_before_hz;
  double loudness_change = measures->loudness_after_lufs - measures->loudness_before_lufs;
  print_value("compared", measures->seconds, 3, " s");
  print_value("log-mel distance", measures->log_mel_db, 2, " dB");
  print_value("chroma distance", measures->chroma_distance, 3, "");
  printf("%-20s%.3f (%d before, %d after, %d kept)\n", "onsets, F", measures->onset_f,
         measures->onsets_before, measures->onsets_after, measures->onsets_kept);
  print_value("centroid, before", measures->centroid_before_hz, 0, " Hz");
  print_value("centroid, change", centroid_change, 0, " Hz");
  print_value("loudness, before", measures->loudness_before_lufs, 2, " LUFS");
  print_value("loudness, change", loudness_change, 2, " LU");
  print_value("SI-SDR", measures->si_sdr_db, 2, " dB");
}

static int command_measure(struct vamp_settings *settings) {
  struct vamp_measures measures = {0};
  struct vamp_error error = {0};
  if (measure(settings, &measures, &error) != 0) {
    return vamp_report(settings, NULL, &error);
  }
  if (settings->json) {
    vamp_json_print(vamp_measure_json(&measures));
  } else {
    print_text(&measures);
  }
  return VAMP_EXIT_OK;
}

static const struct vamp_option own_options[] = {
    {"json", 0, VAMP_OPTION_FLAG, offsetof(struct vamp_settings, json), NULL, 0, 0, NULL,
     "print one JSON object"},
    {0},
};

static const struct vamp_option_group groups[] = {{"options", own_options}, {NULL, NULL}};

const struct vamp_command vamp_command_measure = {
    .name = "measure",
    .synopsis = "BEFORE AFTER",
    .summary = "how much a variation changed",
    .description =
        "Compares two audio files: levels in mel bands, harmony, note onsets, brightness, loudness and\n"
        "waveform. Nothing is said about which is better. docs/masks.md explains the numbers.\n",
    .example = "  vamp measure song.wav variation.wav --json\n",
    .groups = groups,
    .minimum_arguments = 2,
    .maximum_arguments = 2,
    .run = command_measure,
};
