/*
 * The measures: see measure.h for what each is, and the other files of this room for those that take more
 * than a few lines.
 */
#include <math.h>
#include <string.h>

#include "engine/audio/internal.h"
#include "engine/measure/internal.h"

void vamp_measure_window(const float *samples, size_t count, int64_t middle, int size, float *window) {
  int64_t first = middle - size / 2, last = (int64_t)count - 1;
  if (first >= 0 && first + size <= (int64_t)count) {
    memcpy(window, samples + first, (size_t)size * sizeof *window);
    return;
  }
  int64_t period = last > 0 ? 2 * last : 1; /* there and back again */
  for (int i = 0; i < size; i++) {
    int64_t at = (first + i) % period;
    at = at < 0 ? at + period : at;
    window[i] = samples[at > last ? period - at : at];
  }
}

static double measure_si_sdr(const struct vamp_pair *pair) {
  double product = 0, square = 0;
  for (size_t i = 0; i < pair->count; i++) {
    product += (double)pair->before[i] * (double)pair->after[i];
    square += (double)pair->before[i] * (double)pair->before[i];
  }
  double scale = square > 0 ? product / square : 0;
  double target = 0, distortion = 0;
  for (size_t i = 0; i < pair->count; i++) {
    double kept = scale * (double)pair->before[i], lost = (double)pair->after[i] - kept;
    target += kept * kept;
    distortion += lost * lost;
  }
  return target > 0 ? 10 * log10(target / (distortion + 1e-12)) : (double)NAN;
}

static int measure_loudness(const struct vamp_pair *pair, struct vamp_measures *measures,
                            struct vamp_error *error) {
  double before, after;
  int status = vamp_loudness_measure(pair->before, pair->count, pair->sample_rate, &before, error);
  if (status == 0) {
    status = vamp_loudness_measure(pair->after, pair->count, pair->sample_rate, &after, error);
  }
  if (status == 0) {
    measures->loudness_before_lufs = isfinite(before) ? before : (double)NAN;
    measures->loudness_after_lufs = isfinite(after) ? after : (double)NAN;
  }
  return status;
}

int vamp_measure_audio(const float *before, const float *after, size_t count, int sample_rate,
                       struct vamp_measures *measures, struct vamp_error *error) {
  if (count == 0) {
    return vamp_fail(error, VAMP_INVALID, "there are no samples to compare");
  }
  if (count > VAMP_MEASURE_MAX_SAMPLES) {
    return vamp_fail(error, VAMP_LIMIT, "%zu samples are too many to compare; %zu are possible", count,
                     VAMP_MEASURE_MAX_SAMPLES);
  }
  if (sample_rate < VAMP_AUDIO_MIN_CLIP_RATE || sample_rate > VAMP_AUDIO_MAX_RATE) {
    return vamp_fail(error, VAMP_INVALID, "cannot compare at %d Hz; %d to %d Hz are possible", sample_rate,
                     VAMP_AUDIO_MIN_CLIP_RATE, VAMP_AUDIO_MAX_RATE);
  }
  struct vamp_pair pair = {before, after, count, sample_rate};
  struct vamp_measures made = *measures;
  int status = measure_loudness(&pair, &made, error);
  if (status == 0) {
    status = vamp_measure_timbre(&pair, &made, error);
  }
  if (status == 0) {
    status = vamp_measure_chroma(&pair, &made, error);
  }
  if (status == 0) {
    status = vamp_measure_rhythm(&pair, &made, error);
  }
  if (status != 0) {
    return status;
  }
  made.si_sdr_db = measure_si_sdr(&pair);
  made.seconds = (double)count / sample_rate;
  *measures = made;
  return 0;
}

void vamp_measure_tokens(const int32_t *before, const int32_t *after, int codebooks, int coarse, int frames,
                         struct vamp_measures *measures) {
  int64_t coarse_count = 0, fine_count = 0;
  coarse = coarse < codebooks ? coarse : codebooks;
  for (int codebook = 0; codebook < codebooks; codebook++) {
    int64_t count = 0;
    size_t row = (size_t)codebook * (size_t)frames;
    for (size_t i = row; i < row + (size_t)frames; i++) {
      count += before[i] != after[i];
    }
    measures->changed_codebook[codebook] = (double)count / frames;
    *(codebook < coarse ? &coarse_count : &fine_count) += count;
  }
  double coarse_tokens = (double)coarse * frames, fine_tokens = (double)(codebooks - coarse) * frames;
  measures->codebooks = codebooks;
  measures->changed = (double)(coarse_count + fine_count) / (coarse_tokens + fine_tokens);
  measures->changed_coarse = coarse > 0 ? (double)coarse_count / coarse_tokens : (double)NAN;
  measures->changed_fine = coarse < codebooks ? (double)fine_count / fine_tokens : (double)NAN;
}

/* ---- JSON ---------------------------------------------------------------------------------------------- */

static int set_number(json_t *object, const char *name, double value) {
  return json_object_set_new(object, name, isfinite(value) ? json_real(value) : json_null());
}

static int set_count(json_t *object, const char *name, int value) {
  return json_object_set_new(object, name, json_integer(value));
}

static int set_audio(json_t *object, const struct vamp_measures *measures) {
  double centroid_change = measures->centroid_after_hz - measures->centroid_before_hz;
  double loudness_change = measures->loudness_after_lufs - measures->loudness_before_lufs;
  return set_number(object, "seconds", measures->seconds) |
         set_number(object, "log_mel_db", measures->log_mel_db) |
         set_number(object, "chroma_distance", measures->chroma_distance) |
         set_number(object, "onset_f", measures->onset_f) |
         set_count(object, "onsets_before", measures->onsets_before) |
         set_count(object, "onsets_after", measures->onsets_after) |
         set_count(object, "onsets_kept", measures->onsets_kept) |
         set_number(object, "centroid_before_hz", measures->centroid_before_hz) |
         set_number(object, "centroid_after_hz", measures->centroid_after_hz) |
         set_number(object, "centroid_change_hz", centroid_change) |
         set_number(object, "loudness_before_lufs", measures->loudness_before_lufs) |
         set_number(object, "loudness_after_lufs", measures->loudness_after_lufs) |
         set_number(object, "loudness_change_lu", loudness_change) |
         set_number(object, "si_sdr_db", measures->si_sdr_db);
}

static int set_tokens(json_t *object, const struct vamp_measures *measures) {
  int failed = set_number(object, "changed", measures->changed) |
               set_number(object, "changed_coarse", measures->changed_coarse) |
               set_number(object, "changed_fine", measures->changed_fine);
  json_t *codebooks = json_array();
  for (int i = 0; i < measures->codebooks; i++) {
    failed |= json_array_append_new(codebooks, json_real(measures->changed_codebook[i]));
  }
  return failed | json_object_set_new(object, "changed_codebooks", codebooks);
}

json_t *vamp_measure_json(const struct vamp_measures *measures) {
  json_t *object = json_object();
  int failed = !object;
  if (measures->seconds > 0) {
    failed |= set_audio(object, measures);
  }
  if (measures->codebooks > 0) {
    failed |= set_tokens(object, measures);
  }
  if (failed) {
    json_decref(object);
    return NULL;
  }
  return object;
}
