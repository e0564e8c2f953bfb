/*
 * What a variation changed: a few numbers for a clip before and after, and for its tokens.
 *
 * None of them says whether the result is good. Each is zero (or one, or endless) where nothing was changed,
 * and each is moved by something else, so that a sweep's table shows which parameter does what. docs/masks.md
 * has the table for users.
 *
 * All functions may be called from any thread. The same samples give the same numbers.
 */
#ifndef VAMP_MEASURE_H
#define VAMP_MEASURE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "vamp/error.h"
#include "vamp/mask.h"

/* What has no value (the loudness of silence) is NaN. */
struct vamp_measures {
  double seconds; /* that were compared; 0: no audio was */

  /* Mean absolute difference of the log-mel spectrograms, dB. 80 triangular bands equally wide in mel (2595
   * log10(1 + f / 700), O'Shaughnessy 1987) from 0 Hz to half the rate, of the amplitude spectrum of Hann
   * windows of 2,048 samples every 512, mirrored at both ends; levels below -80 dB count as -80 dB. The
   * definition is that of tools/train/evaluate. */
  double log_mel_db;

  /* 1 - the mean cosine between the chromas of both, 0 .. 1: how far harmony and melody are apart, whatever
   * octave and instrument they are in. A chroma (Fujishima, "Realtime chord recognition of musical sound",
   * 1999) is the amplitude in each of the twelve pitch classes, A = 440 Hz, of a Hann window of 8,192
   * samples; every 4,096 of them; from 55 to 4,186 Hz, each bin shared between its two neighbours in pitch.
   * Windows where both are silent (below -80 dB) do not count, and one where only one is counts 1; 0 where
   * none counts. */
  double chroma_distance;

  /* F-measure of the onsets of `after` against those of `before`, within 50 ms, each met at most once (the
   * measure of MIREX's "audio onset detection"); 1 where neither has one. Onsets are those of the pattern
   * `onset`, heard at even loudness. */
  double onset_f;
  int onsets_before, onsets_after, onsets_kept;

  /* Spectral centroid, Hz: the mean frequency weighted with the amplitude spectrum of all windows (Peeters,
   * "A large set of audio features for sound description", 2004): what is called bright lies higher. NaN for
   * silence. */
  double centroid_before_hz, centroid_after_hz;

  /* Integrated loudness (ITU-R BS.1770-4); NaN below -70 LUFS. Their difference is in LU. */
  double loudness_before_lufs, loudness_after_lufs;

  /* Scale-invariant signal-to-distortion ratio of `after` against `before`, dB (Le Roux et al., "SDR -
   * half-baked or well done?", 2019): how much of the very waveform is left. Low for anything that was
   * decoded from tokens. NaN where either is silent. */
  double si_sdr_db;

  /* Shares of tokens that are not the same, 0 .. 1; codebooks is 0 where no tokens were compared. */
  int codebooks;
  double changed, changed_coarse, changed_fine; /* NaN where there are no coarse, no fine codebooks */
  double changed_codebook[VAMP_MASK_MAX_CODEBOOKS];
};

/* The most samples that are compared: five hours at 44.1 kHz. */
#define VAMP_MEASURE_MAX_SAMPLES ((size_t)768 << 20)

/* Compares two clips [count] of the same rate (4,000 .. 768,000 Hz), mono, finite, as loud as they are heard,
 * and fills all but the fields of tokens, which are left alone. `measures` was zeroed before its first use.
 * Takes time and memory in proportion to the length: ten seconds at 44.1 kHz take some 45 ms of one core.
 * VAMP_INVALID without samples or where the rate is none, VAMP_LIMIT, VAMP_MEMORY. */
int vamp_measure_audio(const float *before, const float *after, size_t count, int sample_rate,
                       struct vamp_measures *measures, struct vamp_error *error);

/* Compares tokens [codebooks, frames] and fills the fields of tokens only. codebooks is 1 ..
 * VAMP_MASK_MAX_CODEBOOKS, frames at least 1; the first `coarse` codebooks are the coarse ones. */
void vamp_measure_tokens(const int32_t *before, const int32_t *after, int codebooks, int coarse, int frames,
                         struct vamp_measures *measures);

/* {"seconds", "log_mel_db", "chroma_distance", "onset_f", "onsets_before", "onsets_after", "onsets_kept",
 *  "centroid_before_hz", "centroid_after_hz", "centroid_change_hz",
 *  "loudness_before_lufs", "loudness_after_lufs", "loudness_change_lu", "si_sdr_db",
 *  "changed", "changed_coarse", "changed_fine", "changed_codebooks": [...]}
 * in this order, NaN as null; what was not compared is left out. All but the last are numbers, so an object
 * is a row of a table. New reference, NULL when out of memory. */
json_t *vamp_measure_json(const struct vamp_measures *measures);

#endif
