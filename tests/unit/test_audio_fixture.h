/*
 * What the tests of engine/audio share: a folder of their own, sounds made by arithmetic, files encoded by
 * libsndfile itself, and bytes to damage.
 */
#ifndef VAMP_TEST_AUDIO_FIXTURE_H
#define VAMP_TEST_AUDIO_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <sndfile.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vamp/audio.h"

struct bytes {
  unsigned char *data;
  size_t size;
};

/* ---- a folder: *state of each test ---------------------------------------------------------------- */

static inline int fixture_setup(void **state) {
  const char *base = getenv("TMPDIR");
  char *folder;
  if (asprintf(&folder, "%s/vamp-test-XXXXXX", base ? base : "/tmp") < 0 || !mkdtemp(folder)) {
    return -1;
  }
  *state = folder;
  return 0;
}

static inline int fixture_teardown(void **state) {
  char *folder = *state;
  DIR *entries = opendir(folder);
  for (struct dirent *entry; entries && (entry = readdir(entries));) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    remove(path);
  }
  if (entries) {
    closedir(entries);
  }
  rmdir(folder);
  free(folder);
  return 0;
}

static inline int fixture_count_files(const char *folder) {
  int count = 0;
  DIR *entries = opendir(folder);
  assert_non_null(entries);
  for (struct dirent *entry; (entry = readdir(entries));) {
    count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
  }
  closedir(entries);
  return count;
}

struct fixture_path {
  char text[512];
};

static inline struct fixture_path fixture_path(void **state, const char *name) {
  struct fixture_path path;
  snprintf(path.text, sizeof path.text, "%s/%s", (const char *)*state, name);
  return path;
}

static inline void fixture_save(const char *path, const void *data, size_t size) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, size, file), size);
  assert_int_equal(fclose(file), 0);
}

static inline struct bytes fixture_load(const char *path) {
  struct bytes bytes = {0};
  FILE *file = fopen(path, "rb");
  assert_non_null(file);
  assert_int_equal(fseek(file, 0, SEEK_END), 0);
  bytes.size = (size_t)ftell(file);
  bytes.data = malloc(bytes.size + 1);
  assert_non_null(bytes.data);
  rewind(file);
  assert_int_equal(fread(bytes.data, 1, bytes.size, file), bytes.size);
  fclose(file);
  return bytes;
}

/* ---- sounds --------------------------------------------------------------------------------------- */

/* Channel c carries a sine of (c + 1) * hertz at amplitude 0.4. */
static inline float *fixture_tone(size_t frames, int channels, int rate, double hertz) {
  float *samples = malloc((frames * (size_t)channels + 1) * sizeof *samples);
  assert_non_null(samples);
  for (size_t i = 0; i < frames; i++) {
    for (int c = 0; c < channels; c++) {
      double phase = 2 * M_PI * hertz * (c + 1) * (double)i / rate;
      samples[i * (size_t)channels + (size_t)c] = (float)(0.4 * sin(phase));
    }
  }
  return samples;
}

/* Encodes with libsndfile; the folder of `state` holds the file in between. */
static inline struct bytes fixture_encode(void **state, int format, int rate, int channels,
                                          const float *samples, size_t frames) {
  struct fixture_path path = fixture_path(state, "encoded");
  SF_INFO info = {.samplerate = rate, .channels = channels, .format = format};
  SNDFILE *file = sf_open(path.text, SFM_WRITE, &info);
  assert_non_null(file);
  for (size_t first = 0; first < frames; first += 4096) {
    size_t part = frames - first < 4096 ? frames - first : 4096;
    sf_count_t written = sf_writef_float(file, samples + first * (size_t)channels, (sf_count_t)part);
    assert_int_equal(written, part);
  }
  assert_int_equal(sf_close(file), 0);
  return fixture_load(path.text);
}

static inline struct bytes fixture_encode_tone(void **state, int format, int rate, int channels,
                                               size_t frames) {
  float *samples = fixture_tone(frames, channels, rate, 440);
  struct bytes bytes = fixture_encode(state, format, rate, channels, samples, frames);
  free(samples);
  return bytes;
}

/* Signal to noise of `samples` against `expected`, in dB. */
static inline double fixture_snr(const float *samples, const float *expected, size_t count) {
  double signal = 0, noise = 1e-30;
  for (size_t i = 0; i < count; i++) {
    double difference = (double)samples[i] - (double)expected[i];
    signal += (double)expected[i] * (double)expected[i];
    noise += difference * difference;
  }
  return 10 * log10(signal / noise);
}

/* ---- WAV headers by hand -------------------------------------------------------------------------- */

static inline void put_le(unsigned char *at, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++) {
    at[i] = (unsigned char)(value >> (8 * i));
  }
}

/* Text without its end. */
static inline void put_text(unsigned char *at, const char *text) {
  for (; *text; text++) {
    *at++ = (unsigned char)*text;
  }
}

/* A 16-bit WAV of `frames` zeros whose header says what it is told to. 44 bytes of header. */
static inline struct bytes fixture_wav(uint32_t riff_size, uint32_t data_size, int channels, uint32_t rate,
                                       size_t frames) {
  struct bytes wav = {.size = 44 + frames * (size_t)channels * 2};
  wav.data = calloc(1, wav.size + 64);
  assert_non_null(wav.data);
  memcpy(wav.data, "RIFF....WAVEfmt ", 16);
  put_le(wav.data + 4, riff_size, 4);
  put_le(wav.data + 16, 16, 4);
  put_le(wav.data + 20, 1, 2);
  put_le(wav.data + 22, (uint64_t)channels, 2);
  put_le(wav.data + 24, rate, 4);
  put_le(wav.data + 28, rate * (uint64_t)channels * 2, 4);
  put_le(wav.data + 32, (uint64_t)channels * 2, 2);
  put_le(wav.data + 34, 16, 2);
  memcpy(wav.data + 36, "data", 4);
  put_le(wav.data + 40, data_size, 4);
  return wav;
}

static inline size_t fixture_find(struct bytes bytes, const char *marker) {
  for (size_t i = 0; i + 4 <= bytes.size; i++) {
    if (memcmp(bytes.data + i, marker, 4) == 0) {
      return i;
    }
  }
  fail_msg("no %s in the file", marker);
  return 0;
}

#endif
