/*
 * A model's hyperparameters, as model.json carries them. Names are those of the published code.
 */
#ifndef VAMP_CONFIG_H
#define VAMP_CONFIG_H

#include <stdint.h>

#include "vamp/error.h"

#define VAMP_MAX_RATES 8

struct vamp_codec_config {
  int sample_rate;        /* Hz */
  int encoder_dim;        /* channels after the encoder's first convolution */
  int encoder_rate_count; /* strides of the encoder */
  int encoder_rates[VAMP_MAX_RATES];
  int decoder_dim;
  int decoder_rate_count;
  int decoder_rates[VAMP_MAX_RATES];
  int n_codebooks;   /* official 14 */
  int codebook_size; /* 1024 */
  int codebook_dim;  /* 8 */
  /* derived */
  int latent_dim; /* encoder_dim << encoder_rate_count */
  int hop_length; /* product of decoder_rates */
};

struct vamp_transformer_config {
  int n_codebooks;              /* C: coarse 4, c2f 14 */
  int n_conditioning_codebooks; /* never predicted: coarse 0, c2f 4 */
  int n_layers;
  int n_heads;
  int embedding_dim; /* D, a multiple of n_heads */
  int vocab_size;    /* V; also the mask token */
  int latent_dim;    /* codebook_dim of the codec */
};

struct vamp_model_config {
  char name[64];
  char license[64];
  char description[256];
  struct vamp_codec_config codec;
  struct vamp_transformer_config coarse;
  struct vamp_transformer_config fine; /* "c2f" in files */
};

/* Reads and checks FOLDER/model.json: every number in range (so that no product overflows and no
 * allocation is absurd), the three parts consistent with each other. Errors name the file and carry a
 * JSON pointer. */
int vamp_config_read(const char *folder, struct vamp_model_config *config, struct vamp_error *error);

/* The published model's dimensions ("official") or those of models/small ("small"); VAMP_INVALID for
 * any other name. */
int vamp_config_named(const char *name, struct vamp_model_config *config, struct vamp_error *error);

/* Checks ranges and consistency and fills the derived members; vamp_config_read has done so. */
int vamp_config_check(struct vamp_model_config *config, struct vamp_error *error);

#endif
