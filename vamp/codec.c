/*
 * vamp encode and vamp decode: audio to tokens and back, without a transformer.
 *
 * Plain, they treat audio as `vamp run` does (any file; resampled, mixed to mono, normalised). --raw takes
 * and gives samples as they are, for checking the model and for programs that do their own preparation.
 * --encoder-out and --latent show what the codec computes on the way; only these two go to the model directly
 * instead of through the batch loop, which does not carry such things.
 */
#include <stdlib.h>

#include "vamp/session.h"
#include "vamp/targets.h"

/* The first argument is read, the second written; `second`, where it is given, is the value of `option`. */
static int check_targets(const struct vamp_settings *settings, const char *option, const char *second) {
  struct vamp_target targets[] = {{settings->arguments[1], "output", NULL}, {second, option, NULL}};
  return vamp_targets_check(settings, targets, 2, 1);
}

/* ---- encode ------------------------------------------------------------------------------------------- */

/* The file's samples for the model: prepared, or with --raw as they are. */
static int read_clip(const struct vamp_settings *settings, int sample_rate, struct vamp_clip *clip,
                     struct vamp_error *error) {
  const char *path = settings->arguments[0];
  struct vamp_audio audio = {0};
  struct vamp_audio_limits limits = vamp_audio_default_limits();
  int status = vamp_audio_read_file(path, &limits, &audio, error);
  if (status < 0) {
    return status;
  }
  if (!settings->raw) {
    status = vamp_clip_prepare(&audio, sample_rate, clip, error);
  } else if (audio.channels != 1 || audio.sample_rate != sample_rate) {
    status =
        vamp_fail(error, VAMP_INVALID,
                  "%s has %d channel%s at %d Hz; --raw takes mono at the model's %d Hz (without --raw it is "
                  "converted)",
                  path, audio.channels, audio.channels == 1 ? "" : "s", audio.sample_rate, sample_rate);
  } else {
    *clip = (struct vamp_clip){
        .samples = audio.samples, .count = audio.frames, .sample_rate = sample_rate, .gain = 1};
    audio.samples = NULL;
  }
  vamp_audio_free(&audio);
  return status;
}

static int encode_in_loop(const struct vamp_settings *settings, struct vamp_session *session,
                          const struct vamp_clip *clip, struct vamp_result **result,
                          struct vamp_error *error) {
  struct vamp_job job = {.task = VAMP_TASK_ENCODE, .samples = clip->samples, .sample_count = clip->count};
  vamp_sampling_defaults(&job.sampling);
  return vamp_session_run(settings, session, &job, result, error);
}

/* [rows, columns] -> [columns, rows]; both are arrays of 4-byte elements. */
static void transpose(const void *from, void *to, size_t rows, size_t columns) {
  const uint32_t *in = from;
  uint32_t *out = to;
  for (size_t row = 0; row < rows; row++) {
    for (size_t column = 0; column < columns; column++) {
      out[column * rows + row] = in[row * columns + column];
    }
  }
}

/* Writes what the model gives as [frames, latent] the other way round. */
static int write_latent(const char *path, const float *latent, size_t frames, size_t latent_dim,
                        struct vamp_error *error) {
  const size_t shape[2] = {latent_dim, frames};
  float *turned = malloc(frames * latent_dim * sizeof *turned);
  if (!turned) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  transpose(latent, turned, frames, latent_dim);
  int status = vamp_array_write(path, VAMP_F32, 2, shape, turned, error);
  free(turned);
  return status;
}

/* Encodes with the model itself, writes what its encoder gives, and fills a result like the loop's. */
static int encode_directly(const struct vamp_settings *settings, struct vamp_session *session,
                           const struct vamp_clip *clip, struct vamp_result **result,
                           struct vamp_error *error) {
  const struct vamp_codec_config *codec = &session->config->codec;
  size_t codebooks = (size_t)codec->n_codebooks, latent_dim = (size_t)codec->latent_dim;
  size_t frames = (size_t)vamp_model_frames(session->model, clip->count);
  float *latent = malloc(frames * latent_dim * sizeof *latent);
  int32_t *packed = malloc(frames * codebooks * sizeof *packed);
  int32_t *codes = malloc(frames * codebooks * sizeof *codes);
  struct vamp_result *made = calloc(1, sizeof *made);
  int status = 0;
  if (!latent || !packed || !codes || !made) {
    status = vamp_fail(error, VAMP_MEMORY, "out of memory");
    goto err;
  }
  status = vamp_model_encode(session->model, clip->samples, clip->count, packed, latent, NULL, error);
  if (status == 0) {
    status = write_latent(settings->encoder_out, latent, frames, latent_dim, error);
  }
  if (status < 0) {
    goto err;
  }
  transpose(packed, codes, frames, codebooks);
  made->codes = codes;
  made->codebooks = (int)codebooks;
  made->frames = (int)frames;
  *result = made;
  free(packed);
  free(latent);
  return 0;
err:
  free(made);
  free(codes);
  free(packed);
  free(latent);
  return status;
}

static int command_encode(struct vamp_settings *settings) {
  int refused = check_targets(settings, "--encoder-out", settings->encoder_out);
  if (refused != VAMP_EXIT_OK) {
    return refused;
  }
  struct vamp_session session = {0};
  struct vamp_clip clip = {0};
  struct vamp_result *result = NULL;
  struct vamp_error error = {0};
  int status = vamp_session_open(settings, NULL, &session, &error);
  if (status == 0) {
    status = read_clip(settings, session.config->codec.sample_rate, &clip, &error);
  }
  if (status == 0) {
    status = settings->encoder_out ? encode_directly(settings, &session, &clip, &result, &error)
                                   : encode_in_loop(settings, &session, &clip, &result, &error);
  }
  if (status == 0 && result) {
    status =
        vamp_codes_write(settings->arguments[1], result->codes, result->codebooks, result->frames, &error);
  }
  if (status == 0 && result && settings->json) {
    vamp_json_print(json_pack("{s:o, s:o, s:i, s:i, s:f}", "input", vamp_json_name(settings->arguments[0]),
                              "output", vamp_json_name(settings->arguments[1]), "codebooks",
                              result->codebooks, "frames", result->frames, "gain", clip.gain));
  }
  vamp_result_free(result);
  vamp_clip_free(&clip);
  vamp_session_close(&session);
  return status < 0 ? vamp_report(settings, NULL, &error) : VAMP_EXIT_OK;
}

/* ---- decode ------------------------------------------------------------------------------------------- */

static int decode_in_loop(const struct vamp_settings *settings, struct vamp_session *session,
                          const struct vamp_array *codes, struct vamp_result **result,
                          struct vamp_error *error) {
  struct vamp_job job = {.task = VAMP_TASK_DECODE,
                         .codes = codes->data,
                         .codebooks = (int)codes->shape[0],
                         .frames = (int)codes->shape[1]};
  vamp_sampling_defaults(&job.sampling);
  return vamp_session_run(settings, session, &job, result, error);
}

/* Decodes with the model itself, writes the latent that the codes stand for, and fills a result. */
static int decode_directly(const struct vamp_settings *settings, struct vamp_session *session,
                           const struct vamp_array *codes, struct vamp_result **result,
                           struct vamp_error *error) {
  const struct vamp_codec_config *codec = &session->config->codec;
  size_t codebooks = codes->shape[0], frames = codes->shape[1], latent_dim = (size_t)codec->latent_dim;
  size_t sample_count = frames * (size_t)codec->hop_length;
  float *latent = malloc(frames * latent_dim * sizeof *latent);
  float *samples = malloc(sample_count * sizeof *samples);
  int32_t *packed = malloc(frames * codebooks * sizeof *packed);
  struct vamp_result *made = calloc(1, sizeof *made);
  int status = 0;
  if (!latent || !samples || !packed || !made) {
    status = vamp_fail(error, VAMP_MEMORY, "out of memory");
    goto err;
  }
  transpose(codes->data, packed, codebooks, frames);
  status = vamp_model_decode(session->model, packed, (int64_t)frames, samples, latent, error);
  if (status == 0) {
    status = write_latent(settings->latent, latent, frames, latent_dim, error);
  }
  if (status < 0) {
    goto err;
  }
  made->samples = samples;
  made->sample_count = sample_count;
  made->frames = (int)frames;
  *result = made;
  free(packed);
  free(latent);
  return 0;
err:
  free(made);
  free(packed);
  free(samples);
  free(latent);
  return status;
}

/* --raw is always float; otherwise --format, else what the name ends in. */
static int output_format(const struct vamp_settings *settings, enum vamp_audio_format *format,
                         struct vamp_error *error) {
  if (settings->raw) {
    *format = VAMP_AUDIO_WAV_FLOAT;
    return 0;
  }
  json_t *named = json_object_get(settings->parameters, "format");
  if (!named) {
    return vamp_audio_format_from_path(settings->arguments[1], format, error);
  }
  return vamp_audio_format_parse(json_string_value(named), format, error);
}

static int command_decode(struct vamp_settings *settings) {
  struct vamp_session session = {0};
  struct vamp_array codes = {0};
  struct vamp_result *result = NULL;
  struct vamp_error error = {0};
  enum vamp_audio_format format;
  if (output_format(settings, &format, &error) < 0) {
    return vamp_usage_error(settings, "%s", error.message);
  }
  int refused = check_targets(settings, "--latent", settings->latent);
  if (refused != VAMP_EXIT_OK) {
    return refused;
  }
  int status = vamp_session_open(settings, NULL, &session, &error);
  if (status == 0) {
    const struct vamp_codec_config *codec = &session.config->codec;
    const struct vamp_codes_wanted wanted = {.codebooks = codec->n_codebooks,
                                             .codebook_size = codec->codebook_size};
    status = vamp_codes_read(settings->arguments[0], &wanted, &codes, &error);
  }
  if (status == 0) {
    status = settings->latent ? decode_directly(settings, &session, &codes, &result, &error)
                              : decode_in_loop(settings, &session, &codes, &result, &error);
  }
  if (status == 0 && result) {
    status = vamp_audio_write_file(settings->arguments[1], format, result->samples, result->sample_count,
                                   session.config->codec.sample_rate, &error);
  }
  if (status == 0 && result && settings->json) {
    vamp_json_print(json_pack("{s:o, s:o, s:i, s:I}", "input", vamp_json_name(settings->arguments[0]),
                              "output", vamp_json_name(settings->arguments[1]), "frames", (int)codes.shape[1],
                              "samples", (json_int_t)result->sample_count));
  }
  vamp_result_free(result);
  vamp_array_free(&codes);
  vamp_session_close(&session);
  return status < 0 ? vamp_report(settings, NULL, &error) : VAMP_EXIT_OK;
}

/* ---- options ------------------------------------------------------------------------------------------ */

#define MEMBER(name) offsetof(struct vamp_settings, name)

static const struct vamp_option encode_options[] = {
    {"raw", 0, VAMP_OPTION_FLAG, MEMBER(raw), NULL, 0, 0, NULL,
     "take the samples as they are: mono at the model's rate, no loudness"},
    {"encoder-out", 0, VAMP_OPTION_TEXT, MEMBER(encoder_out), NULL, 0, 0, "F",
     "also write the encoder's output, float32 [latent, frames] (.npy)"},
    {"json", 0, VAMP_OPTION_FLAG, MEMBER(json), NULL, 0, 0, NULL, "print what was done as JSON"},
    {0},
};

static const struct vamp_option decode_options[] = {
    {"raw", 0, VAMP_OPTION_FLAG, MEMBER(raw), NULL, 0, 0, NULL,
     "write float samples as the codec gives them"},
    {"format", 0, VAMP_OPTION_PARAMETER_TEXT, 0, "/format", 0, 0, "F",
     "wav (16 bit), wav24, wavfloat, flac or ogg (default: by the name of OUT)"},
    {"latent", 0, VAMP_OPTION_TEXT, MEMBER(latent), NULL, 0, 0, "F",
     "also write the latent that the codes stand for, float32 [latent, frames] (.npy)"},
    {"json", 0, VAMP_OPTION_FLAG, MEMBER(json), NULL, 0, 0, NULL, "print what was done as JSON"},
    {0},
};

static const struct vamp_option_group encode_groups[] = {
    {"options", encode_options}, {"model", vamp_options_model}, {NULL, NULL}};
static const struct vamp_option_group decode_groups[] = {
    {"options", decode_options}, {"model", vamp_options_model}, {NULL, NULL}};

const struct vamp_command vamp_command_encode = {
    .name = "encode",
    .synopsis = "[--raw] IN codes.npy",
    .summary = "audio to tokens",
    .description =
        "Encodes an audio file to tokens, int32 [codebooks, frames], normalised to -24 LUFS first as 'vamp\n"
        "run' does it.\n",
    .example = "  vamp encode song.wav codes.npy\n",
    .groups = encode_groups,
    .minimum_arguments = 2,
    .maximum_arguments = 2,
    .run = command_encode,
};

const struct vamp_command vamp_command_decode = {
    .name = "decode",
    .synopsis = "[--raw] codes.npy OUT",
    .summary = "tokens to audio",
    .description =
        "Decodes tokens, int32 [codebooks, frames], to audio at the codec's own level, about -24 LUFS.\n",
    .example = "  vamp decode codes.npy song.wav\n",
    .groups = decode_groups,
    .minimum_arguments = 2,
    .maximum_arguments = 2,
    .run = command_decode,
};
