/*
 * vamp info: what a model folder holds, read from model.json and the sizes of its files. --check loads it
 * whole, so that every tensor is checked.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "vamp/session.h"

static const char *const FILES[] = {"codec.safetensors", "coarse.safetensors", "c2f.safetensors"};
#define FILE_COUNT (sizeof FILES / sizeof FILES[0])

/* Bytes of FOLDER/NAME; -1 where there is no such file. */
static long long file_size(const char *folder, const char *name) {
  char path[PATH_MAX + 64];
  struct stat status;
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return stat(path, &status) == 0 ? (long long)status.st_size : -1;
}

static json_t *rates_json(int count, const int *rates) {
  json_t *array = json_array();
  for (int i = 0; i < count; i++) {
    json_array_append_new(array, json_integer(rates[i]));
  }
  return array;
}

static json_t *transformer_json(const struct vamp_transformer_config *config) {
  return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "n_codebooks", config->n_codebooks,
                   "n_conditioning_codebooks", config->n_conditioning_codebooks, "n_layers", config->n_layers,
                   "n_heads", config->n_heads, "embedding_dim", config->embedding_dim, "vocab_size",
                   config->vocab_size, "latent_dim", config->latent_dim);
}

static void print_json(const char *folder, const struct vamp_model_config *config) {
  const struct vamp_codec_config *codec = &config->codec;
  json_t *files = json_object();
  for (size_t i = 0; i < FILE_COUNT; i++) {
    json_object_set_new(files, FILES[i], json_integer(file_size(folder, FILES[i])));
  }
  json_t *codec_json = json_pack(
      "{s:i, s:i, s:o, s:i, s:o, s:i, s:i, s:i, s:i, s:i}", "sample_rate", codec->sample_rate, "encoder_dim",
      codec->encoder_dim, "encoder_rates", rates_json(codec->encoder_rate_count, codec->encoder_rates),
      "decoder_dim", codec->decoder_dim, "decoder_rates",
      rates_json(codec->decoder_rate_count, codec->decoder_rates), "n_codebooks", codec->n_codebooks,
      "codebook_size", codec->codebook_size, "codebook_dim", codec->codebook_dim, "latent_dim",
      codec->latent_dim, "hop_length", codec->hop_length);
  vamp_json_print(json_pack(
      "{s:o, s:s, s:s, s:s, s:o, s:o, s:o, s:o}", "folder", vamp_json_name(folder), "name", config->name,
      "license", config->license, "description", config->description, "codec", codec_json, "coarse",
      transformer_json(&config->coarse), "c2f", transformer_json(&config->fine), "bytes", files));
}

static void print_transformer(const char *name, const struct vamp_transformer_config *config) {
  printf("%-10s%d codebooks (%d given), %d layers of width %d, %d heads, vocabulary %d\n", name,
         config->n_codebooks, config->n_conditioning_codebooks, config->n_layers, config->embedding_dim,
         config->n_heads, config->vocab_size);
}

static void print_text(const char *folder, const struct vamp_model_config *config) {
  const struct vamp_codec_config *codec = &config->codec;
  printf("%s: %s\n", config->name, config->description);
  printf("%-10s%s\n%-10s%s\n", "licence", config->license, "folder", folder);
  printf("%-10s%d Hz, %d codebooks of %d, hop %d (%.2f frames a second)\n", "codec", codec->sample_rate,
         codec->n_codebooks, codec->codebook_size, codec->hop_length,
         (double)codec->sample_rate / codec->hop_length);
  print_transformer("coarse", &config->coarse);
  print_transformer("fine", &config->fine);
  for (size_t i = 0; i < FILE_COUNT; i++) {
    long long size = file_size(folder, FILES[i]);
    if (size < 0) {
      printf("%-10s%s is missing\n", "file", FILES[i]);
    } else {
      printf("%-10s%s, %.1f MB\n", "file", FILES[i], (double)size / 1e6);
    }
  }
}

static int command_info(struct vamp_settings *settings) {
  char folder[PATH_MAX];
  struct vamp_model_config config = {0};
  struct vamp_session session = {0};
  struct vamp_error error = {0};
  if (settings->argument_count == 1) {
    settings->model = settings->arguments[0];
  }
  int status = vamp_settings_model(settings, folder, &error);
  if (status == 0) {
    status = vamp_config_read(folder, &config, &error);
  }
  if (status == 0 && settings->check) {
    status = vamp_session_open(settings, NULL, &session, &error);
  }
  if (status < 0) {
    return vamp_report(settings, NULL, &error);
  }
  if (settings->json) {
    print_json(folder, &config);
  } else {
    print_text(folder, &config);
    if (settings->check) {
      printf("%-10severy tensor is there and has the right shape; loaded in %.2f s on %s\n", "checked",
             session.load_seconds, session.device->description);
    }
  }
  vamp_session_close(&session);
  return VAMP_EXIT_OK;
}

#define MEMBER(name) offsetof(struct vamp_settings, name)

static const struct vamp_option own_options[] = {
    {"check", 0, VAMP_OPTION_FLAG, MEMBER(check), NULL, 0, 0, NULL,
     "load it whole, which checks every tensor"},
    {"json", 0, VAMP_OPTION_FLAG, MEMBER(json), NULL, 0, 0, NULL, "print one JSON object"},
    {0},
};

static const struct vamp_option_group groups[] = {{"options", own_options}, {NULL, NULL}};

const struct vamp_command vamp_command_info = {
    .name = "info",
    .synopsis = "[MODEL]",
    .summary = "what a model is",
    .description = "Shows a model's name, licence, dimensions and files.\n",
    .example = "  vamp info models/small --check\n",
    .groups = groups,
    .minimum_arguments = 0,
    .maximum_arguments = 1,
    .run = command_info,
};
