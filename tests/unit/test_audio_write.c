/*
 * Encoding: what is written reads back, the same samples give the same bytes, and a failure leaves the
 * old file as it was.
 */
#include "test_audio_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

static struct bytes write_bytes(enum vamp_audio_format format, const float *samples, size_t count, int rate) {
  struct bytes bytes = {0};
  struct vamp_error error = {0};
  void *data = NULL;
  if (vamp_audio_write_memory(format, samples, count, rate, &data, &bytes.size, &error) != 0) {
    fail_msg("%s", error.message);
  }
  bytes.data = data;
  return bytes;
}

static struct vamp_audio read_back(struct bytes bytes) {
  struct vamp_audio audio = {0};
  struct vamp_error error = {0};
  if (vamp_audio_read_memory(bytes.data, bytes.size, "written", NULL, &audio, &error) != 0) {
    fail_msg("%s", error.message);
  }
  return audio;
}

/* ---- formats -------------------------------------------------------------------------------------- */

static const struct {
  enum vamp_audio_format format;
  double snr;
  const char *start;
} formats[] = {
    {VAMP_AUDIO_WAV16, 80, "RIFF"}, {VAMP_AUDIO_WAV24, 135, "RIFF"}, {VAMP_AUDIO_WAV_FLOAT, 250, "RIFF"},
    {VAMP_AUDIO_FLAC, 135, "fLaC"}, {VAMP_AUDIO_OGG, 15, "OggS"},
};
#define FORMATS (sizeof formats / sizeof *formats)

static void test_round_trip(void **state) {
  (void)state;
  const size_t counts[] = {1, 4095, 4096, 4097, 100003};
  float *tone = fixture_tone(100003, 1, 44100, 440);
  for (size_t f = 0; f < FORMATS; f++) {
    for (size_t c = 0; c < 5; c++) {
      struct bytes bytes = write_bytes(formats[f].format, tone, counts[c], 44100);
      assert_memory_equal(bytes.data, formats[f].start, 4);
      struct vamp_audio audio = read_back(bytes);
      assert_int_equal(audio.frames, counts[c]);
      assert_int_equal(audio.channels, 1);
      assert_int_equal(audio.sample_rate, 44100);
      double snr = fixture_snr(audio.samples, tone, counts[c]);
      if (counts[c] > 1 && snr < formats[f].snr) { /* the first sample of a sine is 0 */
        fail_msg("format %d: %.1f dB", (int)formats[f].format, snr);
      }
      vamp_audio_free(&audio);
      free(bytes.data);
    }
  }
  free(tone);
}

/* A float WAV must not hold the time of day, nor an Ogg stream a random number. */
static void test_same_bytes(void **state) {
  (void)state;
  float *tone = fixture_tone(50000, 1, 44100, 440);
  for (size_t f = 0; f < FORMATS; f++) {
    struct bytes first = write_bytes(formats[f].format, tone, 50000, 44100);
    struct bytes second = write_bytes(formats[f].format, tone, 50000, 44100);
    assert_int_equal(first.size, second.size);
    assert_memory_equal(first.data, second.data, first.size);
    if (formats[f].format == VAMP_AUDIO_WAV_FLOAT) { /* the clock may not have moved between the two */
      for (size_t i = 0; i < 200; i++) {
        assert_memory_not_equal(first.data + i, "PEAK", 4);
      }
    }
    if (formats[f].format == VAMP_AUDIO_OGG) {
      assert_memory_equal(first.data + 14, "pmav", 4);
    }
    free(first.data);
    free(second.data);
  }
  free(tone);
}

/* ---- 16 bit --------------------------------------------------------------------------------------- */

static void test_dither(void **state) {
  (void)state;
  enum { COUNT = 200000 };
  float *samples = malloc(COUNT * sizeof *samples);
  assert_non_null(samples);
  for (size_t i = 0; i < COUNT; i++) {
    samples[i] = 0.3f / 32768; /* well below half a step: without dither, it would be gone */
  }
  struct bytes bytes = write_bytes(VAMP_AUDIO_WAV16, samples, COUNT, 44100);
  struct vamp_audio audio = read_back(bytes);
  double sum = 0, squares = 0, neighbours = 0, last = 0;
  for (size_t i = 0; i < COUNT; i++) {
    double error = (double)audio.samples[i] * 32768 - 0.3;
    sum += error;
    squares += error * error;
    neighbours += error * last;
    last = error;
  }
  assert_true(fabs(sum / COUNT) < 0.01);            /* the mean is kept */
  assert_true(fabs(squares / COUNT - 0.25) < 0.01); /* 1/12 of rounding, 1/6 of TPDF */
  assert_true(fabs(neighbours / COUNT) < 0.01);     /* and white */
  vamp_audio_free(&audio);
  free(bytes.data);
  free(samples);
}

static void test_sixteen_bits_stay(void **state) {
  (void)state;
  float samples[4096];
  for (int i = 0; i < 4096; i++) {
    samples[i] = (float)((i * 16) - 32768) / 32768;
  }
  struct bytes bytes = write_bytes(VAMP_AUDIO_WAV16, samples, 4096, 44100);
  struct vamp_audio audio = read_back(bytes);
  assert_memory_equal(audio.samples, samples, sizeof samples);
  vamp_audio_free(&audio);
  free(bytes.data);
}

static void test_clamped(void **state) {
  (void)state;
  float samples[] = {1.5f, -1.5f, 1, -1, 1e6f, -1e6f};
  for (size_t f = 0; f < FORMATS; f++) {
    struct bytes bytes = write_bytes(formats[f].format, samples, 6, 44100);
    struct vamp_audio audio = read_back(bytes);
    if (formats[f].format == VAMP_AUDIO_WAV_FLOAT) {
      assert_memory_equal(audio.samples, samples, sizeof samples);
    } else if (formats[f].format != VAMP_AUDIO_OGG) {
      for (size_t i = 0; i < 6; i++) {
        assert_true(fabsf(audio.samples[i] - (samples[i] > 0 ? 1.0f : -1.0f)) < 1e-3f);
      }
    }
    vamp_audio_free(&audio);
    free(bytes.data);
  }
}

/* ---- refused -------------------------------------------------------------------------------------- */

static void test_refused(void **state) {
  (void)state;
  float samples[3] = {0, NAN, 0};
  void *data = samples;
  size_t size = 5;
  struct vamp_error error;
  assert_int_equal(vamp_audio_write_memory(VAMP_AUDIO_WAV16, samples, 3, 44100, &data, &size, &error),
                   VAMP_INVALID);
  assert_non_null(strstr(error.message, "sample 1"));
  samples[1] = INFINITY;
  assert_int_equal(vamp_audio_write_memory(VAMP_AUDIO_OGG, samples, 3, 44100, &data, &size, &error),
                   VAMP_INVALID);
  samples[1] = 0;
  assert_int_equal(vamp_audio_write_memory(VAMP_AUDIO_WAV16, samples, 0, 44100, &data, &size, &error),
                   VAMP_INVALID);
  assert_int_equal(vamp_audio_write_memory(VAMP_AUDIO_WAV16, samples, 3, 0, &data, &size, &error),
                   VAMP_INVALID);
  assert_int_equal(
      vamp_audio_write_memory(VAMP_AUDIO_WAV16, samples, (size_t)1 << 31, 44100, &data, &size, &error),
      VAMP_LIMIT);
  assert_int_equal(vamp_audio_write_memory(VAMP_AUDIO_OGG, samples, 3, 768000, &data, &size, &error),
                   VAMP_UNSUPPORTED);
  assert_non_null(strstr(error.message, "audio/ogg at 768000 Hz"));
  assert_ptr_equal(data, samples);
  assert_int_equal(size, 5);
}

static void test_names(void **state) {
  (void)state;
  const struct {
    const char *name;
    enum vamp_audio_format format;
    const char *media_type;
  } names[] = {{"wav", VAMP_AUDIO_WAV16, "audio/wav"},          {"wav16", VAMP_AUDIO_WAV16, "audio/wav"},
               {"wav24", VAMP_AUDIO_WAV24, "audio/wav"},        {"flac", VAMP_AUDIO_FLAC, "audio/flac"},
               {"wavfloat", VAMP_AUDIO_WAV_FLOAT, "audio/wav"}, {"ogg", VAMP_AUDIO_OGG, "audio/ogg"}};
  enum vamp_audio_format format;
  struct vamp_error error;
  for (size_t i = 0; i < 6; i++) {
    assert_int_equal(vamp_audio_format_parse(names[i].name, &format, NULL), 0);
    assert_int_equal(format, names[i].format);
    assert_string_equal(vamp_audio_format_media_type(format), names[i].media_type);
  }
  assert_int_equal(vamp_audio_format_parse("mp3", &format, &error), VAMP_INVALID);
  assert_non_null(strstr(error.message, "\"mp3\"; use wav"));
  assert_int_equal(vamp_audio_format_parse("", &format, &error), VAMP_INVALID);

  assert_int_equal(vamp_audio_format_from_path("a/b.c/Out.FLAC", &format, NULL), 0);
  assert_int_equal(format, VAMP_AUDIO_FLAC);
  assert_int_equal(vamp_audio_format_from_path("x.wav", &format, NULL), 0);
  assert_int_equal(format, VAMP_AUDIO_WAV16);
  assert_int_equal(vamp_audio_format_from_path("x.ogg", &format, NULL), 0);
  assert_int_equal(format, VAMP_AUDIO_OGG);
  const char *bad[] = {"x.mp3", "wav", ".wav", "x.wav.txt", "x", ""};
  for (size_t i = 0; i < 6; i++) {
    assert_int_equal(vamp_audio_format_from_path(bad[i], &format, &error), VAMP_INVALID);
  }
}

/* ---- files ---------------------------------------------------------------------------------------- */

static const float three[] = {0.5f, -0.5f, 0.25f};

static int write_three(const char *path, struct vamp_error *error) {
  return vamp_audio_write_file(path, VAMP_AUDIO_WAV_FLOAT, three, 3, 44100, error);
}

static void expect_three(const char *path) {
  struct vamp_audio audio = {0};
  assert_int_equal(vamp_audio_read_file(path, NULL, &audio, NULL), 0);
  assert_int_equal(audio.frames, 3);
  assert_memory_equal(audio.samples, three, sizeof three);
  vamp_audio_free(&audio);
}

static void test_file(void **state) {
  struct fixture_path path = fixture_path(state, "out.wav");
  mode_t mask = umask(027);
  assert_int_equal(write_three(path.text, NULL), 0);
  umask(mask);
  expect_three(path.text);
  struct stat status;
  assert_int_equal(stat(path.text, &status), 0);
  assert_int_equal(status.st_mode & 0777, 0640);
  fixture_save(path.text, "old", 3);
  assert_int_equal(write_three(path.text, NULL), 0); /* replaced */
  expect_three(path.text);
  assert_int_equal(fixture_count_files(*state), 1); /* nothing left beside it */
}

static void test_link_is_followed(void **state) {
  struct fixture_path path = fixture_path(state, "out.wav"), link = fixture_path(state, "link.wav");
  fixture_save(path.text, "old", 3);
  assert_int_equal(symlink("out.wav", link.text), 0);
  assert_int_equal(write_three(link.text, NULL), 0);
  expect_three(path.text);
  struct stat status;
  assert_int_equal(lstat(link.text, &status), 0);
  assert_true(S_ISLNK(status.st_mode));
}

static void test_unwritable(void **state) {
  struct vamp_error error;
  struct fixture_path path = fixture_path(state, "missing/out.wav");
  assert_int_equal(write_three(path.text, &error), VAMP_IO);
  assert_non_null(
      strstr(error.message, "missing/out.wav: No such file or directory; create its folder first"));
  assert_int_equal(write_three(*state, &error), VAMP_IO);
  assert_non_null(strstr(error.message, "is a folder"));
  assert_int_equal(fixture_count_files(*state), 0);
}

/* Replacing /dev/stdout by a file would be a fine mess. A pipe stands in for it here, and comes first: a
 * broken vamp_file_write must not get at the machine's own devices. */
static void test_device(void **state) {
  struct fixture_path path = fixture_path(state, "pipe");
  assert_int_equal(mkfifo(path.text, 0600), 0);
  int reader = open(path.text, O_RDWR);
  assert_true(reader >= 0);
  assert_int_equal(write_three(path.text, NULL), 0);
  struct stat status;
  assert_int_equal(lstat(path.text, &status), 0);
  assert_true(S_ISFIFO(status.st_mode));
  char start[4];
  assert_int_equal(read(reader, start, sizeof start), sizeof start);
  assert_memory_equal(start, "RIFF", 4);
  close(reader);
  assert_int_equal(fixture_count_files(*state), 1);

  struct vamp_error error;
  assert_int_equal(write_three("/dev/full", &error), VAMP_IO);
  assert_non_null(strstr(error.message, "cannot write /dev/full: No space left on device; free some space"));
}

/* A disk that fills up, as far as a test can have one. */
static void test_full(void **state) {
  struct fixture_path path = fixture_path(state, "out.wav");
  assert_int_equal(write_three(path.text, NULL), 0);
  float *tone = fixture_tone(100000, 1, 44100, 440);
  struct rlimit before, little;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
  little = before;
  little.rlim_cur = 10000;
  void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
  struct vamp_error error;
  int result = vamp_audio_write_file(path.text, VAMP_AUDIO_WAV16, tone, 100000, 44100, &error);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, handler);
  free(tone);
  assert_int_equal(result, VAMP_IO);
  assert_non_null(strstr(error.message, "out.wav"));
  assert_non_null(strstr(error.message, strerror(EFBIG)));
  expect_three(path.text);
  assert_int_equal(fixture_count_files(*state), 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_round_trip),
      cmocka_unit_test(test_same_bytes),
      cmocka_unit_test(test_dither),
      cmocka_unit_test(test_sixteen_bits_stay),
      cmocka_unit_test(test_clamped),
      cmocka_unit_test(test_refused),
      cmocka_unit_test(test_names),
      cmocka_unit_test_setup_teardown(test_file, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_link_is_followed, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_unwritable, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_device, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_full, fixture_setup, fixture_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
