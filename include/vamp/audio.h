/*
 * Audio in and out.
 *
 * In:  any file libsndfile reads -> mono 44.1 kHz float (soxr, very high quality) -> -24 LUFS
 *      (ITU-R BS.1770-4 integrated loudness, libebur128) -> peak limited to 1.
 * Out: the input's own loudness -> WAV (16, 24 bit, float), FLAC or Ogg Vorbis.
 *
 * All functions may be called from any thread; no function keeps a pointer it was given.
 */
#ifndef VAMP_AUDIO_H
#define VAMP_AUDIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vamp/error.h"

/* Decoded audio as it came from the file. */
struct vamp_audio {
  float *samples; /* [frames, channels] interleaved; owned, freed by vamp_audio_free */
  size_t frames;
  int channels;    /* 1 .. 64 */
  int sample_rate; /* Hz */
};

/* What a stranger may send. Checked against the header first and while decoding after that, so
 * that a small file cannot expand without bound. */
struct vamp_audio_limits {
  double max_seconds;  /* of decoded audio; default 600 */
  size_t max_samples;  /* frames x channels held in memory at once; default 2^28 (1 GiB of float) */
  int max_channels;    /* default 64 */
};

struct vamp_audio_limits vamp_audio_default_limits(void);

/* Decodes a whole file. VAMP_IO where it cannot be opened, VAMP_INVALID where it is not audio,
 * holds no samples or NaN/Inf samples, VAMP_LIMIT where it is over `limits`. A truncated file whose
 * decoder still yields samples is accepted up to where it ends only if the container itself does not
 * announce more; otherwise VAMP_INVALID. */
int vamp_audio_read_file(const char *path, const struct vamp_audio_limits *limits,
                         struct vamp_audio *audio, struct vamp_error *error);

/* The same from memory; `name` is what error messages call it. */
int vamp_audio_read_memory(const void *data, size_t size, const char *name,
                           const struct vamp_audio_limits *limits, struct vamp_audio *audio,
                           struct vamp_error *error);

void vamp_audio_free(struct vamp_audio *audio); /* also resets to zero; fine on a zeroed struct */

/* Audio in the form the model takes. */
struct vamp_clip {
  float *samples; /* [count] mono, |x| <= 1; owned, freed by vamp_clip_free */
  size_t count;
  int sample_rate;     /* of samples */
  double input_lufs;   /* integrated loudness of the input; -HUGE_VAL for silence or too short */
  double gain;         /* what the input was multiplied with; 1 where loudness is undefined */
};

/* Mixes to mono (mean of the channels), resamples to `sample_rate`, normalises to -24 LUFS and limits
 * the peak to 1 by lowering the gain. Silence stays silence. Clips too short for a loudness block
 * (0.4 s) are measured by their mean power instead. */
int vamp_clip_prepare(const struct vamp_audio *audio, int sample_rate, struct vamp_clip *clip,
                      struct vamp_error *error);

/* Brings samples that the model made (at about -24 LUFS) back to the loudness of the clip they came
 * from, in place, keeping |x| <= 1. The gain is 1/clip->gain, so that kept parts sound as loud as in
 * the input. */
void vamp_clip_restore_loudness(const struct vamp_clip *clip, float *samples, size_t count);

void vamp_clip_free(struct vamp_clip *clip);

enum vamp_audio_format {
  VAMP_AUDIO_WAV16,
  VAMP_AUDIO_WAV24,
  VAMP_AUDIO_WAV_FLOAT,
  VAMP_AUDIO_FLAC, /* 24 bit */
  VAMP_AUDIO_OGG,  /* Vorbis, quality 0.6 */
};

/* "wav" (16 bit), "wav16", "wav24", "wavfloat", "flac", "ogg"; VAMP_INVALID lists them otherwise. */
int vamp_audio_format_parse(const char *name, enum vamp_audio_format *format, struct vamp_error *error);

/* From a file name's ending: .wav, .flac, .ogg. */
int vamp_audio_format_from_path(const char *path, enum vamp_audio_format *format,
                                struct vamp_error *error);

const char *vamp_audio_format_media_type(enum vamp_audio_format format); /* "audio/wav", ... */

/* Writes mono samples [count]. The file is written beside its final name and renamed, so a reader
 * never sees half of it. 16 bit is TPDF-dithered with a fixed seed: the same samples, the same bytes. */
int vamp_audio_write_file(const char *path, enum vamp_audio_format format, const float *samples,
                          size_t count, int sample_rate, struct vamp_error *error);

/* The same to memory; *data is malloc'd and the caller's to free. */
int vamp_audio_write_memory(enum vamp_audio_format format, const float *samples, size_t count,
                            int sample_rate, void **data, size_t *size, struct vamp_error *error);

#endif
