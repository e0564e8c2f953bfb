/*
 * A plan's pass as JSON: what a reader needs to draw the mask, to check it, and to build it again.
 *
 * Arrays that are mostly runs (the mask and its layers) are run lengths, because a client in any language
 * decodes them in two lines and a person can read them. Arrays that are not (the step and the confidence
 * of each token) are base64 of little-endian numbers, each saying its own type and shape. Packed bits
 * would be smaller for a dense random mask, and nobody could check one by eye.
 */
#include "engine/mask/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MASK_ENCODING                                                                                        \
  "run-lengths: for each codebook, counts of frames that are kept and masked in turn, beginning with kept"

/* Sets a field, taking over `value`; any NULL or failure is remembered in *failed. */
static void set(json_t *object, const char *name, json_t *value, int *failed) {
  *failed |= json_object_set_new(object, name, value);
}

static bool mask_cell(const void *source, int frames, int codebook, int frame) {
  const struct vamp_mask *mask = source;
  return mask->data[(size_t)codebook * (size_t)frames + (size_t)frame] != 0;
}

static bool layer_cell(const void *source, int frames, int codebook, int frame) {
  return vamp_mask_layer_get(source, frames, codebook, frame);
}

/* [codebooks][run lengths]; NULL when out of memory. */
static json_t *run_lengths(const struct vamp_mask_context *context, const void *source,
                           bool (*cell)(const void *source, int frames, int codebook, int frame)) {
  json_t *rows = json_array();
  int failed = !rows;
  for (int codebook = 0; codebook < context->codebooks && !failed; codebook++) {
    json_t *runs = json_array();
    failed |= json_array_append_new(rows, runs);
    bool current = false;
    int start = 0;
    for (int frame = 0; frame <= context->frames && !failed; frame++) {
      if (frame == context->frames || cell(source, context->frames, codebook, frame) != current) {
        failed |= json_array_append_new(runs, json_integer(frame - start));
        start = frame;
        current = !current;
      }
    }
  }
  if (failed) {
    json_decref(rows);
    return NULL;
  }
  return rows;
}

static json_t *codebook_names(const struct vamp_mask_context *context) {
  json_t *names = json_array();
  int failed = !names;
  for (int codebook = 0; codebook < context->codebooks && !failed; codebook++) {
    const char *stage = codebook < context->coarse_codebooks ? "coarse" : "fine";
    failed |= json_array_append_new(names, json_sprintf("%s %d", stage, codebook));
  }
  if (failed) {
    json_decref(names);
    return NULL;
  }
  return names;
}

/* A share for each part; null for a part without codebooks. count[codebook] of `frames` each. */
static json_t *shares(const struct vamp_mask_context *context, const int64_t *count) {
  json_t *object = json_object(), *codebooks = json_array();
  int failed = !object || !codebooks;
  int64_t coarse = 0, fine = 0;
  double frames = context->frames;
  for (int codebook = 0; codebook < context->codebooks; codebook++) {
    *(codebook < context->coarse_codebooks ? &coarse : &fine) += count[codebook];
    failed |= json_array_append_new(codebooks, json_real((double)count[codebook] / frames));
  }
  int fine_codebooks = context->codebooks - context->coarse_codebooks;
  set(object, "overall", json_real((double)(coarse + fine) / (context->codebooks * frames)), &failed);
  set(object, "coarse",
      context->coarse_codebooks > 0 ? json_real((double)coarse / (context->coarse_codebooks * frames))
                                    : json_null(),
      &failed);
  set(object, "fine", fine_codebooks > 0 ? json_real((double)fine / (fine_codebooks * frames)) : json_null(),
      &failed);
  set(object, "codebooks", codebooks, &failed);
  if (failed) {
    json_decref(object);
    return NULL;
  }
  return object;
}

static json_t *density(const struct vamp_mask_context *context, const struct vamp_mask *mask) {
  int64_t count[VAMP_MASK_MAX_CODEBOOKS] = {0};
  for (int codebook = 0; codebook < mask->codebooks; codebook++) {
    for (int frame = 0; frame < mask->frames; frame++) {
      count[codebook] += mask_cell(mask, mask->frames, codebook, frame);
    }
  }
  return shares(context, count);
}

/* Where the generation in fact gave another token. */
static json_t *changed(const struct vamp_mask_context *context, const struct vamp_mask_outcome *outcome) {
  int64_t count[VAMP_MASK_MAX_CODEBOOKS] = {0};
  for (int codebook = 0; codebook < context->codebooks; codebook++) {
    size_t row = (size_t)codebook * (size_t)context->frames;
    for (size_t i = row; i < row + (size_t)context->frames; i++) {
      count[codebook] += outcome->codes_before[i] != outcome->codes_after[i];
    }
  }
  return shares(context, count);
}

static json_t *layers(const struct vamp_mask_context *context, const struct vamp_mask_layers *all) {
  json_t *list = json_array();
  int failed = !list;
  for (int i = 0; i < all->count && !failed; i++) {
    const struct vamp_mask_layer *layer = &all->layers[i];
    double tokens = (double)(layer->high - layer->low) * context->frames;
    json_t *entry =
        json_pack("{s:s, s:s, s:[i, i], s:f, s:o}", "name", layer->name, "pattern", layer->pattern,
                  "codebooks", layer->low, layer->high, "density", (double)layer->masked / tokens, "mask",
                  run_lengths(context, layer, layer_cell));
    failed |= json_array_append_new(list, entry);
  }
  if (failed) {
    json_decref(list);
    return NULL;
  }
  return list;
}

static json_t *base64(const uint8_t *bytes, size_t count) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  size_t size = (count + 2) / 3 * 4;
  char *text = malloc(size);
  if (!text) {
    return NULL;
  }
  char *out = text;
  for (size_t i = 0; i < count; i += 3) {
    size_t left = count - i;
    uint32_t group = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                     (left > 2 ? (uint32_t)bytes[i + 2] : 0);
    *out++ = digits[group >> 18];
    *out++ = digits[group >> 12 & 63];
    *out++ = left > 1 ? digits[group >> 6 & 63] : '=';
    *out++ = left > 2 ? digits[group & 63] : '=';
  }
  json_t *string = json_stringn_nocheck(text, size);
  free(text);
  return string;
}

/* An array [codebooks, frames] that says what it is. */
static json_t *packed_array(const struct vamp_mask_context *context, const char *dtype, const char *meaning,
                            const uint8_t *bytes, size_t count) {
  return json_pack("{s:s, s:[i, i], s:s, s:s, s:o}", "dtype", dtype, "shape", context->codebooks,
                   context->frames, "meaning", meaning, "encoding",
                   "base64 of little-endian numbers, codebook by codebook", "data", base64(bytes, count));
}

/* NaN counts as no confidence at all. */
static uint8_t confidence_byte(float confidence) {
  return confidence > 0 ? (uint8_t)lroundf(255 * (confidence < 1 ? confidence : 1)) : 0;
}

static void set_outcome(json_t *object, const struct vamp_mask_context *context,
                        const struct vamp_mask_outcome *outcome, int *failed) {
  size_t tokens = (size_t)context->codebooks * (size_t)context->frames;
  if (outcome->codes_before && outcome->codes_after) {
    set(object, "changed", changed(context, outcome), failed);
  }
  uint8_t *bytes = calloc(tokens, 2);
  if (!bytes) {
    *failed = 1;
    return;
  }
  if (outcome->committed_step) {
    for (size_t i = 0; i < tokens; i++) {
      int32_t step = outcome->committed_step[i];
      uint16_t word = (uint16_t)(step > INT16_MAX ? INT16_MAX : step < 0 ? -1 : step);
      bytes[2 * i] = (uint8_t)(word & 255);
      bytes[2 * i + 1] = (uint8_t)(word >> 8);
    }
    set(object, "committed_step",
        packed_array(context, "int16", "step of its stage at which the token was fixed, from 0; -1: kept",
                     bytes, 2 * tokens),
        failed);
  }
  if (outcome->confidence) {
    for (size_t i = 0; i < tokens; i++) {
      bytes[i] = confidence_byte(outcome->confidence[i]);
    }
    set(object, "confidence",
        packed_array(context, "uint8", "255 times the model's probability of the token; 255: kept", bytes,
                     tokens),
        failed);
  }
  free(bytes);
}

json_t *vamp_mask_plan_json(const struct vamp_mask_plan *plan, int pass,
                            const struct vamp_mask_outcome *outcome) {
  if (pass < 0 || pass >= plan->count) {
    return NULL;
  }
  const struct vamp_mask_context *context = &plan->context;
  const struct vamp_mask_pass *built = &plan->passes[pass];
  json_t *object = json_object();
  int failed = !object;
  set(object, "codebooks", json_integer(context->codebooks), &failed);
  set(object, "coarse_codebooks", json_integer(context->coarse_codebooks), &failed);
  set(object, "frames", json_integer(context->frames), &failed);
  set(object, "frame_rate", json_real((double)context->sample_rate / context->hop_length), &failed);
  set(object, "hop_length", json_integer(context->hop_length), &failed);
  set(object, "sample_rate", json_integer(context->sample_rate), &failed);
  set(object, "codebook_names", codebook_names(context), &failed);
  set(object, "seed", json_integer((json_int_t)built->seed), &failed);
  set(object, "pass", json_integer(pass), &failed);
  set(object, "passes", json_integer(plan->count), &failed);
  set(object, "density", density(context, &built->mask), &failed);
  set(object, "encoding", json_string(MASK_ENCODING), &failed);
  set(object, "mask", run_lengths(context, &built->mask, mask_cell), &failed);
  set(object, "layers", layers(context, &built->layers), &failed);
  set(object, "tree", json_deep_copy(built->tree), &failed);
  if (built->parameters) {
    set(object, "parameters", json_deep_copy(built->parameters), &failed);
  }
  if (outcome) {
    set_outcome(object, context, outcome, &failed);
  }
  if (failed) {
    json_decref(object);
    return NULL;
  }
  return object;
}
