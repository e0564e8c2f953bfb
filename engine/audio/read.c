/*
 * Decoding.
 *
 * A header is a claim. It is believed where it makes us refuse (an hour where ten minutes are allowed)
 * and never where it would make us take memory: samples are decoded block by block into an array that
 * grows with what has really come out, up to the limits, so neither a FLAC of a hundred bytes that
 * claims a year nor one that expands a thousandfold costs more than its limit.
 *
 * The channels are kept and mixed later (resample.c), because vamp_audio is also what --raw sees.
 *
 * libsndfile keeps the reason why a file could not be opened in a global variable that all threads
 * share. It is not read: the message says what the user can do, and that is the same for every reason.
 */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/audio/file.h"
#include "engine/audio/internal.h"

/* Samples decoded at a time. */
#define BLOCK_SAMPLES ((size_t)1 << 16)

/* Of an MP3 without an announced length: one MPEG frame, because the decoder drops the whole block in
 * which the data ends. */
#define BLOCK_FRAMES_MPEG ((size_t)1152)

struct vamp_audio_limits vamp_audio_default_limits(void) {
  return (struct vamp_audio_limits){
      .max_seconds = 600, .max_samples = (size_t)1 << 28, .max_channels = VAMP_AUDIO_MAX_CHANNELS};
}

void vamp_audio_free(struct vamp_audio *audio) {
  if (audio) {
    if (audio->mapped > 0) {
      munmap(audio->samples, audio->mapped);
    } else {
      free(audio->samples);
    }
    *audio = (struct vamp_audio){0};
  }
}

struct decoding {
  struct vamp_source *source;
  const char *name;
  const struct vamp_audio_limits *limits;
  SNDFILE *file;
  sf_count_t announced; /* frames, or -1 where the file does not say */
  size_t max_frames;    /* that the limits allow */
  size_t capacity;      /* of audio.samples, in frames */
  float *room;          /* the caller's, where the samples go; NULL: the heap */
  struct vamp_audio audio;
};

static int fail_length(const struct decoding *decoding, struct vamp_error *error) {
  const struct vamp_audio_limits *limits = decoding->limits;
  double rate = decoding->audio.sample_rate;
  const struct vamp_file_label label = vamp_file_label(decoding->name);
  if ((double)decoding->max_frames < floor(limits->max_seconds * rate)) { /* memory, not time */
    return vamp_fail(error, VAMP_LIMIT,
                     "%s has more than %zu samples in %d channels; send a shorter part of it", label.text,
                     limits->max_samples, decoding->audio.channels);
  }
  if (decoding->announced < 0) {
    return vamp_fail(error, VAMP_LIMIT, "%s is longer than the %g s that are allowed; send a part of it",
                     label.text, limits->max_seconds);
  }
  return vamp_fail(error, VAMP_LIMIT, "%s is %.1f s long and %g s are allowed; send a part of it", label.text,
                   (double)decoding->announced / rate, limits->max_seconds);
}

/* Checks what the header says of the audio against what we take. */
static int check_header(struct decoding *decoding, const SF_INFO *info, struct vamp_error *error) {
  const struct vamp_audio_limits *limits = decoding->limits;
  const struct vamp_file_label label = vamp_file_label(decoding->name);
  if (info->samplerate < VAMP_AUDIO_MIN_RATE || info->samplerate > VAMP_AUDIO_MAX_RATE) {
    return vamp_fail(error, VAMP_INVALID, "%s has a sample rate of %d Hz; %d to %d Hz can be read",
                     label.text, info->samplerate, VAMP_AUDIO_MIN_RATE, VAMP_AUDIO_MAX_RATE);
  }
  int max_channels =
      limits->max_channels < VAMP_AUDIO_MAX_CHANNELS ? limits->max_channels : VAMP_AUDIO_MAX_CHANNELS;
  if (info->channels < 1 || info->channels > max_channels) {
    return vamp_fail(error, info->channels < 1 ? VAMP_INVALID : VAMP_LIMIT,
                     "%s has %d channels; 1 to %d can be read", label.text, info->channels, max_channels);
  }
  decoding->audio.sample_rate = info->samplerate;
  decoding->audio.channels = info->channels;
  decoding->announced =
      decoding->source->hides_length || info->frames < 0 || info->frames == SF_COUNT_MAX ? -1 : info->frames;
  double by_time = floor(limits->max_seconds * info->samplerate);
  size_t by_memory = limits->max_samples / (size_t)info->channels;
  decoding->max_frames = by_time < (double)by_memory ? (by_time > 0 ? (size_t)by_time : 0) : by_memory;
  if (decoding->announced >= 0 && (uint64_t)decoding->announced > decoding->max_frames) {
    return fail_length(decoding, error);
  }
  return 0;
}

/* Room for `frames` more after those that are there: where they go, or NULL. The room doubles, so that the
 * samples are moved a few times only. */
static float *reserve(struct decoding *decoding, size_t frames, struct vamp_error *error) {
  struct vamp_audio *audio = &decoding->audio;
  size_t needed = audio->frames + frames, capacity = decoding->capacity;
  if (decoding->room) { /* it holds all that the limits allow */
    audio->samples = decoding->room;
  } else if (capacity < needed) {
    capacity = 2 * capacity > needed ? 2 * capacity : needed;
    if (decoding->announced >= (sf_count_t)needed && (uint64_t)decoding->announced < capacity) {
      capacity = (size_t)decoding->announced;
    }
    capacity = capacity < decoding->max_frames ? capacity : decoding->max_frames;
    float *samples = realloc(audio->samples, capacity * (size_t)audio->channels * sizeof *samples);
    if (!samples) {
      vamp_fail(error, VAMP_MEMORY, "out of memory while decoding %s", vamp_file_label(decoding->name).text);
      return NULL;
    }
    audio->samples = samples;
    decoding->capacity = capacity;
  }
  return audio->samples + audio->frames * (size_t)audio->channels;
}

/* Looks at samples that were decoded after those that are there. */
static int check_samples(const struct decoding *decoding, const float *samples, size_t frames,
                         struct vamp_error *error) {
  size_t channels = (size_t)decoding->audio.channels;
  for (size_t i = 0; i < frames * channels; i++) {
    if (!(fabsf(samples[i]) <= VAMP_AUDIO_LARGEST_SAMPLE)) { /* also false for NaN */
      size_t frame = decoding->audio.frames + i / channels;
      double seconds = (double)frame / decoding->audio.sample_rate;
      return vamp_fail(error, VAMP_INVALID,
                       "%s holds a sample that is %g, at %.3f s; export it again without it",
                       vamp_file_label(decoding->name).text, (double)samples[i], seconds);
    }
  }
  return 0;
}

static int decode(struct decoding *decoding, struct vamp_error *error) {
  struct vamp_audio *audio = &decoding->audio;
  size_t block = decoding->source->hides_length ? BLOCK_FRAMES_MPEG : BLOCK_SAMPLES / (size_t)audio->channels;
  for (;;) {
    size_t wanted = decoding->max_frames - audio->frames;
    if (wanted == 0) {
      float one_more[VAMP_AUDIO_MAX_CHANNELS];
      return sf_readf_float(decoding->file, one_more, 1) > 0 ? fail_length(decoding, error) : 0;
    }
    wanted = wanted < block ? wanted : block;
    float *next = reserve(decoding, wanted, error);
    if (!next) {
      return VAMP_MEMORY;
    }
    sf_count_t got = sf_readf_float(decoding->file, next, (sf_count_t)wanted);
    if (got <= 0) {
      return 0;
    }
    int status = check_samples(decoding, next, (size_t)got, error);
    if (status) {
      return status;
    }
    audio->frames += (size_t)got;
  }
}

/* Whether what came out is all there was. Where the file does not say how much that is, the decoder must
 * have come to its last byte: libsndfile takes damage in the middle of such a FLAC for the end. An MP3 that
 * announces nothing may end anywhere, even within a frame: recordings of radio streams do. */
static int check_end(const struct decoding *decoding, struct vamp_error *error) {
  const struct vamp_audio *audio = &decoding->audio;
  const struct vamp_source *source = decoding->source;
  const struct vamp_file_label label = vamp_file_label(decoding->name);
  if (decoding->announced > (sf_count_t)audio->frames) {
    return vamp_fail(error, VAMP_INVALID,
                     "%s is damaged or cut short: its header announces %.3f s and %.3f s could be decoded",
                     label.text, (double)decoding->announced / audio->sample_rate,
                     (double)audio->frames / audio->sample_rate);
  }
  bool stopped_early = decoding->announced < 0 && source->position < vamp_source_size(source);
  bool failed = sf_error(decoding->file) != SF_ERR_NO_ERROR && !(source->hides_length && audio->frames > 0);
  if (stopped_early || failed) {
    return vamp_fail(error, VAMP_INVALID, "%s is damaged or cut short: %.3f s could be decoded", label.text,
                     (double)audio->frames / audio->sample_rate);
  }
  if (audio->frames == 0) {
    return vamp_fail(error, VAMP_INVALID, "%s holds no samples", label.text);
  }
  return 0;
}

/* Gives back the room that was not needed. */
static void fit(struct vamp_audio *audio) {
  size_t size = audio->frames * (size_t)audio->channels * sizeof *audio->samples;
  float *samples = size > 0 ? realloc(audio->samples, size) : NULL;
  if (samples) {
    audio->samples = samples;
  }
}

static int read_source(struct vamp_source *source, const char *name, const struct vamp_audio_limits *limits,
                       float *room, struct vamp_audio *audio, struct vamp_error *error) {
  struct vamp_audio_limits defaults = vamp_audio_default_limits();
  struct decoding decoding = {
      .source = source, .name = name, .limits = limits ? limits : &defaults, .room = room};
  int status = vamp_container_inspect(source, name, error);
  if (status) {
    goto err;
  }
  SF_INFO info = {0};
  SF_VIRTUAL_IO io = vamp_source_io();
  decoding.file = sf_open_virtual(&io, SFM_READ, &info, source);
  if (!decoding.file) {
    status =
        vamp_fail(error, VAMP_INVALID,
                  "%s begins like audio and cannot be decoded: it is damaged, or in a rare encoding; save it "
                  "as WAV or FLAC",
                  vamp_file_label(name).text);
    goto err;
  }
  if ((status = check_header(&decoding, &info, error)) || (status = decode(&decoding, error)) ||
      (status = check_end(&decoding, error)) || source->failure) {
    goto err;
  }
  sf_close(decoding.file);
  if (!room) {
    fit(&decoding.audio);
  }
  *audio = decoding.audio;
  return 0;
err:
  if (source->failure) { /* whatever else went wrong follows from it */
    status = vamp_fail(error, VAMP_IO, "cannot read %s: %s", vamp_file_label(name).text,
                       strerror(source->failure));
  }
  if (decoding.file) {
    sf_close(decoding.file);
  }
  if (!room) {
    vamp_audio_free(&decoding.audio);
  }
  return status;
}

int vamp_audio_read_file(const char *path, const struct vamp_audio_limits *limits, struct vamp_audio *audio,
                         struct vamp_error *error) {
  struct vamp_source source = {.descriptor = -1};
  int status = vamp_file_open(path, &source.descriptor, &source.end, error);
  if (status) {
    return status;
  }
  status = read_source(&source, path, limits, NULL, audio, error);
  close(source.descriptor);
  return status;
}

int vamp_audio_read_memory(const void *data, size_t size, const char *name,
                           const struct vamp_audio_limits *limits, struct vamp_audio *audio,
                           struct vamp_error *error) {
  struct vamp_source source = {.memory = data, .descriptor = -1, .end = size};
  return read_source(&source, name, limits, NULL, audio, error);
}

int vamp_audio_read_memory_into(const void *data, size_t size, const char *name,
                                const struct vamp_audio_limits *limits, float *room, struct vamp_audio *audio,
                                struct vamp_error *error) {
  struct vamp_source source = {.memory = data, .descriptor = -1, .end = size};
  return read_source(&source, name, limits, room, audio, error);
}
