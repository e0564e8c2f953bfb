/*
 * Decoding in a process of its own: the same samples as in this process, and the same errors, whatever the
 * bytes.
 */
#include "test_decode.h"

/* ---- what is audio ------------------------------------------------------------------------------------- */

static const struct {
  int format, rate, channels;
} KINDS[] = {
    {SF_FORMAT_WAV | SF_FORMAT_PCM_16, 44100, 2},          {SF_FORMAT_WAV | SF_FORMAT_PCM_24, 48000, 1},
    {SF_FORMAT_WAV | SF_FORMAT_FLOAT, 96000, 6},           {SF_FORMAT_WAV | SF_FORMAT_ULAW, 8000, 1},
    {SF_FORMAT_WAV | SF_FORMAT_IMA_ADPCM, 22050, 1},       {SF_FORMAT_WAVEX | SF_FORMAT_PCM_16, 44100, 6},
    {SF_FORMAT_RF64 | SF_FORMAT_PCM_16, 44100, 1},         {SF_FORMAT_AIFF | SF_FORMAT_PCM_24, 44100, 2},
    {SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 44100, 2},         {SF_FORMAT_FLAC | SF_FORMAT_PCM_24, 192000, 1},
    {SF_FORMAT_OGG | SF_FORMAT_VORBIS, 44100, 2},          {SF_FORMAT_OGG | SF_FORMAT_OPUS, 48000, 1},
    {SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III, 44100, 2},
};
#define KIND_COUNT (sizeof KINDS / sizeof KINDS[0])

static struct bytes make(void **state, size_t kind, size_t frames) {
  return fixture_encode_tone(state, KINDS[kind].format, KINDS[kind].rate, KINDS[kind].channels, frames);
}

static void test_every_format(void **state) {
  struct vampd_decoder *decoder = open_decoder();
  for (size_t i = 0; i < KIND_COUNT; i++) {
    struct bytes bytes = make(state, i, 30000);
    assert_true(compare(decoder, bytes.data, bytes.size, NULL) >= 30000);
    free(bytes.data);
  }
  vampd_decoder_stop(decoder);
}

static void test_what_is_cut_or_damaged(void **state) {
  struct vampd_decoder *decoder = open_decoder();
  for (size_t i = 0; i < KIND_COUNT; i++) {
    struct bytes bytes = make(state, i, 5000);
    for (size_t size = 0; size < bytes.size; size += 1 + bytes.size / 7) {
      compare(decoder, bytes.data, size, NULL);
    }
    for (size_t at = 5; at < bytes.size; at += 1 + bytes.size / 7) {
      bytes.data[at] ^= 0x55;
      compare(decoder, bytes.data, bytes.size, NULL);
    }
    free(bytes.data);
  }
  vampd_decoder_stop(decoder);
}

static void test_corpus(void **state) {
  (void)state;
  const char *folder = "tests/fuzz/corpus/fuzz_audio";
  struct vampd_decoder *decoder = open_decoder();
  DIR *entries = opendir(folder);
  assert_non_null(entries);
  int count = 0;
  for (struct dirent *entry; (entry = readdir(entries));) {
    if (entry->d_name[0] != '.') {
      char path[512];
      snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
      struct bytes bytes = fixture_load(path);
      compare(decoder, bytes.data, bytes.size, NULL);
      free(bytes.data);
      count++;
    }
  }
  closedir(entries);
  assert_true(count >= 12);
  vampd_decoder_stop(decoder);
}

static void test_claims(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  const uint32_t sizes[] = {0, 1, 0x7FFFF000u, 0x80000000u, 0xFFFFFFF0u, 0xFFFFFFFFu};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    struct bytes wav = fixture_wav(sizes[i], sizes[i], 2, 44100, 1000);
    compare(decoder, wav.data, wav.size, NULL);
    put_le(wav.data + 24, sizes[i], 4); /* the rate */
    compare(decoder, wav.data, wav.size, NULL);
    free(wav.data);
  }
  vampd_decoder_stop(decoder);
}

/* A FLAC of silence takes fourteen bytes a frame: half a megabyte is an hour. */
static struct bytes make_bomb(void **state) {
  float *silence = calloc(8192, sizeof *silence);
  assert_non_null(silence);
  struct bytes flac = fixture_encode(state, SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 44100, 1, silence, 8192);
  free(silence);
  size_t second = flac.size;
  while (second > 42 && !(flac.data[second - 2] == 0xFF && flac.data[second - 1] == 0xF8)) {
    second--;
  }
  second -= 2;
  size_t frame = flac.size - second, copies = (500 << 10) / frame;
  struct bytes bomb = {.size = flac.size + copies * frame};
  bomb.data = malloc(bomb.size);
  assert_non_null(bomb.data);
  memcpy(bomb.data, flac.data, flac.size);
  for (size_t i = 0; i < copies; i++) {
    memcpy(bomb.data + flac.size + i * frame, flac.data + second, frame);
  }
  bomb.data[21] &= 0xF0; /* an unknown number of samples */
  memset(bomb.data + 22, 0, 4);
  free(flac.data);
  return bomb;
}

static void test_an_hour_in_half_a_megabyte(void **state) {
  struct vampd_decoder *decoder = open_decoder();
  struct bytes bomb = make_bomb(state);
  struct vamp_audio_limits limits = vamp_audio_default_limits();
  limits.max_seconds = 20;
  struct vamp_audio audio = {0};
  struct vamp_error error = {0};
  assert_int_equal(vampd_decoder_read(decoder, bomb.data, bomb.size, "upload", &limits, &audio, &error),
                   VAMP_LIMIT);
  assert_non_null(strstr(error.message, "longer than the 20 s"));
  compare(decoder, bomb.data, bomb.size, &limits);
  limits.max_seconds = 1e9;
  limits.max_samples = 1000;
  compare(decoder, bomb.data, bomb.size, &limits);
  /* A header that claims a week. */
  uint64_t week = 604800ull * 44100;
  bomb.data[21] = (unsigned char)((bomb.data[21] & 0xF0) | (week >> 32 & 15));
  for (int i = 0; i < 4; i++) {
    bomb.data[22 + i] = (unsigned char)(week >> (24 - 8 * i));
  }
  compare(decoder, bomb.data, bomb.size, NULL);
  free(bomb.data);
  vampd_decoder_stop(decoder);
}

/* libvorbis loses 6 kB where the third header of a stream is damaged; here they go with the process. */
static void test_a_leaking_header(void **state) {
  struct vampd_decoder *decoder = open_decoder();
  struct bytes ogg = make(state, 10, 5000);
  size_t at = 0;
  while (memcmp(ogg.data + at, "\5vorbis", 7) != 0) {
    assert_true(++at + 7 < ogg.size);
  }
  ogg.data[at + 8] ^= 0xFF;
  pid_t process = vampd_decoder_facts(decoder).process;
  struct vamp_audio audio = {0};
  struct vamp_error error = {0};
  long before = resident_kib(process);
  for (int i = 0; i < 100; i++) {
    assert_int_equal(vampd_decoder_read(decoder, ogg.data, ogg.size, "x", NULL, &audio, &error),
                     VAMP_INVALID);
    assert_int_equal(order(decoder, 'l', &error), 0);
  }
  assert_true(SANITIZED || resident_kib(process) - before < 512);
  free(ogg.data);
  vampd_decoder_stop(decoder);
}

int main(int argc, char **argv) {
  int code;
  if (vampd_decoder_main(argc, argv, decode, &code)) {
    return code;
  }
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_every_format, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_what_is_cut_or_damaged, fixture_setup, fixture_teardown),
      cmocka_unit_test(test_corpus),
      cmocka_unit_test(test_claims),
      cmocka_unit_test_setup_teardown(test_an_hour_in_half_a_megabyte, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_a_leaking_header, fixture_setup, fixture_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
