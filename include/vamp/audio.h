/*
 * Audio in and out.
 *
 * In:  WAV (RIFF, RIFX, RF64), AIFF, FLAC, Ogg (Vorbis, Opus) or MP3, by libsndfile -> mono 44.1 kHz
 *      float (soxr, very high quality) -> -24 LUFS (ITU-R BS.1770-4 integrated loudness, libebur128) ->
 *      peak limited to 1. A file's first bytes decide what it is, never its name.
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

/* Above this a float is no sample: whole numbers of 32 bits, the largest scale in use, stay below. It keeps
 * sums, squares and filters far from infinity. */
#define VAMP_AUDIO_LARGEST_SAMPLE 4294967296.0f

/* Decoded audio as it came from the file. */
struct vamp_audio {
  float *samples; /* [frames, channels] interleaved; owned, freed by vamp_audio_free */
  size_t frames;
  int channels;    /* 1 .. 64 */
  int sample_rate; /* Hz; 1,000 .. 768,000 */
  size_t mapped;   /* 0: samples are malloc'd; else they are a memory mapping of so many bytes */
};

/* What a stranger may send. Checked against the header first and while decoding after that, so
 * that a small file cannot expand without bound. */
struct vamp_audio_limits {
  double max_seconds; /* of decoded audio; default 600 */
  size_t max_samples; /* frames x channels held in memory at once; default 2^28 (1 GiB of float) */
  int max_channels;   /* default 64 */
};

struct vamp_audio_limits vamp_audio_default_limits(void);

/* Decodes a whole file. VAMP_IO where it cannot be opened or is no regular file, VAMP_INVALID where it is
 * not audio, holds no samples or samples that are NaN, infinite or beyond 2^32, VAMP_LIMIT where it is over
 * `limits` (NULL: the default ones). A truncated file whose decoder still yields samples is accepted up to
 * where it ends only if the container itself does not announce more; otherwise VAMP_INVALID, with what is
 * missing. What announces: the data size of WAV and AIFF (also when one byte is missing), the sample count
 * of FLAC, the last page of Ogg, the Xing or Info header of MP3. What does not: the sizes that a pipe leaves
 * in a WAV or AIFF header (0, or from 0x7FFFF000 and 0x7F000000 up), a FLAC count of 0, an Ogg stream without
 * end-of-stream page, an MP3 without such a header; these are read to their end. */
int vamp_audio_read_file(const char *path, const struct vamp_audio_limits *limits, struct vamp_audio *audio,
                         struct vamp_error *error);

/* The same from memory; `name` is what error messages call it. */
int vamp_audio_read_memory(const void *data, size_t size, const char *name,
                           const struct vamp_audio_limits *limits, struct vamp_audio *audio,
                           struct vamp_error *error);

/* The same into `room`, which holds limits->max_samples floats (limits are not NULL): audio->samples is
 * `room` and is not to be given to vamp_audio_free. No more of it is touched than the audio takes. */
int vamp_audio_read_memory_into(const void *data, size_t size, const char *name,
                                const struct vamp_audio_limits *limits, float *room, struct vamp_audio *audio,
                                struct vamp_error *error);

void vamp_audio_free(struct vamp_audio *audio); /* also resets to zero; fine on a zeroed struct */

/* Audio in the form the model takes. */
struct vamp_clip {
  float *samples; /* [count] mono, |x| <= 1; owned, freed by vamp_clip_free */
  size_t count;
  int sample_rate;   /* of samples */
  double input_lufs; /* loudness of the input's mono mix; -HUGE_VAL for silence (below -70 LUFS) */
  double gain;       /* what the input was multiplied with; 1 where loudness is undefined */
};

/* Mixes to mono (mean of the channels), resamples to `sample_rate`, normalises to -24 LUFS and limits
 * the peak to 1 by lowering the gain. Silence stays silence. Clips too short for a loudness block
 * (0.4 s) are measured by their mean power instead, filtered as a block is. count is
 * round(frames * sample_rate / audio->sample_rate), at least 1, and sample i lies at the time i / sample_rate
 * of the input. Its rate is 1,000 .. 768,000 Hz and `sample_rate` 4,000 .. 768,000, or VAMP_INVALID;
 * VAMP_LIMIT above 2^31 samples. */
int vamp_clip_prepare(const struct vamp_audio *audio, int sample_rate, struct vamp_clip *clip,
                      struct vamp_error *error);

/* Brings samples that the model made (at about -24 LUFS) back to the loudness of the clip they came
 * from, in place, keeping |x| <= 1. The gain is 1/clip->gain, so that kept parts sound as loud as in
 * the input; where that would lift a peak above 1, all samples are lowered by the same factor. */
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

/* The name that is read above, "wav" for 16 bit. */
const char *vamp_audio_format_name(enum vamp_audio_format format);

/* From a file name's ending: .wav, .flac, .ogg. */
int vamp_audio_format_from_path(const char *path, enum vamp_audio_format *format, struct vamp_error *error);

const char *vamp_audio_format_media_type(enum vamp_audio_format format); /* "audio/wav", ... */

/* Writes mono samples [count], 1 .. 2^30 - 1,024, finite (VAMP_INVALID); what exceeds 1 is clamped but in
 * WAV_FLOAT. The file is written beside its final name, forced to the disk and renamed, so a reader never
 * sees half of it and a failure (VAMP_IO, with the path and the reason) leaves the old file; a device is
 * written to directly. The same samples give the same bytes in every format: 16 bit is TPDF-dithered with a
 * fixed seed (unless all samples are 16 bit already), Ogg gets a fixed serial number. VAMP_UNSUPPORTED where
 * the format does not know the rate (Ogg above 200 kHz). */
int vamp_audio_write_file(const char *path, enum vamp_audio_format format, const float *samples, size_t count,
                          int sample_rate, struct vamp_error *error);

/* The same to memory; *data is malloc'd and the caller's to free. */
int vamp_audio_write_memory(enum vamp_audio_format format, const float *samples, size_t count,
                            int sample_rate, void **data, size_t *size, struct vamp_error *error);

#endif
