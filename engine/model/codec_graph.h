/*
 * The codec's layers in memory: what codec_load.c fills and codec.c runs.
 */
#ifndef VAMP_ENGINE_MODEL_CODEC_GRAPH_H
#define VAMP_ENGINE_MODEL_CODEC_GRAPH_H

#include "engine/model/codec.h"

enum { UNITS = 3, CHAINS = 3 };

static const int encoder_dilations[UNITS] = {1, 3, 9};
static const int decoder_dilations[UNITS] = {1, 3, 5};
static const int chain_kernels[CHAINS] = {3, 7, 11};

struct conv_layer {
  struct vamp_conv_shape shape;
  struct vamp_weight *weight;
  struct vamp_weight *alpha; /* the snake before it, or NULL */
};

struct encoder_stage {
  struct vamp_weight *units[UNITS];
  struct conv_layer down;
};

struct decoder_stage {
  struct conv_layer up;
  struct vamp_weight *units[CHAINS][UNITS];
};

struct codec {
  struct vamp_codec_config config;
  struct vamp_device *device;
  struct conv_layer encoder_first, encoder_last, decoder_first, decoder_last;
  struct encoder_stage encoder[VAMP_MAX_RATES];
  struct decoder_stage decoder[VAMP_MAX_RATES];
  struct vamp_weight *quantizer;
  struct workspace_buffer signal[4], codes;
};

#endif
