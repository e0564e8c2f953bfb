/*
 * Fuzz target: model.json, which comes with a model from wherever somebody found it.
 *
 * Whatever stands in it, it is refused with a reason, or gives dimensions that are consistent and whose
 * products overflow nowhere: what allocates for a graph relies on that. The input is written to a folder of
 * its own, which goes with the process.
 *
 *   make fuzz
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vamp/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/tmp/fuzz-model-XXXXXX", path[sizeof folder + 16];

static void require(int condition) {
  if (!condition) {
    abort();
  }
}

static void remove_folder(void) {
  unlink(path);
  rmdir(folder);
}

static void write_input(const uint8_t *data, size_t size) {
  if (!path[0]) {
    require(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/model.json", folder);
    atexit(remove_folder);
  }
  FILE *file = fopen(path, "wb");
  require(file && fwrite(data, 1, size, file) == size && fclose(file) == 0);
}

static void check_transformer(const struct vamp_transformer_config *transformer,
                              const struct vamp_codec_config *codec) {
  require(transformer->n_codebooks >= 1 && transformer->n_codebooks <= 32);
  require(transformer->n_conditioning_codebooks >= 0 &&
          transformer->n_conditioning_codebooks < transformer->n_codebooks);
  require(transformer->n_heads >= 1 && transformer->embedding_dim % transformer->n_heads == 0);
  require(transformer->vocab_size == codec->codebook_size && transformer->latent_dim == codec->codebook_dim);
}

static void check_config(const struct vamp_model_config *config) {
  const struct vamp_codec_config *codec = &config->codec;
  struct vamp_model_config again = *config;
  int hop = 1, rates = codec->encoder_rate_count;
  for (int i = 0; i < rates; i++) {
    hop *= codec->encoder_rates[i];
  }
  require(hop == codec->hop_length && hop >= 1 && hop <= 65536);
  require(codec->latent_dim == codec->encoder_dim << rates && codec->latent_dim <= 65536);
  require(codec->decoder_dim >> codec->decoder_rate_count >= 1 && codec->sample_rate >= 1);
  check_transformer(&config->coarse, codec);
  check_transformer(&config->fine, codec);
  require(config->fine.n_conditioning_codebooks == config->coarse.n_codebooks &&
          config->fine.n_codebooks == codec->n_codebooks);
  require(config->name[0] && memchr(config->name, '\0', sizeof config->name));
  require(vamp_config_check(&again, NULL) == 0 && memcmp(&again, config, sizeof again) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct vamp_model_config config = {0};
  struct vamp_error error = {0};
  write_input(data, size);
  int status = vamp_config_read(folder, &config, &error);
  if (status) {
    require(error.status == status && strstr(error.message, "model.json"));
    require(!error.field[0] || error.field[0] == '/');
  } else {
    check_config(&config);
  }
  return 0;
}
