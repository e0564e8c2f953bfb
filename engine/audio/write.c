/*
 * Encoding.
 *
 * Everything is encoded in memory, by libsndfile through callbacks, and a file is those bytes written
 * beside its final name and renamed. So a response and a file are the same bytes, a disk that is full
 * shows in one place, and an Ogg stream can be made reproducible (ogg.c) before anyone sees it. The price
 * is the encoded size in memory: 50 MB for ten minutes.
 *
 * The same samples give the same bytes: the PEAK chunk of float WAVs, which holds the time of day, is
 * left out; dither is counter-based.
 *
 * 16 bits are made with TPDF dither (two uniform draws, one step of the scale each way), which turns the
 * distortion of rounding into a steady noise; samples that are 16 bits already, silence among them, are
 * left alone. 24 bits are rounded: their noise lies below what any converter resolves.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/audio/file.h"
#include "engine/audio/internal.h"
#include "vamp/random.h"

/* Frames handed over at a time. libvorbis keeps what it gets in one call on the stack. */
#define BLOCK 4096

/* Samples in one file: what 4 bytes each leave of a WAV's 4 GiB; six hours at 44.1 kHz. */
#define MAX_COUNT (((size_t)1 << 30) - 1024)

#define DITHER_KEY 0x76616D7064697468u
#define OGG_SERIAL 0x76616D70u
#define OGG_QUALITY 0.6

/* ---- where libsndfile writes ---------------------------------------------------------------------- */

struct sink {
  unsigned char *data;
  size_t size, capacity, position;
  bool full; /* out of memory */
};

static sf_count_t sink_length(void *user) {
  return (sf_count_t)((struct sink *)user)->size;
}

static sf_count_t sink_tell(void *user) {
  return (sf_count_t)((struct sink *)user)->position;
}

static sf_count_t sink_seek(sf_count_t offset, int whence, void *user) {
  struct sink *sink = user;
  sf_count_t base =
      whence == SEEK_CUR ? (sf_count_t)sink->position : (whence == SEEK_END ? (sf_count_t)sink->size : 0);
  if (offset < -base || offset > (sf_count_t)sink->size - base) {
    return -1;
  }
  sink->position = (size_t)(base + offset);
  return base + offset;
}

static sf_count_t sink_read(void *bytes, sf_count_t count, void *user) {
  struct sink *sink = user;
  size_t left = sink->size - sink->position;
  size_t part = count < 0 ? 0 : ((size_t)count < left ? (size_t)count : left);
  if (part > 0) {
    memcpy(bytes, sink->data + sink->position, part);
    sink->position += part;
  }
  return (sf_count_t)part;
}

static sf_count_t sink_write(const void *bytes, sf_count_t count, void *user) {
  struct sink *sink = user;
  if (count <= 0) {
    return 0;
  }
  size_t end = sink->position + (size_t)count;
  if (end > sink->capacity) {
    size_t capacity = end > 2 * sink->capacity ? end + 4096 : 2 * sink->capacity;
    unsigned char *data = realloc(sink->data, capacity);
    if (!data) {
      sink->full = true;
      return 0;
    }
    sink->data = data;
    sink->capacity = capacity;
  }
  memcpy(sink->data + sink->position, bytes, (size_t)count);
  sink->position = end;
  sink->size = end > sink->size ? end : sink->size;
  return count;
}

/* ---- samples -------------------------------------------------------------------------------------- */

/* Rounds to whole steps of 1/scale, within what the scale can hold. */
static int32_t quantise(double scaled, double scale) {
  double rounded = rint(scaled);
  rounded = rounded < -scale ? -scale : (rounded > scale - 1 ? scale - 1 : rounded);
  return (int32_t)rounded;
}

/* One triangular draw in (-1, 1) for sample `index`; two neighbours share a block of random words. */
static double dither(size_t index) {
  uint64_t block = index / 2;
  struct vamp_random4 random = vamp_philox(DITHER_KEY, (uint32_t)block, (uint32_t)(block >> 32), 0, 0);
  size_t pair = index % 2 * 2;
  return (double)vamp_uniform(random.word[pair]) - (double)vamp_uniform(random.word[pair + 1]);
}

static bool needs_dither(const float *samples, size_t count) {
  for (size_t i = 0; i < count; i++) {
    double scaled = (double)samples[i] * 32768;
    if (scaled != rint(scaled)) {
      return true;
    }
  }
  return false;
}

static float clamp(float sample) {
  return sample > 1 ? 1 : (sample < -1 ? -1 : sample);
}

/* Converts and writes samples [first, first + count); count is at most BLOCK. */
static bool write_block(SNDFILE *file, enum vamp_audio_format format, bool dithered, const float *samples,
                        size_t first, size_t count) {
  union {
    short words[BLOCK];
    int integers[BLOCK];
    float floats[BLOCK];
  } block;
  samples += first;
  switch (format) {
  case VAMP_AUDIO_WAV16:
    for (size_t i = 0; i < count; i++) {
      double noise = dithered ? dither(first + i) : 0;
      block.words[i] = (short)quantise((double)samples[i] * 32768 + noise, 32768);
    }
    return sf_writef_short(file, block.words, (sf_count_t)count) == (sf_count_t)count;
  case VAMP_AUDIO_WAV24:
  case VAMP_AUDIO_FLAC:
    for (size_t i = 0; i < count; i++) { /* libsndfile takes the upper 24 of 32 bits */
      block.integers[i] = quantise((double)samples[i] * 8388608, 8388608) * 256;
    }
    return sf_writef_int(file, block.integers, (sf_count_t)count) == (sf_count_t)count;
  case VAMP_AUDIO_WAV_FLOAT:
    return sf_writef_float(file, samples, (sf_count_t)count) == (sf_count_t)count;
  case VAMP_AUDIO_OGG:
    for (size_t i = 0; i < count; i++) {
      block.floats[i] = clamp(samples[i]);
    }
    return sf_writef_float(file, block.floats, (sf_count_t)count) == (sf_count_t)count;
  }
  return false;
}

/* ---- files ---------------------------------------------------------------------------------------- */

static int sndfile_format(enum vamp_audio_format format) {
  switch (format) {
  case VAMP_AUDIO_WAV24:
    return SF_FORMAT_WAV | SF_FORMAT_PCM_24;
  case VAMP_AUDIO_WAV_FLOAT:
    return SF_FORMAT_WAV | SF_FORMAT_FLOAT;
  case VAMP_AUDIO_FLAC:
    return SF_FORMAT_FLAC | SF_FORMAT_PCM_24;
  case VAMP_AUDIO_OGG:
    return SF_FORMAT_OGG | SF_FORMAT_VORBIS;
  case VAMP_AUDIO_WAV16:
    break;
  }
  return SF_FORMAT_WAV | SF_FORMAT_PCM_16;
}

/* Encodes into the sink. False where libsndfile would not. */
static bool encode(struct sink *sink, enum vamp_audio_format format, const float *samples, size_t count,
                   int rate) {
  SF_INFO info = {.samplerate = rate, .channels = 1, .format = sndfile_format(format)};
  SF_VIRTUAL_IO io = {sink_length, sink_seek, sink_read, sink_write, sink_tell};
  SNDFILE *file = sf_open_virtual(&io, SFM_WRITE, &info, sink);
  if (!file) {
    return false;
  }
  sf_command(file, SFC_SET_ADD_PEAK_CHUNK, NULL, SF_FALSE);
  double quality = OGG_QUALITY;
  sf_command(file, SFC_SET_VBR_ENCODING_QUALITY, &quality, sizeof quality);
  bool dithered = format == VAMP_AUDIO_WAV16 && needs_dither(samples, count);
  bool written = true;
  for (size_t first = 0; written && first < count; first += BLOCK) {
    size_t part = count - first < BLOCK ? count - first : BLOCK;
    written = write_block(file, format, dithered, samples, first, part);
  }
  return sf_close(file) == 0 && written && !sink->full;
}

static int check(const float *samples, size_t count, int rate, struct vamp_error *error) {
  if (count == 0) {
    return vamp_fail(error, VAMP_INVALID, "there are no samples to write");
  }
  if (count > MAX_COUNT) {
    return vamp_fail(error, VAMP_LIMIT, "%zu samples are too many for one file; write at most %zu", count,
                     MAX_COUNT);
  }
  if (rate < VAMP_AUDIO_MIN_RATE || rate > VAMP_AUDIO_MAX_RATE) {
    return vamp_fail(error, VAMP_INVALID, "cannot write audio at %d Hz; %d to %d Hz are possible", rate,
                     VAMP_AUDIO_MIN_RATE, VAMP_AUDIO_MAX_RATE);
  }
  for (size_t i = 0; i < count; i++) {
    if (!isfinite(samples[i])) {
      return vamp_fail(error, VAMP_INVALID, "sample %zu is %g and cannot be written", i, (double)samples[i]);
    }
  }
  return 0;
}

int vamp_audio_write_memory(enum vamp_audio_format format, const float *samples, size_t count,
                            int sample_rate, void **data, size_t *size, struct vamp_error *error) {
  struct sink sink = {0};
  int status = check(samples, count, sample_rate, error);
  if (status) {
    return status;
  }
  bool encoded = encode(&sink, format, samples, count, sample_rate);
  if (encoded && format == VAMP_AUDIO_OGG) {
    encoded = vamp_ogg_set_serial(sink.data, sink.size, OGG_SERIAL);
  }
  if (!encoded) {
    status = sink.full ? vamp_fail(error, VAMP_MEMORY, "out of memory while encoding audio")
                       : vamp_fail(error, VAMP_UNSUPPORTED, "cannot encode %s at %d Hz; use wav",
                                   vamp_audio_format_media_type(format), sample_rate);
    free(sink.data);
    return status;
  }
  *data = sink.data;
  *size = sink.size;
  return 0;
}

int vamp_audio_write_file(const char *path, enum vamp_audio_format format, const float *samples, size_t count,
                          int sample_rate, struct vamp_error *error) {
  void *data = NULL;
  size_t size = 0;
  int status = vamp_audio_write_memory(format, samples, count, sample_rate, &data, &size, error);
  if (status) {
    return status;
  }
  status = vamp_file_write(path, data, size, error);
  free(data);
  return status;
}
