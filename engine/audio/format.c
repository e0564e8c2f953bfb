/* The formats we write, by name and by ending. */
#include <string.h>
#include <strings.h>

#include "engine/audio/file.h"
#include "engine/audio/internal.h"

struct format_name {
  const char *name;
  enum vamp_audio_format format;
};

static const struct format_name format_names[] = {
    {"wav", VAMP_AUDIO_WAV16}, {"wav16", VAMP_AUDIO_WAV16},        {"wav24", VAMP_AUDIO_WAV24},
    {"flac", VAMP_AUDIO_FLAC}, {"wavfloat", VAMP_AUDIO_WAV_FLOAT}, {"ogg", VAMP_AUDIO_OGG},
};

static const struct format_name endings[] = {
    {".wav", VAMP_AUDIO_WAV16},
    {".flac", VAMP_AUDIO_FLAC},
    {".ogg", VAMP_AUDIO_OGG},
};

int vamp_audio_format_parse(const char *name, enum vamp_audio_format *format, struct vamp_error *error) {
  for (size_t i = 0; i < sizeof format_names / sizeof *format_names; i++) {
    if (strcmp(name, format_names[i].name) == 0) {
      *format = format_names[i].format;
      return 0;
    }
  }
  return vamp_fail(error, VAMP_INVALID,
                   "there is no audio format \"%s\"; use wav (16 bit), wav16, wav24, wavfloat, flac or ogg",
                   vamp_file_label(name).text);
}

const char *vamp_audio_format_name(enum vamp_audio_format format) {
  size_t i = 0;
  while (format_names[i].format != format) {
    i++;
  }
  return format_names[i].name;
}

int vamp_audio_format_from_path(const char *path, enum vamp_audio_format *format, struct vamp_error *error) {
  size_t length = strlen(path);
  for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
    size_t ending = strlen(endings[i].name);
    if (length > ending && strcasecmp(path + length - ending, endings[i].name) == 0) {
      *format = endings[i].format;
      return 0;
    }
  }
  return vamp_fail(error, VAMP_INVALID,
                   "cannot tell the audio format of %s; let it end in .wav, .flac or .ogg",
                   vamp_file_label(path).text);
}

const char *vamp_audio_format_media_type(enum vamp_audio_format format) {
  switch (format) {
  case VAMP_AUDIO_FLAC:
    return "audio/flac";
  case VAMP_AUDIO_OGG:
    return "audio/ogg";
  case VAMP_AUDIO_WAV16:
  case VAMP_AUDIO_WAV24:
  case VAMP_AUDIO_WAV_FLOAT:
    break;
  }
  return "audio/wav";
}
