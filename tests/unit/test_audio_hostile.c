/*
 * Decoding what is wrong: one clear error each, and never a crash. A file that is cut short must not pass
 * for a shorter one.
 */
#include "test_audio_fixture.h"

#include <sys/stat.h>

/* Reads and wants this error, naming the input. */
static void expect(struct bytes bytes, int status, const char *message) {
  struct vamp_audio untouched = {.samples = NULL, .frames = 123}, audio = untouched;
  struct vamp_error error = {0};
  int got = vamp_audio_read_memory(bytes.data, bytes.size, "upload", NULL, &audio, &error);
  if (got != status || error.status != status || !strstr(error.message, message) ||
      !strstr(error.message, "upload")) {
    fail_msg("wanted %d \"%s\", got %d \"%s\"", status, message, got, error.message);
  }
  assert_memory_equal(&audio, &untouched, sizeof audio);
}

static void expect_file(const char *path, int status, const char *message) {
  struct vamp_audio audio = {0};
  struct vamp_error error = {0};
  int got = vamp_audio_read_file(path, NULL, &audio, &error);
  if (got != status || !strstr(error.message, message)) {
    fail_msg("wanted %d \"%s\", got %d \"%s\"", status, message, got, error.message);
  }
}

/* ---- not audio ------------------------------------------------------------------------------------ */

static void test_not_audio(void **state) {
  (void)state;
  unsigned char text[] = "Dear Sir, please find enclosed a song.\n";
  unsigned char html[] = "<!DOCTYPE html><title>404</title>";
  unsigned char zeros[4096] = {0};
  unsigned char midi[] = "MThd\0\0\0\6\0\1\0\1\0\x60";
  unsigned char avi[] = "RIFF\x20\0\0\0AVI LIST\0\0\0\0";
  const char *message = "is not an audio file that can be read";
  expect((struct bytes){text, sizeof text - 1}, VAMP_INVALID, message);
  expect((struct bytes){html, sizeof html - 1}, VAMP_INVALID, message);
  expect((struct bytes){zeros, sizeof zeros}, VAMP_INVALID, message);
  expect((struct bytes){midi, sizeof midi}, VAMP_INVALID, message);
  expect((struct bytes){avi, sizeof avi}, VAMP_INVALID, message);
  expect((struct bytes){text, 1}, VAMP_INVALID, message);
  expect((struct bytes){text, 0}, VAMP_INVALID, "is empty");
  expect((struct bytes){NULL, 0}, VAMP_INVALID, "is empty");
}

static void test_bare_markers(void **state) {
  (void)state;
  const char *markers[] = {"RIFF", "RIFF\1\1\1\1WAVE", "RF64\1\1\1\1WAVE", "FORM\1\1\1\1AIFF", "fLaC",
                           "OggS", "ID3\4\1\1\1\1\1\1"};
  for (size_t i = 0; i < sizeof markers / sizeof *markers; i++) {
    struct bytes bytes = {(unsigned char *)strdup(markers[i]), strlen(markers[i])};
    expect(bytes, VAMP_INVALID, "upload");
    free(bytes.data);
  }
}

static void test_paths(void **state) {
  struct fixture_path path = fixture_path(state, "text.wav");
  fixture_save(path.text, "not a sound", 11);
  expect_file(path.text, VAMP_INVALID, "text.wav is not an audio file that can be read");
  path = fixture_path(state, "empty.wav");
  fixture_save(path.text, "", 0);
  expect_file(path.text, VAMP_INVALID, "empty.wav is empty");
  expect_file(*state, VAMP_IO, "is a folder");
  path = fixture_path(state, "missing.wav");
  expect_file(path.text, VAMP_IO, "missing.wav: No such file or directory");
  path = fixture_path(state, "pipe.wav"); /* that nobody writes to: must not wait */
  assert_int_equal(mkfifo(path.text, 0600), 0);
  expect_file(path.text, VAMP_IO, "pipe.wav is a pipe or a device");
  expect_file("/dev/zero", VAMP_IO, "is a pipe or a device");
  expect_file("", VAMP_IO, "No such file");
}

/* A name is a stranger's too. */
static void test_names(void **state) {
  (void)state;
  char name[5000];
  struct vamp_error error;
  struct vamp_audio audio = {0};
  memset(name, 'x', sizeof name - 1);
  memcpy(name + sizeof name - 10, "\x1b[2J\n.wav", 10);
  assert_int_equal(vamp_audio_read_memory("text", 4, name, NULL, &audio, &error), VAMP_INVALID);
  assert_non_null(strstr(error.message, "?[2J?.wav is not an audio file"));
  assert_non_null(strstr(error.message, "AIFF")); /* the end of the sentence */
  /* Messages become JSON: what is not UTF-8, or a control character in it, is replaced; the rest stays. */
  const char *mixed =
      "\xc3\xa9\xff\xc3(\xe0\x80\x80\xc2\x9b\xed\xa0\x80\xf0\x9f\x8e\xb5\xf4\x90\x80\x80\xe2\x82";
  assert_int_equal(vamp_audio_read_memory("text", 4, mixed, NULL, &audio, &error), VAMP_INVALID);
  char shown[] = "\xc3\xa9##(########\xf0\x9f\x8e\xb5###### is"; /* # for what became a question mark */
  for (char *c = shown; *c; c++) {
    *c = *c == '#' ? '?' : *c;
  }
  assert_int_equal(strncmp(error.message, shown, strlen(shown)), 0);
  memset(name, 0, sizeof name); /* cut within a character */
  for (size_t i = 0; i < 300; i++) {
    name[i] = "\xe2\x99\xaa"[i % 3];
  }
  assert_int_equal(vamp_audio_read_memory("text", 4, name, NULL, &audio, &error), VAMP_INVALID);
  assert_int_equal(strncmp(error.message, "...\xe2\x99\xaa", 6), 0);
}

/* ---- cut short ------------------------------------------------------------------------------------ */

static void test_cut_short(void **state) {
  const struct {
    int format;
    const char *message;
  } cases[] = {
      {SF_FORMAT_WAV | SF_FORMAT_PCM_16, "bytes of audio and"},
      {SF_FORMAT_WAV | SF_FORMAT_FLOAT, "bytes of audio and"},
      {SF_FORMAT_RF64 | SF_FORMAT_PCM_16, "bytes of audio and"},
      {SF_FORMAT_AIFF | SF_FORMAT_PCM_24, "bytes of audio and"},
      {SF_FORMAT_FLAC | SF_FORMAT_PCM_16, "its header announces 2.268 s and"},
      {SF_FORMAT_OGG | SF_FORMAT_VORBIS, "of its last Ogg page are missing"},
      {SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III, "bytes of audio and"},
  };
  const double shares[] = {0.5, 0.9, 0.999};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct bytes bytes = fixture_encode_tone(state, cases[i].format, 44100, 1, 100000);
    for (size_t s = 0; s < 3; s++) {
      struct bytes cut = {bytes.data, (size_t)((double)bytes.size * shares[s])};
      expect(cut, VAMP_INVALID, "cut short");
      expect(cut, VAMP_INVALID, cases[i].message);
    }
    free(bytes.data);
  }
}

static void test_missing_bytes_are_counted(void **state) {
  (void)state;
  struct bytes wav = fixture_wav(36 + 400000, 400000, 2, 44100, 50000);
  expect(wav, VAMP_INVALID, "announces 400000 bytes of audio and 200000 of them are missing");
  put_le(wav.data + 40, 200001, 4);
  expect(wav, VAMP_INVALID, "1 of them are missing");
  free(wav.data);
}

/* Every beginning of every kind of file: an error or audio, and nothing else. */
static void test_every_beginning(void **state) {
  const int kinds[] = {SF_FORMAT_WAV | SF_FORMAT_IMA_ADPCM, SF_FORMAT_WAVEX | SF_FORMAT_PCM_16,
                       SF_FORMAT_RF64 | SF_FORMAT_PCM_16,   SF_FORMAT_AIFF | SF_FORMAT_FLOAT,
                       SF_FORMAT_FLAC | SF_FORMAT_PCM_16,   SF_FORMAT_OGG | SF_FORMAT_VORBIS};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    struct bytes bytes = fixture_encode_tone(state, kinds[i], 44100, 1, 3000);
    for (size_t size = 0; size < bytes.size; size += size < 200 ? 1 : 97) {
      unsigned char *exact = malloc(size + 1); /* so that a sanitizer sees a byte read too many */
      assert_non_null(exact);
      memcpy(exact, bytes.data, size);
      struct vamp_audio audio = {0};
      struct vamp_error error = {0};
      int status = vamp_audio_read_memory(exact, size, "upload", NULL, &audio, &error);
      assert_true(status == 0 ? audio.frames > 0 : status == VAMP_INVALID && error.message[0]);
      vamp_audio_free(&audio);
      free(exact);
    }
    free(bytes.data);
  }
}

/* ---- damaged -------------------------------------------------------------------------------------- */

static void test_damaged_flac(void **state) {
  struct bytes flac = fixture_encode_tone(state, SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 44100, 1, 100000);
  flac.data[flac.size / 2] ^= 0xFF;
  expect(flac, VAMP_INVALID, "is damaged or cut short: its header announces 2.268 s");
  flac.data[21] &= 0xF0; /* the same without an announced length */
  memset(flac.data + 22, 0, 4);
  expect(flac, VAMP_INVALID, "is damaged or cut short");
  free(flac.data);
}

static void test_no_samples(void **state) {
  const int kinds[] = {SF_FORMAT_WAV | SF_FORMAT_PCM_16, SF_FORMAT_AIFF | SF_FORMAT_PCM_16,
                       SF_FORMAT_OGG | SF_FORMAT_VORBIS};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    struct bytes bytes = fixture_encode_tone(state, kinds[i], 44100, 1, 0);
    expect(bytes, VAMP_INVALID, "holds no samples");
    free(bytes.data);
  }
  /* Empty, with a chunk behind it: that chunk is not audio. */
  struct bytes wav = fixture_wav(36 + 8 + 100, 0, 1, 44100, 54);
  memcpy(wav.data + 44, "LIST", 4);
  put_le(wav.data + 48, 100, 4);
  expect(wav, VAMP_INVALID, "holds no samples");
  free(wav.data);
}

static void test_samples_that_are_none(void **state) {
  const float bad[] = {NAN, INFINITY, -INFINITY, 1e30f};
  for (size_t i = 0; i < 4; i++) {
    float *samples = calloc(100000, sizeof *samples);
    assert_non_null(samples);
    samples[88200 + 1] = bad[i]; /* two channels: at one second, on the right */
    struct bytes wav = fixture_encode(state, SF_FORMAT_WAV | SF_FORMAT_FLOAT, 44100, 2, samples, 50000);
    expect(wav, VAMP_INVALID, "at 1.000 s");
    free(wav.data);
    free(samples);
  }
  /* Whole numbers stored as floats are loud, and audio. */
  float loud = 2147483648.0f;
  struct bytes wav = fixture_encode(state, SF_FORMAT_WAV | SF_FORMAT_FLOAT, 44100, 1, &loud, 1);
  struct vamp_audio audio = {0};
  assert_int_equal(vamp_audio_read_memory(wav.data, wav.size, "x", NULL, &audio, NULL), 0);
  vamp_audio_free(&audio);
  free(wav.data);
}

static void test_rates(void **state) {
  (void)state;
  const uint32_t refused[] = {0, 1, 999, 768001, 0x7FFFFFFF, 0x80000000u, 0xFFFFFFFFu};
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    struct bytes wav = fixture_wav(36 + 200, 200, 1, refused[i], 100);
    expect(wav, VAMP_INVALID, refused[i] - 1 < 0x7FFFFFFFu ? "1000 to 768000 Hz" : "cannot be decoded");
    free(wav.data);
  }
  const uint32_t accepted[] = {1000, 768000};
  for (size_t i = 0; i < 2; i++) {
    struct bytes wav = fixture_wav(36 + 200, 200, 1, accepted[i], 100);
    struct vamp_audio audio = {0};
    assert_int_equal(vamp_audio_read_memory(wav.data, wav.size, "x", NULL, &audio, NULL), 0);
    assert_int_equal(audio.sample_rate, accepted[i]);
    vamp_audio_free(&audio);
    free(wav.data);
  }
}

static void test_channels(void **state) {
  (void)state;
  struct bytes wav = fixture_wav(36 + 100 * 2 * 65, 100 * 2 * 65, 65, 44100, 100);
  expect(wav, VAMP_LIMIT, "65 channels; 1 to 64");
  free(wav.data);
  wav = fixture_wav(36 + 200, 200, 1, 44100, 100);
  put_le(wav.data + 22, 0, 2);
  expect(wav, VAMP_INVALID, "cannot be decoded");
  free(wav.data);
  wav = fixture_wav(36 + 100 * 2 * 64, 100 * 2 * 64, 64, 44100, 100);
  struct vamp_audio audio = {0};
  assert_int_equal(vamp_audio_read_memory(wav.data, wav.size, "x", NULL, &audio, NULL), 0);
  assert_int_equal(audio.channels, 64);
  assert_int_equal(audio.frames, 100);
  vamp_audio_free(&audio);
  free(wav.data);
}

static void test_aiff_claims(void **state) {
  struct bytes aiff = fixture_encode_tone(state, SF_FORMAT_AIFF | SF_FORMAT_PCM_16, 44100, 2, 1000);
  size_t comm = fixture_find(aiff, "COMM"), sound = fixture_find(aiff, "SSND");
  struct vamp_audio audio = {0};

  memset(aiff.data + comm + 10, 0xFF, 4); /* frames */
  expect(aiff, VAMP_INVALID, "cut short");
  memset(aiff.data + comm + 10, 0, 4);
  memset(aiff.data + sound + 4, 0, 4); /* as a pipe leaves it */
  assert_int_equal(vamp_audio_read_memory(aiff.data, aiff.size, "x", NULL, &audio, NULL), 0);
  assert_int_equal(audio.frames, 1000);
  vamp_audio_free(&audio);

  memcpy(aiff.data + sound, "XXXX", 4);
  expect(aiff, VAMP_INVALID, "SSND chunk is missing");
  free(aiff.data);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_not_audio),
      cmocka_unit_test(test_bare_markers),
      cmocka_unit_test_setup_teardown(test_paths, fixture_setup, fixture_teardown),
      cmocka_unit_test(test_names),
      cmocka_unit_test_setup_teardown(test_cut_short, fixture_setup, fixture_teardown),
      cmocka_unit_test(test_missing_bytes_are_counted),
      cmocka_unit_test_setup_teardown(test_every_beginning, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_damaged_flac, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_no_samples, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_samples_that_are_none, fixture_setup, fixture_teardown),
      cmocka_unit_test(test_rates),
      cmocka_unit_test(test_channels),
      cmocka_unit_test_setup_teardown(test_aiff_claims, fixture_setup, fixture_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
