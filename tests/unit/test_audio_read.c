/*
 * Decoding what is right: every format, from memory and from a file, whole, in time and level, and within
 * the limits. The files that are wrong are in test_audio_hostile.c.
 */
#include "test_audio_fixture.h"

static struct vamp_audio read_bytes(struct bytes bytes, const struct vamp_audio_limits *limits) {
  struct vamp_audio audio = {0};
  struct vamp_error error = {0};
  if (vamp_audio_read_memory(bytes.data, bytes.size, "memory", limits, &audio, &error) != 0) {
    fail_msg("%s", error.message);
  }
  return audio;
}

static int read_status(struct bytes bytes, const struct vamp_audio_limits *limits, struct vamp_error *error) {
  struct vamp_audio audio = {0};
  int status = vamp_audio_read_memory(bytes.data, bytes.size, "memory", limits, &audio, error);
  assert_null(status ? audio.samples : NULL);
  vamp_audio_free(&audio);
  return status;
}

/* ---- formats -------------------------------------------------------------------------------------- */

struct format_case {
  const char *name;
  int format, rate, channels;
  double snr; /* at least, in dB */
};

static const struct format_case formats[] = {
    {"wav 8 bit", SF_FORMAT_WAV | SF_FORMAT_PCM_U8, 44100, 2, 38},
    {"wav 16 bit", SF_FORMAT_WAV | SF_FORMAT_PCM_16, 44100, 2, 85},
    {"wav 24 bit", SF_FORMAT_WAV | SF_FORMAT_PCM_24, 48000, 2, 130},
    {"wav 32 bit", SF_FORMAT_WAV | SF_FORMAT_PCM_32, 44100, 1, 140},
    {"wav float", SF_FORMAT_WAV | SF_FORMAT_FLOAT, 44100, 2, 200},
    {"wav double", SF_FORMAT_WAV | SF_FORMAT_DOUBLE, 44100, 2, 140},
    {"wav mu-law", SF_FORMAT_WAV | SF_FORMAT_ULAW, 8000, 1, 30},
    {"wav ima adpcm", SF_FORMAT_WAV | SF_FORMAT_IMA_ADPCM, 44100, 1, 25},
    {"wav extensible, 6 channels", SF_FORMAT_WAVEX | SF_FORMAT_PCM_16, 48000, 6, 85},
    {"rf64", SF_FORMAT_RF64 | SF_FORMAT_PCM_16, 44100, 2, 85},
    {"wav 8 kHz", SF_FORMAT_WAV | SF_FORMAT_PCM_16, 8000, 1, 85},
    {"wav 192 kHz", SF_FORMAT_WAV | SF_FORMAT_PCM_24, 192000, 2, 130},
    {"aiff 16 bit", SF_FORMAT_AIFF | SF_FORMAT_PCM_16, 44100, 2, 85},
    {"aiff 24 bit", SF_FORMAT_AIFF | SF_FORMAT_PCM_24, 44100, 2, 130},
    {"aiff float", SF_FORMAT_AIFF | SF_FORMAT_FLOAT, 44100, 2, 200},
    {"flac 16 bit", SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 44100, 2, 85},
    {"flac 24 bit", SF_FORMAT_FLAC | SF_FORMAT_PCM_24, 96000, 2, 130},
    {"flac, 6 channels", SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 44100, 6, 85},
    {"vorbis", SF_FORMAT_OGG | SF_FORMAT_VORBIS, 44100, 2, 15},
    {"opus", SF_FORMAT_OGG | SF_FORMAT_OPUS, 48000, 2, 15},
    {"mp3", SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III, 44100, 2, 15},
    {"mp3 mono, 22.05 kHz", SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III, 22050, 1, 15},
};

/* Right count, and sample for sample in time: an offset of a few samples would ruin the ratio. */
static void test_formats(void **state) {
  const size_t frames = 30011;
  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
    const struct format_case *test = &formats[i];
    float *tone = fixture_tone(frames, test->channels, test->rate, 440);
    struct bytes bytes = fixture_encode(state, test->format, test->rate, test->channels, tone, frames);
    struct vamp_audio audio = read_bytes(bytes, NULL);
    assert_int_equal(audio.sample_rate, test->rate);
    assert_int_equal(audio.channels, test->channels);
    if ((test->format & SF_FORMAT_SUBMASK) == SF_FORMAT_IMA_ADPCM) { /* whole blocks only */
      assert_in_range(audio.frames, frames, frames + 4096);
    } else {
      assert_int_equal(audio.frames, frames);
    }
    double snr = fixture_snr(audio.samples, tone, frames * (size_t)test->channels);
    if (snr < test->snr) {
      fail_msg("%s: %.1f dB", test->name, snr);
    }
    vamp_audio_free(&audio);
    free(bytes.data);
    free(tone);
  }
}

static void test_file_equals_memory(void **state) {
  struct bytes bytes = fixture_encode_tone(state, SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 44100, 2, 100000);
  struct vamp_audio from_memory = read_bytes(bytes, NULL), from_file = {0};
  /* The ending says nothing. */
  struct fixture_path path = fixture_path(state, "song.gsm");
  fixture_save(path.text, bytes.data, bytes.size);
  assert_int_equal(vamp_audio_read_file(path.text, NULL, &from_file, NULL), 0);
  assert_int_equal(from_file.frames, from_memory.frames);
  assert_memory_equal(from_file.samples, from_memory.samples, from_file.frames * 2 * sizeof(float));
  vamp_audio_free(&from_file);
  vamp_audio_free(&from_memory);
  assert_null(from_memory.samples);
  vamp_audio_free(&from_memory);
  vamp_audio_free(NULL);
  free(bytes.data);
}

static void test_one_sample(void **state) {
  const int kinds[] = {SF_FORMAT_WAV | SF_FORMAT_PCM_16, SF_FORMAT_AIFF | SF_FORMAT_PCM_16,
                       SF_FORMAT_FLAC | SF_FORMAT_PCM_16, SF_FORMAT_OGG | SF_FORMAT_VORBIS};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    float sample = 0.5f;
    struct bytes bytes = fixture_encode(state, kinds[i], 44100, 1, &sample, 1);
    struct vamp_audio audio = read_bytes(bytes, NULL);
    assert_int_equal(audio.frames, 1);
    vamp_audio_free(&audio);
    free(bytes.data);
  }
}

/* ---- tags ----------------------------------------------------------------------------------------- */

/* An ID3v2 tag of `size` bytes (a cover picture, say) and `padding` zeros that it does not count. */
static struct bytes with_tag(struct bytes audio, size_t size, size_t padding) {
  struct bytes tagged = {.size = 10 + size + padding + audio.size};
  tagged.data = calloc(1, tagged.size);
  assert_non_null(tagged.data);
  memcpy(tagged.data, "ID3\x04", 4);
  for (int i = 0; i < 4; i++) {
    tagged.data[6 + i] = (unsigned char)(size >> (7 * (3 - i)) & 0x7F);
  }
  memset(tagged.data + 10, 0xFF, size);
  memcpy(tagged.data + 10 + size + padding, audio.data, audio.size);
  return tagged;
}

static void test_tags(void **state) {
  const int kinds[] = {SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III, SF_FORMAT_FLAC | SF_FORMAT_PCM_16};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    struct bytes plain = fixture_encode_tone(state, kinds[i], 44100, 2, 50000);
    struct vamp_audio expected = read_bytes(plain, NULL);
    const size_t sizes[] = {0, 100, 3000000};
    for (size_t s = 0; s < 3; s++) {
      struct bytes tagged = with_tag(plain, sizes[s], i == 0 ? 700 : 0);
      struct vamp_audio audio = read_bytes(tagged, NULL);
      assert_int_equal(audio.frames, 50000);
      assert_memory_equal(audio.samples, expected.samples, 50000 * 2 * sizeof(float));
      vamp_audio_free(&audio);
      free(tagged.data);
    }
    vamp_audio_free(&expected);
    free(plain.data);
  }
}

/* ---- MP3 without a length ------------------------------------------------------------------------- */

/* Cuts off the first frame, which holds the Xing header, and returns how many bytes it had. */
static size_t drop_first_frame(struct bytes *mp3) {
  static const size_t kbps[16] = {0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0};
  size_t first_frame = 144000 * kbps[mp3->data[2] >> 4] / 44100 + (mp3->data[2] >> 1 & 1);
  mp3->size -= first_frame;
  memmove(mp3->data, mp3->data + first_frame, mp3->size);
  assert_int_equal(mp3->data[0], 0xFF);
  return first_frame;
}

/* Loud noise for a tenth, then silence: with a variable bit rate, a length guessed from the first frame
 * would be far too short. */
static struct bytes mp3_without_length(void **state, size_t frames, int mode, size_t *frame_size) {
  float *samples = calloc(frames, sizeof *samples);
  assert_non_null(samples);
  uint32_t noise = 1;
  for (size_t i = 0; i < frames / 10; i++) {
    noise = noise * 1664525u + 1013904223u;
    samples[i] = (float)((double)noise / 4294967296.0 - 0.5);
  }
  struct fixture_path path = fixture_path(state, "song.mp3");
  SF_INFO info = {.samplerate = 44100, .channels = 1, .format = SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III};
  SNDFILE *file = sf_open(path.text, SFM_WRITE, &info);
  assert_non_null(file);
  sf_command(file, SFC_SET_BITRATE_MODE, &mode, sizeof mode);
  assert_int_equal(sf_writef_float(file, samples, (sf_count_t)frames), frames);
  sf_close(file);
  free(samples);
  struct bytes mp3 = fixture_load(path.text);
  *frame_size = drop_first_frame(&mp3);
  return mp3;
}

/* Tags at the end, of megabytes even, are neither audio nor damage. */
static void test_mp3_end_tags(void **state) {
  const size_t items = 3000000;
  size_t frame_size;
  struct bytes mp3 = mp3_without_length(state, 60000, SF_BITRATE_MODE_CONSTANT, &frame_size);
  struct vamp_audio plain = read_bytes(mp3, NULL);
  mp3.data = realloc(mp3.data, mp3.size + 32 + items + 32 + 128);
  assert_non_null(mp3.data);
  unsigned char *header = mp3.data + mp3.size, *footer = header + 32 + items;
  memset(header, 0, 32 + items + 32 + 128);
  put_text(header, "APETAGEX");
  put_text(footer, "APETAGEX");
  put_le(footer + 12, items + 32, 4);
  put_le(footer + 20, 0x80000000u, 4);
  put_text(footer + 32, "TAG");
  mp3.size += 32 + items + 32 + 128;
  struct vamp_audio tagged = read_bytes(mp3, NULL);
  assert_int_equal(tagged.frames, plain.frames);
  assert_memory_equal(tagged.samples, plain.samples, plain.frames * sizeof(float));
  vamp_audio_free(&tagged);
  vamp_audio_free(&plain);
  free(mp3.data);
}

/* A recording of a stream ends where it ends: all whole frames count. */
static void test_mp3_cut(void **state) {
  size_t frame_size;
  struct bytes mp3 = mp3_without_length(state, 60000, SF_BITRATE_MODE_CONSTANT, &frame_size);
  mp3.size = 30 * frame_size + frame_size / 2;
  struct vamp_audio audio = read_bytes(mp3, NULL);
  assert_in_range(audio.frames, 28 * 1152, 31 * 1152);
  vamp_audio_free(&audio);
  free(mp3.data);
}

static void test_mp3_without_length(void **state) {
  size_t frame_size;
  struct bytes mp3 = mp3_without_length(state, 100000, SF_BITRATE_MODE_VARIABLE, &frame_size);
  struct vamp_audio audio = read_bytes(mp3, NULL);
  assert_in_range(audio.frames, 100000, 100000 + 4 * 1152); /* encoders add a frame or two */
  vamp_audio_free(&audio);
  /* And not longer than allowed. */
  struct vamp_audio_limits limits = vamp_audio_default_limits();
  struct vamp_error error;
  limits.max_seconds = 1;
  assert_int_equal(read_status(mp3, &limits, &error), VAMP_LIMIT);
  assert_non_null(strstr(error.message, "longer than the 1 s"));
  free(mp3.data);
}

/* ---- lengths that a pipe could not know ----------------------------------------------------------- */

static void test_streamed_wav(void **state) {
  (void)state;
  const uint32_t sizes[][2] = {
      {0xFFFFFFFFu, 0xFFFFFFFFu}, {0x7FFFF024u, 0x7FFFF000u}, {0, 0}, {36, 0}, {0xFFFFFFFFu, 0}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    struct bytes wav = fixture_wav(sizes[i][0], sizes[i][1], 2, 44100, 1000);
    struct vamp_audio audio = read_bytes(wav, NULL);
    assert_int_equal(audio.frames, 1000);
    vamp_audio_free(&audio);
    free(wav.data);
  }
}

static struct bytes rf64(uint64_t data_size, size_t frames) {
  struct bytes wav = fixture_wav(0xFFFFFFFFu, 0xFFFFFFFFu, 2, 44100, frames);
  memmove(wav.data + 12 + 36, wav.data + 12, wav.size - 12);
  wav.size += 36;
  memcpy(wav.data, "RF64", 4);
  memcpy(wav.data + 12, "ds64", 4);
  memset(wav.data + 16, 0, 32);
  put_le(wav.data + 16, 28, 4);
  put_le(wav.data + 20, data_size, 8);
  put_le(wav.data + 28, data_size, 8);
  put_le(wav.data + 36, data_size / 4, 8);
  return wav;
}

static void test_rf64(void **state) {
  (void)state;
  const uint64_t fine[] = {4000, 0, UINT64_MAX};
  for (size_t i = 0; i < 3; i++) {
    struct bytes wav = rf64(fine[i], 1000);
    struct vamp_audio audio = read_bytes(wav, NULL);
    assert_int_equal(audio.frames, 1000);
    vamp_audio_free(&audio);
    free(wav.data);
  }
  struct bytes claim = rf64(4000000000000u, 1000); /* 10^12 frames */
  struct vamp_error error;
  assert_int_equal(read_status(claim, NULL, &error), VAMP_INVALID);
  assert_non_null(strstr(error.message, "3999999996000 of them are missing"));
  free(claim.data);
}

/* The 36 bits of STREAMINFO that count the samples. */
static void set_flac_length(struct bytes flac, uint64_t samples) {
  flac.data[21] = (unsigned char)((flac.data[21] & 0xF0) | (samples >> 32 & 0x0F));
  for (int i = 0; i < 4; i++) {
    flac.data[22 + i] = (unsigned char)(samples >> (8 * (3 - i)));
  }
}

static void test_streamed_flac(void **state) {
  struct bytes flac = fixture_encode_tone(state, SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 44100, 1, 88200);
  set_flac_length(flac, 0);
  struct vamp_audio audio = read_bytes(flac, NULL);
  assert_int_equal(audio.frames, 88200);
  vamp_audio_free(&audio);
  struct vamp_audio_limits limits = vamp_audio_default_limits();
  limits.max_seconds = 1.5;
  assert_int_equal(read_status(flac, &limits, NULL), VAMP_LIMIT);
  limits.max_seconds = 2;
  assert_int_equal(read_status(flac, &limits, NULL), 0);
  free(flac.data);
}

/* No end-of-stream page: somebody stopped the recording. */
static void test_streamed_ogg(void **state) {
  struct bytes ogg = fixture_encode_tone(state, SF_FORMAT_OGG | SF_FORMAT_VORBIS, 44100, 2, 200000);
  size_t last = ogg.size - 4;
  while (memcmp(ogg.data + last, "OggS", 4) != 0) {
    last--;
  }
  ogg.size = last;
  struct vamp_audio audio = read_bytes(ogg, NULL);
  assert_in_range(audio.frames, 100000, 199999);
  vamp_audio_free(&audio);
  free(ogg.data);
}

/* ---- limits --------------------------------------------------------------------------------------- */

static void test_limits(void **state) {
  struct bytes wav = fixture_encode_tone(state, SF_FORMAT_WAV | SF_FORMAT_PCM_16, 8000, 2, 16000);
  struct vamp_audio_limits limits = vamp_audio_default_limits();
  struct vamp_error error;
  assert_int_equal((int)limits.max_seconds, 600);
  assert_int_equal(limits.max_samples, (size_t)1 << 28);
  assert_int_equal(limits.max_channels, 64);

  limits.max_seconds = 2;
  assert_int_equal(read_status(wav, &limits, &error), 0);
  limits.max_seconds = 1.999;
  assert_int_equal(read_status(wav, &limits, &error), VAMP_LIMIT);
  assert_int_equal(error.status, VAMP_LIMIT);
  assert_non_null(strstr(error.message, "memory is 2.0 s long and 1.999 s are allowed"));

  limits = vamp_audio_default_limits();
  limits.max_samples = 32000;
  assert_int_equal(read_status(wav, &limits, &error), 0);
  limits.max_samples = 31999;
  assert_int_equal(read_status(wav, &limits, &error), VAMP_LIMIT);
  assert_non_null(strstr(error.message, "more than 31999 samples"));

  limits = vamp_audio_default_limits();
  limits.max_channels = 1;
  assert_int_equal(read_status(wav, &limits, &error), VAMP_LIMIT);
  assert_non_null(strstr(error.message, "2 channels"));
  free(wav.data);
}

/* An hour of silence is 30 kB of FLAC. */
static void test_an_hour(void **state) {
  const size_t frames = (size_t)3600 * 8000;
  float *silence = calloc(frames, sizeof *silence);
  assert_non_null(silence);
  struct bytes flac = fixture_encode(state, SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 8000, 1, silence, frames);
  free(silence);
  struct vamp_error error;
  assert_in_range(flac.size, 1000, 1000000);
  assert_int_equal(read_status(flac, NULL, &error), VAMP_LIMIT);
  assert_non_null(strstr(error.message, "3600.0 s long and 600 s are allowed"));
  set_flac_length(flac, 0); /* a bomb that does not say how large it is */
  assert_int_equal(read_status(flac, NULL, &error), VAMP_LIMIT);
  assert_non_null(strstr(error.message, "longer than the 600 s"));
  free(flac.data);
}

/* A length no memory could hold, under limits that would allow it: the header must not be believed. */
static void test_enormous_flac(void **state) {
  struct bytes flac = fixture_encode_tone(state, SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 44100, 1, 20000);
  set_flac_length(flac, ((uint64_t)1 << 36) - 1);
  struct vamp_error error;
  assert_int_equal(read_status(flac, NULL, &error), VAMP_LIMIT);
  struct vamp_audio_limits limits = {.max_seconds = 1e12, .max_samples = SIZE_MAX / 8, .max_channels = 64};
  assert_int_equal(read_status(flac, &limits, &error), VAMP_INVALID);
  assert_non_null(strstr(error.message, "0.454 s could be decoded"));
  free(flac.data);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_formats, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_file_equals_memory, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_one_sample, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_tags, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_mp3_without_length, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_mp3_end_tags, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_mp3_cut, fixture_setup, fixture_teardown),
      cmocka_unit_test(test_streamed_wav),
      cmocka_unit_test(test_rf64),
      cmocka_unit_test_setup_teardown(test_streamed_flac, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_streamed_ogg, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_limits, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_an_hour, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_enormous_flac, fixture_setup, fixture_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
