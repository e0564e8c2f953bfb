/*
 * See transformer.h. The residual stream x is float; what enters a product is "act", in the device's
 * precision. Query, key and value are one product of three stacked matrices. The classifier's channels
 * are regrouped at load from token * P + codebook (as published) to codebook * V + token, so that one
 * codebook's logits are contiguous and the rest need not be computed.
 */
#include "engine/model/transformer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME = 128, BUCKETS = 32 };

struct layer {
  struct vamp_weight *norm_1; /* [D] */
  struct vamp_weight *qkv;    /* [3D, D] */
  struct vamp_weight *out;    /* [D, D] */
  struct vamp_weight *norm_3; /* [D] */
  struct vamp_weight *w_1;    /* [4D, D], gated */
  struct vamp_weight *w_2;    /* [D, 2D] */
};

struct transformer {
  struct vamp_transformer_config config;
  struct vamp_device *device;
  struct vamp_weight *embedding;
  struct vamp_weight *bias; /* [32, heads]: layer 0's, shared by all */
  struct layer *layers;
  struct vamp_weight *norm;             /* [D] */
  struct vamp_weight *classifier;       /* [P * V, D] */
  struct workspace_buffer x, act, wide; /* [rows, D], [rows, D], [rows, 3D] or [rows, 2D] */
};

/* ---- loading -------------------------------------------------------------------------------------- */

static void load_vector(struct transformer *t, struct source *source, const char *name,
                        struct vamp_weight **vector) {
  const int64_t shape = t->config.embedding_dim;
  float *values = source_tensor(source, name, 1, &shape, 1.0f, 0.0f);
  if (!source->status) {
    source->status = t->device->ops->vector_create(t->device, values, (size_t)shape, vector, source->error);
  }
  free(values);
}

static void load_linear(struct transformer *t, struct source *source, const char *prefix, int out, int in,
                        bool gated, struct vamp_weight **linear) {
  float *weight = source_matrix(source, prefix, out, in);
  if (!source->status) {
    source->status =
        t->device->ops->linear_create(t->device, out, in, gated, weight, NULL, linear, source->error);
  }
  free(weight);
}

static void load_qkv(struct transformer *t, struct source *source, const char *layer, struct layer *l) {
  static const char *const parts[3] = {"w_qs", "w_ks", "w_vs"};
  int width = t->config.embedding_dim;
  size_t count = (size_t)width * (size_t)width;
  char name[NAME];
  float *stacked = malloc(sizeof *stacked * 3 * count);
  if (!stacked && !source->status) {
    source->status = vamp_fail(source->error, VAMP_MEMORY, "out of memory");
  }
  for (int p = 0; p < 3 && !source->status; p++) {
    snprintf(name, sizeof name, "%s.self_attn.%s", layer, parts[p]);
    float *weight = source_matrix(source, name, width, width);
    if (weight) {
      memcpy(stacked + (size_t)p * count, weight, sizeof *weight * count);
    }
    free(weight);
  }
  if (!source->status) {
    source->status = t->device->ops->linear_create(t->device, 3 * width, width, false, stacked, NULL, &l->qkv,
                                                   source->error);
  }
  free(stacked);
}

static void load_layer(struct transformer *t, struct source *source, int index, struct layer *l) {
  int width = t->config.embedding_dim;
  char layer[64], name[NAME];
  snprintf(layer, sizeof layer, "transformer.layers.%d", index);
  snprintf(name, sizeof name, "%s.norm_1.weight", layer);
  load_vector(t, source, name, &l->norm_1);
  load_qkv(t, source, layer, l);
  snprintf(name, sizeof name, "%s.self_attn.fc", layer);
  load_linear(t, source, name, width, width, false, &l->out);
  snprintf(name, sizeof name, "%s.norm_3.weight", layer);
  load_vector(t, source, name, &l->norm_3);
  snprintf(name, sizeof name, "%s.feed_forward.w_1", layer);
  load_linear(t, source, name, 4 * width, width, true, &l->w_1);
  snprintf(name, sizeof name, "%s.feed_forward.w_2", layer);
  load_linear(t, source, name, width, 2 * width, false, &l->w_2);
}

/* Each codebook's table followed by its mask row: [C, V + 1, d]. */
static float *embedding_tables(const struct vamp_transformer_config *config, const float *tables,
                               const float *mask) {
  size_t d = (size_t)config->latent_dim, v = (size_t)config->vocab_size;
  float *all = malloc(sizeof *all * (size_t)config->n_codebooks * (v + 1) * d);
  for (size_t c = 0; all && c < (size_t)config->n_codebooks; c++) {
    memcpy(all + c * (v + 1) * d, tables + c * v * d, sizeof *all * v * d);
    memcpy(all + (c * (v + 1) + v) * d, mask + c * d, sizeof *all * d);
  }
  return all;
}

static void load_embedding(struct transformer *t, const float *tables, struct source *source) {
  const struct vamp_transformer_config *config = &t->config;
  const int64_t mask_shape[2] = {config->n_codebooks, config->latent_dim};
  const int64_t width = config->embedding_dim;
  float *mask = source_tensor(source, "embedding.special.MASK", 2, mask_shape, 0.0f, 1.0f);
  float *projection =
      source_conv(source, "embedding.out_proj", width, (int64_t)config->n_codebooks * config->latent_dim, 1);
  float *bias = source_tensor(source, "embedding.out_proj.bias", 1, &width, 0.0f, 0.01f);
  float *all = source->status ? NULL : embedding_tables(config, tables, mask);
  if (!source->status && !all) {
    source->status = vamp_fail(source->error, VAMP_MEMORY, "out of memory");
  }
  if (!source->status) {
    source->status = t->device->ops->embedding_create(t->device, config->n_codebooks, config->vocab_size + 1,
                                                      config->latent_dim, config->embedding_dim, all,
                                                      projection, bias, &t->embedding, source->error);
  }
  free(all);
  free(mask);
  free(projection);
  free(bias);
}

static void load_classifier(struct transformer *t, struct source *source) {
  const struct vamp_transformer_config *config = &t->config;
  size_t predicted = (size_t)(config->n_codebooks - config->n_conditioning_codebooks);
  size_t vocabulary = (size_t)config->vocab_size, width = (size_t)config->embedding_dim;
  const int64_t channels = (int64_t)(predicted * vocabulary);
  float *weight = source_conv(source, "classifier.layers.0", channels, (int64_t)width, 1);
  float *bias = source_tensor(source, "classifier.layers.0.bias", 1, &channels, 0.0f, 0.01f);
  float *grouped = malloc(sizeof *grouped * (size_t)channels * (width + 1));
  if (!grouped && !source->status) {
    source->status = vamp_fail(source->error, VAMP_MEMORY, "out of memory");
  }
  if (!source->status) {
    float *grouped_bias = grouped + (size_t)channels * width;
    for (size_t token = 0; token < vocabulary; token++) {
      for (size_t p = 0; p < predicted; p++) {
        size_t to = p * vocabulary + token, from = token * predicted + p;
        memcpy(grouped + to * width, weight + from * width, sizeof *grouped * width);
        grouped_bias[to] = bias[from];
      }
    }
    source->status = t->device->ops->linear_create(t->device, (int)channels, (int)width, false, grouped,
                                                   grouped_bias, &t->classifier, source->error);
  }
  free(grouped);
  free(weight);
  free(bias);
}

int transformer_load(const struct vamp_transformer_config *config, const float *tables, struct source *source,
                     struct vamp_device *device, struct transformer **out) {
  struct transformer *t = calloc(1, sizeof *t);
  if (!t) {
    return vamp_fail(source->error, VAMP_MEMORY, "out of memory");
  }
  t->config = *config;
  t->device = device;
  t->layers = calloc((size_t)config->n_layers, sizeof *t->layers);
  if (!t->layers) {
    free(t);
    return vamp_fail(source->error, VAMP_MEMORY, "out of memory");
  }
  load_embedding(t, tables, source);
  const int64_t bias_shape[2] = {BUCKETS, config->n_heads};
  float *bias = source_tensor(source, "transformer.layers.0.self_attn.relative_attention_bias.weight", 2,
                              bias_shape, 0.0f, 0.5f);
  if (!source->status) {
    source->status = device->ops->vector_create(device, bias, (size_t)(BUCKETS * config->n_heads), &t->bias,
                                                source->error);
  }
  free(bias);
  for (int l = 0; l < config->n_layers && !source->status; l++) {
    load_layer(t, source, l, &t->layers[l]);
  }
  load_vector(t, source, "transformer.norm.weight", &t->norm);
  load_classifier(t, source);
  if (source->status) {
    transformer_free(t);
    return source->status;
  }
  *out = t;
  return 0;
}

void transformer_free(struct transformer *t) {
  if (!t) {
    return;
  }
  struct vamp_device *device = t->device;
  for (int l = 0; l < t->config.n_layers; l++) {
    struct vamp_weight *all[] = {t->layers[l].norm_1, t->layers[l].qkv, t->layers[l].out,
                                 t->layers[l].norm_3, t->layers[l].w_1, t->layers[l].w_2};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
      device->ops->weight_free(device, all[i]);
    }
  }
  free(t->layers);
  device->ops->weight_free(device, t->embedding);
  device->ops->weight_free(device, t->bias);
  device->ops->weight_free(device, t->norm);
  device->ops->weight_free(device, t->classifier);
  workspace_free(device, &t->x);
  workspace_free(device, &t->act);
  workspace_free(device, &t->wide);
  free(t);
}

/* ---- running -------------------------------------------------------------------------------------- */

static int reserve(struct transformer *t, int64_t rows, struct vamp_error *error) {
  size_t width = (size_t)t->config.embedding_dim, act = t->device->act_size;
  size_t n = (size_t)((rows ? rows : 1) + t->device->row_slack);
  int status = workspace_reserve(t->device, &t->x, n * width * sizeof(float), error);
  if (!status) {
    status = workspace_reserve(t->device, &t->act, n * width * act, error);
  }
  return status ? status : workspace_reserve(t->device, &t->wide, n * 3 * width * act, error);
}

static int run_layer(struct transformer *t, const struct layer *l, const struct vamp_packing *packing) {
  struct vamp_device *device = t->device;
  const struct vamp_operations *ops = device->ops;
  int width = t->config.embedding_dim, heads = t->config.n_heads;
  int64_t rows = packing->offsets[packing->count];
  float *x = t->x.memory;
  void *act = t->act.memory, *wide = t->wide.memory;
  int status = ops->rms_norm(device, l->norm_1, rows, width, x, act);
  if (!status) {
    status = ops->linear(device, l->qkv, VAMP_STORE, packing, act, wide);
  }
  if (!status) {
    status = ops->attention(device, t->bias, packing, heads, width / heads, wide, act);
  }
  if (!status) {
    status = ops->linear(device, l->out, VAMP_ADD, packing, act, x);
  }
  if (!status) {
    status = ops->rms_norm(device, l->norm_3, rows, width, x, act);
  }
  if (!status) {
    status = ops->linear(device, l->w_1, VAMP_GATED_GELU, packing, act, wide);
  }
  return status ? status : ops->linear(device, l->w_2, VAMP_ADD, packing, wide, x);
}

/* Leaves the final norm of every row in t->act. */
static int forward(struct transformer *t, const struct vamp_packing *packing,
                   const struct vamp_sequence *sequences) {
  struct vamp_device *device = t->device;
  int64_t rows = packing->offsets[packing->count];
  int status = device->ops->embed(device, t->embedding, packing, sequences, t->x.memory);
  for (int l = 0; l < t->config.n_layers && !status; l++) {
    status = run_layer(t, &t->layers[l], packing);
  }
  if (!status) {
    status =
        device->ops->rms_norm(device, t->norm, rows, t->config.embedding_dim, t->x.memory, t->act.memory);
  }
  return status;
}

static int run_step(struct transformer *t, const struct vamp_packing *packing,
                    const struct vamp_sequence *sequences) {
  const struct vamp_transformer_config *config = &t->config;
  struct vamp_device *device = t->device;
  int predicted = config->n_codebooks - config->n_conditioning_codebooks;
  int status = forward(t, packing, sequences);
  if (!status) {
    status = device->ops->predict(device, t->classifier, config->n_codebooks, predicted, config->vocab_size,
                                  packing, sequences, t->act.memory);
  }
  if (!status) {
    status =
        device->ops->remask(device, config->n_codebooks, predicted, config->vocab_size, packing, sequences);
  }
  return status;
}

int transformer_step(struct transformer *t, const struct vamp_packing *packing,
                     const struct vamp_sequence *sequences, struct vamp_error *error) {
  struct vamp_device *device = t->device;
  bool replayed = false;
  int status = reserve(t, packing->offsets[packing->count], error);
  if (status) {
    return status;
  }
  if (!device->ops->step_begin) {
    status = run_step(t, packing, sequences);
  } else {
    struct vamp_step step = {t, {t->x.memory, t->act.memory, t->wide.memory}};
    status = device->ops->step_begin(device, &step, packing, sequences, &replayed);
    if (!status && !replayed) {
      status = device->ops->step_end(device, run_step(t, packing, sequences));
      status = status == VAMP_BUSY ? run_step(t, packing, sequences) : status;
    }
  }
  return status ? vamp_fail(error, status, "generating: %s", vamp_device_trouble(status)) : 0;
}

/* With room for everything: tokens up, forward, logits down. */
static int run_logits(struct transformer *t, const int32_t *tokens, int frames, size_t channels, void *memory,
                      void *out, float *logits) {
  struct vamp_device *device = t->device;
  const struct vamp_operations *ops = device->ops;
  size_t count = (size_t)frames * (size_t)t->config.n_codebooks;
  int64_t offsets[2] = {0, frames};
  struct vamp_packing packing = {1, offsets};
  struct vamp_sequence sequence = {.tokens = memory};
  int status = ops->upload(device, memory, tokens, sizeof *tokens * count);
  if (!status) {
    status = forward(t, &packing, &sequence);
  }
  if (!status) {
    status = ops->linear(device, t->classifier, VAMP_STORE_F32, &packing, t->act.memory, out);
  }
  return status ? status : ops->download(device, logits, out, sizeof *logits * channels * (size_t)frames);
}

int transformer_logits(struct transformer *t, const int32_t *tokens, int frames, float *logits,
                       struct vamp_error *error) {
  const struct vamp_transformer_config *config = &t->config;
  const struct vamp_operations *ops = t->device->ops;
  size_t count = (size_t)frames * (size_t)config->n_codebooks;
  size_t channels =
      (size_t)(config->n_codebooks - config->n_conditioning_codebooks) * (size_t)config->vocab_size;
  void *memory = NULL, *out = NULL;
  int status = ops->allocate(t->device, sizeof *tokens * count, &memory, error);
  if (!status) {
    status = ops->allocate(t->device, sizeof *logits * channels * (size_t)frames, &out, error);
  }
  if (!status) {
    status = reserve(t, frames, error);
  }
  if (!status) {
    status = run_logits(t, tokens, frames, channels, memory, out, logits);
    status = status ? vamp_fail(error, status, "computing logits: %s", vamp_device_trouble(status)) : 0;
  }
  ops->release(t->device, out);
  ops->release(t->device, memory);
  return status;
}
