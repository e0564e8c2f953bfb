/*
 * What the files of engine/audio share: the bytes of an input, what its container announces, and the
 * two measures that make a clip.
 */
#ifndef VAMP_ENGINE_AUDIO_INTERNAL_H
#define VAMP_ENGINE_AUDIO_INTERNAL_H

#include <sndfile.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vamp/audio.h"

/* ---- source.c: the bytes of an input, in memory or in a file ------------------------------------- */

/* A window [begin, end) on the bytes, which libsndfile sees as its whole file, with up to eight of
 * them replaced. */
struct vamp_source {
  const unsigned char *memory; /* borrowed; NULL where the bytes are in a file */
  int descriptor;              /* borrowed; -1 where they are in memory */
  uint64_t begin, end;         /* the window; offsets below count from begin */
  uint64_t position;
  struct {
    uint64_t offset;
    unsigned char bytes[8];
    size_t count; /* 0: nothing replaced */
  } patch;
  bool hides_length; /* MP3 without a length: see vamp_source_io */
  int failure;       /* errno of the first read that failed, or 0 */
};

/* Copies up to `count` bytes from `offset`; returns how many there were. */
size_t vamp_source_read_at(struct vamp_source *source, uint64_t offset, void *bytes, size_t count);

static inline uint64_t vamp_source_size(const struct vamp_source *source) {
  return source->end - source->begin;
}

/* The source as libsndfile reads it; its user data is the source. */
SF_VIRTUAL_IO vamp_source_io(void);

/* ---- container.c: what the bytes say they are ---------------------------------------------------- */

/* Recognises the container by its first bytes, narrows the source to it (tags before and after it are
 * left out), and compares the audio it announces with the bytes that are there: VAMP_INVALID where it is
 * none that we read, or some are missing. Headers that a pipe left unfinished are completed in
 * source->patch. */
int vamp_container_inspect(struct vamp_source *source, const char *name, struct vamp_error *error);

/* ---- resample.c ---------------------------------------------------------------------------------- */

/* Rates we take, in Hz: 1 kHz is below any sound recording, 768 kHz the highest that converters make. */
#define VAMP_AUDIO_MIN_RATE 1000
#define VAMP_AUDIO_MAX_RATE 768000
/* The rate at which loudness can be measured, and so that of a clip: BS.1770 lifts what lies above 1,682 Hz,
 * and below twice that its filter is not stable. */
#define VAMP_AUDIO_MIN_CLIP_RATE 4000
#define VAMP_AUDIO_MAX_CHANNELS 64

/* Mixes to mono and resamples. *samples is malloc'd and the caller's to free; *count is
 * round(frames * rate / audio->sample_rate), at least 1. */
int vamp_resample_mono(const struct vamp_audio *audio, int rate, float **samples, size_t *count,
                       struct vamp_error *error);

/* ---- loudness.c ---------------------------------------------------------------------------------- */

/* Integrated loudness of mono samples in LUFS, or -HUGE_VAL for silence; see vamp_clip_prepare for what
 * is done with less than 0.4 s. */
int vamp_loudness_measure(const float *samples, size_t count, int rate, double *lufs,
                          struct vamp_error *error);

/* ---- ogg.c --------------------------------------------------------------------------------------- */

/* Gives every page of a complete Ogg stream the serial number `serial` and the checksum that goes with
 * it. False where the bytes are not whole pages. */
bool vamp_ogg_set_serial(unsigned char *data, size_t size, uint32_t serial);

#endif
