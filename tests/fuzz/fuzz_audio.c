/*
 * Whatever bytes come, decoding them ends in audio within the limits or in one error, and audio becomes a
 * clip that the model can take. The limits are small, so that a run is quick.
 *
 *   clang -g -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -Iinclude -I. tests/fuzz/fuzz_audio.c \
 *     engine/audio/[a-z]*.c engine/error/error.c -lsndfile -lsoxr -lebur128 -lm -o fuzz_audio
 *   ./fuzz_audio -max_len=65536 tests/fuzz/corpus/fuzz_audio
 *
 * The MP3 decoder remarks on every damaged byte on the standard error stream, and libsndfile has no way to
 * stop it; so that stream is turned off around it. A sanitizer's report still gets out.
 */
#include <fcntl.h>
#include <math.h>
#include <sanitizer/common_interface_defs.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "vamp/audio.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);
const char *__lsan_default_suppressions(void);

/* libsndfile 1.2.0 forgets 6 kB where the second or third header of an Ogg Vorbis stream is damaged. */
const char *__lsan_default_suppressions(void) {
  return "leak:vorbis_info_init\n";
}

static int error_stream = -1, nowhere = -1;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  error_stream = dup(STDERR_FILENO);
  nowhere = open("/dev/null", O_WRONLY);
  __sanitizer_set_report_fd((void *)(intptr_t)error_stream);
  return 0;
}

static void require(int condition) {
  if (!condition) {
    abort();
  }
}

static void check_clip(const struct vamp_audio *audio) {
  struct vamp_clip clip = {0};
  if (vamp_clip_prepare(audio, 44100, &clip, NULL) != 0) {
    return;
  }
  require(clip.count > 0 && isfinite(clip.gain) && clip.gain > 0);
  for (size_t i = 0; i < clip.count; i++) {
    require(fabsf(clip.samples[i]) <= 1);
  }
  vamp_clip_restore_loudness(&clip, clip.samples, clip.count);
  for (size_t i = 0; i < clip.count; i++) {
    require(fabsf(clip.samples[i]) <= 1);
  }
  vamp_clip_free(&clip);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const struct vamp_audio_limits limits = {.max_seconds = 2, .max_samples = 200000, .max_channels = 8};
  struct vamp_audio audio = {0};
  struct vamp_error error = {0};
  dup2(nowhere, STDERR_FILENO);
  int status = vamp_audio_read_memory(data, size, "fuzz", &limits, &audio, &error);
  dup2(error_stream, STDERR_FILENO);
  if (status != 0) {
    require(status == VAMP_INVALID || status == VAMP_LIMIT || status == VAMP_MEMORY);
    require(error.status == status && error.message[0] != '\0' && audio.samples == NULL);
    return 0;
  }
  require(audio.frames > 0 && audio.channels >= 1 && audio.channels <= limits.max_channels);
  require(audio.frames * (size_t)audio.channels <= limits.max_samples);
  require((double)audio.frames <= limits.max_seconds * audio.sample_rate);
  for (size_t i = 0; i < audio.frames * (size_t)audio.channels; i++) {
    require(isfinite(audio.samples[i]));
  }
  check_clip(&audio);
  vamp_audio_free(&audio);
  return 0;
}
